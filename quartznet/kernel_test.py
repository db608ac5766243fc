"""Are the Triton kernels right on this GPU? Each is tried against PyTorch before a run trusts it.

Compilers, drivers and chips differ, and a kernel that is a little wrong trains a network that is a little worse, in
silence. So the network itself computes random features in fp64 and in the precision of the run by both ways: forward
and all gradients of the fused kernels must be about as near to fp64 as PyTorch's own are. The kernels of CTC and of
NovoGrad are tried on small random problems. It takes the seconds that compiling the kernels takes anyway.

The surprise: any exception is a result here, whatever its class. Compilers and drivers raise what they like, and there
is another way to compute everything.
"""

import copy

import torch
from torch import Tensor, nn

from quartznet import ctc
from quartznet.layers import Conv
from quartznet.optim import NovoGrad


def distance(these: list[Tensor], those: list[Tensor]) -> float:
    """Largest ||this - that|| / ||that|| over pairs of tensors; infinite where something is not finite."""
    pairs = zip(these, those, strict=True)
    ratios = [(torch.dist(this, that) / that.norm().clamp(min=1e-30)).item() for this, that in pairs]
    return max(ratio if ratio == ratio else float("inf") for ratio in ratios)


def _said(error: Exception) -> str:
    """The last line of an exception: Triton puts what it means there."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['-'])[-1]}"


# ---------------------------------------------------------------------------------------------------------------------
# The encoder


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
        except Exception as error:
            return f"they do not run here: {_said(error)}"
    if fused > 2 * plain + 1e-5:
        return f"they were {fused:.2g} away from fp64 in a test, PyTorch's own layers {plain:.2g}"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# CTC and the optimiser


def failed_ctc(device: torch.device) -> str:
    """What is wrong with ``quartznet.ctc_kernel`` on this device; empty if nothing."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 40, 9, generator=generator).to(device)
    targets = torch.randint(8, (3, 12), generator=generator).to(device)
    lengths, target_lengths = (torch.tensor(numbers, device=device) for numbers in ([40, 31, 9], [12, 7, 12]))

    def result(losses: ctc.Losses, dtype: torch.dtype) -> list[Tensor]:
        leaf = logits.to(dtype).requires_grad_()
        loss = losses(leaf.log_softmax(2), lengths, targets, target_lengths, 8)
        return [loss.detach().double(), torch.autograd.grad(loss.sum(), leaf)[0].double()]

    try:
        from quartznet import ctc_kernel

        off = distance(result(ctc_kernel.ctc_losses, torch.float32), result(ctc.ctc_losses, torch.float32))
    except Exception as error:
        return f"those of CTC do not run here: {_said(error)}"
    return "" if off < 1e-4 else f"those of CTC were {off:.2g} away from PyTorch's in a test"


def failed_novograd(device: torch.device) -> str:
    """What is wrong with ``quartznet.novograd_kernel`` on this device; empty if nothing."""
    results = []
    try:
        for kernel in (False, True):
            generator = torch.Generator().manual_seed(0)
            shapes = ((64, 64, 1, 1), (33,), (8, 1, 1, 75))
            weights = [nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in shapes]
            optimizer = NovoGrad(weights, lr=0.1, weight_decay=0.01, kernel=kernel)
            for _ in range(3):
                for weight in weights:
                    weight.grad = torch.randn(weight.shape, generator=generator).to(device)
                optimizer.step()
            results.append([weight.detach().double() for weight in weights])
        off = distance(results[1], results[0])
    except Exception as error:
        return f"that of NovoGrad does not run here: {_said(error)}"
    return "" if off < 1e-5 else f"that of NovoGrad was {off:.2g} away from PyTorch's in a test"


def first_failure(encoder: nn.Module, dtype: torch.dtype) -> str:
    """What is wrong with the kernels that this encoder needs, in its mode and on its device; empty if nothing."""
    failure = failed_test(encoder, dtype)
    if failure or not encoder.training:
        return failure
    device = next(encoder.parameters()).device
    return failed_ctc(device) or failed_novograd(device)
