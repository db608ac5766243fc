"""Pairs of texts -> batches of tokens: what a corrector learns from, and which pairs it cannot learn from.

    rows, left_out = encode_pairs(pairs, tokenizer, limit=128)
    loader = pair_loader(rows, tokenizer.special.pad, batch_tokens=4096, seed=0)

A batch holds texts of similar length, as many as have ``batch_tokens`` in both texts with padding. Its length is the
number of tokens that are to be written, each of which has a loss of its own (``quartznet.step``).

The surprise: a pair whose true text the tokenizer cannot repeat (an accent that an uncased BERT takes away) would teach
the corrector to damage texts. Such pairs are left out and counted, and where most are, the BERT is the wrong one.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.samplers import TokenSampler
from postcorrect.pairs import Pair
from postcorrect.wordpiece import WordPiece, pad_rows

MOST_LEFT_OUT = 0.5  # share of the pairs


@dataclass(frozen=True)
class Row:
    """A pair as numbers of tokens, each text from begin to end."""

    pair: Pair
    source: list[int]
    target: list[int]

    @property
    def tokens(self) -> int:
        """What the pair takes in a batch of its own: both texts as long as the longer."""
        return 2 * max(len(self.source), len(self.target))


@dataclass(frozen=True)
class LeftOut:
    """Pairs that nothing can be learnt from, by reason."""

    given: int
    empty: int  # nothing was recognised, or nothing said
    long: int  # more tokens than the limit
    strange: int  # the vocabulary cannot write one of the texts
    example: str = ""  # of the strange ones

    @property
    def count(self) -> int:
        return self.empty + self.long + self.strange

    def __str__(self) -> str:
        reasons = ((self.empty, "empty"), (self.long, "too long"), (self.strange, "not in the vocabulary's letters"))
        told = ", ".join(f"{count:,} {reason}" for count, reason in reasons if count)
        example = f", such as '{self.example[:60]}'" if self.example else ""
        return f"{self.count:,} of {self.given:,} pairs left out: {told}{example}" if self.count else ""


def encode_pairs(pairs: Sequence[Pair], tokenizer: WordPiece, limit: int) -> tuple[list[Row], LeftOut]:
    """Rows of the pairs that can be learnt from, in their order, and what became of the others.

    Args:
        limit: tokens of a text at most, begin and end among them.

    Raises:
        ValueError: more than half of the pairs cannot be written with the vocabulary.
    """
    recognised, said = tokenizer.ids([p.recognised for p in pairs]), tokenizer.ids([p.said for p in pairs])
    rows, empty, long, strange = [], 0, 0, []
    repeats = functools.cache(tokenizer.repeats)  # a sentence may be there a hundred times
    for pair, source, target in zip(pairs, recognised, said, strict=True):
        if not pair.recognised or not pair.said:
            empty += 1
        elif max(len(source), len(target)) > limit:
            long += 1
        elif unknown := [text for text in (pair.said, pair.recognised) if not repeats(text)]:
            strange.append(unknown[0])
        else:
            rows.append(Row(pair, source, target))
    found = LeftOut(len(pairs), empty, long, len(strange), strange[0] if strange else "")
    if len(strange) > MOST_LEFT_OUT * len(pairs):
        raise ValueError(
            f"the vocabulary of this BERT cannot write {len(strange):,} of {len(pairs):,} pairs, such as "
            f"'{found.example[:60]}'; take a BERT of this language that keeps accents and capitals, or make one with "
            "python -m postcorrect.pretrain"
        )
    return rows, found


# ---------------------------------------------------------------------------------------------------------------------
# Batches


@dataclass(frozen=True)
class PairBatch:
    """Padded texts of several pairs; a ``quartznet.step.TrainBatch``."""

    source: Tensor  # (batch, source time)
    source_mask: Tensor  # (batch, source time), True = token
    target: Tensor  # (batch, target time)
    target_mask: Tensor
    names: list[str]  # of the pair, for each token that is to be written
    skipped: list[str] = field(default_factory=list)  # nothing here can fail to load

    def __len__(self) -> int:
        """Tokens that are to be written: those of the targets after begin."""
        return len(self.names)

    @property
    def tokens(self) -> int:
        """Of both texts, without padding."""
        return int(self.source_mask.sum() + self.target_mask.sum())

    def to(self, device: torch.device) -> Self:
        tensors = ("source", "source_mask", "target", "target_mask")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in tensors})

    def pin_memory(self) -> Self:
        """For a DataLoader that copies to a GPU."""
        tensors = ("source", "source_mask", "target", "target_mask")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in tensors})


class Rows(Dataset):
    """A list of rows for a DataLoader."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


@dataclass(frozen=True)
class Collate:
    """Rows -> a batch; ``pad`` is the number of the token that fills up."""

    pad: int

    def __call__(self, rows: Sequence[Row]) -> PairBatch:
        source = pad_rows([row.source for row in rows], self.pad)
        target = pad_rows([row.target for row in rows], self.pad)
        return PairBatch(*source, *target, [row.pair.utterance for row in rows for _ in row.target[1:]])


def pair_loader(
    rows: Sequence[Row],
    pad: int,
    batch_tokens: int,
    seed: int = 0,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches of pairs in a new order every epoch; ``shuffle=False``: from short to long.

    Args:
        batch_tokens: of both texts of a batch, padding counted.

    Raises:
        ValueError: there are no rows.
    """
    sampler = TokenSampler([row.tokens for row in rows], batch_tokens, seed, shuffle, rank, world_size)
    return DataLoader(Rows(rows), batch_sampler=sampler, collate_fn=Collate(pad), pin_memory=pin_memory)
