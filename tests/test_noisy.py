"""Noisy clips: the ratio that was asked for, the same sounds whatever the order, and what cannot be mixed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch
from torch import Tensor

from data.dataset import SpeechDataset
from data.loaders import evaluation_loader
from data.manifest import Utterance, read_manifest
from data.noisy import Condition, conditions
from quartznet.alphabet import Alphabet
from quartznet.effects import decibels

RATE = 16000
ALPHABET = Alphabet(tuple(" abcd"))


@pytest.fixture
def noise(tmp_path: Path) -> str:
    """Three recordings: one longer than a clip, one shorter, one that is silent but for its end."""
    (tmp_path / "noise").mkdir()
    draw = np.random.default_rng(0)
    for name, samples in (("long", 60000), ("short", 900), ("late", 60000)):
        sound = 0.2 * draw.standard_normal(samples).astype(np.float32)
        sound[: len(sound) - 9000 if name == "late" else 0] = 0
        soundfile.write(tmp_path / "noise" / f"{name}.wav", sound, RATE)
    return str(tmp_path / "noise")


@pytest.fixture
def room(tmp_path: Path) -> str:
    """One response: the direct sound after 100 samples, and an echo."""
    (tmp_path / "room").mkdir()
    response = np.zeros(4000, dtype=np.float32)
    response[100], response[900] = 0.8, 0.4
    soundfile.write(tmp_path / "room" / "hall.flac", response, RATE)
    return str(tmp_path / "room")


@pytest.fixture
def clips(tmp_path: Path) -> list[Utterance]:
    return read_manifest(tones.write_corpus(tmp_path / "corpus"))


def heard(condition: Condition, clips: list[Utterance]) -> dict[str, Tensor]:
    dataset = SpeechDataset(clips, ALPHABET, RATE, heard=condition)
    items = [dataset[index] for index in range(len(dataset))]
    assert [item.problem for item in items] == [""] * len(items)
    return {item.name: item.signal for item in items}


def test_the_conditions_and_their_names(noise: str, room: str) -> None:
    def labels(*arguments: object) -> list[str]:
        return [condition.label for condition in conditions(*arguments)]

    assert labels(None, None) == ["clean"]
    assert labels(noise, None) == ["clean", "20 dB", "10 dB", "5 dB", "0 dB"]
    assert labels(None, room) == ["clean", "room"]
    assert labels(noise, room, (2.5, -5, 2.5)) == ["clean", "room", "room, 2.5 dB", "room, -5 dB"]


def test_clean_is_the_clip_itself(clips: list[Utterance]) -> None:
    signal = torch.randn(100)
    assert conditions(None, None)[0](clips[0], signal) is signal


@pytest.mark.parametrize("ratio", [20, 10, 5, 0, -5])
@pytest.mark.parametrize("with_room", [False, True])
def test_the_ratio_is_the_one_that_was_asked_for(
    ratio: int, with_room: bool, noise: str, room: str, clips: list[Utterance]
) -> None:
    [*_, quiet, noisy] = conditions(noise, room if with_room else None, (150, ratio))
    clean, mixed = heard(quiet, clips), heard(noisy, clips)  # at 150 dB the noise is below what floats tell apart
    for name, signal in clean.items():
        assert len(mixed[name]) == len(signal)
        assert decibels(signal) - decibels(mixed[name] - signal) == pytest.approx(ratio, abs=0.1)


def test_every_ratio_hears_the_same_noise_in_the_same_room(noise: str, room: str, clips: list[Utterance]) -> None:
    _, alone, loud, soft = conditions(noise, room, (0, 20))
    _, dry = conditions(noise, None, (0,))
    hall = heard(alone, clips)
    for name, signal in hall.items():
        added = heard(loud, clips)[name] - signal
        torch.testing.assert_close(10 * (heard(soft, clips)[name] - signal), added, rtol=1e-3, atol=1e-5)
    clean = heard(conditions(None, None)[0], clips)
    for name, signal in clean.items():  # the same part of the noise without a room
        added, in_hall = heard(dry, clips)[name] - signal, heard(loud, clips)[name] - hall[name]
        torch.testing.assert_close(added, in_hall, rtol=1e-3, atol=1e-5)


def test_a_room_moves_no_word_and_keeps_the_level(room: str, clips: list[Utterance]) -> None:
    clean, hall = (heard(condition, clips) for condition in conditions(None, room))
    for name, signal in clean.items():
        echo = torch.nn.functional.pad(signal, (800, 0))[: len(signal)]
        expected = signal + 0.5 * echo
        expected *= 10 ** ((decibels(signal) - decibels(expected)) / 20)
        torch.testing.assert_close(hall[name], expected, rtol=1e-3, atol=1e-4)  # the flac holds 16 bits


def test_sounds_depend_on_the_clip_and_the_seed_alone(noise: str, room: str, clips: list[Utterance]) -> None:
    last = conditions(noise, room, (5,))[-1]
    once = heard(last, clips)
    again = heard(conditions(noise, room, (20, 5))[-1], [replace(clip, text="a", origin="x") for clip in clips[:0:-1]])
    assert len(again) == len(clips) - 1
    assert all(torch.equal(once[name], signal) for name, signal in again.items())
    other = heard(replace(last, seed=1), clips)
    assert not any(torch.equal(once[name], signal) for name, signal in other.items())
    signal = torch.randn(8000)
    assert len({last(clip, signal).sum().item() for clip in clips}) == len(clips)


@pytest.mark.parametrize(("seconds", "workers"), [(1.0, 0), (100.0, 0), (2.0, 2)])
def test_batches_and_processes_change_nothing(
    seconds: float, workers: int, noise: str, room: str, clips: list[Utterance]
) -> None:
    condition = conditions(noise, room, (5,))[-1]
    expected = heard(condition, clips)
    count = 0
    for batch in evaluation_loader(clips, ALPHABET, RATE, seconds, workers=workers, heard=condition):
        for name, signal, length in zip(batch.names, batch.signal, batch.signal_lengths, strict=True):
            assert torch.equal(signal[:length], expected[name])
            count += 1
    assert count == len(clips)


def test_silence_has_no_ratio(noise: str, tmp_path: Path, clips: list[Utterance]) -> None:
    condition = conditions(noise, None, (5,))[-1]
    with pytest.raises(ValueError, match=r"no noise can be mixed in at 5 dB: the clip, or .*noise, is silent"):
        condition(clips[0], torch.zeros(8000))
    soundfile.write(tmp_path / "silence.wav", np.zeros(9000, dtype=np.float32), RATE)
    silent = conditions(str(tmp_path / "silence.wav"), None, (5,))[-1]
    [item] = [SpeechDataset(clips, ALPHABET, RATE, heard=silent)[0]]
    assert item.problem.startswith(clips[0].origin) and "is silent" in item.problem  # counted, never clean in secret
    late = conditions(str(Path(noise) / "late.wav"), None, (5,))[-1]
    assert len(heard(late, clips)) == len(clips)  # another part is drawn until one is not silent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", None), r"--noise nowhere: there is no such folder"),
        ((None, "nowhere"), r"--rir nowhere: there is no such folder"),
        (("NOISE", None, (200,)), r"--snr needs ratios of -50 to 150 dB, such as 20,10,5,0, got \(200,\)"),
        (("NOISE", None, (float("nan"),)), r"--snr needs ratios"),
        (("NOISE", None, ()), r"--snr needs ratios"),
    ],
)
def test_mistakes(arguments: tuple, message: str, noise: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditions(*(noise if argument == "NOISE" else argument for argument in arguments))


def test_the_recordings_of_the_shared_folder(shared: Path, clips: list[Utterance]) -> None:
    _, hall, noisy = conditions(str(shared / "noise"), str(shared / "rir"), (10,))
    clean, mixed = heard(hall, clips), heard(noisy, clips)
    for name, signal in clean.items():
        assert decibels(signal) - decibels(mixed[name] - signal) == pytest.approx(10, abs=0.1)
