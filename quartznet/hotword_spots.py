"""Hot words without a beam: the best path, with a detour wherever a phrase costs less than its weight.

The best path takes the most probable label of each frame. A phrase with the spaces around it can be read on a detour
from that path and back; the detour of least loss is found for all phrases and all places at once (Viterbi over the tree
of the phrases), where

    loss = sum over its frames of  ln p(best label) - ln p(label of the detour)  >= 0

If the weight is larger than the loss the detour is taken, the largest difference first and none across another. The
idea is CTC-WS's (Andrusenko et al., arXiv:2406.07096), which compares the sounds of words; comparing with the best path
itself needs no second score, and its result is again a path: it can be read and timed like any other.

The surprise: a phrase that stands in the greedy text already is a detour of loss zero. It needs no care, and it keeps
others from being written across it.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.ctc import read_paths
from quartznet.hotwords import HotWords

LOG = logging.getLogger(__name__)

STAY, LETTER, BLANK, ENTER = 0, 1, 2, 3  # where a letter was reached from: itself, letter or blank before it, the path


@dataclass(frozen=True)
class Spot:
    """One detour."""

    start: int  # first frame, that of the space before the phrase; -1: the phrase starts with the utterance
    path: tuple[int, ...]  # label of each frame from ``start`` on, the space after the phrase included
    gain: float  # weight - loss

    @property
    def end(self) -> int:
        """The last frame."""
        return self.start + len(self.path) - 1


class _Phrases:
    """The tree of the phrases as arrays (nodes,); the root is left out, and parents come before their children."""

    def __init__(self, hotwords: HotWords) -> None:
        edges = sorted(
            (child, parent, label) for parent, tree in enumerate(hotwords.tree) for label, child in tree.items()
        )
        self.label = np.array([label for _, _, label in edges], dtype=np.int64)
        self.parent = np.array([parent - 1 for _, parent, _ in edges], dtype=np.int64)  # -1: entered from the path
        self.is_first = self.parent < 0
        self.weight = np.array(hotwords.own[1:])
        self.from_letter = ~self.is_first & (self.label != self.label[self.parent])


def _frames_with_edges(log_probs: np.ndarray, space: int) -> np.ndarray:
    """(time + 2, labels + 1) loss of each label as a negative number; a certain space before the first and after the
    last frame, where there are spaces."""
    losses = log_probs - log_probs.max(axis=1, keepdims=True)
    edge = np.full((1, losses.shape[1]), -np.inf)
    if space >= 0:
        edge[0, space] = 0.0
    return np.concatenate([edge, losses, edge])


def _viterbi(losses: np.ndarray, phrases: _Phrases, blank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over frames and nodes: the score of paths that end in a node's letter, where each came from, and whether a blank
    after it came from the letter. All (time, nodes)."""
    shape = (len(losses), len(phrases.label))
    scores, origins, from_letters = np.empty(shape), np.empty(shape, np.int8), np.empty(shape, bool)
    letter = blank_after = np.full(shape[1], -np.inf)
    before = np.full(losses.shape[1], False)  # the label of the best path in the frame before
    for time, frame in enumerate(losses):
        entered = np.where(phrases.is_first & ~before[phrases.label], 0.0, -np.inf)
        by_letter = np.where(phrases.from_letter, letter[phrases.parent], -np.inf)
        by_blank = np.where(phrases.is_first, -np.inf, blank_after[phrases.parent])
        choices = np.stack([letter, by_letter, by_blank, entered])
        origins[time] = choices.argmax(axis=0)
        from_letters[time] = letter > blank_after
        blank_after = np.maximum(letter, blank_after) + frame[blank]
        letter = scores[time] = choices.max(axis=0) + frame[phrases.label]
        before[:] = False
        before[frame.argmax()] = frame.max() == 0.0 and time > 0
    return scores, origins, from_letters


def _trace(
    time: int, node: int, origins: np.ndarray, from_letters: np.ndarray, phrases: _Phrases, blank: int
) -> tuple[int, tuple[int, ...]]:
    """First frame and labels of the detour that ends with a node's letter at ``time``."""
    path = []
    while True:
        path.append(int(phrases.label[node]))
        origin = origins[time, node]
        if origin == ENTER:
            return time, tuple(reversed(path))
        time -= 1
        if origin == STAY:
            continue
        node = int(phrases.parent[node])
        if origin == BLANK:
            path.append(blank)
            while not from_letters[time, node]:
                time -= 1
                path.append(blank)
            time -= 1


def spots(log_probs: Tensor, hotwords: HotWords, blank: int) -> list[Spot]:
    """The detours worth taking in one utterance (time, labels + 1), in the order of time."""
    losses = _frames_with_edges(log_probs.detach().cpu().double().numpy(), hotwords.space)
    phrases = _Phrases(hotwords)
    scores, origins, from_letters = _viterbi(losses, phrases, blank)
    gains = np.where((phrases.weight > 0) & (origins != STAY), scores + phrases.weight, -np.inf)
    taken: list[Spot] = []
    places = np.argwhere(gains > 0.0)
    order = np.argsort([-gains[time, node] for time, node in places], kind="stable")
    for time, node in places[order].tolist():
        start, path = _trace(time, node, origins, from_letters, phrases, blank)
        spot = Spot(start - 1, path, float(gains[time, node]))  # frame 0 is the edge
        if all(spot.end <= other.start or other.end <= spot.start for other in taken):
            taken.append(spot)
    return sorted(taken, key=lambda spot: spot.start)


def path_with_hotwords(log_probs: Tensor, hotwords: HotWords, blank: int) -> Tensor:
    """(time,) the best path of one utterance (time, labels + 1) with all detours worth taking."""
    path = log_probs.argmax(dim=-1).cpu()
    for spot in spots(log_probs, hotwords, blank) if len(path) else ():
        for frame, label in enumerate(spot.path, spot.start):
            if 0 <= frame < len(path):
                path[frame] = label
    return path


def greedy_with_hotwords(log_probs: Tensor, lengths: Tensor, alphabet: Alphabet, hotwords: HotWords) -> list[str]:
    """The texts of the best paths with detours, hot words as they are written and single spaces.

    Phrases with a weight below zero need a beam: here they are left out, and the log says how many.

    Args:
        log_probs: (batch, time, labels + 1), output of log-softmax.
        lengths: (batch,) valid frames; later ones are not read.
    """
    avoided = sum(entry.weight <= 0 for entry in hotwords.entries)
    if avoided:
        LOG.warning("%d hot words with a weight of 0 or less have no effect without a beam", avoided)
    texts = []
    for row, length in zip(log_probs, lengths.tolist(), strict=True):
        path = path_with_hotwords(row[:length], hotwords, alphabet.blank)
        [ids] = read_paths(path[None], torch.tensor([len(path)]), alphabet.blank)
        texts.append(hotwords.show(_single_spaces(alphabet.decode(ids), hotwords.space)))
    return texts


def _single_spaces(text: str, space: int) -> str:
    return " ".join(text.split()) if space >= 0 else text
