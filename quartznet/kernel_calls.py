"""The kernels of ``quartznet.kernels`` as functions of tensors: the sizes they are started with, what they return.

Activations are ``(channels, batch, row)``, contiguous, in fp32, bf16 or fp16; ``row`` is a multiple of 8 frames, of
which the first ``lengths`` (int32, on the same device) are real. ``Norm`` is a batch norm whose statistics are known,
be they of this batch or the running ones. Nothing here waits for the device.

The surprise: there is no function "batch norm". It is applied where its result is read, and only its statistics take a
pass of their own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quartznet import kernels

WARPS = 4  # of the forward kernel
MORE_WARPS = 8  # backward, which holds two products, forward with dropout (with 4 their registers overflow), statistics
PROGRAMS = 2048  # a few for each of the 132 processors of an H100 or H200, so that one waits while another computes


@dataclass(frozen=True)
class Norm:
    """``gamma (z - mean) / sqrt(var + eps) + beta`` for each channel, each ``(channels,)`` fp32."""

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor
    eps: float

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.gamma, self.beta, self.mean, self.var


@dataclass(frozen=True)
class Dropout:
    """Each number is zero with ``probability``, drawn from ``seed`` (one int64 on the device) and its place."""

    probability: float
    seed: Tensor


@dataclass(frozen=True)
class Taps:
    """A depthwise kernel: ``count`` taps, odd, ``dilation`` frames apart, for every ``stride``-th frame (1, 2 or 4)."""

    count: int
    stride: int = 1
    dilation: int = 1

    @property
    def pad(self) -> int:
        return self.dilation * (self.count - 1) // 2

    def window(self, backward: bool, column: int) -> tuple[int, int]:
        """Frames before a column's first that its window begins with, and frames in the window, a power of two."""
        step = self.stride if backward else 1
        margin = _up(-(-self.pad // step), kernels.ALIGN)
        if backward:
            reach = (column - 1 + self.pad) // step + margin + 1
        else:
            reach = margin + (column - 1) * self.stride + self.pad + 1
        return margin, 1 << (reach - 1).bit_length()

    def sizes(self, backward: bool, drops: bool = False) -> dict[str, int]:
        """MARGIN, R, S and N of the kernels: columns of 64 outputs where that lets windows overlap less, else of 32.

        Windows of 256, or dropout, with columns of 64 would need more registers than there are.
        """
        choices = [(column, *self.window(backward, column)) for column in (32, 64)]
        choices = [choice for choice in choices if choice[0] == 32 or (choice[2] <= 128 and not drops)]
        column, margin, window = min(choices, key=lambda choice: choice[2] / choice[0])
        return {"MARGIN": margin, "R": window, "S": column, "N": 64 if window <= 128 else 32}


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _splits(channels: int, pieces: int) -> int:
    """Programs for each channel."""
    return max(1, min(pieces, PROGRAMS // channels))


def forward_warps(drops: bool) -> int:
    """Of the forward kernel, with and without dropout."""
    return MORE_WARPS if drops else WARPS


def _constants(taps: Taps, backward: bool, norm: Norm | None, dropout: Dropout | None) -> dict:
    return {
        "TAPS": taps.count, "STRIDE": taps.stride, "DILATION": taps.dilation, "PAD": taps.pad,
        **taps.sizes(backward, dropout is not None),
        "ALIGN": kernels.ALIGN, "ACTIVATE": norm is not None, "DROPOUT": dropout is not None,
    }  # fmt: skip


def _inputs(x: Tensor, norm: Norm | None, dropout: Dropout | None) -> tuple:
    """What kernels ask for, with ``x`` in the place of what is not used."""
    tensors = (x, x, x, x, 0.0) if norm is None else (*norm.tensors, norm.eps)
    return *tensors, x if dropout is None else dropout.seed, 0.0 if dropout is None else dropout.probability


def depthwise(
    x: Tensor, weight: Tensor, taps: Taps, lengths: Tensor, out_lengths: Tensor, norm: Norm | None = None,
    dropout: Dropout | None = None,
) -> Tensor:  # fmt: skip
    """Depthwise "same" convolution of ``dropout(relu(norm(x)))``, or of ``x`` itself without a norm, masked before and
    after.

    Args:
        x: (channels, batch, row).
        weight: (channels, 1, 1, taps) or any shape that lies in memory like it; rounded to the dtype of ``x``.
        lengths, out_lengths: (batch,) int32, real frames of ``x`` and of the result.

    Returns:
        (channels, batch, row'), row' = ceil(row / stride) rounded up to a multiple of 8; zero from ``out_lengths`` on.
    """
    channels, batch, row = x.shape
    out_row = _up(-(-row // taps.stride), kernels.ALIGN)
    y = x.new_empty(channels, batch, out_row)
    constants = _constants(taps, False, norm, dropout)
    row_columns = -(-out_row // constants["S"])
    tiles = -(-batch * row_columns // constants["N"])
    kernels.depthwise_forward[channels, _splits(channels, tiles)](
        x, weight, *_inputs(x, norm, dropout), lengths, out_lengths, y, batch, row // kernels.ALIGN,
        out_row // kernels.ALIGN, row_columns, tiles, **constants, num_warps=forward_warps(dropout is not None),
    )  # fmt: skip
    return y


def depthwise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, taps: Taps, lengths: Tensor, out_lengths: Tensor,
    norm: Norm | None = None, dropout: Dropout | None = None, frozen: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of ``depthwise``.

    Args:
        gradient: (channels, batch, row') of the result; what lies beyond ``out_lengths`` is not read.
        frozen: the statistics of ``norm`` are constants.

    Returns:
        gradient of ``norm(x)`` (of ``x`` where there is no norm, or a frozen one), shaped like ``x``; of the weight,
        (channels, 1, 1, taps) fp32; partial sums for ``norm_backward``, (channels, parts, 2) fp32.
    """
    channels, batch, row = x.shape
    constants = _constants(taps, True, norm, dropout)
    row_columns = -(-row // constants["S"])
    tiles = -(-batch * row_columns // constants["N"])
    splits = _splits(channels, tiles)
    dx = torch.empty_like(x)
    dw, sums = (x.new_empty(channels, splits, size, dtype=torch.float32) for size in (taps.count, 2))
    kernels.depthwise_backward[channels, splits](
        gradient, x, weight, *_inputs(x, norm, dropout), lengths, out_lengths, dx, dw, sums, batch,
        row // kernels.ALIGN, gradient.shape[2] // kernels.ALIGN, row_columns, tiles,
        J=1 << (taps.count - 1).bit_length(), FROZEN=frozen, **constants, num_warps=MORE_WARPS,
    )  # fmt: skip
    dw = dw[:, 0] if splits == 1 else dw.sum(1)
    return dx, dw[:, None, None], sums


def statistics(
    z: Tensor, frames: int, running_mean: Tensor, running_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, (channels,) fp32, over the first ``frames`` of all rows, be they real or masked.

    The running statistics are moved, with the unbiased variance as in PyTorch.
    """
    channels, batch, row = z.shape
    mean, var = (z.new_empty(channels, dtype=torch.float32) for _ in range(2))
    kernels.statistics[channels,](
        z, mean, var, running_mean, running_var, batch, row // kernels.ALIGN, frames, momentum,
        CHUNK=kernels.CHUNK, ALIGN=kernels.ALIGN, FILLED=frames < row, num_warps=MORE_WARPS,
    )  # fmt: skip
    return mean, var


def norm_backward(
    du: Tensor, z: Tensor, norm: Norm, sums: Tensor, column: int, count: int, frozen: bool, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of ``z`` from ``du``, that of ``norm(z)``, into ``out``, which may be ``du``; of gamma and of beta.

    Args:
        sums: (channels, parts, n): number 0 of the n sums du, number ``column`` du (z - mean) / sqrt(var + eps).
        count: numbers that the statistics were taken of.
    """
    channels, parts, step = sums.shape
    dgamma, dbeta = (z.new_empty(channels, dtype=torch.float32) for _ in range(2))
    size = z[0].numel()
    kernels.norm_backward[channels, -(-size // kernels.CHUNK)](
        du, z, norm.gamma, norm.mean, norm.var, norm.eps, sums, out, dgamma, dbeta, size // kernels.ALIGN, count,
        parts, step, column, PARTS=1 << (parts - 1).bit_length(), CHUNK=kernels.CHUNK, ALIGN=kernels.ALIGN,
        FROZEN=frozen,
    )  # fmt: skip
    return dgamma, dbeta


def block_end(
    z: Tensor, norm: Norm, lengths: Tensor, residual: Tensor | None = None, residual_norm: Norm | None = None,
    dropout: Dropout | None = None,
) -> Tensor:  # fmt: skip
    """``dropout(relu(norm(z) + residual_norm(residual)))``, zero from ``lengths`` (batch,) on; all (channels, batch,
    row)."""
    channels, batch, row = z.shape
    h = torch.empty_like(z)
    second = norm if residual_norm is None else residual_norm
    kernels.end_forward[channels, -(-batch * row // kernels.CHUNK)](
        z, *norm.tensors, z if residual is None else residual, *second.tensors, norm.eps,
        z if dropout is None else dropout.seed, 0.0 if dropout is None else dropout.probability, lengths, h, batch,
        row // kernels.ALIGN, CHUNK=kernels.CHUNK, ALIGN=kernels.ALIGN, RESIDUAL=residual is not None,
        DROPOUT=dropout is not None,
    )  # fmt: skip
    return h


def block_end_backward(
    dh: Tensor, h: Tensor, z: Tensor, norm: Norm, residual: Tensor | None = None, residual_norm: Norm | None = None,
    probability: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradient before ReLU and dropout, shaped like ``z``, and its sums (channels, parts, 3): du, du unit(z), du
    unit(residual)."""
    channels = z.shape[0]
    size = z[0].numel()
    chunks = -(-size // kernels.CHUNK)
    splits = _splits(channels, chunks)
    du, sums = torch.empty_like(z), z.new_empty(channels, splits, 3, dtype=torch.float32)
    second = norm if residual_norm is None else residual_norm
    kernels.end_backward[channels, splits](
        dh, h, z, norm.mean, norm.var, z if residual is None else residual, second.mean, second.var, norm.eps,
        probability, du, sums, size // kernels.ALIGN, chunks, CHUNK=kernels.CHUNK, ALIGN=kernels.ALIGN,
        RESIDUAL=residual is not None, DROPOUT=probability > 0,
    )  # fmt: skip
    return du, sums
