"""Clips -> pairs: what a network hears in clips as they are, and in ways that bring out more of its errors.

    hear(model, clips, Way("greedy"), Hearing(nbest=4))             as evaluate.py does, and three texts of a beam
    hear(model, clips, Way("dropout 0.02 seed 1", dropout=0.02, seed=1))
    hear(model, clips, Way("speed 0.9", speed=0.9))
    hear(model, clips, Way("noise 10 dB", condition=condition))     conditions of ``data.noisy``

Dropout acts after every sub-block, as in training, while batch norm keeps its statistics: each seed is another network
that errs elsewhere. The surprise: the published networks were trained with dropout 0, so the rate that a checkpoint
names would change nothing; it is given here. They bear little: of the English one 0.02 doubles the errors (15 % of the
words), 0.05 makes 33 % and 0.1 makes 68 %. One that learnt with dropout bears what it learnt with.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data.hashing import stable_hash
from data.loaders import evaluation_loader
from data.manifest import Utterance, clip_key
from data.noisy import Condition
from postcorrect.pairs import Pair, read_jsonl, write_jsonl
from quartznet.batch import Batch
from quartznet.beam import BeamDecoder
from quartznet.ctc import greedy_decode
from quartznet.model import Block, QuartzNet
from quartznet.speed import change_speed
from quartznet.worth import BeamSettings

BLOCK = 2000  # clips; what an interruption can cost
PLAIN = "greedy"  # the way of clips as they are

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """How clips are heard; without anything said, as they are."""

    name: str
    dropout: float = 0.0  # rate
    seed: int = 0  # of the dropout
    speed: float = 1.0  # above 1 is faster
    condition: Condition | None = None  # noise and rooms

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"the rate of dropout must be in [0, 1), got {self.dropout}")
        if not 0.5 <= self.speed <= 2.0:
            raise ValueError(f"a speed must lie between 0.5 and 2, got {self.speed}")

    def changed(self, clip: Utterance, signal: Tensor) -> Tensor:
        """(samples,) -> (samples',)."""
        if self.condition is not None:
            return self.condition(clip, signal)
        return change_speed(signal, self.speed)


@dataclass(frozen=True)
class Hearing:
    """What is the same in all ways."""

    nbest: int = 1  # texts of each clip: the greedy one and, above 1, those of a beam search
    beam: int = 64  # texts that the search keeps
    batch_seconds: float = 120.0  # audio in a batch, padding counted
    workers: int = 0  # loader processes

    def __post_init__(self) -> None:
        if not 1 <= self.nbest <= self.beam:
            raise ValueError(f"nbest must be from 1 to the beam ({self.beam}), got {self.nbest}")
        BeamSettings(self.beam)  # raises for one that cannot be, now and not after hours


def with_dropout(model: QuartzNet, rate: float) -> QuartzNet:
    """A copy in evaluation mode whose blocks drop a share ``rate`` of their outputs; everything else is still."""
    changed = copy.deepcopy(model).eval()
    for block in changed.modules():
        if isinstance(block, Block):
            block.config = replace(block.config, dropout=rate)
            block.training = True  # of the block alone: batch norms below it stay as they are
    return changed


# ---------------------------------------------------------------------------------------------------------------------
# One way


def _texts(log_probs: Tensor, lengths: Tensor, model: QuartzNet, way: Way, hearing: Hearing) -> Iterator[list[tuple]]:
    """(source, text) of each utterance: the greedy text, then those of the beam that differ from it."""
    greedy = greedy_decode(log_probs, lengths, model.alphabet)
    found: list[list[tuple[str, str]]] = [[(way.name, text)] for text in greedy]
    if hearing.nbest > 1:
        settings = BeamSettings(beam=hearing.beam, count=hearing.nbest)
        prefix = "" if way.name == PLAIN else f"{way.name} "
        beams = BeamDecoder(model.alphabet, settings)(log_probs.float().cpu(), lengths.cpu())
        for texts, best, beam in zip(found, greedy, beams, strict=True):
            others = [hypothesis.text for hypothesis in beam if hypothesis.text != best]
            texts += [(f"{prefix}beam {rank}", text) for rank, text in enumerate(others[: hearing.nbest - 1], 2)]
    yield from found


def _pairs_of(batch: Batch, model: QuartzNet, way: Way, hearing: Hearing) -> list[Pair]:
    """Of one batch; spaces that are heard at the ends or twice are none."""
    log_probs, lengths = model.forward_features(*model.front_end.each(batch.signal, batch.signal_lengths))
    rows = zip(batch.names, batch.texts, _texts(log_probs, lengths, model, way, hearing), strict=True)
    return [Pair(" ".join(text.split()), said, name, source) for name, said, texts in rows for source, text in texts]


@torch.inference_mode()
def hear(
    model: QuartzNet, clips: Sequence[Utterance], way: Way, hearing: Hearing | None = None
) -> tuple[list[Pair], list[str]]:
    """The pairs of all clips in their order, and a message for each clip that failed.

    Args:
        model: on its device; it is not changed.
        clips: normalised to the letters of the model, with durations.
    """
    hearing, device = hearing or Hearing(), model.device
    ready = with_dropout(model, way.dropout) if way.dropout else model.for_inference()
    loader = evaluation_loader(
        clips,
        model.alphabet,
        model.config.features.sample_rate,
        hearing.batch_seconds,
        workers=hearing.workers,
        pin_memory=device.type == "cuda",
        shortest=model.front_end.shortest,
        heard=way.changed,
    )
    found, skipped = [], []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(stable_hash("dropout", way.seed))
        for batch in tqdm(loader, desc=way.name, unit="batch", disable=None):
            skipped += batch.skipped
            if len(batch):
                found += _pairs_of(batch.to(device), ready, way, hearing)
    place = {clip.name: number for number, clip in enumerate(clips)}
    return sorted(found, key=lambda pair: place[pair.utterance]), skipped


# ---------------------------------------------------------------------------------------------------------------------
# Blocks of clips, each decoded once


@dataclass
class Collection:
    """The folder of what is decoded already: one file of pairs for each block of clips and each way.

    A file is called after all that it depends on, so what was decoded by another network, or from changed clips, is
    never taken for this.
    """

    folder: Path
    hearing: Hearing

    def __post_init__(self) -> None:
        self.skipped: list[str] = []  # clips that failed, of all blocks so far
        self.reused = 0  # clips that were decoded by an earlier command

    def pairs(
        self, part: str, clips: Sequence[Utterance], way: Way, key: str, model: Callable[[], QuartzNet]
    ) -> list[Pair]:
        """Of all clips in one way; decodes what is not there.

        Args:
            part: first word of the files' names.
            key: which network this is.
            model: makes it; not called where everything is there.
        """
        found: list[Pair] = []
        for start in range(0, len(clips), BLOCK):
            block = clips[start : start + BLOCK]
            told = (clip_key(clip) + clip.text for clip in block)
            name = f"{stable_hash(key, repr(way), repr(self.hearing.nbest), repr(self.hearing.beam), *told):016x}"
            path = self.folder / f"{part}-{way.name.replace(' ', '-').replace(',', '')}-{name}.jsonl"
            if path.is_file():
                self.reused += len(block)
            else:
                pairs, failed = hear(model(), block, way, self.hearing)
                lines = "".join(f"{message}\n" for message in failed)
                if lines:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.with_suffix(".skipped").write_text(lines, encoding="utf-8")
                write_jsonl(path, pairs)  # last: with it the block is done
            if path.with_suffix(".skipped").is_file():
                self.skipped += path.with_suffix(".skipped").read_text(encoding="utf-8").splitlines()
            found += read_jsonl(path)
        return found
