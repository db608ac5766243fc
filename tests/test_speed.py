"""Changed speeds: sines and torchaudio's own resampling as the judges, and every row of a batch as if it were alone."""

import math
from pathlib import Path

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from quartznet.audio import read_audio
from quartznet.lengths import changed_length, rounded_length, speed_ratio
from quartznet.speed import at_one_speed, change_speed, change_speeds


def tone(hertz: float, seconds: float = 1.0) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(int(16000 * seconds)) / 16000)


def padded(rows: list[Tensor]) -> tuple[Tensor, list[int]]:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), [len(row) for row in rows]


def decibels_between(first: Tensor, second: Tensor) -> float:
    """Power of the difference below that of the second."""
    error = (first.double() - second.double()).square().sum() / second.double().square().sum()
    return 10 * math.log10(max(error.item(), 1e-30))


# ---------------------------------------------------------------------------------------------------------------------
# One clip


@pytest.mark.parametrize("speed", [0.9, 0.97, 1.1, 1.25])
def test_speed_changes_length_and_pitch_together(speed: float) -> None:
    faster = change_speed(tone(400.0), speed)
    assert len(faster) == -(-16000 * 100 // round(100 * speed))
    expected = tone(400.0 * speed)[: len(faster)]
    middle = slice(200, min(len(faster), len(expected)) - 200)
    assert (faster[middle] - expected[middle]).abs().max() < 5e-3


def test_speed_one_returns_the_signal_itself() -> None:
    signal = torch.randn(50)
    assert change_speed(signal, 1.0) is signal
    assert at_one_speed(signal[None], 1.0)[0].equal(signal)
    assert change_speed(torch.zeros(0), 1.1).shape == (0,)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), 50.0])
def test_impossible_speeds(speed: float) -> None:
    with pytest.raises(ValueError, match=r"speed must be between 0\.1 and 10, got"):
        change_speed(torch.zeros(10), speed)


@pytest.mark.parametrize("speed", [0.5, 0.9, 0.97, 1.1, 2.0])
@pytest.mark.parametrize("samples", [1, 2, 100, 8001])
def test_it_is_torchaudios_resampling(speed: float, samples: int) -> None:
    signal = torch.randn(samples)
    expected = torchaudio.functional.resample(signal, *speed_ratio(speed))
    assert_close(change_speed(signal, speed), expected, rtol=0, atol=1e-4)  # theirs has its filter from fp32


def test_fp64_is_more_exact_than_fp32_and_autocast_changes_nothing() -> None:
    signal = torch.randn(8000)
    expected = torchaudio.functional.resample(signal.double(), 11, 10)
    assert decibels_between(change_speed(signal, 1.1), expected) < -135
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(change_speed(signal, 1.1), change_speed(signal, 1.1).float())
        assert decibels_between(change_speed(signal, 1.1), expected) < -135


def test_a_long_clip_has_its_last_sample() -> None:
    """torchaudio computes this length in fp32 and loses one."""
    assert len(change_speed(torch.zeros(262062), 0.97)) == 270168


def test_real_clips_sound_as_with_torchaudio(shared: Path) -> None:
    clips = sorted((shared / "corpora").glob("*/*/clips/*.mp3"))[::60]
    assert len(clips) >= 5
    for path in clips:
        signal = read_audio(path)
        for speed in (0.9, 1.1):
            expected = torchaudio.functional.resample(signal, *speed_ratio(speed))
            assert decibels_between(change_speed(signal, speed), expected) < -110


# ---------------------------------------------------------------------------------------------------------------------
# A batch

ROWS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from((0.9, 1.0, 1.1, 0.97, 1.3))), min_size=1, max_size=7)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_every_row_is_as_if_it_were_alone(rows: list[tuple[int, float]]) -> None:
    clips = [
        torch.randn(samples, generator=torch.Generator().manual_seed(place)) for place, (samples, _) in enumerate(rows)
    ]
    speeds = [speed for _, speed in rows]
    signal, lengths = change_speeds(*padded(clips), speeds)
    assert lengths.tolist() == [changed_length(samples, speed) for samples, speed in rows]
    assert signal.shape == (len(rows), rounded_length(max(lengths.tolist())))
    for row, length, clip, speed in zip(signal, lengths.tolist(), clips, speeds, strict=True):
        assert_close(row[:length], change_speed(clip, speed), rtol=1e-5, atol=1e-6)
        assert not row[length:].any()


def test_the_input_stays_and_no_rows_are_no_trouble() -> None:
    signal, lengths = padded([torch.randn(300), torch.randn(200)])
    before = signal.clone()
    change_speeds(signal, lengths, (0.9, 1.0))
    assert torch.equal(signal, before)
    nothing, none = change_speeds(torch.zeros(0, 0), (), ())
    assert nothing.shape == (0, 0) and none.shape == (0,) and none.dtype == torch.int64


@pytest.mark.parametrize(
    ("lengths", "speeds", "message"),
    [
        ([5], (1.0, 0.9), "2 rows need as many lengths and speeds, got 1 and 2"),
        ([5, 5], (1.0,), "2 rows need as many lengths and speeds, got 2 and 1"),
        ([5, 5], (1.0, 20.0), r"speed must be between 0\.1 and 10, got 20"),
    ],
)
def test_contradictions_are_refused(lengths: list[int], speeds: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change_speeds(torch.zeros(2, 5), lengths, speeds)
