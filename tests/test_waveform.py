"""Augmentations of a clip: their ranges, their order, and that the generator alone decides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from quartznet.config import AugmentSettings, TrainSettings
from quartznet.effects import decibels
from quartznet.settings import from_dict, to_dict
from quartznet.waveform import (
    Augmentation,
    Codec,
    Gain,
    NarrowBand,
    Noise,
    Room,
    Shift,
    TimeStretch,
    WaveformAugment,
    WhiteNoise,
    choose_speed,
    fastest_factor,
    find_sounds,
    longest_factor,
)

RATE = 16000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clip(samples: int = 8000) -> Tensor:
    return 0.1 * torch.randn(samples, generator=generator(9))


@pytest.fixture
def sounds(tmp_path: Path) -> str:
    """A folder with two recordings, one of them in a folder below."""
    (tmp_path / "sounds" / "below").mkdir(parents=True)
    for name, seed in (("a.wav", 1), ("below/b.flac", 2)):
        samples = np.random.default_rng(seed).uniform(-0.3, 0.3, 3000).astype(np.float32)
        samples[100] = 0.9
        soundfile.write(tmp_path / "sounds" / name, samples, RATE)
    return str(tmp_path / "sounds")


def every(folder: str) -> list[Augmentation]:
    """One of each, always applied."""
    return [
        TimeStretch(1.0),
        Room(1.0, folder),
        Noise(1.0, folder),
        WhiteNoise(1.0),
        Shift(1.0),
        Gain(1.0),
        NarrowBand(1.0),
        Codec(1.0),
    ]


def settings(folder: str, probability: float = 1.0, speeds: tuple[float, ...] = (0.9, 1.0, 1.1)) -> AugmentSettings:
    return AugmentSettings(
        speeds=speeds,
        time_stretch=TimeStretch(probability),
        room=Room(probability, folder),
        noise=Noise(probability, folder),
        white_noise=WhiteNoise(probability),
        shift=Shift(probability),
        gain=Gain(probability),
        narrow_band=NarrowBand(probability),
        codec=Codec(probability),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Each of them


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("samples", [0, 1, 10, 700, 8000])
def test_every_augmentation_at_every_length(index: int, samples: int, sounds: str) -> None:
    augmentation = every(sounds)[index]
    signal = clip(samples)
    before = signal.clone()
    first, second = (augmentation.apply(signal, RATE, generator(3)) for _ in range(2))
    assert torch.equal(first, second)  # the generator decides, and nothing else
    assert torch.equal(signal, before)
    assert first.dtype == torch.float32 and torch.isfinite(first).all()
    if index > 0:
        assert first.shape == signal.shape
    if samples == 8000:
        assert first.shape != signal.shape or not torch.equal(first, signal)
        others = [augmentation.apply(signal, RATE, generator(seed)) for seed in range(8)]
        assert index == 6 or any(not torch.equal(first, other) for other in others)  # a telephone draws nothing


@pytest.mark.parametrize("index", range(8))
def test_silence_stays_finite(index: int, sounds: str) -> None:
    heard = every(sounds)[index].apply(torch.zeros(4000), RATE, generator())
    assert torch.isfinite(heard).all() and heard.abs().max() < 0.1


def test_gain_by_hand() -> None:
    assert torch.allclose(Gain(1.0, -6, -6).apply(clip(), RATE, generator()), clip() * 0.501187, atol=1e-6)
    drawn = [decibels(Gain(1.0, -3, 5).apply(clip(), RATE, generator(seed))) - decibels(clip()) for seed in range(200)]
    assert -3 <= min(drawn) < -2.8 and 4.8 < max(drawn) < 5


def test_shift_by_hand() -> None:
    signal = torch.arange(1.0, 101.0)
    assert Shift(1.0, 1, 1).apply(signal, 2000, generator()).tolist() == [0, 0, *range(1, 99)]  # 1 ms later
    assert Shift(1.0, -1, -1).apply(signal, 2000, generator()).tolist() == [*range(3, 101), 0, 0]
    assert Shift(1.0, 100, 100).apply(signal, 2000, generator()).equal(signal)  # nothing would be left


def test_white_noise_has_its_level() -> None:
    heard = WhiteNoise(1.0, -40, -40).apply(torch.zeros(50000), RATE, generator())
    assert decibels(heard) == pytest.approx(-40, abs=0.1)


def test_noise_has_its_ratio(sounds: str) -> None:
    added = Noise(1.0, sounds, 12, 12).apply(clip(), RATE, generator()) - clip()
    assert decibels(clip()) - decibels(added) == pytest.approx(12, abs=0.01)


def test_narrow_band_leaves_a_telephone_alone() -> None:
    assert NarrowBand(1.0).apply(clip(), 8000, generator()).equal(clip())


def test_time_stretch_draws_its_rate() -> None:
    lengths = {len(TimeStretch(1.0).apply(clip(), RATE, generator(seed))) for seed in range(60)}
    assert len(lengths) > 50 and round(8000 / 1.15) <= min(lengths) and max(lengths) <= round(8000 / 0.85)


def test_codec_uses_all_its_names() -> None:
    heard = {Codec(1.0, ("gsm", "mu-law")).apply(clip(), RATE, generator(seed)).sum().item() for seed in range(12)}
    assert len(heard) == 2  # neither has a second quality


# ---------------------------------------------------------------------------------------------------------------------
# Impossible settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gain(1.5), r"gain: probability must be in \[0, 1\], got 1.5"),
        (lambda: Gain(0.5, 3, -3), "gain needs -60 <= low <= high <= 60, got low 3 and high -3"),
        (lambda: Shift(0.5, -5000, 0), "shift needs -1000 <= low"),
        (lambda: WhiteNoise(0.5, -40, 10), "white_noise needs"),
        (lambda: Noise(0.5, "x", 20, 10), r"noise \(low_snr, high_snr\) needs"),
        (lambda: Room(-0.1), "room: probability"),
        (lambda: TimeStretch(0.1, 0.1, 3), "time_stretch needs 0.5 <= low"),
        (lambda: TimeStretch(0.1, window=10), "time_stretch: window must be 64 to 8192 samples, got 10"),
        (lambda: NarrowBand(0.1, rate=100), "narrow_band: rate must be 2000 to 48000 Hz, got 100"),
        (lambda: NarrowBand(0.1, high=5000), r"narrow_band \(Hz\) needs 0 <= low <= high <= 4000"),
        (lambda: Codec(0.1, ("mp4",)), "codec: names must be among mp3, vorbis, opus, gsm, mu-law, a-law, got mp4"),
        (lambda: Codec(0.1, ()), "got none"),
        (lambda: Codec(0.1, low=0.5, high=1.5), "codec needs 0 <= low <= high <= 1"),
    ],
)
def test_impossible_settings(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_folders_are_looked_at_before_training(tmp_path: Path, sounds: str) -> None:
    with pytest.raises(ValueError, match=r"augment.noise.folder is missing: the folder of sound files"):
        WaveformAugment(AugmentSettings(noise=Noise(0.1)), RATE)
    with pytest.raises(ValueError, match=r"augment.room.folder nowhere: there is no such folder"):
        WaveformAugment(AugmentSettings(room=Room(0.1, "nowhere")), RATE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no sound file \(.wav/.flac/.mp3/.ogg/.opus\) is in it or below it"):
        WaveformAugment(AugmentSettings(noise=Noise(0.1, str(tmp_path / "empty"))), RATE)
    WaveformAugment(AugmentSettings(noise=Noise(0.0, "nowhere")), RATE)  # never used, never looked at


def test_find_sounds(sounds: str) -> None:
    assert [path.name for path in find_sounds(sounds, "x")] == ["a.wav", "b.flac"]
    assert find_sounds(f"{sounds}/a.wav", "x") == (Path(sounds) / "a.wav",)
    (Path(sounds) / "list.txt").touch()
    with pytest.raises(ValueError, match=r"x .*list.txt: there is no such folder, and no sound file \(.wav.*\) either"):
        find_sounds(f"{sounds}/list.txt", "x")


# ---------------------------------------------------------------------------------------------------------------------
# All of them


def test_nothing_to_do_returns_the_signal_itself() -> None:
    signal = clip()
    assert WaveformAugment(AugmentSettings(speeds=()), RATE)(signal, generator()) is signal


def test_choose_speed() -> None:
    draws = generator()
    drawn = [choose_speed((0.9, 1.0, 1.1), draws) for _ in range(3000)]
    assert all(900 < drawn.count(speed) < 1100 for speed in (0.9, 1.0, 1.1))
    assert choose_speed((), draws) == 1.0


def test_speed_changes_length() -> None:
    lengths = {len(WaveformAugment(AugmentSettings(), RATE)(clip(), generator(seed))) for seed in range(30)}
    assert lengths == {8000, 8889, 7273}


def test_everything_at_once_comes_from_the_generator(sounds: str) -> None:
    augment = WaveformAugment(settings(sounds), RATE)
    first, names = augment.traced(clip(), generator(5))
    assert names[-8:] == [type(one).__name__ for one in every(sounds)]
    assert torch.equal(first, augment(clip(), generator(5)))
    assert torch.isfinite(first).all()


def test_probabilities_are_independent_of_each_other(sounds: str) -> None:
    """Half of the clips get each one, whatever the others did."""
    augment = WaveformAugment(replace(settings(sounds, 0.0, ()), gain=Gain(0.5), shift=Shift(0.25)), RATE)
    traces = [augment.traced(clip(100), generator(seed))[1] for seed in range(1000)]
    assert sum("Gain" in names for names in traces) == pytest.approx(500, abs=50)
    assert sum("Shift" in names for names in traces) == pytest.approx(250, abs=45)
    assert sum(names == ["Shift", "Gain"] for names in traces) == pytest.approx(125, abs=35)


def test_factors() -> None:
    plain = AugmentSettings()
    assert (longest_factor(plain), fastest_factor(plain)) == (pytest.approx(1 / 0.9), 1.1)
    stretched = AugmentSettings(speeds=(0.9, 1.1), time_stretch=TimeStretch(0.1, 0.8, 1.2))
    assert longest_factor(stretched) == pytest.approx(1 / 0.72)
    assert fastest_factor(stretched) == pytest.approx(1.32)
    assert (longest_factor(AugmentSettings(speeds=())), fastest_factor(AugmentSettings(speeds=()))) == (1.0, 1.0)
    unused = AugmentSettings(speeds=(), time_stretch=TimeStretch(0.0, 0.8, 1.2))
    assert longest_factor(unused) == 1.0


def test_settings_travel_through_yaml() -> None:
    run = from_dict(TrainSettings, {"augment": {"noise": {"probability": "0.3", "folder": "noise", "low_snr": 5}}})
    assert run.augment.noise == Noise(0.3, "noise", 5.0, 50.0)
    assert from_dict(TrainSettings, to_dict(run)) == run
    with pytest.raises(ValueError, match=r"unknown setting augment.noise.snr; Noise has probability, folder, low_snr"):
        from_dict(TrainSettings, {"augment": {"noise": {"snr": 5}}})


def test_hidden_files_are_no_noise(tmp_path: Path) -> None:
    (tmp_path / ".trash").mkdir()
    for name in ("a.wav", "._a.wav", ".trash/b.wav"):
        (tmp_path / name).touch()
    assert find_sounds(str(tmp_path), "noise.folder") == (tmp_path / "a.wav",)
