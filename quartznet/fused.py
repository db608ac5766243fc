"""The encoder on a GPU, block by block, in ``(channels, batch, time)`` memory, by ``quartznet.kernels``.

    h -> depthwise -> z = W d -> [norm, ReLU, mask on load] depthwise -> z = W d -> ... -> z -> + -> ReLU -> h'
    `-> residual z = W h ----------------------------------------------------------------------^

The same modules, buffers and numbers as ``quartznet.model.Encoder``, up to rounding: in training and in evaluation,
with batch norms that learn or stand still, with dropout. Passes over the activations of a sub-block are five forward
(read z, write d; read d, write z; statistics) and ten backward. A block is one autograd function, so it decides what is
kept for the backward pass: z and d of every sub-block, or z alone (``recompute``), d being made again when needed.

The surprise: behind an utterance's end z is zero, because the masked convolution has no bias there, and these zeros
count: batch norm averages over them, as in NeMo. What only rounds a row up to a multiple of 8 frames does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from quartznet import kernel_calls as calls
from quartznet.layers import SubBlock, output_length

ALIGN = 8  # frames; a row is a multiple of it

# ---------------------------------------------------------------------------------------------------------------------
# What a block is


@dataclass(frozen=True)
class Sub:
    """One sub-block without its weights."""

    norm: nn.BatchNorm2d  # its running statistics and mode; gamma and beta come as tensors
    taps: calls.Taps | None  # None: there is no depthwise convolution

    @classmethod
    def of(cls, layer: SubBlock) -> Sub:
        if not layer.separable:
            return cls(layer.norm, None)
        conv = layer.depthwise
        return cls(layer.norm, calls.Taps(conv.weight.shape[3], conv.stride, conv.dilation))

    @property
    def stride(self) -> int:
        return 1 if self.taps is None else self.taps.stride


@dataclass(frozen=True)
class Plan:
    """A block without its weights, for one batch."""

    subs: tuple[Sub, ...]
    residual: Sub | None
    lengths: tuple[Tensor, ...]  # int32: real frames before each sub-block, and after the last
    end: Tensor  # int32: the frames of the block's output that are not zero
    frames: tuple[int, ...]  # after each sub-block, of its rows: what statistics are taken of
    dropout: float
    seeds: Tensor | None  # int64, one for each sub-block
    products: tuple[Tensor, ...]  # the pointwise weights in the activations' dtype, the residual's last
    recompute: bool

    def drop(self, index: int) -> calls.Dropout | None:
        """The dropout after sub-block ``index``; None before the first, and where nothing is dropped."""
        if self.seeds is None or index < 0:
            return None
        return calls.Dropout(self.dropout, self.seeds[index : index + 1])


@dataclass(frozen=True)
class Weights:
    """The parameters of a sub-block; ``depthwise`` is None where there is no such convolution."""

    depthwise: Tensor | None
    pointwise: Tensor
    gamma: Tensor
    beta: Tensor

    @classmethod
    def read(cls, plan: Plan, tensors: tuple[Tensor, ...]) -> list[Weights]:
        """One for each sub-block, then the residual's, from all tensors in a row."""
        rest = iter(tensors)
        subs = [*plan.subs, *([] if plan.residual is None else [plan.residual])]
        return [cls(next(rest) if sub.taps else None, next(rest), next(rest), next(rest)) for sub in subs]


def parameters_of(layer: SubBlock) -> Iterator[Tensor]:
    """In the order in which ``Weights.read`` takes them."""
    if layer.separable:
        yield layer.depthwise.weight
    yield (layer.pointwise if layer.separable else layer.conv).weight
    yield layer.norm.weight
    yield layer.norm.bias


# ---------------------------------------------------------------------------------------------------------------------
# Parts of its computation


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """(out, in, 1, 1) and (in, batch, row) -> (out, batch, row): one matrix product for all utterances."""
    return torch.mm(weight[:, :, 0, 0], x.view(len(x), -1)).view(-1, *x.shape[1:])


def _to_weight(weight: Tensor, dz: Tensor, x: Tensor) -> Tensor | None:
    """Gradient of the weight of ``_product``, where it learns."""
    if not weight.requires_grad:
        return None
    dz, x = dz.view(len(dz), -1), x.view(len(x), -1).t()
    if dz.is_cuda and dz.dtype != torch.float32:  # a sum of thousands of frames, kept in the fp32 that it is made in
        product = torch.mm(dz, x, out_dtype=torch.float32)
    else:
        product = torch.mm(dz, x).float()
    return product[:, :, None, None]


def _to_input(weight: Tensor, dz: Tensor) -> Tensor:
    """Gradient of the input of ``_product``."""
    return torch.mm(weight[:, :, 0, 0].t(), dz.view(len(dz), -1)).view(-1, *dz.shape[1:])


