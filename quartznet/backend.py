"""Which code computes the network: PyTorch's layers everywhere, or the Triton kernels of ``quartznet.fused`` on a GPU.

One setting, ``kernels``:

    plain    PyTorch's own layers
    triton   the fused kernels, or an error that says why they cannot be used
    auto     triton where it can be, on a GPU, and passes a test; else plain, and the reason is said

Both use the same modules, so a checkpoint, an optimiser and a run know nothing of the choice: it can change between two
runs, or between training and evaluation.

The surprise: ``auto`` trusts no GPU. Compilers and chips differ, so the network itself is tried first on random
features, in fp64 and in both ways in the precision of the run: forward and all gradients of the kernels must be about
as near to fp64 as PyTorch's own are. This takes the seconds that compiling the kernels takes anyway.
"""

import copy
import importlib.util
import logging

import torch
from torch import Tensor, nn

from quartznet.layers import Conv

log = logging.getLogger(__name__)
CHOICES = ("auto", "plain", "triton")
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
# The test


def _outputs(encoder: nn.Module, features: Tensor, lengths: Tensor, dtype: torch.dtype, fused: bool) -> list[Tensor]:
    """The real frames of the encoder's output and, in training, the gradients of its weights, all in fp64."""
    encoder = copy.deepcopy(encoder)
    if fused:
        from quartznet.fused import encode

        encoded, out_lengths = encode(encoder, features, lengths, dtype)
    else:
        encoder = encoder.double() if dtype == torch.float64 else encoder
        half = dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(features.device.type, dtype if half else torch.bfloat16, enabled=half):
            encoded, out_lengths = encoder(features[:, :, None].to(dtype), lengths)
    is_real = torch.arange(encoded.shape[3], device=features.device) < out_lengths[:, None]
    encoded = encoded.double() * is_real[:, None, None]
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    if not (encoder.training and weights):
        return [encoded.detach()]
    direction = torch.sin(torch.arange(encoded.numel(), device=features.device)).view_as(encoded)
    gradients = torch.autograd.grad((encoded * direction).sum(), weights)
    return [encoded.detach(), *(gradient.double() for gradient in gradients)]


def distance(these: list[Tensor], those: list[Tensor]) -> float:
    """Largest ||this - that|| / ||that|| over pairs of tensors; infinite where something is not finite."""
    pairs = zip(these, those, strict=True)
    ratios = [(torch.dist(this, that) / that.norm().clamp(min=1e-30)).item() for this, that in pairs]
    return max(ratio if ratio == ratio else float("inf") for ratio in ratios)


def failed_test(encoder: nn.Module, dtype: torch.dtype, frames: int = 200) -> str:
    """What is wrong with the fused kernels for this encoder, in its mode and on its device; empty if nothing.

    Random features of two utterances, ``frames`` long and less than half of it; in training mode the gradients too.
    """
    first = next(part for part in encoder.modules() if isinstance(part, Conv))
    device, generator = first.weight.device, torch.Generator().manual_seed(0)
    features = torch.randn(2, first.weight.shape[0 if first.groups > 1 else 1], frames, generator=generator).to(device)
    lengths = torch.tensor([frames, frames * 2 // 5 + 1], device=device)
    features = features * (torch.arange(frames, device=device) < lengths[:, None, None])
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.set_grad_enabled(encoder.training),
    ):
        exact = _outputs(encoder, features, lengths, torch.float64, False)
        plain = distance(_outputs(encoder, features, lengths, dtype, False), exact)
        try:
            fused = distance(_outputs(encoder, features, lengths, dtype, True), exact)
        except Exception as error:  # whatever a compiler or a driver says: there is another way to compute this
            return f"they do not run here: {type(error).__name__}: {(str(error).strip().splitlines() or ['-'])[-1]}"
    if fused > 2 * plain + 1e-5:
        return f"they were {fused:.2g} away from fp64 in a test, PyTorch's own layers {plain:.2g}"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# The choice


def uses_triton(name: str, encoder: nn.Module, dtype: torch.dtype) -> bool:
    """Whether ``encoder`` is to be computed by the fused kernels, by the setting ``name``, in ``dtype``.

    Raises:
        ValueError: for another name, or ``triton`` where it cannot be.
    """
    if name not in CHOICES:
        raise ValueError(f"kernels must be {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, got {name!r}")
    device = _device_of(encoder)
    if name == "plain" or (name == "auto" and device.type != "cuda"):
        return False
    if importlib.util.find_spec("triton") is None:
        reason = "Triton is not installed (pip install triton)"
    elif device.type != "cuda" and not _is_interpreted():
        reason = f"the network is on {device.type}, and Triton needs a GPU"
    elif device.type == "cuda" and torch.cuda.get_device_capability(device) < OLDEST:
        reason = "the GPU is older than compute capability {}.{}".format(*OLDEST)
    else:
        reason = why_not(encoder)
    if reason and name == "triton":
        raise ValueError(f"kernels triton cannot be used: {reason}; take kernels plain, or auto")
    if reason:
        log.info("kernels   plain: %s", reason)
    elif name == "auto":
        reason = failed_test(encoder, dtype)
        if reason:
            log.warning("kernels   plain, which is slower: %s", reason)
    return not reason


def _device_of(encoder: nn.Module) -> torch.device:
    return next(encoder.parameters()).device


def _is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU: slow, and the way they are tested."""
    import triton

    return bool(triton.knobs.runtime.interpret)
