"""Linear adapters after every block: small bottlenecks that are learnt while the network around them is held still.

    y = x + W2 swish(W1 norm(x))        W1 (size, channels), W2 (channels, size), without bias; W2 starts at zero

norm is a layer norm over the channels of each frame. This is NeMo's ``LinearAdapter`` at NeMo's place, after the whole
block with its residual, ReLU and dropout (2.5.3, collections/asr/parts/submodules/jasper.py), one for each block. With
size 32 the 18 blocks of 15x5 get 523,776 numbers, 2.8 % of the network. Unlike LoRA they cannot be merged.

The surprise: with W2 = 0 the step-0 output is bit for bit the base's, and at that moment only W2 has a gradient.
"""

import torch.nn.functional as F
from torch import Tensor, nn

CHILD = "adapter"


class LinearAdapter(nn.Module):
    """The correction to one block's output."""

    def __init__(self, channels: int, size: int) -> None:
        """Raises ValueError for a size below 1."""
        super().__init__()
        if size < 1:
            raise ValueError(f"an adapter needs a size of at least 1, got {size}")
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, size, bias=False)
        self.up = nn.Linear(size, channels, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, 1, time)`` -> the same shape."""
        frames = x.permute(0, 2, 3, 1)  # (batch, 1, time, channels), which is how channels-last memory lies
        return (frames + self.up(F.silu(self.down(self.norm(frames))))).permute(0, 3, 1, 2)


def _adapt(block: nn.Module, _inputs: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, lengths = output
    return getattr(block, CHILD)(x), lengths


def hang(block: nn.Module, adapter: LinearAdapter) -> None:
    """Makes ``adapter`` a child of ``block``, which answers ``(x, lengths)``, and lets it change x."""
    block.add_module(CHILD, adapter)
    block.register_forward_hook(_adapt)


def attach(encoder: nn.Module, size: int = 32) -> None:
    """Gives every block of ``encoder`` an adapter, on the device of its weights.

    Raises:
        ValueError: for a size below 1, or if the blocks have adapters already.
    """
    if has_adapters(encoder):
        raise ValueError("this network has adapters already")
    for block in encoder.blocks:
        adapter = LinearAdapter(block.config.filters, size)
        hang(block, adapter.to(next(block.parameters()).device))


def has_adapters(encoder: nn.Module) -> bool:
    """Whether the blocks have adapters."""
    return any(hasattr(block, CHILD) for block in encoder.blocks)


def parameter_count(channels: list[int], size: int) -> int:
    """``2 channels`` of the layer norm and ``2 channels size`` of the two layers, summed over the blocks."""
    return sum(2 * width + 2 * width * size for width in channels)
