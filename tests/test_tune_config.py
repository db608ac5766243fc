"""quartznet.tune_config: impossible settings of fine-tuning are refused."""

import pytest

from quartznet.settings import from_dict
from quartznet.tune_config import InsertConfig, KeepSettings, TuneSettings


@pytest.mark.parametrize(
    "mapping, message",
    [
        ({"train": "everything"}, "all, head, bn, adapters, lora or top-K"),
        ({"train": "top-0"}, "top-K such as top-6"),
        ({"batchnorm": "on"}, "auto, full, affine, stats or frozen, got 'on'"),
        ({"unfreeze_every": -1}, "unfreeze_every >= 0"),
        ({"layer_decay": 1.1}, r"layer_decay in \(0, 1\]"),
        ({"train": "bn", "unfreeze_every": 1}, "needs tune.train all or top-K, not bn"),
        ({"train": "bn", "batchnorm": "frozen"}, "bn lets batch norm learn and tune.batchnorm frozen forbids it"),
        ({"train": "lora", "lora_rank": 10**9}, "rank and size can be at most 4096, got 1000000000 and 32"),
        ({"adapter_size": 10**18}, "rank and size can be at most 4096"),
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


@pytest.mark.parametrize(
    "mapping, message",
    [
        ({"l2sp": -1}, "l2sp >= 0"),
        ({"temperature": 0}, "temperature > 0"),
        ({"replay": "en.jsonl"}, "MANIFEST:SHARE with a share between 0 and 1, got 'en.jsonl'"),
        ({"replay": "en.jsonl:1.5"}, "got 'en.jsonl:1.5'"),
        ({"replay": "en.jsonl:0.0"}, "got 'en.jsonl:0.0'"),
        ({"replay": "a:0.5,b:0.5"}, "the shares add up to 1"),
        (
            {"watch": "en.jsonl"},
            "keep.watch needs NAME=MANIFEST, NAME of up to 10 letters, digits and dashes, got en.jsonl",
        ),
        ({"watch": "an english set=a.jsonl"}, "NAME of up to 10 letters"),
        ({"watch": "en=a,en=b"}, "every set needs a name of its own, got en, en"),
    ],
)
def test_impossible_memories(mapping: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(KeepSettings, mapping, "keep.")


def test_entries_of_replay_and_watch() -> None:
    keep = from_dict(KeepSettings, {"replay": "C:/en.jsonl:0.1,b:.25", "watch": "en=a=b.jsonl,it=c"}, "keep.")
    assert keep.replayed == [("C:/en.jsonl", 0.1), ("b", 0.25)]
    assert keep.watched == [("en", "a=b.jsonl"), ("it", "c")]
