"""Sentences in a recogniser's letters -> streams of letters that a language model reads side by side.

All sentences of an epoch stand one behind the other in random order, a boundary before each. The stream is cut into
``rows`` equal rows, which are read in parallel, ``segment`` letters at each step:

    epoch      | one sentence | another | a third, which is lon
                ger | a fourth | ...                              two rows

Nothing is padded and no sentence is too long, because the network's memory carries on where the segment before ended
(``quartznet.transformer_xl``). Only a sentence that the start of a row cuts loses what came before; another sentence in
each epoch. The surprise: an epoch is a pure function of its number and the seed, so no state of it need be saved.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

HELD_OUT = 0.02  # of the different sentences, where no dev text is given
MOST_HELD_OUT = 1000  # of them; more cost time and tell no more


def hold_out(sentences: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sentences to learn from and to measure on: those with the least checksums, so equal ones stay together.

    Raises:
        ValueError: there are no two different sentences.
    """
    different = sorted(set(sentences), key=lambda text: (zlib.crc32(text.encode()), text))
    if len(different) < 2:
        raise ValueError("the text needs at least two different sentences, one of them to measure on; or give --dev")
    held = set(different[: min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(different))))])
    return [text for text in sentences if text not in held], [text for text in different if text in held]


def letter_bits(learnt: Iterable[str], measured: Iterable[str]) -> float:
    """Bits a letter (ends included) of ``measured`` for who knows only how frequent each letter is in ``learnt``.

    Every letter is counted once more than it occurs, or one that never does would cost infinitely much.
    """
    counts, asked = (Counter("".join(f"{text}\n" for text in texts)) for texts in (learnt, measured))
    kinds = len(counts.keys() | asked.keys())
    nats = sum(n * np.log((counts[letter] + 1) / (counts.total() + kinds)) for letter, n in asked.items())
    return float(-nats / np.log(2) / asked.total())


# ---------------------------------------------------------------------------------------------------------------------
# Sentences -> segments


@dataclass(frozen=True)
class Segment:
    """What one step reads: ``targets`` are the letters after ``ids``; both (rows, time)."""

    ids: Tensor
    targets: Tensor
    is_first: bool  # of the epoch: there is no memory yet


class LetterStream:
    """Sentences as numbers of letters; ``segment_at`` tells what a step of the training reads.

    Args:
        encoded: numbers of each sentence, without boundaries.
        boundary: stands before each and behind the last.

    Raises:
        ValueError: there are fewer letters than rows.
    """

    def __init__(self, encoded: Iterable[Sequence[int]], boundary: int, rows: int, segment: int, seed: int) -> None:
        self.sentences = [np.array([boundary, *ids], dtype=np.int16) for ids in encoded]
        self.boundary, self.rows, self.segment, self.seed = boundary, rows, segment, seed
        self.tokens = sum(map(len, self.sentences))
        self.columns = self.tokens // rows
        if self.columns == 0:
            raise ValueError(f"the text has {self.tokens} letters for {rows} rows; give more text or a lower --batch")
        self.steps = -(-self.columns // segment)  # of an epoch
        self._epoch, self._stream = -1, torch.empty(0)

    def segment_at(self, step: int) -> Segment:
        """What step ``step`` of the whole training reads, 0 being the first."""
        epoch, place = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch, self._stream = epoch, self._shuffled(epoch)
        whole = self.rows * self.columns
        start, end = place * self.segment, min((place + 1) * self.segment, self.columns)
        ids, targets = (
            self._stream[first : first + whole].reshape(self.rows, self.columns)[:, start:end].long()
            for first in (0, 1)
        )
        return Segment(ids, targets, is_first=place == 0)

    def _shuffled(self, epoch: int) -> Tensor:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.sentences))
        end = np.array([self.boundary], dtype=np.int16)
        return torch.from_numpy(np.concatenate([*(self.sentences[number] for number in order), end]))
