"""What happens to a training clip before its features: changed speed, rooms, noise, loudness, telephones and codecs.

Each augmentation is a small class that is its own settings: a ``probability`` (0: never) and the range its strength is
drawn from, evenly. ``WaveformAugment`` applies them in the order in which the world does:

    speed -> time stretch -> room -> recorded noise -> white noise -> shift -> gain -> narrow band -> codec

All numbers come from the ``torch.Generator`` that is handed in. A loader seeds one for each (seed, epoch, clip), so a
clip sounds the same whichever process loads it, and a resumed run draws what the whole run would have drawn.

The surprise: an augmentation with a probability draws one number even when it then does nothing. Were it not so, every
later augmentation would depend on the chances of the earlier ones.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Generator, Tensor

from quartznet.audio import read_audio
from quartznet.effects import CODECS, in_room, mixed, noise_part, stretch, telephone, through_codec
from quartznet.speed import change_speed

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus")

# ---------------------------------------------------------------------------------------------------------------------
# Small parts


def uniform(low: float, high: float, generator: Generator) -> float:
    """One number in [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def find_sounds(folder: str | None, setting: str) -> tuple[Path, ...]:
    """Every sound file in a folder and below it, sorted; hidden ones (``._a.wav`` of a Mac) are none. Or one file.

    Raises:
        ValueError: without a folder, or for one that holds no sound; it names the setting.
    """
    if not folder:
        raise ValueError(f"{setting} is missing: the folder of sound files to draw from")
    if Path(folder).is_file() and Path(folder).suffix.lower() in SOUNDS:
        return (Path(folder),)
    if not Path(folder).is_dir():
        raise ValueError(f"{setting} {folder}: there is no such folder, and no sound file ({'/'.join(SOUNDS)}) either")
    below = (path for path in Path(folder).rglob("*") if path.suffix.lower() in SOUNDS)
    found = tuple(sorted(path for path in below if not any(c.startswith(".") for c in path.relative_to(folder).parts)))
    if not found:
        raise ValueError(f"{setting} {folder}: no sound file ({'/'.join(SOUNDS)}) is in it or below it")
    return found


def choose(items: Sequence, generator: Generator) -> object:
    """One of ``items``, each equally likely."""
    return items[int(torch.randint(len(items), (1,), generator=generator))]


def check_range(name: str, low: float, high: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raises ValueError, naming the augmentation, unless ``least <= low <= high <= most``."""
    if not least <= low <= high <= most:
        raise ValueError(f"{name} needs {least:g} <= low <= high <= {most:g}, got low {low:g} and high {high:g}")


def check_probability(name: str, probability: float) -> None:
    """Raises ValueError, naming the augmentation, unless the probability lies in [0, 1]."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"{name}: probability must be in [0, 1], got {probability}")


class Augmentation(ABC):
    """One change of a waveform. Final classes are frozen dataclasses with a field ``probability``."""

    probability: float

    @abstractmethod
    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        """(samples,) float32 -> (samples,) of the same length (but ``TimeStretch``); never changed in place."""


# ---------------------------------------------------------------------------------------------------------------------
# The augmentations


@dataclass(frozen=True)
class TimeStretch(Augmentation):
    """Faster or slower at the same pitch, by a phase vocoder; the "speed" of NeMo 0.10 (rates 0.85 to 1.15).

    A rate above 1 is faster: (samples,) becomes (round(samples / rate),). Each band of the spectrogram keeps its
    frequency; magnitudes are read between frames and phases advance by what two neighbouring frames differ.
    """

    probability: float = 0.0  # share of the clips
    low: float = 0.85  # the slowest rate
    high: float = 1.15  # the fastest
    window: int = 512  # samples of the transform

    def __post_init__(self) -> None:
        check_probability("time_stretch", self.probability)
        check_range("time_stretch", self.low, self.high, 0.5, 2.0)
        if not 64 <= self.window <= 8192:
            raise ValueError(f"time_stretch: window must be 64 to 8192 samples, got {self.window}")

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        return stretch(signal, uniform(self.low, self.high, generator), self.window)


@dataclass(frozen=True)
class Room(Augmentation):
    """The clip as heard in a room: convolved with a recorded impulse response drawn from ``folder``.

    The response is cut before its largest peak, the direct sound, so words stay where they were; the clip keeps its
    length and its mean power.
    """

    probability: float = 0.0  # share of the clips
    folder: str | None = None  # impulse responses

    def __post_init__(self) -> None:
        check_probability("room", self.probability)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        return find_sounds(self.folder, "augment.room.folder")

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        return in_room(signal, read_audio(choose(self.files, generator), sample_rate))


@dataclass(frozen=True)
class Noise(Augmentation):
    """Recorded noise from ``folder`` at a signal-to-noise ratio drawn from [low_snr, high_snr] dB.

    A random part of a longer recording; a shorter one is repeated from a random place on. Reading a part of a wav or
    flac file is quick; an mp3 is decoded from its start.
    """

    probability: float = 0.0  # share of the clips
    folder: str | None = None  # recordings
    low_snr: float = 10.0  # dB, the loudest noise
    high_snr: float = 50.0  # dB, the softest

    def __post_init__(self) -> None:
        check_probability("noise", self.probability)
        check_range("noise (low_snr, high_snr)", self.low_snr, self.high_snr, -50, 150)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        return find_sounds(self.folder, "augment.noise.folder")

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        if not len(signal):
            return signal
        path = choose(self.files, generator)
        place, snr = uniform(0, 1, generator), uniform(self.low_snr, self.high_snr, generator)
        return mixed(signal, noise_part(path, len(signal), sample_rate, place), snr)


@dataclass(frozen=True)
class WhiteNoise(Augmentation):
    """Gaussian noise at a level drawn from [low, high] dB of full scale, whatever the loudness of the clip."""

    probability: float = 0.0  # share of the clips
    low: float = -90.0  # dB, the softest
    high: float = -46.0  # dB, the loudest

    def __post_init__(self) -> None:
        check_probability("white_noise", self.probability)
        check_range("white_noise", self.low, self.high, -150, 0)

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        level = uniform(self.low, self.high, generator)
        return signal + torch.randn(len(signal), generator=generator) * 10 ** (level / 20)


@dataclass(frozen=True)
class Shift(Augmentation):
    """Moves the clip in time by [low, high] milliseconds, later if positive; zeros fill the gap, the length stays.

    What is pushed over an end is lost: at most the range, 5 ms by default. (NeMo's sign is the opposite.)
    """

    probability: float = 0.0  # share of the clips
    low: float = -5.0  # ms, the furthest to the front
    high: float = 5.0  # ms, the furthest to the end

    def __post_init__(self) -> None:
        check_probability("shift", self.probability)
        check_range("shift", self.low, self.high, -1000, 1000)

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        later = int(uniform(self.low, self.high, generator) * sample_rate / 1000)
        if abs(later) >= len(signal):
            return signal
        if later >= 0:
            return torch.nn.functional.pad(signal, (later, 0))[: len(signal)]
        return torch.nn.functional.pad(signal[-later:], (0, -later))


@dataclass(frozen=True)
class Gain(Augmentation):
    """Louder or softer by [low, high] dB. Nothing is clipped: features take the logarithm and are normalised."""

    probability: float = 0.0  # share of the clips
    low: float = -10.0  # dB, the softest
    high: float = 10.0  # dB, the loudest

    def __post_init__(self) -> None:
        check_probability("gain", self.probability)
        check_range("gain", self.low, self.high, -60, 60)

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        return signal * 10 ** (uniform(self.low, self.high, generator) / 20)


@dataclass(frozen=True)
class NarrowBand(Augmentation):
    """Telephone: nothing above 4 kHz (8 kHz sampling) and little below 300 Hz or above 3,400 Hz."""

    probability: float = 0.0  # share of the clips
    rate: int = 8000  # Hz, of the telephone
    low: float = 300.0  # Hz; 0: no lower edge
    high: float = 3400.0  # Hz, the upper edge

    def __post_init__(self) -> None:
        check_probability("narrow_band", self.probability)
        if not 2000 <= self.rate <= 48000:
            raise ValueError(f"narrow_band: rate must be 2000 to 48000 Hz, got {self.rate}")
        check_range("narrow_band (Hz)", self.low, self.high, 0, self.rate / 2)

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        if sample_rate <= self.rate or not len(signal):
            return signal
        return telephone(signal, sample_rate, self.rate, self.low, self.high)


@dataclass(frozen=True)
class Codec(Augmentation):
    """Through a lossy codec and back, in memory: one of ``names`` at a compression drawn from [low, high].

    Compression runs from 0 (best) to 1 (worst) as libsndfile counts it; the three telephone codecs have one quality.
    None of them delays the clip (libsndfile takes off what encoders put before it). Opus is the slowest of all
    augmentations, some 30 times real time on one core: keep its share small.
    """

    probability: float = 0.0  # share of the clips
    names: tuple[str, ...] = ("mp3", "vorbis", "opus", "gsm", "mu-law")  # one is drawn
    low: float = 0.3  # compression, the least
    high: float = 0.95  # compression, the most

    def __post_init__(self) -> None:
        check_probability("codec", self.probability)
        unknown = [name for name in self.names if name not in CODECS]
        if unknown or not self.names:
            raise ValueError(f"codec: names must be among {', '.join(CODECS)}, got {', '.join(unknown) or 'none'}")
        check_range("codec", self.low, self.high, 0, 1)

    def apply(self, signal: Tensor, sample_rate: int, generator: Generator) -> Tensor:
        name, compression = choose(self.names, generator), uniform(self.low, self.high, generator)
        return through_codec(signal, sample_rate, name, compression)


# ---------------------------------------------------------------------------------------------------------------------
# All of them


class WaveformSettings(Protocol):
    """The part of ``quartznet.config.AugmentSettings`` that is used here."""

    speeds: tuple[float, ...]
    time_stretch: TimeStretch
    room: Room
    noise: Noise
    white_noise: WhiteNoise
    shift: Shift
    gain: Gain
    narrow_band: NarrowBand
    codec: Codec


def choose_speed(speeds: Sequence[float], generator: Generator) -> float:
    """One of ``speeds``, each equally likely; 1.0 if there are none. Above 1 is faster and shorter."""
    return choose(speeds, generator) if speeds else 1.0


def longest_factor(settings: WaveformSettings) -> float:
    """How many times longer a clip can become."""
    slowest = settings.time_stretch.low if settings.time_stretch.probability else 1.0
    return 1 / (min(settings.speeds, default=1.0) * min(slowest, 1.0))


def fastest_factor(settings: WaveformSettings) -> float:
    """How many times shorter a clip can become."""
    fastest = settings.time_stretch.high if settings.time_stretch.probability else 1.0
    return max(settings.speeds, default=1.0) * max(fastest, 1.0)


class WaveformAugment:
    """All augmentations of a run whose probability is above 0, in order.

    Raises:
        ValueError: a folder of noise or of impulse responses is missing or holds no sound.
    """

    def __init__(self, settings: WaveformSettings, sample_rate: int) -> None:
        self.speeds, self.sample_rate = settings.speeds, sample_rate
        every = (
            settings.time_stretch,
            settings.room,
            settings.noise,
            settings.white_noise,
            settings.shift,
            settings.gain,
            settings.narrow_band,
            settings.codec,
        )
        self.steps = tuple(step for step in every if step.probability > 0)
        for needs_files in (settings.room, settings.noise):
            if needs_files in self.steps:
                assert needs_files.files  # listed now, so that a wrong folder stops the run before it begins

    @property
    def is_speed_alone(self) -> bool:
        """Whether nothing follows the speed, which may then be changed later, by ``quartznet.speed.change_speeds``."""
        return not self.steps

    def draw_speed(self, generator: Generator) -> float:
        """The first number that is drawn for a clip: the speed at which a call would play it."""
        return choose_speed(self.speeds, generator)

    def __call__(self, signal: Tensor, generator: Generator) -> Tensor:
        """(samples,) float32 -> (samples',), see ``longest_factor``; with nothing to do, the signal itself."""
        return self.traced(signal, generator)[0]

    def traced(self, signal: Tensor, generator: Generator) -> tuple[Tensor, list[str]]:
        """The same, and the names of what was applied."""
        speed = self.draw_speed(generator)
        names = [f"speed {speed:g}"] if speed != 1.0 else []
        signal = change_speed(signal, speed)
        for step in self.steps:
            if torch.rand((), generator=generator).item() < step.probability:
                signal = step.apply(signal, self.sample_rate, generator)
                names.append(type(step).__name__)
        return signal, names
