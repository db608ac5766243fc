"""The one table between NeMo's names and ours, and a network's layout from nothing but the shapes of its weights.

NeMo numbers everything in a flat list: in a separable sub-block of ``mconv`` the depthwise convolution comes first,
then the pointwise one, batch norm, a shuffle if there are groups, ReLU, dropout. So the second sub-block starts at 5,
or at 6 with groups, or at 4 where it is not separable. Our weights have one axis more: ``(out, in, 1, kernel)``.

The surprise: the same weight has five spellings. ``canonical`` brings each to that of 1.x with masked convolutions:

    0.8                     encoder.0.conv.0.weight
    0.9 to 0.11             encoder.0.mconv.0.conv.weight
    the same, no masks      encoder.0.mconv.0.weight
    since 1.0               encoder.encoder.0.mconv.0.conv.weight
    wrapped for many GPUs   module.encoder.encoder.0.mconv.0.conv.weight
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quartznet.config import BlockConfig, ModelConfig

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
WRAPPERS = r"(?:(?:module|model)\.)*"
ENCODER_KEY = re.compile(WRAPPERS + r"(?:encoder\.)?encoder\.(\d+)\.(mconv|conv|res)\.(.+)")
DECODER_KEY = re.compile(WRAPPERS + r"(?:decoder\.)?decoder_layers\.0\.(weight|bias)")
FRONT_END_KEY = re.compile(WRAPPERS + r"preprocessor\.featurizer\.(window|fb)")
OWNED = re.compile(WRAPPERS + r"(?:encoder|decoder|decoder_layers)\.")  # keys that must not get lost


@dataclass(frozen=True)
class Entry:
    """One weight under both names, with both shapes."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]


def _convolution(ours: str, theirs: str, shape: tuple[int, int, int]) -> Entry:
    outputs, inputs, kernel_size = shape
    return Entry(f"{ours}.weight", f"{theirs}.conv.weight", (outputs, inputs, 1, kernel_size), shape)


def _norm(ours: str, theirs: str, channels: int) -> Iterator[Entry]:
    for name in NORM:
        shape = () if name == "num_batches_tracked" else (channels,)
        yield Entry(f"{ours}.{name}", f"{theirs}.{name}", shape, shape)


