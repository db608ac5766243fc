"""Batch: shapes are checked, seconds leave the padding out, moving keeps everything else."""

from dataclasses import replace

import pytest
import torch

from quartznet.batch import Batch
from quartznet.speed import change_speed


def two_clips(**changes: object) -> Batch:
    values: dict = {
        "signal": torch.zeros(2, 8000),
        "signal_lengths": torch.tensor([8000, 4000]),
        "targets": torch.tensor([[1, 2, 3], [4, 0, 0]]),
        "target_lengths": torch.tensor([3, 1]),
        "texts": ["abc", "d"],
        "names": ["a.wav", "b.wav"],
        "skipped": ["c.wav is empty"],
    }
    return Batch(**{**values, **changes})


def test_seconds_leave_the_padding_out() -> None:
    assert two_clips().seconds(16000) == pytest.approx(0.75)


def test_moving_keeps_the_texts_and_the_messages() -> None:
    batch = two_clips()
    moved = batch.to("meta")
    assert moved.signal.device.type == moved.targets.device.type == "meta"
    assert moved.signal_lengths.device.type == moved.target_lengths.device.type == "meta"
    assert (moved.texts, moved.names, moved.skipped) == (batch.texts, batch.names, batch.skipped)
    assert len(moved) == 2 and batch.signal.device.type == "cpu"


def test_lengths_stay_known_on_the_host() -> None:
    batch = two_clips()
    assert batch.host_lengths == (8000, 4000) == batch.to("meta").host_lengths
    assert batch.to("meta").seconds(16000) == batch.seconds(16000)
    shorter = replace(batch, signal_lengths=torch.tensor([100, 50]))
    assert shorter.host_lengths == (100, 50)  # the old ones are not believed


def test_clips_at_their_speed() -> None:
    clips = [torch.randn(8000), torch.randn(4000)]
    batch = two_clips(signal=torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), speeds=(0.9, 1.1))
    assert batch.seconds(16000) == pytest.approx((8889 + 3637) / 16000)
    heard = batch.at_speed()
    assert heard.speeds is None and heard.seconds(16000) == batch.seconds(16000)
    assert heard.signal_lengths.tolist() == [8889, 3637] and heard.host_lengths == (8889, 3637)
    assert heard.signal.shape == (2, 9216) and heard.at_speed() is heard
    torch.testing.assert_close(heard.signal[1, :3637], change_speed(clips[1], 1.1))
    assert (heard.texts, heard.names, heard.skipped) == (batch.texts, batch.names, batch.skipped)
    unchanged = two_clips(speeds=(1.0, 1.0))
    assert unchanged.at_speed().signal is unchanged.signal and unchanged.at_speed().speeds is None


def test_a_batch_may_hold_messages_only() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    batch = Batch(torch.zeros(0, 0), none, none.view(0, 0), none, [], [], ["x.wav: not audio"])
    assert len(batch) == 0 and batch.seconds(16000) == 0.0 and batch.skipped == ["x.wav: not audio"]
    for speeds in (None, ()):
        assert len(replace(batch, speeds=speeds).at_speed()) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal_lengths": torch.tensor([8000])}, r"signal_lengths must be int64 of shape \(2,\), got .*\(1,\)"),
        ({"target_lengths": torch.tensor([3.0, 1.0])}, r"target_lengths must be int64 .* got torch.float32"),
        ({"signal": torch.zeros(8000)}, r"signal must have two dimensions and 2 rows, got shape \(8000,\)"),
        ({"targets": torch.zeros(3, 2)}, r"targets must have two dimensions and 2 rows, got shape \(3, 2\)"),
        ({"names": ["a.wav"]}, r"2 texts needs 2 names, got 1"),
        ({"speeds": (1.0,)}, r"2 texts needs 2 speeds or None, got 1"),
        (
            {"signal_lengths": torch.zeros(2, dtype=torch.int64, device="meta"), "host_lengths": (1,)},
            "2 host_lengths, got 1",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        two_clips(**changes)
