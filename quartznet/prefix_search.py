"""Prefix beam search over CTC (Hannun et al., 2014): what the n best texts and the beam with a language model share.

The best path is one path; a text is the sum of all paths that read as it. So for each text the search carries two
probabilities of everything read so far: of the paths that end in a blank and of those that end in its last letter. The
next frame, with probabilities p, leads

    a text to itself             blank'  = (blank + letter) p(_)            letter' = letter p(its last letter)
    a text to one with c more    letter' = (blank + letter) p(c), or blank p(c) if its last letter is c already

because a letter right after itself is one letter, and only a blank between them makes it two (arXiv:1408.2873). What a
text is worth beyond its sound (language model, hot words) depends on the text alone, so it is one factor more on the
way from a text to a longer one, its ``gain``, and the rest of the search need not know of it. After each frame the
``beam`` best texts stay. What a text loses is the part of its paths that ran through texts outside of the beam.

Two ways to be fast. An extension is looked at only if it can beat what is known already. And of the frames in which
one label alone is above the threshold, a run of equal ones does what its first does: a letter that goes on, or blanks
after a blank, change no text. In sharp log_probs that is two frames of five, found for all utterances at once.

The surprise: a text can leave the beam and come back by another path while a longer one that began with it never left.
The texts are therefore nodes of a tree that outlives them, and a node outside of the beam has probability zero.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter

import numpy as np
from torch import Tensor

TINY = np.finfo(np.float64).tiny
SMALL = 1e-30  # the best text is scaled up again below this
IMPASSE = 1e-30  # probability of a blank, at least, in a frame that no text may go on with
GROUP = 64  # utterances made ready at once

Frame = tuple[float, list[tuple[int, float]]]  # p(blank), and (letter, p) of the others, the most probable first


class Prefix:
    """A text that the search met: its last letter, and the node of the text before it."""

    __slots__ = ("blank", "gain", "key", "label", "letter", "note", "parent", "total")
    __slots__ += ("next_blank", "next_letter", "next_total")

    def __init__(self, parent: "Prefix | None", label: int, key: int, gain: float, note: object) -> None:
        self.parent, self.label, self.key, self.gain, self.note = parent, label, key, gain, note
        self.blank = self.letter = self.total = 0.0  # total = blank + letter; all zero: not in the beam

    def ids(self) -> list[int]:
        """The letters from the root to here."""
        letters, prefix = [], self
        while prefix.parent is not None:
            letters.append(prefix.label)
            prefix = prefix.parent
        return letters[::-1]


# Probability of a text one letter longer than another; that other, the letter, gain and note of the longer one.
Candidate = tuple[float, Prefix, int, float, object]


@dataclass(frozen=True)
class Worth:
    """What texts are worth beyond their sound.

    ``grow(prefix, label)`` gives the factor between a text and the one that is a letter longer, and a note for that; a
    factor of 0 forbids it. A letter that ``grow`` is not asked about has the factor 1 and its parent's note.
    """

    grow: Callable[[Prefix, int], tuple[float, object]]
    root: object  # note of the empty text
    most: Sequence[float]  # of each label: no factor is larger
    labels: frozenset[int] | None  # that ``grow`` is asked about; None: all


# ---------------------------------------------------------------------------------------------------------------------
# Frames


def _is_repeated(alone: np.ndarray, best: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(frames,) True where one label is alone, as it was in the frame before, of the same utterance."""
    repeated = np.zeros(len(alone), dtype=bool)
    repeated[1:] = alone[1:] & alone[:-1] & (best[1:] == best[:-1])
    repeated[starts[starts < len(alone)]] = False
    return repeated


