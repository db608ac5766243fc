"""Which code computes the network: PyTorch's layers everywhere, or the Triton kernels of ``quartznet.fused`` on a GPU.

One setting, ``kernels``:

    plain    PyTorch's own layers
    triton   the fused kernels, in bf16 or fp16, or an error that says why they cannot be used
    auto     triton in bf16 or fp16 on a GPU, where it can be and passes a test; else plain, and the reason is said

Both use the same modules, so a checkpoint, an optimiser and a run know nothing of the choice: it can change between two
runs, or between training and evaluation.

The surprise: ``auto`` trusts no GPU; ``quartznet.kernel_test`` tries every kind of block of the network on it first.
"""

import importlib.util
import logging
import textwrap

import torch
from torch import nn

from quartznet.layers import Conv

log = logging.getLogger(__name__)
CHOICES = ("auto", "plain", "triton")
HELP = (
    "plain: PyTorch's layers; triton: fused GPU kernels, in bf16; auto (default): these where a test finds them right"
)
HALF = (torch.bfloat16, torch.float16)
IN_FP32 = "they compute in bf16 or fp16, not in fp32"
STRIDES = (1, 2, 4)  # whose windows begin where a load of 16 bytes can
OLDEST = (8, 0)  # A100, RTX 30: before it, registers overflow and there is no bf16
MOST_TAPS = 129  # with their dilation; wider windows would not fit into the registers


def _why_not_layer(layer: nn.Module) -> str:
    norm = getattr(layer, "norm", None)
    if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or norm.weight is None or norm.momentum is None:
        return f"a norm of type {type(norm).__name__}" if type(norm) is not nn.BatchNorm2d else "an unusual batch norm"
    if layer.groups > 1:
        return "grouped convolutions"
    if any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules()):
        return "LoRA weights or another hook"
    if not layer.separable:
        return "an ordinary convolution over time" if layer.conv.weight.shape[3] > 1 or layer.stride > 1 else ""
    if layer.stride not in STRIDES:
        return f"stride {layer.stride}"
    reach = (layer.depthwise.weight.shape[3] - 1) * layer.depthwise.dilation + 1
    return f"kernels that reach over {reach} frames" if reach > 2 * MOST_TAPS else ""


def why_not(encoder: nn.Module) -> str:
    """What keeps an encoder from the fused kernels; empty if nothing does."""
    for number, block in enumerate(encoder.blocks):
        if block._forward_hooks or block._forward_pre_hooks:
            return f"block {number} has an adapter or another hook"
        residual = getattr(block, "residual", None)
        for layer in [*block.layers, *([] if residual is None else [residual])]:
            reason = _why_not_layer(layer)
            if reason:
                return f"block {number} has {reason}"
        if len(block.layers) > 1 and not all(layer.separable for layer in block.layers):
            return f"block {number} repeats an ordinary convolution"
    if any(isinstance(part, Conv) and part.weight.dtype == torch.float64 for part in encoder.modules()):
        return "the weights are in fp64"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# The choice


def check_machine(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuses what no network could be computed by; for commands, before they read a corpus.

    Raises:
        ValueError: for another name, or ``triton`` without Triton, without a GPU that is new enough, or in fp32.
    """
    if name not in CHOICES:
        raise ValueError(f"kernels must be {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, got {name!r}")
    if name == "triton":
        _refuse(_why_not_here(device, dtype))


def uses_triton(name: str, encoder: nn.Module, dtype: torch.dtype) -> bool:
    """Whether ``encoder`` is to be computed by the fused kernels, by the setting ``name``, in ``dtype``.

    Raises:
        ValueError: for another name, or ``triton`` where it cannot be.
    """
    device = _device_of(encoder)
    check_machine(name, device, dtype)
    if name == "plain" or (name == "auto" and (device.type != "cuda" or dtype == torch.float32)):
        return False  # nothing to be said: so it is meant to be
    reason = _why_not_here(device, dtype) or why_not(encoder)
    if name == "triton":
        _refuse(reason)
    elif reason:
        log.info("%s", _folded(f"kernels   plain: {reason}"))
    else:
        from quartznet.kernel_test import first_failure  # needs Triton

        reason = first_failure(encoder, dtype)
        if reason:
            log.warning("%s", _folded(f"kernels   plain, which is slower: {reason}"))
    return not reason


def _why_not_here(device: torch.device, dtype: torch.dtype) -> str:
    """What keeps every network from the fused kernels on this machine, in this precision; empty if nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    if device.type != "cuda" and not _is_interpreted():
        return f"the network is on {device.type}, and Triton needs a GPU"
    if dtype not in HALF:
        return IN_FP32
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < OLDEST:
        return "the GPU is older than compute capability {}.{}".format(*OLDEST)
    return ""


def _refuse(reason: str) -> None:
    """Raises ValueError where there is a reason."""
    way_out = "precision bf16, or kernels auto" if reason == IN_FP32 else "kernels plain, or auto"
    if reason:
        raise ValueError(f"kernels triton cannot be used: {reason}; take {way_out}")


def _folded(text: str) -> str:
    """Lines of at most 80 columns."""
    return textwrap.fill(text, 80, subsequent_indent=" " * 10)


def _device_of(encoder: nn.Module) -> torch.device:
    return next(encoder.parameters()).device


def _is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU: slow, and the way they are tested."""
    import triton

    return bool(triton.knobs.runtime.interpret)
