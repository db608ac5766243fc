"""Clips as they would have been recorded elsewhere, to evaluate on: with noise at a known ratio, in a room, or both.

    for condition in conditions(noise="noise", room="rir", ratios=(20, 10, 5, 0), sample_rate=16000):
        loader = evaluation_loader(clips, alphabet, 16000, batch_seconds=120, heard=condition)

The mixing is that of training (``quartznet.waveform``): the level of the speech is the mean power of the whole clip,
pauses counted, so at "10 dB" a clip with long pauses has a better ratio than 10 dB while somebody speaks. The level of
the noise is the mean power of the part that is mixed in. A room comes before the noise and leaves the level as it was.

The surprise: the ratio is not among what chance is drawn from. A clip hears the same part of the same recording, in the
same room, at every ratio, so two rows of a table differ by the level of the noise and by nothing else. Nor is the place
of the clip in the data, nor its folder: a shuffled or shortened manifest, or another model, gets the same sounds.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from data.hashing import stable_hash
from data.manifest import Utterance
from quartznet.waveform import Noise, Room, find_sounds

RATIOS = (20.0, 10.0, 5.0, 0.0)  # dB
RANGE = (-50.0, 150.0)  # dB, of a ratio
DRAWS = 20  # parts of recordings to try where one is silent


def ratios(text: str) -> tuple[float, ...]:
    """``20,10`` -> (20.0, 10.0)."""
    return tuple(float(ratio) for ratio in text.split(","))


def add_options(group: argparse._ActionsContainer) -> None:
    """``--noise``, ``--rir`` and ``--snr`` of a command that hears clips once more in each condition."""
    group.add_argument("--noise", metavar="PATH", help="also with noise mixed in: folder of recordings, or one of them")
    group.add_argument("--rir", metavar="PATH", help="also in a room: folder of impulse responses, or one of them")
    group.add_argument("--snr", type=ratios, metavar="DB,DB", help="speech to noise, in dB (20,10,5,0)")


def check_options(options: argparse.Namespace) -> None:
    """Raises ValueError for options that would have no effect."""
    if options.snr is not None and options.noise is None:
        raise ValueError("--snr says how loud the noise is, and there is none; give --noise FOLDER")


@dataclass(frozen=True)
class Condition:
    """How every clip is heard; without noise and without room as it is."""

    label: str
    noise: Noise | None
    room: Room | None
    sample_rate: int  # Hz
    seed: int = 0

    def __call__(self, clip: Utterance, signal: Tensor) -> Tensor:
        """(samples,) -> (samples,), drawn from the seed and from what the clip is.

        Raises:
            ValueError: where the clip is silent, or all parts of the noise that were drawn are: no ratio exists.
        """
        if self.room is not None:
            signal = self.room.apply(signal, self.sample_rate, self._chance("room", clip, signal))
        return signal if self.noise is None else self._with_noise(signal, self._chance("noise", clip, signal))

    def _with_noise(self, signal: Tensor, generator: Generator) -> Tensor:
        for _ in range(DRAWS):
            noisy = self.noise.apply(signal, self.sample_rate, generator)
            if noisy is not signal:
                return noisy
        raise ValueError(f"no noise can be mixed in at {self.label}: the clip, or {self.noise.folder}, is silent")

    def _chance(self, what: str, clip: Utterance, signal: Tensor) -> Generator:
        """Of a kind of change and a clip; two clips that share name, place and length share what they hear."""
        seed = stable_hash(what, self.seed, clip.audio_path.name, f"{clip.offset!r}", clip.start_byte, len(signal))
        return torch.Generator().manual_seed(seed)


def conditions(
    noise: str | None,
    room: str | None,
    ratios: Sequence[float] = RATIOS,
    sample_rate: int = 16000,
    seed: int = 0,
) -> list[Condition]:
    """The clips as they are, in a room if there is one, and with noise at each ratio (in the room if there is one).

    Args:
        noise: folder of recordings, or one recording; None: no noise.
        room: folder of impulse responses, or one; None: no room.
        ratios: speech to noise, dB.

    Raises:
        ValueError: for a folder without sounds, and for no ratio or one outside -50 to 150 dB.
    """
    chosen = [Condition("clean", None, None, sample_rate, seed)]
    responses = None
    if room is not None:
        find_sounds(room, "--rir")
        responses = Room(1.0, room)
        chosen.append(Condition("room", None, responses, sample_rate, seed))
    if noise is None:
        return chosen
    find_sounds(noise, "--noise")
    if not ratios or not all(RANGE[0] <= ratio <= RANGE[1] for ratio in ratios):
        raise ValueError(f"--snr needs ratios of {RANGE[0]:g} to {RANGE[1]:g} dB, such as 20,10,5,0, got {ratios}")
    where = "room, " if responses else ""
    return chosen + [
        Condition(f"{where}{ratio:g} dB", Noise(1.0, noise, ratio, ratio), responses, sample_rate, seed)
        for ratio in dict.fromkeys(ratios)
    ]
