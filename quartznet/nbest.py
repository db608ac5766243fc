"""The most probable texts of an utterance, without a language model: prefix beam search over CTC (Hannun et al., 2014).

The best path is one path; a text is the sum of all paths that read as it. So for each text the search carries two
probabilities of everything read so far: of the paths that end in a blank and of those that end in its last letter. The
next frame, with probabilities p, leads

    a text to itself             blank'  = (blank + letter) p(_)            letter' = letter p(its last letter)
    a text to one with c more    letter' = (blank + letter) p(c), or blank p(c) if its last letter is c already

because a letter right after itself is one letter, and only a blank between them makes it two (arXiv:1408.2873, with the
language model taken out). After each frame the ``beam`` best texts stay. Nothing else is left out: an extension is
skipped only if ``beam`` texts are known to be better, so most frames, where the blank is nearly certain, take one pass
over the beam. What a text loses is the part of its paths that ran through texts outside of the beam.

The surprise: a text can leave the beam and come back by another path while a longer one that began with it never left.
The texts are therefore nodes of a tree that outlives them, and a node outside of the beam has probability zero.
"""

import math
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from torch import Tensor

TINY = np.finfo(np.float64).tiny


class _Prefix:
    """A text that the search met: its last letter, and the node of the text before it."""

    __slots__ = ("blank", "children", "label", "letter", "next_blank", "next_letter", "parent", "total")

    def __init__(self, parent: "_Prefix | None", label: int) -> None:
        self.parent, self.label = parent, label
        self.children: dict[int, _Prefix] = {}
        self.blank = self.letter = self.total = 0.0  # total = blank + letter; all zero: not in the beam
        self.next_blank = self.next_letter = 0.0

    def ids(self) -> list[int]:
        """The letters from the root to here."""
        letters, prefix = [], self
        while prefix.parent is not None:
            letters.append(prefix.label)
            prefix = prefix.parent
        return letters[::-1]


def _stay(alive: Sequence[_Prefix], frame: Sequence[float], blank: int) -> list[tuple[float, _Prefix]]:
    """What each text of the beam gets in this frame, from itself and from the text one letter shorter."""
    for prefix in alive:
        letter, parent = prefix.letter, prefix.parent
        if parent is not None:
            letter += parent.blank if parent.label == prefix.label else parent.total
        prefix.next_blank = prefix.total * frame[blank]
        prefix.next_letter = letter * frame[prefix.label]
    return [(prefix.next_blank + prefix.next_letter, prefix) for prefix in alive]


def _extend(
    alive: Sequence[_Prefix], frame: Sequence[float], order: Sequence[int], least: float
) -> list[tuple[float, _Prefix, int]]:
    """(probability, text, letter) of all texts one letter longer that are not in the beam yet and beat ``least``.

    Args:
        order: the labels without the blank, the most probable first.
    """
    found = []
    for prefix in alive:
        for label in order:
            if prefix.total * frame[label] <= least:
                break
            score = (prefix.blank if label == prefix.label else prefix.total) * frame[label]
            child = prefix.children.get(label)
            if score > least and (child is None or child.total == 0.0):
                found.append((score, prefix, label))
    return found


def _advance(
    alive: list[_Prefix], frame: Sequence[float], order: Sequence[int], blank: int, beam: int
) -> tuple[list[_Prefix], float]:
    """The beam after one frame, best first and scaled so that the best has probability 1; and the scale taken out."""
    stays = _stay(alive, frame, blank)
    least = min(score for score, _ in stays) if len(stays) == beam else 0.0
    candidates = [(score, prefix, None) for score, prefix in stays if score > 0.0]
    candidates += _extend(alive, frame, order, least)
    candidates.sort(key=itemgetter(0), reverse=True)
    candidates = candidates[:beam]
    for prefix in alive:
        prefix.blank = prefix.letter = prefix.total = 0.0
    alive, scale = [], candidates[0][0]
    for score, prefix, label in candidates:
        if label is None:
            prefix.blank, prefix.letter = prefix.next_blank / scale, prefix.next_letter / scale
        else:
            prefix = prefix.children.setdefault(label, _Prefix(prefix, label))
            prefix.letter = score / scale
        prefix.total = prefix.blank + prefix.letter
        alive.append(prefix)
    return alive, scale


def _search(probabilities: np.ndarray, blank: int, beam: int) -> list[tuple[list[int], float]]:
    """(text, log probability) of the beam after all frames of ``probabilities`` (time, labels), best first."""
    letters = probabilities.copy()
    letters[:, blank] = -1.0  # sorts last
    orders = np.argsort(-letters, axis=1, kind="stable")[:, :-1]
    root = _Prefix(None, blank)
    root.blank = root.total = 1.0
    alive, log_scale = [root], 0.0
    for frame, order in zip(probabilities.tolist(), orders.tolist(), strict=True):
        alive, scale = _advance(alive, frame, order, blank, beam)
        log_scale += math.log(scale)
    return [(prefix.ids(), math.log(prefix.total) + log_scale) for prefix in alive]


def nbest(
    log_probs: Tensor, lengths: Tensor, blank: int, beam: int = 8, count: int = 8
) -> list[list[tuple[list[int], float]]]:
    """For each utterance up to ``count`` different texts with their log probability, the best first.

    The probability is the sum over the paths that stayed in the beam, so never too high; it is exact, and every text is
    found, with a beam that never fills up.

    Args:
        log_probs: (batch, time, labels), output of log-softmax.
        lengths: (batch,) valid frames; later ones are not read. An utterance without frames has the empty text alone.
        beam: texts kept after each frame.

    Raises:
        ValueError: if count is not within 1 to beam, or a frame gives no label a probability (NaN).
    """
    if not 1 <= count <= beam:
        raise ValueError(f"count must be from 1 to beam ({beam}), got {count}")
    found = []
    for index, (row, length) in enumerate(
        zip(log_probs.detach().cpu().double().numpy(), lengths.tolist(), strict=True)
    ):
        probabilities = np.exp(row[:length])
        empty = np.flatnonzero(~(probabilities.max(axis=1) > TINY))
        if len(empty):
            raise ValueError(
                f"utterance {index} has no probable label in frame {empty[0]}; "
                "log_probs must be the output of log-softmax, without NaN"
            )
        found.append(_search(probabilities, blank, beam)[:count])
    return found
