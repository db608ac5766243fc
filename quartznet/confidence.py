"""How sure the network is of a letter and a word, from 0 to 1.

A frame's confidence is the probability p of its label, or comes from the entropy of the frame's distribution over the
V labels: 1 where all of it lies on one label, 0 where it is uniform (Laptev and Ginsburg, arXiv:2212.08703):

    Gibbs     H = - sum p^a ln p^a             Tsallis   H = (1 - sum p^a) / (a - 1)
    linear    1 - H / max H                    exponential   (e^-H - e^-max H) / (1 - e^-max H)

with max H that of the uniform distribution. ``a`` below 1 raises the small probabilities, of which CTC has too few.
A letter is as sure as the surest of its frames, a word as its least sure letter, or as their mean or product.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def probability(log_probs: Tensor, labels: Tensor) -> Tensor:
    """The probability of the label: (time, labels), (time,) -> (time,). On the greedy path this is the highest one."""
    return log_probs.gather(1, labels[:, None])[:, 0].exp()


def lowest(confidences: Sequence[float]) -> float:
    """A word is as sure as its least sure letter."""
    return min(confidences)


def mean(confidences: Sequence[float]) -> float:
    return sum(confidences) / len(confidences)


def product(confidences: Sequence[float]) -> float:
    """The probability of the word, if its letters were independent; long words are less sure."""
    return math.prod(confidences)
