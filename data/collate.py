"""Items -> ``Batch``: the place that pads (and ``Batch.at_speed`` again, where speeds are changed later).

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
from quartznet.lengths import rounded_length


def collate(items: Sequence[Item]) -> Batch:
    """Pads with zeros; items with a problem are left out and their messages are in ``Batch.skipped``.

    Where every item has a problem, the batch has 0 utterances and tensors of shape (0, 0).

    Raises:
        ValueError: where the speed of some items is still to be changed and that of others is not.
    """
    good = [item for item in items if not item.problem]
    speeds = tuple(item.speed for item in good if item.speed is not None)
    if speeds and len(speeds) != len(good):
        raise ValueError(
            f"{len(speeds)} of {len(good)} items are still to be played at a speed; give it to all or none"
        )
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
        speeds=speeds or None,
    )


def _pad(rows: list[Tensor], length: int) -> Tensor:
    """Rows of different lengths -> (rows, length), zero behind each row's end."""
    padded = torch.empty(len(rows), length, dtype=rows[0].dtype if rows else torch.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
        target[len(row) :] = 0
    return padded