def _block(index: int, inputs: int, block: BlockConfig) -> Iterator[Entry]:
    ours, theirs, position, channels = f"encoder.blocks.{index}", f"encoder.encoder.{index}", 0, inputs
    for repeat in range(block.repeat):
        here = f"{ours}.layers.{repeat}"
        if block.separable:
            shape = (channels, 1, block.kernel_size)
            yield _convolution(f"{here}.depthwise", f"{theirs}.mconv.{position}", shape)
            shape = (block.filters, channels // block.groups, 1)
            yield _convolution(f"{here}.pointwise", f"{theirs}.mconv.{position + 1}", shape)
        else:
            shape = (block.filters, channels // block.groups, block.kernel_size)
            yield _convolution(f"{here}.conv", f"{theirs}.mconv.{position}", shape)
        position += 2 if block.separable else 1
        yield from _norm(f"{here}.norm", f"{theirs}.mconv.{position}", block.filters)
        position += 4 if block.groups > 1 else 3  # batch norm, shuffle, ReLU, dropout
        channels = block.filters
    if block.residual:
        yield _convolution(f"{ours}.residual.conv", f"{theirs}.res.0.0", (block.filters, inputs, 1))
        yield from _norm(f"{ours}.residual.norm", f"{theirs}.res.0.1", block.filters)


def front_end_table(config: ModelConfig) -> list[Entry]:
    """The two buffers of the front end, which files of 0.x do not carry."""
    features = config.features
    window, bank = (features.window_size,), (features.mels, features.fft_size // 2 + 1)
    return [
        Entry("front_end.window", "preprocessor.featurizer.window", window, window),
        Entry("front_end.filterbank", "preprocessor.featurizer.fb", bank, (1, *bank)),
    ]


def weight_table(config: ModelConfig) -> list[Entry]:
    """Every weight of encoder and decoder, in the order of the network."""
    channels, table = config.features.mels, []
    for index, block in enumerate(config.blocks):
        table += _block(index, channels, block)
        channels = block.filters
    outputs = len(config.labels) + 1
    theirs = "decoder.decoder_layers.0"
    table.append(Entry("decoder.weight", f"{theirs}.weight", (outputs, channels, 1, 1), (outputs, channels, 1)))
    table.append(Entry("decoder.bias", f"{theirs}.bias", (outputs,), (outputs,)))
    return table


# ---------------------------------------------------------------------------------------------------------------------
# From NeMo


def canonical(key: str, dimensions: int) -> str | None:
    """The spelling of 1.x with masks for a key and the number of its tensor's axes; None for any other key."""
    if match := ENCODER_KEY.fullmatch(key):
        block, part, tail = match.groups()
        if dimensions == 3 and tail.endswith(".weight") and not tail.endswith(".conv.weight"):
            tail = tail.removesuffix(".weight") + ".conv.weight"
        return f"encoder.encoder.{block}.{'mconv' if part == 'conv' else part}.{tail}"
    if match := DECODER_KEY.fullmatch(key):
        return f"decoder.decoder_layers.0.{match.group(1)}"
    if match := FRONT_END_KEY.fullmatch(key):
        return f"preprocessor.featurizer.{match.group(1)}"
    return None


def canonical_weights(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """All weights under the spelling of 1.x, and the keys that belong neither to the network nor to its front end.

    Raises:
        ValueError: for unknown parts of the encoder or decoder, for two keys that mean the same weight, and for
            weights that are not dense.
    """
    known: dict[str, Tensor] = {}
    dropped, unknown = [], []
    for key, tensor in weights.items():
        name = canonical(key, tensor.dim())
        if name is None:
            (unknown if OWNED.match(key) else dropped).append(key)
        elif name in known:
            raise ValueError(f"two keys mean {name}; one of them is {key}; the file mixes two models")
        elif tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{key} is {tensor.dtype}, {tensor.layout}; dense numbers are needed")
        else:
            known[name] = tensor
    if unknown:
        raise ValueError(f"the weights hold parts that QuartzNet does not have: {listing(unknown)}")
    return known, dropped


def listing(names: list[str], count: int = 6) -> str:
    """The first few of a list in one line, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def from_nemo(weights: dict[str, Tensor], table: list[Entry]) -> tuple[dict[str, Tensor], list[Entry]]:
    """Weights under our names and shapes, floats as fp32, and the entries of the table that found no weight.

    Raises:
        ValueError: for another shape, naming the key and both shapes, for anything but finite floats, and for
            variances below zero.
    """
    ours, missing = {}, []
    for entry in table:
        if entry.theirs not in weights:
            missing.append(entry)
            continue
        tensor = weights[entry.theirs]
        if tuple(tensor.shape) != entry.their_shape:
            raise ValueError(
                f"{entry.theirs} has shape {tuple(tensor.shape)}, but the configuration asks for {entry.their_shape}"
            )
        whole = entry.ours.endswith("num_batches_tracked")
        if tensor.is_floating_point() == whole:
            raise ValueError(f"{entry.theirs} is {tensor.dtype}; {'a whole number' if whole else 'floats'} are needed")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{entry.theirs} holds values that are not finite; the file or its training is broken")
        if entry.ours.endswith("running_var") and bool((tensor < 0).any()):
            raise ValueError(f"{entry.theirs} holds variances below zero; the file is broken")
        dtype = torch.int64 if whole else torch.float32
        ours[entry.ours] = tensor.to(dtype).reshape(entry.shape).clone(memory_format=torch.contiguous_format)
    return ours, missing


def blocks_from_shapes(weights: dict[str, Tensor]) -> tuple[BlockConfig, ...]:
    """The blocks of a network whose configuration is lost, from canonical weights.

    Filters, kernels, repeats, residuals, separability and groups follow from the shapes. Stride 2 of the first block
    and dilation 2 of a block with kernel 87 do not; every published QuartzNet has them.

    Raises:
        ValueError: where the weights cannot be a QuartzNet.
    """
    parts: dict[int, list[tuple[int, Tensor]]] = {}
    residual: set[int] = set()
    for key, tensor in weights.items():
        match = re.fullmatch(r"encoder\.encoder\.(\d+)\.(mconv|res)\.(\d+)(\..+)", key)
        if not match:
            continue
        if match.group(2) == "res":
            residual.add(int(match.group(1)))
        elif match.group(4) in (".conv.weight", ".weight"):
            parts.setdefault(int(match.group(1)), []).append((int(match.group(3)), tensor))
    if not parts or sorted(parts) != list(range(len(parts))):
        raise ValueError(f"the weights hold no QuartzNet encoder; blocks found: {sorted(parts) or 'none'}")
    blocks: list[BlockConfig] = []
    for index in range(len(parts)):
        layers = [tensor for _, tensor in sorted(parts[index], key=lambda part: part[0])]
        inputs = blocks[-1].filters if blocks else None
        blocks.append(_block_from_shapes(index, layers, inputs, index in residual))
    return tuple(blocks)


def _block_from_shapes(index: int, layers: list[Tensor], inputs: int | None, residual: bool) -> BlockConfig:
    convolutions = [tensor for tensor in layers if tensor.dim() == 3]
    repeat = sum(tensor.dim() == 1 for tensor in layers)
    if repeat < 1 or len(convolutions) not in (repeat, 2 * repeat) or len(convolutions) + repeat != len(layers):
        raise ValueError(f"block {index} has {len(convolutions)} convolutions and {repeat} norms; that is no QuartzNet")
    separable = len(convolutions) == 2 * repeat
    inputs = convolutions[0].shape[0] if separable else inputs or convolutions[0].shape[1]
    mixing, kernel_size = convolutions[1 if separable else 0], convolutions[0].shape[2]
    if mixing.shape[1] == 0 or inputs % mixing.shape[1]:
        raise ValueError(f"block {index} reads {inputs} channels with a weight for {mixing.shape[1]}")
    return BlockConfig(
        filters=mixing.shape[0],
        kernel_size=kernel_size,
        repeat=repeat,
        stride=2 if index == 0 else 1,
        dilation=2 if kernel_size == 87 else 1,
        residual=residual,
        separable=separable,
        groups=inputs // mixing.shape[1],
    )


# ---------------------------------------------------------------------------------------------------------------------
# To NeMo


def to_nemo(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our state dict under the names and shapes of 1.x, front end first, on the CPU; the inverse of ``from_nemo``."""
    theirs = {}
    for entry in front_end_table(config) + weight_table(config):
        name = entry.theirs if config.masked else entry.theirs.replace(".conv.weight", ".weight")
        theirs[name] = weights[entry.ours].detach().cpu().reshape(entry.their_shape).contiguous().clone()
    return theirs
