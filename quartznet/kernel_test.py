"""Are the Triton kernels right on this GPU? Each is tried against PyTorch before a run trusts it.

Compilers, drivers and chips differ, and a kernel that is a little wrong trains a network that is a little worse, in
silence. So the network's own blocks compute random inputs in fp64 and in the precision of the run by both ways: output,
statistics and all gradients of the fused kernels must be about as near to fp64 as PyTorch's own are. The kernels of CTC
and of NovoGrad are tried on small random problems. It takes the seconds that compiling the kernels takes anyway.

The surprise: any exception is a result here, whatever its class. Compilers and drivers raise what they like, and there
is another way to compute everything.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from quartznet import ctc
from quartznet.layers import Conv
from quartznet.optim import NovoGrad

SLACK = 1e-3  # beside half as much again as PyTorch, where that happens to be exact


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


def _alone(block: nn.Module, dropout: float) -> nn.Module:
    """An encoder of a copy of one block, its batch norms in the same mode, with another dropout."""
    encoder = nn.Module()
    encoder.blocks = nn.ModuleList([copy.deepcopy(block)])
    encoder.blocks[0].config = replace(block.config, dropout=dropout)
    return encoder


def _outputs(
    block: nn.Module, x: Tensor, lengths: Tensor, dtype: torch.dtype, fused: bool, dropout: float = 0.0
) -> list[Tensor]:
    """The real frames of the block's output; in training also the gradients of input and weights, and statistics."""
    encoder = _alone(block, dropout)
    learns = block.training
    x = x.detach().requires_grad_(learns)
    if fused:
        from quartznet.fused import encode

        y, out_lengths = encode(encoder, x, lengths, dtype)
    elif dtype == torch.float64:
        y, out_lengths = encoder.double().blocks[0](x.double()[:, :, None], lengths)
    else:
        with torch.autocast(x.device.type, dtype):
            y, out_lengths = encoder.blocks[0](x[:, :, None], lengths)
    is_real = torch.arange(y.shape[3], device=x.device) < out_lengths[:, None]
    y = y.double() * is_real[:, None, None]
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    if not learns:
        return [y.detach()]
    direction = torch.sin(torch.arange(y.numel(), device=x.device)).view_as(y)
    gradients = torch.autograd.grad((y * direction).sum(), [x, *weights])
    statistics = [buffer for buffer in encoder.buffers() if buffer.dim()]
    return [y.detach(), *(tensor.double() for tensor in (*gradients, *statistics))]


def _is_finite_with_dropout(block: nn.Module, x: Tensor, lengths: Tensor, dtype: torch.dtype) -> bool:
    """Whether its kernels, which are others, run at all: what they drop, PyTorch does not."""
    if not block.config.dropout:
        return True
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        return all(tensor.isfinite().all() for tensor in _outputs(block, x, lengths, dtype, True, block.config.dropout))


def _failed_block(block: nn.Module, dtype: torch.dtype, frames: int) -> str:
    """As ``failed_test``, of one block: inputs as they come from another one, with zeros behind each utterance."""
    first = next(part for part in block.modules() if isinstance(part, Conv))
    device, generator = first.weight.device, torch.Generator().manual_seed(0)
    channels = first.weight.shape[1] * first.groups
    lengths = torch.tensor([frames, frames * 2 // 5 + 1], device=device)
    x = torch.randn(2, channels, frames, generator=generator).relu().to(device)
    x = x * (torch.arange(frames, device=device) < lengths[:, None, None])
    with torch.set_grad_enabled(block.training):
        exact = _outputs(block, x, lengths, torch.float64, False)
        plain = distance(_outputs(block, x, lengths, dtype, False), exact)
        try:
            fused = distance(_outputs(block, x, lengths, dtype, True), exact)
            is_finite = not block.training or _is_finite_with_dropout(block, x, lengths, dtype)
        except Exception as error:
            return f"they do not run here: {_said(error)}"
    if not is_finite:
        return "with dropout they gave numbers that are not finite"
    if fused > 1.5 * plain + SLACK:
        return f"they were {fused:.2g} away from fp64 in a test, PyTorch's own layers {plain:.2g}"
    return ""


def failed_test(encoder: nn.Module, dtype: torch.dtype, frames: int = 200) -> str:
    """What is wrong with the fused kernels for this encoder, in its mode and on its device; empty if nothing.

    Each kind of block by itself: in bf16 the gradients of a deep network are mostly noise, by whatever way they are
    computed, and would hide a mistake. Two random utterances, one of ``frames`` and one less than half as long.
    """
    kinds = {}
    for block in encoder.blocks:
        shapes = tuple(parameter.shape for parameter in block.parameters())
        modes = tuple(part.training for part in block.modules())
        kinds.setdefault((block.config, shapes, modes), block)
    return next(filter(None, (_failed_block(block, dtype, frames) for block in kinds.values())), "")


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
