"""What a training step must compute and move at least, counted from the layers; and what the device can do.

``floor`` is arithmetic on a configuration, ``ceilings`` are measured: a large copy, counting bytes read and written,
and a large matrix product on random numbers. Bytes over the one and operations over the other are two times; no step
made of separate kernels runs much faster than the larger of them.
"""

from dataclasses import dataclass

import torch

from benchmarks.gpu_ways import PRECISIONS, Bench, precision
from quartznet.config import BlockConfig, ModelConfig

PARTS = ("depthwise forward", "depthwise to input", "depthwise weight", "pointwise", "batch norm")


@dataclass(frozen=True)
class Floor:
    """Least work, for each second of audio; that of the optimiser for each step."""

    forward_flop: float  # two for each multiplication with its addition
    training_flop: float  # three times as many: forward, gradient of inputs, gradient of weights
    bytes: dict[str, float]  # by part, of a training step
    flop: dict[str, float]  # by part, of a training step
    optimizer_bytes: float  # of a step

    @property
    def training_bytes(self) -> float:
        return sum(self.bytes.values())


def floor(config: ModelConfig, dtype: torch.dtype) -> Floor:
    """Operations and bytes of ``config``.

    A frame of a sub-block that reads a channels and writes b, kernel k, costs 2 k a operations in its depthwise and
    2 a b in its pointwise convolution; a residual of a block 2 a b. Numbers read (r) and written (w), each tensor once
    by each kernel that needs it; masks, ReLU and the scale of the batch norm before cost nothing, they are applied on
    load, and sums for a batch norm's statistics are taken where its input is written::

        depthwise forward     r a        w a       x -> d
        pointwise forward     r a        w b       d -> y
        batch norm backward   r 2b                 dx, y: the two sums
                              r 2b       w b       dx, y -> dy
        pointwise to input    r b        w a       dy -> dd
        pointwise weight      r b + a              dy, d
        depthwise to input    r a        w a       dd -> dx of the layer before
        depthwise weight      r a                  x; dd is read already

    in all 8 a + 8 b. A residual is a pointwise convolution and batch norm of its own, 3 a + 8 b, and the sum of both
    branches r 2b, w b; its gradient is that of either. What is not separable has no depthwise part. Where there is a
    stride, x and dx have the longer rate. NovoGrad reads the gradient twice and reads and writes momentum and weight.
    """
    rate, channels = config.features.sample_rate / config.features.hop, config.features.mels
    numbers, flop, weights = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0), 0
    for block in config.blocks:
        first, before = channels, rate
        for _ in range(block.repeat):
            after = rate / block.stride
            _add_sub_block(numbers, flop, block, channels, rate, after)
            channels, rate = block.filters, after
        if block.residual:
            _add_pointwise(numbers, flop, first, channels, before, 1)
            numbers["batch norm"] += 3 * channels * rate
        weights += _weights(block, first)
    outputs = len(config.labels) + 1
    _add_pointwise(numbers, flop, channels, outputs, rate, 1, norm=False)
    weights += channels * outputs + outputs
    size = torch.empty((), dtype=dtype).element_size()
    total = sum(flop.values())
    return Floor(total / 3, total, {part: size * count for part, count in numbers.items()}, flop, 4.0 * 6 * weights)


def _add_sub_block(numbers: dict, flop: dict, block: BlockConfig, a: int, before: float, after: float) -> None:
    if not block.separable:
        _add_pointwise(numbers, flop, a, block.filters, after, block.groups, block.kernel_size)
        return
    numbers["depthwise forward"] += a * (before + after)
    numbers["depthwise to input"] += a * (before + after)
    numbers["depthwise weight"] += a * before
    for part in ("depthwise forward", "depthwise to input", "depthwise weight"):
        flop[part] += 2 * block.kernel_size * a * after
    _add_pointwise(numbers, flop, a, block.filters, after, block.groups)


def _add_pointwise(
    numbers: dict, flop: dict, a: int, b: int, rate: float, groups: int, taps: int = 1, norm: bool = True
) -> None:
    """A convolution over channels, forward and both gradients, and the backward of its batch norm."""
    numbers["pointwise"] += 3 * (a + b) * rate
    flop["pointwise"] += 3 * 2 * a * b * taps / groups * rate
    numbers["batch norm"] += 5 * b * rate if norm else 0.0


def _weights(block: BlockConfig, channels: int) -> int:
    """Numbers of a block that learn."""
    count = channels * block.filters + 2 * block.filters if block.residual else 0
    for _ in range(block.repeat):
        taps = block.kernel_size if block.separable else 0
        mixing = 1 if block.separable else block.kernel_size
        count += channels * taps + channels * block.filters * mixing // block.groups + 2 * block.filters
        channels = block.filters
    return count


@dataclass(frozen=True)
class Ceilings:
    """What the device does when nothing else is in the way."""

    copy: float  # bytes a second, read and written
    rates: dict[str, float]  # operations a second of a matrix product, by precision


def ceilings(bench: Bench) -> Ceilings:
    """Measured now; random numbers, three buffers in turn."""
    sizes, device = bench.sizes, bench.device
    sources = [torch.randn(sizes.copy // 4, device=device) for _ in range(2)]
    target = torch.empty_like(sources[0])
    found = bench.measure(lambda number: target.copy_(sources[number % 2]))
    copy = 2 * 4 * target.numel() / (found.median / 1000)
    return Ceilings(copy, {name: _matrix_rate(bench, name) for name in PRECISIONS})


def _matrix_rate(bench: Bench, name: str) -> float:
    """Operations a second of two products of square matrices in turn."""
    size = bench.sizes.matrix
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    pair = [torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2)]
    with precision(name):
        found = bench.measure(lambda number: pair[number % 2] @ pair[1 - number % 2])
    return 2 * size**3 / (found.median / 1000)
