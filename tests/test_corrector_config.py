"""Settings of the corrector: sizes of bert-base, a way through dictionaries, impossible values."""

import pytest

from postcorrect.config import CorrectorConfig, DropoutConfig, SpecialTokens, StackConfig
from quartznet.settings import from_dict, to_dict


def test_defaults_are_those_of_bert_base_and_of_the_decoder_of_nemo() -> None:
    config = CorrectorConfig(30522)
    assert (config.rows, config.channels, config.heads, config.feed_forward) == (30528, 768, 12, 3072)
    assert (config.encoder.layers, config.encoder.norm_epsilon) == (12, 1e-12)
    assert (config.decoder.layers, config.decoder.norm_epsilon) == (12, 1e-5)
    assert config.decoder.dropout == DropoutConfig(0.25, 0.25, 0.25, 0.25)
    assert config.special == SpecialTokens(0, 100, 101, 102, 103)


@pytest.mark.parametrize(("vocabulary", "rows"), [(104, 104), (105, 112), (111, 112)])
def test_rows_are_a_multiple_of_eight(vocabulary: int, rows: int) -> None:
    assert CorrectorConfig(vocabulary).rows == rows


def test_it_comes_back_from_a_dictionary() -> None:
    config = CorrectorConfig(200, decoder=StackConfig(3, dropout=DropoutConfig(feed_forward=0.1)), activation="relu")
    assert from_dict(CorrectorConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": 0}, "vocabulary must be at least 1, got 0"),
        ({"positions": 0}, "positions must be at least 1"),
        ({"heads": 7}, r"channels must be a multiple of heads \(7\), got 768"),
        ({"activation": "silu"}, "activation must be gelu, gelu_new or relu, got silu"),
        ({"vocabulary": 103}, r"special tokens must be below vocabulary \(103\)"),
        ({"special": {"pad": 101}}, "special tokens must have numbers of their own"),
        ({"special": {"pad": -1}}, "special tokens must have numbers of their own, from 0 on"),
        ({"decoder": {"layers": 0}}, "layers must be from 1 to 1000, got 0"),
        ({"decoder": {"norm_epsilon": 0}}, "norm_epsilon must be above 0"),
        ({"decoder": {"dropout": {"embedding": 1.0}}}, r"dropout embedding must be in \[0, 1\), got 1.0"),
        ({"width": 3}, "unknown setting width"),
    ],
)
def test_impossible_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(CorrectorConfig, {"vocabulary": 30522, **settings})
