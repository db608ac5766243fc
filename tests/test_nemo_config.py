"""Configurations of every layout, the rule of the front end, and what is refused."""

import math

import pytest
import torch

from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.nemo_config import (
    VERSION_OF_RULE,
    front_end_rule,
    read_blocks,
    read_features,
    read_labels,
    read_settings,
    write_settings,
)

BLOCK = {"filters": 8, "repeat": 1, "kernel": [5], "stride": [1], "dilation": [1], "dropout": 0.0, "residual": False}


def encoder(**changes: object) -> dict:
    return {"activation": "relu", "jasper": [BLOCK | changes]}


def features(
    era: str = "1.x", version: str | None = "1.0.0rc1", weights: dict | None = None, **table: object
) -> FeatureConfig:
    sections = read_settings({"nemo_version": version, "preprocessor": table})
    return read_features(sections, era, weights or {})[0]


@pytest.mark.parametrize(
    ("version", "rule"),
    [
        ("0.9.0", "0.x"), ("0.11.1", "0.x"), ("1.0.0a5", "0.x"), ("1.0.0b1", "0.x"), ("1.0.0rc1", "0.x"),
        ("1.0.0", "1.x"), ("1.0.1", "1.x"), ("1.1.0rc0", "1.x"), ("1.23.0", "1.x"), ("2.4.0", "1.x"),
        ("2.4.1rc3", "1.x"), ("2.5.0", "2.5"), ("2.5.3", "2.5"), ("2.6.0rc0", "2.5"), ("3.0", "2.5"),
    ],
)  # fmt: skip
def test_rule_of_a_version(version: str, rule: str) -> None:
    assert front_end_rule(version, "1.x")[0] == rule


@pytest.mark.parametrize("era", ["0.10", "0.11", "1.x", "lightning", "weights"])
def test_rule_without_a_version(era: str) -> None:
    assert front_end_rule(None, era)[0] == "0.x"


def test_rule_written_is_the_rule_read() -> None:
    for rule, version in VERSION_OF_RULE.items():
        assert front_end_rule(version, "1.x")[0] == rule
    with pytest.raises(ValueError, match="nemo_version 'new' is not a version"):
        front_end_rule("new", "1.x")


def test_periodic_window() -> None:
    assert features(stft_conv=True).periodic_window
    assert not features(stft_conv=False).periodic_window
    assert not features(version="1.10.0", stft_conv=True).periodic_window
    assert features(era="0.10", version=None).periodic_window
    assert not features(era="0.10", version=None, n_fft=512).periodic_window
    for periodic in (False, True):
        carried = {"preprocessor.featurizer.window": torch.hann_window(320, periodic=periodic)}
        assert features(weights=carried, stft_conv=not periodic).periodic_window == periodic


