"""Text -> batches from which a BERT learns: sentences as numbers of pieces, similar lengths together.

    sentences = Sentences(texts, tokenizer, longest=128)
    loader = sentence_loader(sentences, masker, batch_tokens=4096, seed=0)

Nothing is hidden here: a batch says only how many pieces will be asked for, which is its length (``quartznet.step``).
Which ones, the loss draws, so that they are others in every epoch and the same again in a run that goes on.

The surprise: no sentence is too long. One with more pieces than a network has positions is cut between two words into
parts that are read on their own. Left out, and counted, is only what has no known piece at all.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.samplers import TokenSampler
from postcorrect.masking import Masker
from postcorrect.wordpiece import WordPiece, pad_rows

CHUNK = 10_000  # texts that are cut into pieces at a time
MOST_UNKNOWN = 0.5  # share of the pieces
LONGEST_NAME = 40  # letters


def cut(pieces: Sequence[int], continues: Sequence[bool], most: int) -> list[Sequence[int]]:
    """Parts of at most ``most`` pieces that begin with a word, if no word is longer than that."""
    parts, start = [], 0
    while len(pieces) - start > most:
        end = start + most
        while end > start and continues[pieces[end]]:
            end -= 1
        end = end if end > start else start + most
        parts.append(pieces[start:end])
        start = end
    return [*parts, pieces[start:]]


# ---------------------------------------------------------------------------------------------------------------------
# Sentences


@dataclass(frozen=True)
class Sentence:
    """One sentence, or a part of one."""

    text: str  # the whole of it
    ids: list[int]  # begin, pieces, end

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.text if len(self.text) <= LONGEST_NAME else f"{self.text[: LONGEST_NAME - 4].rstrip()} ..."


class Sentences(Dataset):
    """Sentences as numbers, four bytes for each."""

    def __init__(self, texts: Sequence[str], tokenizer: WordPiece, longest: int) -> None:
        """Cuts texts into pieces.

        Args:
            longest: tokens of a part at most, begin and end among them.

        Raises:
            ValueError: the vocabulary does not know most of the text; or nothing is left.
        """
        self.texts, self.special = texts, tokenizer.special
        self.pieces = self.unknown = self.cut = self.left_out = 0
        self._ids, self._ends, self._text = array("i"), array("q", [0]), array("q")
        ordinary, continues = (kind.tolist() for kind in tokenizer.pieces())
        for start in range(0, len(texts), CHUNK):
            rows = tokenizer.ids(texts[start : start + CHUNK])
            for number, row in enumerate(rows, start=start):
                parts = cut(row[1:-1], continues, longest - 2)
                self.pieces += len(row) - 2
                self.unknown += row.count(self.special.unknown)
                self.cut += len(parts) > 1
                self._add(number, [part for part in parts if any(ordinary[piece] for piece in part)])
        if self.unknown > MOST_UNKNOWN * self.pieces or not len(self):
            raise ValueError(
                f"the vocabulary does not know {self.unknown:,} of the {self.pieces:,} pieces of the text; take a BERT "
                "of this language, or leave --bert out to get a vocabulary of the text's own"
            )

    def _add(self, number: int, parts: Sequence[Sequence[int]]) -> None:
        self.left_out += not parts
        for part in parts:
            self._ids.extend((self.special.begin, *part, self.special.end))
            self._ends.append(len(self._ids))
            self._text.append(number)

    def __len__(self) -> int:
        return len(self._text)

    def __getitem__(self, index: int) -> Sentence:
        ids = self._ids[self._ends[index] : self._ends[index + 1]].tolist()
        return Sentence(self.texts[self._text[index]], ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each, begin and end among them."""
        return [self._ends[index + 1] - self._ends[index] for index in range(len(self))]

    def counts(self) -> Counter[int]:
        """How often each piece occurs."""
        counted = Counter(self._ids)
        for number in vars(self.special).values():
            del counted[number]
        return counted

    def __str__(self) -> str:
        told = [f"{len(self.texts):,} sentences, {self.pieces:,} pieces"]
        told += [f"{self.unknown / self.pieces:.2%} unknown"] if self.unknown else []
        told += [f"{self.cut:,} too long, read in parts"] if self.cut else []
        told += [f"{self.left_out:,} left out: nothing in them is known"] if self.left_out else []
        return ", ".join(told)


def frequency_loss(learnt: Sentences, measured: Sentences) -> tuple[float, float]:
    """What a guess by frequency alone costs on ``measured``: nats a piece, and the share of guesses that are wrong.

    Every piece is counted once more than it occurs, or one that never does would cost infinitely much.
    """
    counts, asked = learnt.counts(), measured.counts()
    kinds, most = len(counts.keys() | asked.keys()), counts.most_common(1)[0][0]
    nats = sum(n * math.log((counts[piece] + 1) / (counts.total() + kinds)) for piece, n in asked.items())
    return -nats / asked.total(), 1 - asked[most] / asked.total()


# ---------------------------------------------------------------------------------------------------------------------
# Batches


@dataclass(frozen=True)
class MaskBatch:
    """Padded sentences, nothing hidden yet; a ``quartznet.step.TrainBatch``."""

    ids: Tensor  # (batch, time)
    mask: Tensor  # (batch, time), True = token
    counts: Tensor  # (batch,) pieces to ask for
    names: list[str]  # the sentence, for each piece that is asked for
    skipped: list[str] = field(default_factory=list)  # nothing here can fail to load

    def __len__(self) -> int:
        """Pieces that are asked for."""
        return len(self.names)

    @property
    def tokens(self) -> int:
        """Without padding."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> Self:
        """The same with its tensors on ``device``."""
        tensors = ("ids", "mask", "counts")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in tensors})

    def pin_memory(self) -> Self:
        """The same in page-locked memory; a DataLoader calls this by its name."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in ("ids", "mask", "counts")})


@dataclass(frozen=True)
class Collate:
    """Sentences -> a batch; ``pad`` is the number of the token that fills up."""

    masker: Masker
    pad: int

    def __call__(self, rows: Sequence[Sentence]) -> MaskBatch:
        ids, mask = pad_rows([row.ids for row in rows], self.pad)
        counts = self.masker.counts(ids)
        names = [row.name for row, count in zip(rows, counts.tolist(), strict=True) for _ in range(count)]
        return MaskBatch(ids, mask, counts, names)


def sentence_loader(
    sentences: Sentences,
    masker: Masker,
    batch_tokens: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches of up to ``batch_tokens`` tokens, padding counted, in a new order every epoch."""
    sampler = TokenSampler(sentences.lengths, batch_tokens, seed, True, rank, world_size)
    collate = Collate(masker, sentences.special.pad)
    return DataLoader(sentences, batch_sampler=sampler, collate_fn=collate, pin_memory=pin_memory)


def dev_batches(sentences: Sentences, masker: Masker, batch_tokens: int) -> Iterator[MaskBatch]:
    """All sentences once, from short to long."""
    collate = Collate(masker, sentences.special.pad)
    for indices in TokenSampler(sentences.lengths, batch_tokens, shuffle=False):
        yield collate([sentences[index] for index in indices])
