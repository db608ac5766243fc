"""A vocabulary as a tree of letters that grows where a search looks, and looks ahead for it.

While a word is being written its score is not known yet. But the words that begin like it are, and none of them scores
better than the best of them; if there is none, the word will be an unknown one. Each branch therefore carries the best
score of the words in it, and a search that counts with that in advance drops a text that is no word at its first wrong
letter and not at its next space (the unigram look-ahead of Ortmanns, Ney and Eiden, ICSLP 1996).

The words are a sorted list, and a branch is a range of it, made when it is first asked for. A million words take a
second and no more memory than themselves.

The surprise: scores of beginnings only fall with each letter, so a beam sees rare words as they are: rare from the
first letter that makes them so.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

LAST = "\U0010ffff"  # sorts behind all letters


class Branch:
    """The words with one beginning."""

    __slots__ = ("beginning", "best", "children", "first", "last")

    def __init__(self, beginning: str, first: int, last: int, best: float) -> None:
        self.beginning, self.first, self.last = beginning, first, last  # words[first:last]
        self.best = best  # of their scores
        self.children: dict[int, tuple[float, Branch]] = {}  # label number -> factor and branch, of those asked for


class Vocabulary:
    """Words with scores; ``root`` is the branch of all.

    Args:
        scores: of each word, natural logarithms.
        unknown: score of what is no word; None: nothing else may be written.
        by_letter: added to that for each letter; 0 or less.
        labels: the letters, by label number.
    """

    def __init__(
        self, scores: Mapping[str, float], unknown: float | None, by_letter: float, labels: Sequence[str]
    ) -> None:
        self.words, self.labels = sorted(scores), labels
        self.scores = np.array([scores[word] for word in self.words])
        others = [] if unknown is None else [unknown]
        highest, lowest = max([self.scores.max(), *others]), min([self.scores.min(), *others])
        self.root = Branch("", 0, len(self.words), float(highest))
        self.depth = float(highest - lowest)  # no branch is worse than the root by more
        self.largest_step = float(unknown - lowest) if others else 0.0  # upwards, with one letter
        self.unknown, self.by_letter = unknown, by_letter

    def below(self, branch: Branch, label: int) -> tuple[float, Branch]:
        """The branch with one letter more, and e^(how much its best score is better); factor 0: forbidden."""
        return branch.children.get(label) or self._grow(branch, label)

    def _outside(self, length: int) -> Branch:
        """What is no word and has so many letters; an empty range of words, at that number."""
        return Branch("", length, length, self.unknown + self.by_letter * length)

    def _grow(self, branch: Branch, label: int) -> tuple[float, Branch]:
        if branch.first == branch.last:
            found = self._outside(branch.first + 1)
        else:
            beginning = branch.beginning + self.labels[label]
            first = bisect_left(self.words, beginning, branch.first, branch.last)
            last = bisect_left(self.words, beginning + LAST, first, branch.last)
            if first < last:
                found = Branch(beginning, first, last, float(self.scores[first:last].max()))
            elif self.unknown is None:
                found = None
            else:
                found = self._outside(len(beginning))
        branch.children[label] = (0.0, branch) if found is None else (math.exp(found.best - branch.best), found)
        return branch.children[label]
