"""Every path of a tiny problem: what searches and losses over paths are compared with."""

import itertools

import torch
from torch import Tensor


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """The text that a path reads as."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def all_paths(time: int, labels: int) -> Tensor:
    """(labels ** time, time), every one."""
    return torch.cartesian_prod(*[torch.arange(labels)] * time).reshape(-1, time)


def path_probabilities(logits: Tensor, paths: Tensor) -> Tensor:
    """(paths,) out of logits (time, labels) and paths (paths, time)."""
    return logits.softmax(dim=-1)[torch.arange(paths.shape[1]), paths].prod(dim=1)


def text_probabilities(logits: Tensor, blank: int) -> dict[tuple[int, ...], float]:
    """Text -> the summed probability of all paths that read as it; logits (time, labels)."""
    paths = all_paths(*logits.shape)
    sums: dict[tuple[int, ...], float] = {}
    for path, probability in zip(paths.tolist(), path_probabilities(logits, paths).tolist(), strict=True):
        text = collapse(tuple(path), blank)
        sums[text] = sums.get(text, 0.0) + probability
    return sums
