"""Word and character error rates of a corpus, with 95 % intervals.

    rate = (substitutions + deletions + insertions) / units in the references

The sums run over the whole corpus before the division: a mean of the utterances' rates would weigh a one-word
utterance like a paragraph. Words are what whitespace separates; characters include single spaces between words.

jiwer finds the alignments. The surprise: an utterance nobody spoke in has no reference units and an infinite rate as
soon as one word is heard, and jiwer before 4.0 refuses it; here it counts as insertions, which is right for the sums.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import jiwer
import numpy as np


@dataclass(frozen=True)
class ErrorCounts:
    """What one alignment, or the sum of many, counts. ``reference_length`` = hits + substitutions + deletions."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    hits: int = 0
    reference_length: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors by reference unit: a fraction, above 1 with many insertions; infinite if nothing was said."""
        if self.reference_length == 0:
            return math.inf if self.errors else 0.0
        return self.errors / self.reference_length

    def __add__(self, other: Self) -> Self:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.hits + other.hits,
            self.reference_length + other.reference_length,
        )


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """The corpus: the sum over its utterances."""
    return sum(counts, ErrorCounts())


def _count(chunks: Sequence[jiwer.AlignmentChunk]) -> ErrorCounts:
    """Counts of one alignment; a chunk is a run of equal, substituted, deleted or inserted units."""
    units = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for chunk in chunks:
        reference_units = chunk.ref_end_idx - chunk.ref_start_idx
        hypothesis_units = chunk.hyp_end_idx - chunk.hyp_start_idx
        units[chunk.type] += max(reference_units, hypothesis_units)
    reference_length = units["equal"] + units["substitute"] + units["delete"]
    return ErrorCounts(units["substitute"], units["delete"], units["insert"], units["equal"], reference_length)


def error_counts(references: Sequence[str], hypotheses: Sequence[str], unit: str = "word") -> list[ErrorCounts]:
    """Counts for each pair of texts; either text may be empty.

    Args:
        unit: "word" or "character".

    Raises:
        ValueError: for lists of different lengths or another unit.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses; give one for each")
    if unit not in ("word", "character"):
        raise ValueError(f"unit must be word or character, got {unit!r}")
    references, hypotheses = ([" ".join(text.split()) for text in texts] for texts in (references, hypotheses))
    count_units = (lambda text: len(text.split())) if unit == "word" else len
    counts = [ErrorCounts(insertions=count_units(hypothesis)) for hypothesis in hypotheses]  # right for no reference
    spoken = [index for index, reference in enumerate(references) if reference]
    if spoken:
        process = jiwer.process_words if unit == "word" else jiwer.process_characters
        aligned = process([references[index] for index in spoken], [hypotheses[index] for index in spoken])
        for index, chunks in zip(spoken, aligned.alignments, strict=True):
            counts[index] = _count(chunks)
    return counts


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    return error_counts([reference], [hypothesis], "word")[0]


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    return error_counts([reference], [hypothesis], "character")[0]


def aligned_words(reference: str, hypothesis: str) -> list[tuple[str, str]]:
    """Pairs (reference word, hypothesis word) in order; "" where one side has no word."""
    said, heard = reference.split(), hypothesis.split()
    if not said:
        return [("", word) for word in heard]
    chunks = jiwer.process_words(" ".join(said), " ".join(heard)).alignments[0]
    pairs = []
    for chunk in chunks:
        left, right = said[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        size = max(len(left), len(right))
        pairs += zip(left or [""] * size, right or [""] * size, strict=True)
    return pairs


def bootstrap_interval(counts: Sequence[ErrorCounts], seed: int = 0, resamples: int = 1000) -> tuple[float, float]:
    """The 95 % interval of the corpus rate: the corpus is drawn again from its own utterances, ``resamples`` times.

    Utterances are the unit, since errors within one depend on each other (Bisani and Ney, ICASSP 2004). Draws without
    any reference unit have no rate and are left out.

    Raises:
        ValueError: without utterances.
    """
    if not counts:
        raise ValueError("no utterances to draw from: an interval needs at least one")
    whole = total(counts)
    if whole.reference_length == 0:
        return whole.rate, whole.rate
    errors = np.array([count.errors for count in counts])
    lengths = np.array([count.reference_length for count in counts])
    generator = np.random.default_rng(seed)
    draws = [generator.integers(len(counts), size=len(counts)) for _ in range(resamples)]
    sums = np.array([(errors[draw].sum(), lengths[draw].sum()) for draw in draws])
    sums = sums[sums[:, 1] > 0]
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return float(low), float(high)
