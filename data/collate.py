"""Items -> ``Batch``: the only place that pads.

    samples  # # # # # # # . . . .      targets  h o l a . .      lengths 7, 4
             # # # # # # # # # . .               a d i ó s .              9, 5

The surprise: signals are padded further than to the longest clip, to the next of few lengths (16 for each doubling, at
most 1/16 more). A CPU compiles its kernels for each new length, and lengths that all differ cost several times more
than the padding does. Networks mask what lies behind ``signal_lengths``, so results do not change.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from data.dataset import Item
from quartznet.batch import Batch


def rounded_length(samples: int) -> int:
    """The smallest of the lengths in use that is not below ``samples``: multiples of 2^k between 16 and 32 of them."""
    step = 1 << max(0, samples.bit_length() - 5)
    return -(-samples // step) * step


def collate(items: Sequence[Item]) -> Batch:
    """Pads with zeros; items with a problem are left out and their messages are in ``Batch.skipped``.

    Where every item has a problem, the batch has 0 utterances and tensors of shape (0, 0).
    """
    good = [item for item in items if not item.problem]
    return Batch(
        signal=_pad(
            [item.signal for item in good], rounded_length(max((len(item.signal) for item in good), default=0))
        ),
        signal_lengths=torch.tensor([len(item.signal) for item in good], dtype=torch.int64),
        targets=_pad([item.target for item in good], max((len(item.target) for item in good), default=0)),
        target_lengths=torch.tensor([len(item.target) for item in good], dtype=torch.int64),
        texts=[item.text for item in good],
        names=[item.name for item in good],
        skipped=[item.problem for item in items if item.problem],
    )


def _pad(rows: list[Tensor], length: int) -> Tensor:
    """Rows of different lengths -> (rows, length), zero behind each row's end."""
    padded = torch.empty(len(rows), length, dtype=rows[0].dtype if rows else torch.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
        target[len(row) :] = 0
    return padded