def _norm(sub: Sub, weights: Weights, z: Tensor, frames: int) -> calls.Norm:
    """The batch norm of z, its statistics those of the batch where it learns."""
    norm = sub.norm
    mean, var = norm.running_mean, norm.running_var
    if norm.training:
        mean, var = calls.statistics(z, frames, mean, var, norm.momentum)
    return calls.Norm(weights.gamma, weights.beta, mean, var, norm.eps)


def _forward(
    plan: Plan, h: Tensor, weights: list[Weights], keep: bool
) -> tuple[Tensor, list[Tensor], list[Tensor], list[calls.Norm]]:
    """The block's output, and where ``keep`` says so d and z of each sub-block, the residual's z last; norms."""
    x, norm, ds, zs, norms = h, None, [], [], []
    for index, sub in enumerate(plan.subs):
        own = weights[index]
        if sub.taps is not None:
            here, there = plan.lengths[index : index + 2]
            x = calls.depthwise(x, own.depthwise, sub.taps, here, there, norm, plan.drop(index - 1))
        ds += [x] if keep and not plan.recompute else []
        x = _product(plan.products[index], x)
        norm = _norm(sub, own, x, plan.frames[index])
        zs += [x] if keep else []
        norms.append(norm)
    residual = residual_norm = None
    if plan.residual is not None:
        residual = _product(plan.products[-1], h)
        residual_norm = _norm(plan.residual, weights[-1], residual, plan.frames[-1])
        zs += [residual] if keep else []
        norms.append(residual_norm)
    out = calls.block_end(x, norm, plan.end, residual, residual_norm, plan.drop(len(plan.subs) - 1))
    return out, ds, zs, norms