def test_front_end_numbers() -> None:
    found = features(
        sample_rate=8000, window_size=0.025, n_window_stride=80, window_stride=None, features=40, normalize=None
    )
    assert (found.window_size, found.hop, found.fft_size, found.mels) == (200, 80, 256, 40)
    assert found.normalize == "none" and features(highfreq=8000).high_hertz is None
    assert features(dither="1e-05", pad_to=0, lowfreq=20, highfreq=7000).high_hertz == 7000


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"normalize": {"fixed_mean": 0}}, "preprocessor.normalize is {'fixed_mean': 0}"),
        ({"window": "hamming"}, "preprocessor.window is 'hamming'.*it can be 'hann'"),
        ({"log": False}, "preprocessor.log is False"),
        ({"mag_power": 1.0}, "preprocessor.mag_power is 1.0"),
        ({"frame_splicing": 3}, "preprocessor.frame_splicing is 3"),
        ({"use_torchaudio": True}, "preprocessor.use_torchaudio is True"),
        ({"features": "many"}, "preprocessor.features must be a number, got 'many'"),
        ({"features": 63.5}, "preprocessor.features must be a whole number"),
        ({"_target_": "x.AudioToMFCCPreprocessor"}, "the preprocessor is a x.AudioToMFCCPreprocessor; only"),
    ],
)
def test_front_ends_that_are_refused(table: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features(**table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual_dense": True}, "residual_dense is True"),
        ({"residual_mode": "stride_add"}, "residual_mode is 'stride_add'.*it can be 'add'"),
        ({"se": True}, r"jasper\[0\].se is True"),
        ({"heads": 4}, "heads is 4"),
        ({"future_context": 2}, "future_context makes a causal network"),
        ({"stride_last": True, "stride": [2], "repeat": 3}, "stride_last with repeat 3"),
        ({"dropout": 1.5}, r"encoder.jasper\[0\]: dropout must be in"),
        ({"filters": None}, r"encoder.jasper\[0\].filters must be a number, got None"),
        ({"filters": 10**9}, "filters must be a whole number up to a million"),
    ],
)
def test_blocks_that_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_blocks(encoder(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "swish"}, "encoder.activation is 'swish'"),
        ({"normalization_mode": "instance"}, "encoder.normalization_mode is 'instance'.*it can be 'batch'"),
        ({"jasper": []}, "encoder.jasper must be a list of blocks"),
        ({"jasper": [3]}, r"encoder.jasper\[0\] must be a table, got 3"),
    ],
)
def test_encoders_that_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_blocks(encoder() | changes)


def test_kernel_size_factor() -> None:
    for kernel, factor, expected in ((33, 0.5, 17), (11, 0.01, 1), (5, 2.0, 11), (7, "1.0", 7), (10, 1.0, 11)):
        assert read_blocks(encoder(kernel=kernel, kernel_size_factor=factor))[0].kernel_size == expected


def test_wide_dilation_of_old_files_is_refused() -> None:
    """NeMo 0.10 pads dilation x kernel / 2 - 1, which keeps the length for dilations up to 3 only."""
    assert read_blocks(encoder(dilation=[3]), early=True)[0].dilation == 3
    assert read_blocks(encoder(dilation=[4]))[0].dilation == 4
    with pytest.raises(ValueError, match=r"dilation above 3 was padded otherwise before NeMo 1\.0"):
        read_blocks(encoder(dilation=[4]), early=True)


def test_numbers_in_lists_or_not() -> None:
    assert read_blocks(encoder(stride=2, kernel=7)) == (BlockConfig(8, 7, stride=2, separable=False),)


def test_labels() -> None:
    assert read_labels([" ", "ñ", 1]) == (" ", "ñ", "1")
    for wrong in (None, True, ["a"], ""):
        with pytest.raises(ValueError, match="is not a character; put it in quotes"):
            read_labels([wrong])
    assert read_settings({"decoder": {"vocabulary": ["a"]}, "labels": ["b"]}).labels == ["a"]
    assert read_settings({"model": {"decoder": {"vocabulary": "${labels}"}, "labels": ["b"]}}).labels == ["b"]


def test_word_pieces_and_other_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="only character models are read"):
        read_settings({"model": {"tokenizer": {"dir": "x"}}})
    with pytest.raises(ValueError, match=r"the decoder is a nemo\.ConvASRDecoderClassification; only ConvASRDecoder"):
        read_settings({"decoder": {"cls": "nemo.ConvASRDecoderClassification", "params": {}}})


@pytest.mark.parametrize("samples", range(150, 420, 7))
def test_window_sizes_survive_seconds(samples: int) -> None:
    config = ModelConfig(("a",), (BlockConfig(4, 1),), FeatureConfig(window_size=samples, hop=samples // 2))
    table = write_settings(config)["preprocessor"]
    found = read_features(read_settings(write_settings(config)), "1.x", {})[0]
    assert found == config.features
    seconds = table["window_size"]
    assert seconds is None or math.floor(seconds * 16000) == samples