def _frames(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, blanks: np.ndarray) -> list[Frame]:
    """Frames out of (entry,) number of the frame, label and probability, and (frames,) probability of the blank."""
    order = np.lexsort((-values, rows))
    pairs = list(zip(columns[order].tolist(), values[order].tolist(), strict=True))
    counts = np.bincount(rows, minlength=len(blanks))
    ends = np.cumsum(counts)
    places = zip(blanks.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
    return [(blank, pairs[start:end]) for blank, start, end in places]


def _group_frames(
    arrays: Sequence[np.ndarray], first: int, blank: int, threshold: float
) -> Iterator[tuple[list[Frame], float]]:
    """``read_frames`` of some utterances (time, labels), of which the first has the number ``first``."""
    lengths = np.array([len(array) for array in arrays])
    log_probs = np.concatenate(arrays)
    tops = log_probs.max(axis=1)
    impossible = np.flatnonzero(~(np.exp(tops) > TINY))
    if len(impossible):
        utterance = int(np.searchsorted(np.cumsum(lengths), impossible[0], side="right"))
        frame = impossible[0] - lengths[:utterance].sum()
        raise ValueError(
            f"utterance {first + utterance} has no probable label in frame {frame}; "
            "log_probs must be the output of log-softmax, without NaN"
        )
    best = log_probs.argmax(axis=1)
    kept = log_probs >= threshold
    kept[np.arange(len(best)), best] = True
    starts = np.cumsum(lengths) - lengths
    read = ~_is_repeated(kept.sum(axis=1) == 1, best, starts)
    kept, scaled = kept[read], np.exp(log_probs[read] - tops[read, None])
    blanks = np.where(kept[:, blank], scaled[:, blank], 0.0)
    kept[:, blank] = False
    rows, columns = np.nonzero(kept & (scaled > 0.0))
    frames = _frames(rows, columns, scaled[rows, columns], blanks)
    places = np.concatenate([[0], np.cumsum(read)])
    for start, end in zip(starts.tolist(), (starts + lengths).tolist(), strict=True):
        yield frames[places[start] : places[end]], float(tops[start:end].sum())


def read_frames(
    log_probs: Tensor, lengths: Tensor, blank: int, threshold: float = -math.inf
) -> Iterator[tuple[list[Frame], float]]:
    """What the search reads of each utterance, and the log of the scale that was taken out of it.

    Args:
        log_probs: (batch, time, labels), output of log-softmax.
        lengths: (batch,) valid frames; later ones are not read.
        threshold: labels below this are left out of a frame, except its best; natural logarithm.

    Raises:
        ValueError: if a frame gives no label a probability (NaN), or the lengths do not fit.
    """
    rows, limits = log_probs.detach().cpu(), lengths.tolist()
    if len(limits) != len(rows) or any(not 0 <= limit <= rows.shape[1] for limit in limits):
        raise ValueError(f"log_probs {tuple(rows.shape)} need a length from 0 to {rows.shape[1]} each, got {limits}")
    for first in range(0, len(limits), GROUP):
        numbers = range(first, min(first + GROUP, len(limits)))
        group = [rows[number, : limits[number]].double().numpy() for number in numbers]
        yield from _group_frames(group, first, blank, threshold)


# ---------------------------------------------------------------------------------------------------------------------
# One frame


def _stay(alive: Sequence[Prefix], letters: Mapping[int, float], blank: float, space: int) -> float:
    """What each text of the beam gets in this frame, from itself and from the text one letter shorter; the most.

    Args:
        letters: probability of each label in this frame that is not left out.
        space: after which another space changes nothing; -1: none.
    """
    most = 0.0
    for prefix in alive:
        label, score = prefix.label, prefix.total * blank
        prefix.next_blank = score
        probability = letters.get(label)
        if probability is not None:
            letter, parent = prefix.letter if label != space else prefix.total, prefix.parent
            if parent is not None and parent.total:
                letter += (parent.blank if parent.label == label else parent.total) * prefix.gain
            prefix.next_letter = letter = letter * probability
            score += letter
        else:
            prefix.next_letter = 0.0
        prefix.next_total = score
        if score > most:
            most = score
    return most


class Search:
    """The beam of one utterance, frame by frame.

    Args:
        size: of the alphabet, the blank included.
        beam: texts kept after each frame.
        ratio: texts less probable than this part of the best one leave the beam; 0: none does for that.
        space: label of which several are read as one, and none at the start of a text; -1: it is a letter like any.
    """

    def __init__(self, size: int, beam: int, ratio: float, space: int, worth: Worth | None) -> None:
        self.size, self.beam, self.ratio, self.space, self.worth = size, beam, ratio, space, worth
        self.nodes: dict[int, Prefix] = {}  # by the key of the shorter text + label
        root = Prefix(None, space if space >= 0 else size, 0, 1.0, worth.root if worth else None)
        root.blank = root.total = 1.0
        self.alive, self.log_scale = [root], 0.0
        self._most = max(worth.most) if worth else 1.0
        self._asked = [worth is not None and (worth.labels is None or label in worth.labels) for label in range(size)]

    def _extend(self, frame: Sequence[tuple[int, float]], least: float) -> list[Candidate]:
        """The texts one letter longer that are not in the beam yet and beat ``least``."""
        found = []
        nodes, space, asked, grow = self.nodes, self.space, self._asked, self.worth.grow if self.worth else None
        bound = least / self._most
        bounds = {label: least / self.worth.most[label] for label, _ in frame} if self.worth else {}
        for prefix in self.alive:
            total, last, key = prefix.total, prefix.label, prefix.key
            for label, probability in frame:
                score = total * probability
                if score <= bound:
                    break
                if label == last:
                    if label == space:
                        continue
                    score = prefix.blank * probability
                node, gain, note = nodes.get(key + label), 1.0, prefix.note
                if node is not None:
                    if node.total:
                        continue
                    score *= node.gain
                elif asked[label]:
                    if score <= bounds[label]:
                        continue
                    gain, note = grow(prefix, label)
                    score *= gain
                if score > least:
                    found.append((score, prefix, label, gain, note))
        return found

    def _least_of(self, found: list[Candidate], least: float) -> float:
        """What stays in the beam is at least this probable: ``least``, or more if too many texts are."""
        if len(self.alive) + len(found) <= self.beam:
            return least
        scores = [prefix.next_total for prefix in self.alive]
        scores += [entry[0] for entry in found]
        scores.sort(reverse=True)
        return max(least, scores[self.beam - 1])

    def _keep(self, found: list[Candidate], least: float) -> None:
        """The next beam: of those that stay and those just found, the texts of at least this probability."""
        following, nodes = [], self.nodes
        for prefix in self.alive:
            score = prefix.next_total
            if score >= least and score:
                prefix.blank, prefix.letter, prefix.total = prefix.next_blank, prefix.next_letter, score
                following.append(prefix)
            else:
                prefix.blank = prefix.letter = prefix.total = 0.0
        for score, prefix, label, gain, note in found:
            if score >= least:
                key = prefix.key + label
                node = nodes.get(key)
                if node is None:
                    nodes[key] = node = Prefix(prefix, label, (len(nodes) + 1) * self.size, gain, note)
                node.letter = node.total = score
                following.append(node)
        self.alive = following

    def _drop_ties(self) -> None:
        """No more texts than the beam may hold, where several are as probable as its last."""
        self.alive.sort(key=attrgetter("total"), reverse=True)
        for prefix in self.alive[self.beam :]:
            prefix.blank = prefix.letter = prefix.total = 0.0
        del self.alive[self.beam :]

    def _pass(self, blank: float) -> None:
        """A frame with nothing but a blank: no text changes, and what ended in a letter ends in a blank now."""
        for prefix in self.alive:
            prefix.blank, prefix.letter = prefix.total, 0.0
        self.log_scale += math.log(blank)

    def _scale(self, best: float) -> None:
        """Numbers far from 1 are brought back."""
        for prefix in self.alive:
            prefix.blank, prefix.letter = prefix.blank / best, prefix.letter / best
            prefix.total = prefix.blank + prefix.letter
        self.log_scale += math.log(best)

    def read(self, blank: float, frame: Sequence[tuple[int, float]]) -> None:
        """One frame; ``Frame`` says what that is."""
        if not frame:
            return self._pass(blank)
        alive = self.alive
        best = _stay(alive, dict(frame), blank, self.space)
        least = best * self.ratio
        if len(alive) == self.beam:
            least = max(least, min([prefix.next_total for prefix in alive]))
        found = self._extend(frame, least)
        if found:
            best = max(best, max(found, key=itemgetter(0))[0])
        if best == 0.0:  # a worth of 0 forbids every way on
            return self._pass(max(blank, IMPASSE))
        self._keep(found, self._least_of(found, best * self.ratio))
        if len(self.alive) > self.beam:
            self._drop_ties()
        if not SMALL < best < 1 / SMALL:
            self._scale(best)
        return None

    def finish(self) -> list[tuple[float, Prefix]]:
        """(log probability with all gains, text) of the beam, best first."""
        self.alive.sort(key=lambda prefix: prefix.total, reverse=True)
        return [(math.log(prefix.total) + self.log_scale, prefix) for prefix in self.alive]


def search(
    frames: Sequence[Frame],
    size: int,
    beam: int,
    ratio: float = 0.0,
    space: int = -1,
    worth: Worth | None = None,
) -> list[tuple[float, Prefix]]:
    """(log probability with all gains, text) of the beam after all frames, best first; ``Search`` has the arguments."""
    state = Search(size, beam, ratio, space, worth)
    for blank, frame in frames:
        state.read(blank, frame)
    return state.finish()