class _Block(torch.autograd.Function):
    """A block as one function of its input and its parameters."""

    @staticmethod
    def forward(context: FunctionCtx, plan: Plan, h: Tensor, *tensors: Tensor) -> Tensor:
        weights = Weights.read(plan, tensors)
        out, ds, zs, norms = _forward(plan, h, weights, True)
        context.plan, context.sizes = plan, (len(tensors), len(ds), len(zs))
        # Running statistics that stand still are constants; a later forward pass may move them if they do not.
        statistics = [tensor for norm in norms for tensor in (norm.mean, norm.var)]
        context.save_for_backward(h, out, *tensors, *ds, *zs, *statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(context: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        plan = context.plan
        h, out, *rest = context.saved_tensors
        tensors, ds, zs, statistics = _split(rest, context.sizes)
        weights = Weights.read(plan, tensors)
        subs = [*plan.subs, *([] if plan.residual is None else [plan.residual])]
        norms = [
            calls.Norm(own.gamma, own.beta, *statistics[2 * i : 2 * i + 2], sub.norm.eps)
            for i, (sub, own) in enumerate(zip(subs, weights, strict=True))
        ]
        to_h, gradients = _backward(
            plan, gradient.contiguous(), h, out, weights, norms, ds, zs, context.needs_input_grad
        )
        return None, to_h, *gradients


def _split(tensors: list[Tensor], sizes: tuple[int, ...]) -> Iterator[list[Tensor]]:
    """Lists of these sizes, and the rest."""
    start = 0
    for size in sizes:
        yield tensors[start : start + size]
        start += size
    yield tensors[start:]


def _backward(
    plan: Plan,
    gradient: Tensor,
    h: Tensor,
    out: Tensor,
    weights: list[Weights],
    norms: list[calls.Norm],
    ds: list[Tensor],
    zs: list[Tensor],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of the block's input and of all its parameters in their order, None where nobody needs one."""
    last = len(plan.subs) - 1
    residual = plan.residual
    counts = [h.shape[1] * frames for frames in plan.frames]
    ends = (zs[-1], norms[-1]) if residual is not None else (None, None)
    dropped = 0.0 if plan.seeds is None else plan.dropout
    du, sums = calls.block_end_backward(gradient, out, zs[last], norms[last], *ends, dropped)
    to_h, of_residual = None, []
    if residual is not None:
        dz = torch.empty_like(du)
        dgamma, dbeta = calls.norm_backward(du, *ends, sums, 2, counts[-1], not residual.norm.training, dz)
        of_residual = [_to_weight(weights[-1].pointwise, dz, h), dgamma, dbeta]
        to_h = _to_input(plan.products[-1], dz)
    gradients: list[Tensor | None] = []
    frozen = not plan.subs[last].norm.training
    dgamma, dbeta = calls.norm_backward(du, zs[last], norms[last], sums, 1, counts[last], frozen, du)
    for index in range(last, -1, -1):
        sub, own = plan.subs[index], weights[index]
        x, norm, drop = (h, None, None) if index == 0 else (zs[index - 1], norms[index - 1], plan.drop(index - 1))
        here, there = plan.lengths[index : index + 2]
        if sub.taps is None:
            d = x
        else:
            d = ds[index] if ds else calls.depthwise(x, own.depthwise, sub.taps, here, there, norm, drop)
        own_gradients = [_to_weight(own.pointwise, du, d), dgamma, dbeta]
        dd = _to_input(plan.products[index], du)
        if sub.taps is None:
            dx = dd
        else:
            frozen = index > 0 and not plan.subs[index - 1].norm.training
            dx, dw, sums = calls.depthwise_backward(dd, x, own.depthwise, sub.taps, here, there, norm, drop, frozen)
            own_gradients = [dw, *own_gradients]
        gradients = own_gradients + gradients
        if index > 0:
            du = dx
            if frozen:
                dbeta, dgamma = sums.sum(1).unbind(1)
            else:
                dgamma, dbeta = calls.norm_backward(du, x, norm, sums, 1, counts[index - 1], False, du)
    to_h = dx if to_h is None else to_h.add_(dx)
    gradients += of_residual
    return to_h if needs[1] else None, [g if need else None for g, need in zip(gradients, needs[2:], strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# The encoder


def _lengths_after(lengths: Tensor, stride: int) -> Tensor:
    """``output_length``; itself without a stride, because three launches for each sub-block would be half of all."""
    return lengths if stride == 1 else output_length(lengths, stride)


def _plan(
    block: nn.Module, products: tuple[Tensor, ...], lengths: Tensor, frames: int, is_last: bool, recompute: bool
) -> Plan:
    """``lengths`` and ``frames`` are those of the block's input."""
    subs = tuple(Sub.of(layer) for layer in block.layers)
    all_lengths, all_frames = [lengths], []
    for sub in subs:
        all_lengths.append(_lengths_after(all_lengths[-1], sub.stride))
        frames = output_length(frames, sub.stride)
        all_frames.append(frames)
    drops = block.training and block.config.dropout > 0
    return Plan(
        subs=subs,
        residual=None if block.residual is None else Sub.of(block.residual),
        lengths=tuple(all_lengths),
        end=torch.full_like(lengths, 1 << 30) if is_last else all_lengths[-1],
        frames=tuple(all_frames),
        dropout=block.config.dropout,
        seeds=torch.randint(1 << 31, (len(subs),), device=lengths.device) if drops else None,
        products=products,
        recompute=recompute,
    )


def _layers(block: nn.Module) -> list[SubBlock]:
    """Sub-blocks, the residual branch last."""
    return [*block.layers, *([] if block.residual is None else [block.residual])]


def _in_dtype(encoder: nn.Module, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """For each block its pointwise weights in ``dtype``, all cast in a few launches, once for both directions."""
    layers = [
        [layer.pointwise if layer.separable else layer.conv for layer in _layers(block)] for block in encoder.blocks
    ]
    weights = [conv.weight.detach() for group in layers for conv in group]
    if any(weight.dtype != dtype for weight in weights):
        casts = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(casts, weights)
        weights = casts
    rest = iter(weights)
    return (tuple(islice(rest, len(group))) for group in layers)


def _count_batches(encoder: nn.Module) -> None:
    """What ``nn.BatchNorm2d`` counts in training, for all norms in one launch."""
    norms = [norm for norm in encoder.modules() if isinstance(norm, nn.BatchNorm2d) and norm.training]
    if norms:
        torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)


def encode(
    encoder: nn.Module, features: Tensor, lengths: Tensor, dtype: torch.dtype, recompute: bool = False
) -> tuple[Tensor, Tensor]:
    """What ``quartznet.model.Encoder`` computes.

    Args:
        features: (batch, mels, frames).
        lengths: (batch,), frames that are real.
        dtype: of the activations: float32, bfloat16 or float16.
        recompute: keep half as much for the backward pass, and compute the depthwise convolutions twice.

    Returns:
        (batch, channels, 1, time), a view of channels-first memory, and lengths (batch,); see
        ``QuartzNet.output_length``.
    """
    frames = features.shape[2]
    masked = encoder.blocks[0].masked
    x = features.transpose(0, 1).to(dtype)
    x = torch.nn.functional.pad(x, (0, -frames % ALIGN)).contiguous()
    rest = lengths if masked else torch.full_like(lengths, frames)
    rest = rest.to(torch.int32)
    if masked:  # a residual branch or an ordinary convolution at the beginning reads x as it is
        x = x.masked_fill(torch.arange(x.shape[2], device=x.device) >= rest[:, None], 0)
    _count_batches(encoder)
    with torch.cuda.device_of(x):  # Triton starts kernels on the current GPU, wherever their tensors are
        for number, (block, products) in enumerate(zip(encoder.blocks, _in_dtype(encoder, dtype), strict=True)):
            plan = _plan(block, products, rest, frames, number == len(encoder.blocks) - 1, recompute)
            tensors = [tensor for layer in _layers(block) for tensor in parameters_of(layer)]
            if torch.is_grad_enabled() and (x.requires_grad or any(tensor.requires_grad for tensor in tensors)):
                x = _Block.apply(plan, x, *tensors)
            else:
                x = _forward(plan, x, Weights.read(plan, tuple(tensors)), False)[0]
            rest, frames = plan.lengths[-1], plan.frames[-1]
            for sub in plan.subs:
                lengths = _lengths_after(lengths, sub.stride)
    return x.transpose(0, 1)[:, :, None, :frames], lengths
