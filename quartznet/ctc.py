"""Connectionist temporal classification: the loss, the shortest alignment, greedy decoding (Graves et al., 2006).

A path names one label or the blank for each frame. Its text: merge equal neighbours, then drop the blanks. The loss of
a text is minus the log of the summed probability of all paths that read as it.

The reduction is NeMo's: the mean over the batch of whole-utterance losses, *not* divided by the target length as
torch's "mean" does; an utterance that no path can produce counts as zero and stays in the denominator. The surprise:
torch returns the gradient before log-softmax, so it is right through ``log_softmax`` only, not for raw ``log_probs``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from quartznet.alphabet import Alphabet


def ctc_losses(
    log_probs: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    blank: int,
    zero_infinity: bool = True,
) -> Tensor:
    """Loss of each utterance, always in fp32.

    Args:
        log_probs: (batch, time, labels), output of log-softmax.
        lengths: (batch,) valid frames; what follows is never read.
        targets: (batch, letters), padded with anything.
        target_lengths: (batch,) valid letters.
        zero_infinity: loss and gradient 0 instead of infinity where ``lengths`` < ``frames_needed(target)``.

    Returns:
        (batch,) losses in nats.
    """
    return functional.ctc_loss(
        log_probs.float().transpose(0, 1),  # (time, batch, labels)
        targets,
        lengths,
        target_lengths,
        blank=blank,
        reduction="none",
        zero_infinity=zero_infinity,
    )


def ctc_loss(
    log_probs: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    blank: int,
    zero_infinity: bool = True,
) -> Tensor:
    """Mean of ``ctc_losses`` over the batch: a scalar, in nats by utterance."""
    return ctc_losses(log_probs, lengths, targets, target_lengths, blank, zero_infinity).mean()


def frames_needed(ids: Sequence[int]) -> int:
    """Frames of the shortest path: one for each letter and one blank between equal neighbours."""
    return len(ids) + sum(first == second for first, second in pairwise(ids))


def emissions(path: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """Which frames of paths (batch, time), valid up to ``lengths`` (batch,), emit a label; bool, the same shape.

    A frame emits its label unless that is the blank or the label of the frame before:

        path   _ h h _ e l l _ l o      emits  h e l l o
    """
    before = functional.pad(path, (1, 0), value=blank)[:, :-1]
    is_valid = torch.arange(path.shape[1], device=path.device) < lengths[:, None]
    return (path != blank) & (path != before) & is_valid


def read_paths(path: Tensor, lengths: Tensor, blank: int) -> list[list[int]]:
    """The texts of paths (batch, time), of which ``lengths`` (batch,) frames are valid."""
    emits = emissions(path, lengths.to(path.device), blank)
    return [row[keep].tolist() for row, keep in zip(path.cpu(), emits.cpu(), strict=True)]


def greedy_ids(log_probs: Tensor, lengths: Tensor, blank: int) -> list[list[int]]:
    """The text of the most probable path, which is not always the most probable text.

    Args:
        log_probs: (batch, time, labels).
        lengths: (batch,) valid frames; later ones are not read (NeMo 0.x read them).
    """
    return read_paths(log_probs.argmax(dim=-1), lengths, blank)


def greedy_decode(log_probs: Tensor, lengths: Tensor, alphabet: Alphabet) -> list[str]:
    """``greedy_ids`` as text. Shapes as there; the blank is the alphabet's."""
    return [alphabet.decode(ids) for ids in greedy_ids(log_probs, lengths, alphabet.blank)]
