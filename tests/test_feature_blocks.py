"""quartznet.feature_blocks: blocks of any size give what ``LogMel`` gives for the whole."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet.config import FeatureConfig
from quartznet.feature_blocks import FeatureStream, Statistics
from quartznet.features import LogMel

RULES = ("0.x", "1.x", "2.5")


def streamed(config: FeatureConfig, signal: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    stream = FeatureStream(LogMel(config))
    blocks = [*signal.split([*sizes, len(signal) - sum(sizes)])]
    return torch.cat([*(stream.push(block) for block in blocks), stream.finish()], dim=1)


def whole(config: FeatureConfig, signal: torch.Tensor) -> torch.Tensor:
    features, lengths = LogMel(config).eval()(signal[None], torch.tensor([len(signal)]))
    return features[0, :, : int(lengths)]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(RULES),
    st.integers(257, 3000),
    st.lists(st.integers(0, 900), max_size=6),
    st.sampled_from([(320, 160, 512), (400, 160, 400), (64, 64, 64), (300, 100, 302)]),
)
def test_frames_are_those_of_the_whole(rule: str, samples: int, sizes: list[int], shape: tuple[int, int, int]) -> None:
    window, hop, fft = shape
    config = FeatureConfig(rule=rule, normalize="none", window_size=window, hop=hop, fft_size=fft, mels=20)
    signal = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    while sum(sizes) > samples:
        sizes = sizes[:-1]
    found, expected = streamed(config, signal, sizes), whole(config, signal)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["per_feature", "all_features", "none"])
@pytest.mark.parametrize("rule", RULES)
def test_normalised_they_are_the_features_of_the_network(kind: str, rule: str) -> None:
    config = FeatureConfig(rule=rule, normalize=kind, pad_to=0)
    signal = 0.1 * torch.randn(16000)
    frames = streamed(replace(config, normalize="none"), signal, [1000, 7000, 11])
    statistics = Statistics(config)
    for part in frames.split(13, dim=1):
        statistics.add(part)
    statistics.add(frames[:, :0])
    torch.testing.assert_close(statistics.normalize(frames), whole(config, signal), rtol=1e-4, atol=1e-4)


def test_statistics_by_hand() -> None:
    statistics = Statistics(FeatureConfig(mels=1))
    for value in (1.0, 2.0, 6.0):
        statistics.add(torch.tensor([[value]]))
    assert statistics.mean.item() == pytest.approx(3.0) and statistics.squares.item() == pytest.approx(14.0)
    assert statistics.normalize(torch.tensor([[3.0 + 7.0**0.5]])).item() == pytest.approx(1.0, abs=1e-4)


def test_silence_and_a_lone_frame_have_no_deviation() -> None:
    config = FeatureConfig(mels=20)
    for samples in (160, 16000):
        frames = streamed(config, torch.zeros(samples), [])
        statistics = Statistics(config)
        statistics.add(frames)
        assert statistics.normalize(frames).abs().max() < 1e-3


@pytest.mark.parametrize(("rule", "shortest"), [("0.x", 257), ("1.x", 257), ("2.5", 160)])
def test_too_short(rule: str, shortest: int) -> None:
    with pytest.raises(ValueError, match=f"{shortest - 1} samples are too short, the network needs {shortest}"):
        streamed(FeatureConfig(rule=rule), torch.zeros(shortest - 1), [10])
    assert streamed(FeatureConfig(rule=rule), torch.zeros(shortest), [10]).shape[1] >= 1
