"""A trained network in its fastest form for evaluation: batch norms folded into convolutions, fewer masks, bf16.

In evaluation a batch norm is a fixed scale and shift for every channel, so it vanishes into the convolution before it::

    norm(W x) = s W x + t,    s = weight / sqrt(running_var + eps),    t = bias - s running_mean

The mask before a pointwise convolution goes too: that convolution does not mix time, so what it makes of padding stays
in the padding, and the next depthwise convolution masks again. Where no utterance is padded there is no mask at all.
LoRA's corrections are merged into the copy; adapters after a block stay what they are.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quartznet import block_adapters, lora
from quartznet.backend import uses_triton
from quartznet.layers import Conv, SubBlock, output_length, shuffle_channels, time_mask


def folded_weights(conv: Conv, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals ``norm(conv(x))`` in evaluation."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * scale[:, None, None, None], norm.bias - scale * norm.running_mean


class FoldedSubBlock(nn.Module):
    """A ``SubBlock`` whose batch norm lies in its last convolution."""

    def __init__(self, layer: SubBlock):
        super().__init__()
        last = layer.pointwise if layer.separable else layer.conv
        self.depthwise = layer.depthwise if layer.separable else None
        self.stride, self.groups = layer.stride, layer.groups
        self.step = (1, 1 if layer.separable else layer.stride)
        self.padding, self.dilation = (0, last.padding), (1, last.dilation)
        weight, bias = folded_weights(last, layer.norm)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_channels, 1, time)``, zero where padded -> ``(batch, out_channels, 1, time')``."""
        x = x if self.depthwise is None else self.depthwise(x)
        x = F.conv2d(x, self.weight, self.bias, self.step, self.padding, self.dilation, self.groups)
        return x if self.groups == 1 else shuffle_channels(x, self.groups)


class FoldedBlock(nn.Module):
    """A ``Block`` of folded sub-blocks; the call and the shapes are the same."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.config, self.masked = block.config, block.masked
        self.layers = nn.ModuleList(FoldedSubBlock(layer) for layer in block.layers)
        self.residual = None if block.residual is None else FoldedSubBlock(block.residual)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = self._mask(x, lengths)
        inputs = x = x if mask is None else x * mask
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 or mask is None else x * mask)
            if layer.stride > 1:  # else lengths and mask stay as they are; to make them anew is half of all launches
                lengths = output_length(lengths, layer.stride)
                mask = self._mask(x, lengths)
            if index == len(self.layers) - 1 and self.residual is not None:
                x += self.residual(inputs)
            x = F.relu_(x)
        return x, lengths

    def _mask(self, x: Tensor, lengths: Tensor) -> Tensor | None:
        # A look at the lengths is free on a CPU; on a GPU it would wait for the device, so there the mask is always on.
        if not self.masked or (x.device.type == "cpu" and bool((lengths >= x.shape[3]).all())):
            return None
        return time_mask(lengths, x.shape[3], x.dtype)


def fold_block(block: nn.Module) -> FoldedBlock:
    """A block's inference form; an adapter after it comes along as it is."""
    folded = FoldedBlock(block)
    if hasattr(block, block_adapters.CHILD):
        block_adapters.hang(folded, getattr(block, block_adapters.CHILD))
    return folded


def fold(model: nn.Module, dtype: torch.dtype, kernels: str = "auto") -> nn.Module:
    """A copy of a ``QuartzNet`` with every block folded, weights in ``dtype``; the front end stays in fp32.

    Where ``kernels`` chooses the fused ones (``quartznet.backend``), which apply norms at no cost, nothing is folded.

    Raises:
        ValueError: for a dtype other than float32, bfloat16 or, on a GPU, float16; for kernels triton where they
            cannot be used.
    """
    allowed = [torch.float32, torch.bfloat16] + ([torch.float16] if model.device.type == "cuda" else [])
    if dtype not in allowed:
        names = ", ".join(str(item).removeprefix("torch.") for item in allowed)
        raise ValueError(f"for_inference takes {names} on {model.device.type}, got {dtype}")
    if any(isinstance(block, FoldedBlock) for block in model.encoder.blocks):
        raise ValueError("this model is already in its inference form; call for_inference on the original")
    fast = copy.deepcopy(model).eval()
    lora.merge(fast.encoder)
    lora.remove(fast.encoder)  # merged, it has nothing more to say
    fast.fused = uses_triton(kernels, fast.encoder, dtype)
    if fast.fused:
        for part in fast.encoder.modules():
            if isinstance(part, Conv):
                part.to(dtype)
        fast.decoder.to(dtype)
        return fast.requires_grad_(False)
    fast.encoder.blocks = nn.ModuleList(fold_block(block) for block in fast.encoder.blocks)
    fast.encoder.to(dtype)
    fast.decoder.to(dtype)
    return fast.requires_grad_(False)
