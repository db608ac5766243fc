"""Loaders: evaluation sees each clip once over all processes, training the same number of batches in each."""

import signal
from pathlib import Path

import pytest
import tones
import torch

from data.loaders import be_deaf, evaluation_loader, training_loader
from data.manifest import read_manifest
from quartznet.alphabet import Alphabet
from quartznet.config import DataSettings, TrainSettings

ALPHABET = Alphabet(tuple(" abcd"))


def test_every_process_trains_on_as_many_batches(tmp_path: Path) -> None:
    clips = read_manifest(tones.write_corpus(tmp_path))
    settings = TrainSettings(data=DataSettings(batch_seconds=1.0, workers=0))
    loaders = [training_loader(clips, ALPHABET, settings, 16000, rank=rank, world_size=2) for rank in (0, 1)]
    names = [[name for batch in loader for name in batch.names] for loader in loaders]
    assert len(loaders[0]) == len(loaders[1]) == 2
    assert len({*names[0], *names[1]}) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_speeds_changed_later_are_those_of_the_loader(tmp_path: Path, workers: int) -> None:
    clips = read_manifest(tones.write_corpus(tmp_path))
    settings = TrainSettings(data=DataSettings(batch_seconds=2.0, workers=workers))
    now = training_loader(clips, ALPHABET, settings, 16000)
    later = training_loader(clips, ALPHABET, settings, 16000, speed_later=True)
    for expected, batch in zip(now, later, strict=True):
        heard = batch.at_speed()
        assert batch.speeds is not None and (heard.names, heard.texts) == (expected.names, expected.texts)
        assert (
            torch.equal(heard.signal_lengths, expected.signal_lengths) and heard.signal.shape == expected.signal.shape
        )
        torch.testing.assert_close(heard.signal, expected.signal, rtol=1e-5, atol=1e-6)


def test_evaluation_reads_each_clip_once_as_it_is(tmp_path: Path) -> None:
    clips = read_manifest(tones.write_corpus(tmp_path))
    batches = list(evaluation_loader(clips, ALPHABET, 16000, batch_seconds=2.0, workers=1))
    assert sorted(name for batch in batches for name in batch.names) == sorted(clip.name for clip in clips)
    assert sum(batch.seconds(16000) for batch in batches) == sum(clip.duration for clip in clips)
    assert evaluation_loader([], ALPHABET, 16000, 2.0) == []


def test_workers_leave_signals_to_the_main_process() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        be_deaf(0)
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
