"""Utterance -> samples and letters; and which utterances a network can learn from at all.

``SpeechDataset[index]`` decodes a clip, augments it for this epoch and encodes its text. A clip that fails is
an item that carries the message: an exception in a loader process would end the training and name no file.

The surprise: the epoch lives in shared memory. Loader processes that stay alive between epochs hold a *copy* of the
dataset, and a plain attribute set in the training process would never reach them; every epoch would repeat the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.cache import Cache
from data.hashing import stable_hash
from data.manifest import Utterance
from data.replay import Mixture
from quartznet.alphabet import Alphabet
from quartznet.audio import read_audio
from quartznet.lengths import changed_length
from quartznet.text import Language
from quartznet.waveform import WaveformAugment

LONGER = 0.25  # seconds that a whole clip may last longer than its table says


@dataclass(frozen=True)
class Item:
    """One clip on its way into a batch; with a ``problem`` the tensors are empty and mean nothing."""

    signal: Tensor  # (samples,) float32
    target: Tensor  # (letters,) int64
    text: str
    name: str  # path of the clip, with its offset if it has one
    problem: str = ""  # what is wrong, with file and line
    speed: float | None = None  # at which it is still to be played; None: it is as it should be heard


class SpeechDataset(Dataset[Item]):
    """Clips with their letters.

    Args:
        utterances: their texts are normalised already: every character is in ``alphabet``.
        alphabet: characters -> ids.
        sample_rate: of the signals, Hz.
        augment: changes each clip in each epoch, drawn from (seed, epoch, index) alone; None: clips as they are.
        seed: of the augmentation.
        shortest: samples that the front end needs (``LogMel.shortest``); a shorter clip is a problem.
        samples_per_output: of the network's output, to check that a text has a path through its clip as it really is,
            whatever its manifest says; 0: not checked, as for evaluation.
        cache: of decoded clips (``data.cache``); None: each is decoded whenever it is asked for.
        mixture: of these utterances with old ones; an index is then one of its places.
        heard: what an evaluation does to a clip, the same each time (``data.noisy``); None: clips as they are.
        speed_later: leaves the change of speed to ``Batch.at_speed``, which does it for a whole batch on its device:
            items then carry the speed that this epoch draws for them, the same as ever, and are judged by the length
            that they will have. Where any other augmentation is on, which comes after the speed and hears its
            result, the speed is changed here all the same.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        alphabet: Alphabet,
        sample_rate: int = 16000,
        augment: WaveformAugment | None = None,
        seed: int = 0,
        shortest: int = 1,
        samples_per_output: int = 0,
        cache: Cache | None = None,
        mixture: Mixture | None = None,
        heard: Callable[[Utterance, Tensor], Tensor] | None = None,
        speed_later: bool = False,
    ) -> None:
        self.utterances = utterances
        self.mixture = mixture
        self.alphabet = alphabet
        self.sample_rate = sample_rate
        self.augment = augment
        self.seed = seed
        self.shortest = shortest
        self.samples_per_output = samples_per_output
        self.cache = cache
        self.heard = heard
        self.speed_later = speed_later and augment is not None and augment.is_speed_alone
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """From now on clips are augmented as in ``epoch``, in loader processes too."""
        self.epoch.fill_(epoch)

    def decoded(self, index: int) -> Tensor:
        """The clip as it is, from the cache where it is there."""
        signal = self.cache.get(index) if self.cache is not None else None
        if signal is not None:
            return signal
        clip = self.utterances[index]
        claimed = clip.duration if clip.whole else None
        longest = clip.duration if claimed is None else claimed + 2 * LONGER
        signal = read_audio(clip.audio_path, self.sample_rate, clip.offset, longest, clip.span)
        if claimed is not None and len(signal) > (claimed + LONGER) * self.sample_rate:
            raise ValueError(
                f"{clip.name} is longer than the {claimed:g} s that are said of it, and would be cut off; "
                "python -m data.prepare measures every clip"
            )
        return signal if self.cache is None else self.cache.put(index, signal)

    def augmented(self, signal: Tensor, index: int) -> tuple[Tensor, float | None]:
        """The clip as this epoch hears it, and the speed that it still has to be played at, see ``Item``."""
        if self.augment is None:
            return signal, None
        generator = torch.Generator().manual_seed(stable_hash("speed", self.seed, int(self.epoch), index))
        if self.speed_later:
            return signal, self.augment.draw_speed(generator)
        return self.augment(signal, generator), None

    def __len__(self) -> int:
        return len(self.utterances if self.mixture is None else self.mixture)

    def __getitem__(self, index: int) -> Item:
        number = index if self.mixture is None else self.mixture.clip(index, int(self.epoch))
        utterance = self.utterances[number]
        try:
            target = torch.tensor(self.alphabet.encode(utterance.text), dtype=torch.int64)
            signal = self.decoded(number) if self.heard is None else self.heard(utterance, self.decoded(number))
            signal, speed = self.augmented(signal, index)
            self._check(len(signal) if speed is None else changed_length(len(signal), speed), utterance.text)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            problem = f"{utterance.origin or utterance.name}: {error or type(error).__name__}"
            return Item(torch.zeros(0), torch.zeros(0, dtype=torch.int64), utterance.text, utterance.name, problem)
        return Item(signal, target, utterance.text, utterance.name, speed=speed)

    def _check(self, samples: int, text: str) -> None:
        if samples < self.shortest:
            raise ValueError(f"the clip has {samples} samples, the network needs {self.shortest}")
        if self.samples_per_output:
            problem = _text_problem(text, self.alphabet, samples // self.samples_per_output)
            if problem:
                raise ValueError(problem)


# ---------------------------------------------------------------------------------------------------------------------
# Which clips are left out before training


def normalised(utterances: Sequence[Utterance], language: Language) -> tuple[list[Utterance], list[str]]:
    """Texts by the rules of ``language``, and a message for each clip that would lose all its text or a rare letter.

    A rare letter is one that got no label when the alphabet was taken from text, and has no base letter either. A text
    that was empty from the start stays: whoever evaluates on silence wants every word heard there to count.
    """
    kept, skipped = [], []
    for utterance in utterances:
        text = language.normalize(utterance.text)
        problem = _lost_text(utterance.text, text, language)
        if problem:
            skipped.append(f"{utterance.origin or utterance.name}: {problem}")
        else:
            kept.append(replace(utterance, text=text))
    return kept, skipped


def _lost_text(written: str, text: str, language: Language) -> str:
    if written.strip() and not text:
        return (
            f"no letter of {written[:60]!r} is in the alphabet, the transcript would be empty; "
            "write it out in letters or choose the language it is in"
        )
    rare = language.rare_losses(written)
    if rare:
        return (
            f"{', '.join(map(repr, rare))} in {written[:60]!r} is too rare in the corpus to be learnt and has no base "
            "letter; correct the transcript, or write it in the letters of the others"
        )
    return ""


def usable(
    utterances: Sequence[Utterance],
    alphabet: Alphabet,
    min_duration: float,
    max_duration: float,
    frames_per_second: float = 50,
    fastest_speed: float = 1.1,
) -> tuple[list[Utterance], list[str]]:
    """The utterances that can be trained on, and one message for each of the others.

    CTC needs a frame for every letter, and a blank between two equal ones: a text fits if

        letters + equal neighbours <= floor(duration / fastest_speed * frames_per_second)

    Args:
        utterances: with normalised texts and known durations.
        min_duration, max_duration: seconds, both allowed.
        frames_per_second: of the network's output; QuartzNet: 100 frames, every second one.
        fastest_speed: of the speed perturbation; 1.0 where there is none.

    Raises:
        ValueError: for an utterance without duration; ``data.source.fill_durations`` measures it.
    """
    kept, skipped = [], []
    for utterance in utterances:
        if utterance.duration is None:
            raise ValueError(f"{utterance.origin or utterance.name} has no duration; call fill_durations first")
        problem = _length_problem(utterance.duration, min_duration, max_duration) or _text_problem(
            utterance.text, alphabet, int(utterance.duration / fastest_speed * frames_per_second)
        )
        if problem:
            skipped.append(f"{utterance.origin or utterance.name}: {problem}")
        else:
            kept.append(utterance)
    return kept, skipped


def _length_problem(duration: float, min_duration: float, max_duration: float) -> str:
    if duration < min_duration or duration == 0:
        return f"the clip is {duration:.2f} s long, shorter than {min_duration:g} s; lower data.min_duration to keep it"
    if duration > max_duration:
        return f"the clip is {duration:.2f} s long, longer than {max_duration:g} s; cut it or raise data.max_duration"
    return ""


def _text_problem(text: str, alphabet: Alphabet, frames: int) -> str:
    if not text.strip():
        return "the transcript is empty after normalisation; correct it or take the line out"
    try:
        ids = alphabet.encode(text)
    except ValueError as error:
        return f"{error}; normalise the text or choose a language that has these letters"
    needed = len(ids) + sum(left == right for left, right in pairwise(ids))
    if needed > frames:
        return (
            f"its text needs {needed} frames and the clip has {frames} at its fastest speed; "
            f"does the transcript belong to this clip? {text[:60]!r}"
        )
    return ""
