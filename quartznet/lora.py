"""LoRA for the pointwise convolutions: a frozen weight plus a low-rank correction that is learnt (arXiv:2106.09685).

    y = W x + (alpha / rank) B A drop(x)        A (rank, in), B (out, rank); B starts at zero, so at first y = W x

A pointwise convolution mixes channels frame by frame, so it is the linear layer of the paper. QuartzNet 15x5 has 93 of
them (75 in the sub-blocks of its 15 blocks, 15 residual, 3 in C1, C2 and C3), and rank (in + out) numbers for each:
608,768 for rank 8, 3.2 % of the network. Depthwise kernels are a vector for each channel; no low rank is below that.

``attach`` hangs a ``LowRank`` on each of these convolutions, as its child ``low_rank`` and a forward hook. The network
does not know: its own parameters keep their names, and ``merge`` and ``unmerge`` add the correction to the weight and
take it away again. The surprise: merging in fp32 is exact in theory only. Adding and subtracting rounds, so what
must stay bit for bit the base is never merged in place; ``quartznet.inference`` merges a copy.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quartznet.layers import Conv

CHILD = "low_rank"


class LowRank(nn.Module):
    """``(alpha / rank) B A drop(x)`` for one pointwise convolution."""

    def __init__(self, in_channels: int, out_channels: int, rank: int, alpha: float, dropout: float = 0.0) -> None:
        """A is Kaiming-uniform with a = sqrt(5), as for a linear layer; B is zero.

        Raises:
            ValueError: for a rank below 1, an alpha of 0 or less, or a dropout outside [0, 1).
        """
        super().__init__()
        if rank < 1 or alpha <= 0 or not 0.0 <= dropout < 1.0:
            raise ValueError(f"LoRA needs rank >= 1, alpha > 0 and dropout in [0, 1), got {rank}, {alpha}, {dropout}")
        self.scale, self.dropout = alpha / rank, dropout
        self.merged = False  # the correction lies in the convolution's weight and must not be added again
        self.down = nn.Parameter(torch.empty(rank, in_channels, 1, 1))  # A
        self.up = nn.Parameter(torch.zeros(out_channels, rank, 1, 1))  # B
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_channels, 1, time)`` -> ``(batch, out_channels, 1, time)``."""
        x = F.dropout(x, self.dropout, self.training)
        return F.conv2d(F.conv2d(x, self.down), self.up * self.scale)

    def correction(self) -> Tensor:
        """What merging adds to the weight: ``(out_channels, in_channels, 1, 1)``."""
        return (self.scale * (self.up[:, :, 0, 0] @ self.down[:, :, 0, 0]))[:, :, None, None]


def _add_correction(convolution: Conv, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    low_rank = getattr(convolution, CHILD)
    return output if low_rank.merged else output + low_rank(inputs[0])


def pointwise(module: nn.Module) -> Iterator[tuple[str, Conv]]:
    """Name and module of every convolution with one tap and without groups."""
    for name, child in module.named_modules():
        if isinstance(child, Conv) and child.weight.shape[3] == 1 and child.groups == 1:
            yield name, child


def parameter_count(encoder: nn.Module, rank: int) -> int:
    """``rank * (in + out)`` summed over the pointwise convolutions."""
    return sum(rank * (conv.weight.shape[0] + conv.weight.shape[1]) for _, conv in pointwise(encoder))


def attach(encoder: nn.Module, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> None:
    """Gives every pointwise convolution of ``encoder`` its low-rank correction, on the device of its weight.

    Raises:
        ValueError: see ``LowRank``; also if there is one already, or no such convolution at all.
    """
    convolutions = [conv for _, conv in pointwise(encoder)]
    if not convolutions:
        raise ValueError("LoRA needs pointwise convolutions without groups; this network has none")
    if any(hasattr(conv, CHILD) for conv in convolutions):
        raise ValueError("this network has LoRA weights already; merge them first")
    for conv in convolutions:
        out_channels, in_channels = conv.weight.shape[:2]
        low_rank = LowRank(in_channels, out_channels, rank, alpha, dropout).to(conv.weight.device)
        conv.add_module(CHILD, low_rank)
        conv.register_forward_hook(_add_correction)


def _attached(module: nn.Module) -> Iterator[tuple[Conv, LowRank]]:
    for _, conv in pointwise(module):
        if hasattr(conv, CHILD):
            yield conv, getattr(conv, CHILD)


def has_lora(module: nn.Module) -> bool:
    """Whether some convolution has a low-rank correction."""
    return any(True for _ in _attached(module))


@torch.no_grad()
def merge(module: nn.Module) -> None:
    """Adds every correction to its weight; the output stays the same up to rounding. Merged ones are left alone."""
    for conv, low_rank in _attached(module):
        if not low_rank.merged:
            conv.weight += low_rank.correction()
            low_rank.merged = True


@torch.no_grad()
def unmerge(module: nn.Module) -> None:
    """Takes every correction out of its weight again; the weight is the base's up to rounding."""
    for conv, low_rank in _attached(module):
        if low_rank.merged:
            conv.weight -= low_rank.correction()
            low_rank.merged = False


def remove(module: nn.Module) -> None:
    """Takes the corrections off, merged or not; what is left is a plain network with its own parameter names."""
    for conv, _ in list(_attached(module)):
        delattr(conv, CHILD)
        for key, hook in list(conv._forward_hooks.items()):
            if hook is _add_correction:
                del conv._forward_hooks[key]
