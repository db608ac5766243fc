"""How sure the network is of a letter and of a word, from 0 to 1; and whether it is right as often as it is sure.

A frame's confidence is the probability of its label, or it comes from the entropy H of the frame's distribution p over
V labels, 1 where all of p is on one label, 0 where p is uniform (Laptev and Ginsburg, arXiv:2212.08703):

    Gibbs     H = - sum p^a ln p^a             linear        1 - H / U
    Tsallis   H = (1 - sum p^a) / (a - 1)      exponential   (e^-H - e^-U) / (1 - e^-U),  U = H of the uniform p

An exponent a below 1 lifts the small probabilities, of which CTC leaves too little. A letter is as sure as the surest
of its frames; a word as its least sure letter, or their mean, or their product. The default is the product of
probabilities: of all these it had nearly the least error and the best separation on English and on weak Spanish
(``docs/results.md``), and it needs no choice of an exponent.

``calibrate`` compares with references: in bins of confidence, how many words were right; the expected calibration error
sum_bins n / N |right - confidence|; and the separation, the probability that a right word is surer than a wrong one
(the area under the ROC curve: 0.5 is chance).

The surprise: entropy asks how sure the network is of *some* label. For another text than its own that is no answer, so
there the result is multiplied by how much less probable than the best label the text's label is: 1 on the greedy path.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from quartznet.metrics import aligned_words


def probability(log_probs: Tensor, labels: Tensor) -> Tensor:
    """The probability of the label: (time, labels), (time,) -> (time,). On the greedy path it is the highest one."""
    return log_probs.gather(1, labels[:, None])[:, 0].exp()


def gibbs(log_probs: Tensor, labels: Tensor, alpha: float = 1 / 3, exponential: bool = True) -> Tensor:
    """Confidence from Gibbs entropy, which is Shannon's at ``alpha`` 1: (time, labels), (time,) -> (time,)."""
    powers = alpha * log_probs
    entropy = -torch.where(log_probs.isneginf(), 0.0, powers.exp() * powers).sum(dim=1)
    labels_there = log_probs.shape[1]
    uniform = alpha * labels_there ** (1 - alpha) * math.log(labels_there)
    return _confidence(entropy, uniform, exponential) * _share(log_probs, labels)


def tsallis(log_probs: Tensor, labels: Tensor, alpha: float = 1 / 3, exponential: bool = True) -> Tensor:
    """Confidence from Tsallis entropy; ``alpha`` is not 1 (there it would be Shannon's). Shapes as ``gibbs``."""
    entropy = (1.0 - (alpha * log_probs).exp().sum(dim=1)) / (alpha - 1.0)
    uniform = (1.0 - log_probs.shape[1] ** (1 - alpha)) / (alpha - 1.0)
    return _confidence(entropy, uniform, exponential) * _share(log_probs, labels)


def _confidence(entropy: Tensor, uniform: float, exponential: bool) -> Tensor:
    if exponential:
        return (((-entropy).exp() - math.exp(-uniform)) / (1.0 - math.exp(-uniform))).clamp(0.0, 1.0)
    return (1.0 - entropy / uniform).clamp(0.0, 1.0)


def _share(log_probs: Tensor, labels: Tensor) -> Tensor:
    """The label's probability as a share of the best label's."""
    return probability(log_probs, labels) / log_probs.max(dim=1).values.exp()


def lowest(confidences: Sequence[float]) -> float:
    """A word is as sure as its least sure letter."""
    return min(confidences)


def mean(confidences: Sequence[float]) -> float:
    return sum(confidences) / len(confidences)


def product(confidences: Sequence[float]) -> float:
    """The probability of the word if its letters were independent; long words are less sure."""
    return math.prod(confidences)


@dataclass(frozen=True)
class Bin:
    """Words whose confidence is between ``low`` and ``high``."""

    low: float
    high: float
    words: int
    confidence: float  # mean
    right: float  # share


@dataclass(frozen=True)
class Calibration:
    """Whether words are right as often as they are sure. ``str()`` is a table."""

    bins: tuple[Bin, ...]  # those with words in them
    words: int
    right: int
    error: float  # expected calibration error
    separation: float  # nan where all words are right, or all wrong

    def __str__(self) -> str:
        lines = ["confidence      words   mean   right"]
        lines += [
            f"{row.low:.2f} to {row.high:.2f} {row.words:8d}  {row.confidence:5.2f}   {row.right:5.2f}"
            for row in self.bins
        ]
        lines.append(f"{self.words} words, {self.right} of them right; calibration error {self.error:.3f}")
        if not math.isnan(self.separation):
            lines.append(f"a right word is surer than a wrong one {100 * self.separation:.1f} % of the time")
        return "\n".join(lines)

    def for_json(self) -> dict:
        """Shares as fractions."""
        separation = None if math.isnan(self.separation) else self.separation
        found = {"words": self.words, "right": self.right, "error": self.error, "separation": separation}
        return {**found, "bins": [asdict(row) for row in self.bins]}


def are_right(reference: str, words: Sequence[str]) -> list[bool]:
    """For each recognised word whether the reference has it in its place. What was missed is no word and not here."""
    pairs = aligned_words(reference, " ".join(words))
    return [said == heard for said, heard in pairs if heard]


def separation(confidences: np.ndarray, right: np.ndarray) -> float:
    """Probability that a right word is surer than a wrong one, ties counted half; nan without either kind."""
    sure, unsure = np.sort(confidences[right]), confidences[~right]
    if len(sure) == 0 or len(unsure) == 0:
        return math.nan
    above = len(sure) - (np.searchsorted(sure, unsure, "left") + np.searchsorted(sure, unsure, "right")) / 2
    return float(above.mean() / len(sure))


def calibrate(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> Calibration:
    """Bins of equal width over 0 to 1.

    Raises:
        ValueError: without words, for lists of different lengths, or for a confidence outside of 0 to 1.
    """
    values, is_right = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=bool)
    if len(values) == 0 or len(values) != len(is_right):
        raise ValueError(f"give a verdict for each of one or more words; got {len(values)} words, {len(is_right)}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"confidence is between 0 and 1, got {values.min():g} to {values.max():g}")
    place = np.minimum((values * bins).astype(int), bins - 1)
    rows = []
    for index in np.unique(place):
        inside = place == index
        sure, true = float(values[inside].mean()), float(is_right[inside].mean())
        rows.append(Bin(index / bins, (index + 1) / bins, int(inside.sum()), sure, true))
    error = sum(row.words * abs(row.right - row.confidence) for row in rows) / len(values)
    return Calibration(tuple(rows), len(values), int(is_right.sum()), error, separation(values, is_right))
