"""quartznet.tune_config: impossible settings of fine-tuning are refused."""

import pytest

from quartznet.settings import from_dict
from quartznet.tune_config import InsertConfig, TuneSettings


@pytest.mark.parametrize(
    "mapping, message",
    [
        ({"train": "everything"}, "all, head, bn, adapters, lora or top-K"),
        ({"train": "top-0"}, "top-K such as top-6"),
        ({"batchnorm": "on"}, "auto, full, affine, stats or frozen, got 'on'"),
        ({"unfreeze_every": -1}, "unfreeze_every >= 0"),
        ({"layer_decay": 1.1}, r"layer_decay in \(0, 1\]"),
        ({"train": "bn", "unfreeze_every": 1}, "needs tune.train all or top-K, not bn"),
        ({"lora_rank": 0}, "rank and size must be at least 1"),
        ({"train": "lora", "lora_dropout": 1.0}, r"dropout in \[0, 1\)"),
    ],
)
def test_impossible(mapping: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(TuneSettings, mapping, "tune.")


def test_only_lora_and_adapters_insert_something() -> None:
    assert [TuneSettings(train).inserted.kind for train in ("all", "top-3", "lora", "adapters")] == [
        "none",
        "none",
        "lora",
        "adapters",
    ]
    with pytest.raises(ValueError, match="kind must be none, lora or adapters"):
        InsertConfig("prefix")
