"""What is taken for what: letters and words that a recogniser confuses, counted over the alignments of a corpus.

    found = word_confusions(references, hypotheses)
    found.most(10)        # [Confusion("the", "a", 14), Confusion("", "uh", 6), ...]; "" is no word at all

An alignment is one of the shortest ways from reference to hypothesis by substitutions, deletions and insertions
(rapidfuzz finds the one that jiwer counts), so the sums here are the sums of the error rates.

The surprise: an alignment of words cannot see a wrong space. "every day" heard as "everyday" counts as a substitution
and a deletion, and the pair ("every", "everyday") looks like a misheard word. Such runs of errors, whose letters are
right and whose spaces are wrong, are counted apart as ``spaces``.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rapidfuzz.distance import Levenshtein

Pair = tuple[str, str]  # what was said, what was heard; "" for nothing


@dataclass(frozen=True)
class Confusion:
    """How often something that was said was taken for something else; "" is nothing (an insertion, a deletion)."""

    said: str
    heard: str
    count: int


@dataclass(frozen=True)
class Confusions:
    """The alignments of a corpus, counted."""

    pairs: Counter[Pair]  # right ones too
    spaces: int = 0  # runs of wrong words whose letters are right; 0 for letters

    def most(self, count: int | None = None) -> list[Confusion]:
        """The most frequent ones that are wrong; equals by the alphabet."""
        wrong = sorted((-times, *pair) for pair, times in self.pairs.items() if pair[0] != pair[1])
        return [Confusion(said, heard, -times) for times, said, heard in wrong[:count]]

    def said(self) -> Counter[str]:
        """How often each unit was said."""
        return _summed((said, times) for (said, _), times in self.pairs.items() if said)

    def missed(self) -> Counter[str]:
        """How often each unit that was said was not heard as such."""
        return _summed((said, times) for (said, heard), times in self.pairs.items() if said and said != heard)


def _summed(counts: Iterable[tuple[str, int]]) -> Counter[str]:
    summed: Counter[str] = Counter()
    for unit, times in counts:
        summed[unit] += times
    return summed


def aligned_units(said: Sequence[str], heard: Sequence[str]) -> list[Pair]:
    """Pairs of units in order, letters of two strings or words of two lists; "" where one side has none.

    >>> aligned_units("abc", "xbcd")
    [('a', 'x'), ('b', 'b'), ('c', 'c'), ('', 'd')]
    """
    pairs: list[Pair] = []
    for kind, begin, end, heard_begin, heard_end in Levenshtein.opcodes(said, heard):
        left, right = list(said[begin:end]), list(heard[heard_begin:heard_end])
        if kind == "insert":
            left = [""] * len(right)
        elif kind == "delete":
            right = [""] * len(left)
        pairs += zip(left, right, strict=True)
    return pairs


def wrong_spaces(pairs: Sequence[Pair]) -> int:
    """Runs of wrong words on which both sides have the same letters: ("every", "everyday"), ("day", "") is one."""
    runs = (list(run) for wrong, run in groupby(pairs, key=lambda pair: pair[0] != pair[1]) if wrong)
    return sum("".join(said for said, _ in run) == "".join(heard for _, heard in run) for run in runs)


def _checked(references: Sequence[str], hypotheses: Sequence[str]) -> Iterable[Pair]:
    """The texts with single spaces, in pairs."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses; give one for each")
    for said, heard in zip(references, hypotheses, strict=True):
        yield " ".join(said.split()), " ".join(heard.split())


def letter_confusions(references: Sequence[str], hypotheses: Sequence[str]) -> Confusions:
    """Letters, spaces between words among them.

    Raises:
        ValueError: for lists of different lengths.
    """
    pairs: Counter[Pair] = Counter()
    for said, heard in _checked(references, hypotheses):
        pairs.update(aligned_units(said, heard))
    return Confusions(pairs)


def word_confusions(references: Sequence[str], hypotheses: Sequence[str]) -> Confusions:
    """Words, and how many runs of wrong words differ by spaces alone.

    Raises:
        ValueError: for lists of different lengths.
    """
    pairs: Counter[Pair] = Counter()
    spaces = 0
    for said, heard in _checked(references, hypotheses):
        aligned = aligned_units(said.split(), heard.split())
        pairs.update(aligned)
        spaces += wrong_spaces(aligned)
    return Confusions(pairs, spaces)
