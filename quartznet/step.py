"""One optimiser step: forward and backward over its batches on every rank, then the update, or none.

The gradient is that of the mean loss over all utterances of all batches and ranks, as if they were one batch. A step
whose loss or gradient is not finite is left out, and so are its traces: batch-norm statistics, which the forward pass
has already changed, are put back.

The surprise: every rank must come to the same decision, or the networks part ways without a message. So whatever
decides is summed over ranks first, together with the wishes to stop and to save.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from quartznet import distributed
from quartznet.config import LoopSettings
from quartznet.runstate import Training


class TrainBatch(Protocol):
    """What the loop asks of a batch; ``quartznet.batch.Batch`` is one. Its length is the number of its losses.

    Of speech that is one for each utterance; of text one for each token, so that every token weighs the same.
    """

    names: list[str]  # of what each loss belongs to
    skipped: list[str]

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "TrainBatch": ...


# training, wrapped model, batches, dtype, utterances of all ranks -> every utterance's loss, and name
Gradients = Callable[[Training, nn.Module, list[TrainBatch], torch.dtype, float], tuple[Tensor, list[str]]]


@dataclass(frozen=True)
class StepReport:
    """What one step did, over all ranks."""

    loss_sum: float
    utterances: float
    failed: float  # clips that could not be loaded
    audio_seconds: float
    grad_norm: float
    problem: str  # why the step was left out; empty if it was not
    clips: list[str]  # of this rank, to blame for the problem
    stop: bool  # some rank was asked to stop
    save: bool  # rank 0 says it is time


class LossModule(nn.Module):
    """The model together with its loss, so that DistributedDataParallel sees one forward call."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, TrainBatch, torch.Generator], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: TrainBatch, generator: torch.Generator) -> Tensor:
        """Losses (batch,); without utterances an empty tensor that still reaches every parameter with gradient 0."""
        if len(batch):
            return self.loss(self.model, batch, generator)
        return sum(parameter.sum() for parameter in self.model.parameters() if parameter.requires_grad).reshape(1)[:0]


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 on a GPU that has it, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def add_gradients(
    training: Training, wrapped: nn.Module, batches: list[TrainBatch], dtype: torch.dtype, utterances: float
) -> tuple[Tensor, list[str]]:
    """Forward and backward over all batches; returns every utterance's loss and name.

    Each loss weighs ``world_size / utterances``, because DistributedDataParallel divides by the world size.
    """
    device = next(training.model.parameters()).device
    world = distributed.world_size()
    losses, names = [], []
    for index, batch in enumerate(batches):
        is_last = index == len(batches) - 1  # ranks exchange gradients once, after the last batch
        with nullcontext() if is_last or world == 1 else wrapped.no_sync():
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = wrapped(batch.to(device), training.generator)
            training.scaler.scale(loss.float().sum() * (world / utterances)).backward()
        losses.append(loss.detach().double())
        names += batch.names
    return torch.cat(losses), names


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """A copy of each, in a launch for dozens of one dtype: 15x5 has 282 buffers."""
    found: dict[int, Tensor] = {}
    for dtype in {tensor.dtype for tensor in tensors}:
        places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
        made = [torch.empty_like(tensors[place]) for place in places]
        torch._foreach_copy_(made, [tensors[place] for place in places])
        found |= dict(zip(places, made, strict=True))
    return [found[place] for place in range(len(tensors))]


def find_problem(
    losses: Tensor, loss_sum: float, utterances: float, names: list[str], norm: float, scale: float
) -> tuple[str, list[str]]:
    """Why a step must be left out and the clips of this rank to blame; ``("", [])`` when all is well.

    ``loss_sum``, ``utterances`` and ``norm`` are those of all ranks, or ranks would part ways. With a loss ``scale``
    above 1 (fp16) an infinite gradient is no problem: the scaler leaves the step out and lowers the scale.
    """
    if utterances == 0:
        return "no clip could be loaded", []
    if not math.isfinite(loss_sum):
        return f"the loss is {loss_sum}", [
            *dict.fromkeys(n for n, x in zip(names, losses.tolist(), strict=True) if not math.isfinite(x))
        ]
    if not math.isfinite(norm) and scale <= 1:
        return f"the norm of the gradient is {norm}", list(dict.fromkeys(names))
    return "", []


def train_step(
    training: Training,
    wrapped: nn.Module,
    batches: list[TrainBatch],
    settings: LoopSettings,
    seconds: Callable[[TrainBatch], float],
    requests: Callable[[], list[float]],
    gradients: Gradients | None = None,
) -> StepReport:
    """One optimiser step from ``batches``, or none if something is not finite.

    Args:
        seconds: audio in a batch.
        requests: of this rank: stop, save (0 or 1).
        gradients: takes the place of ``add_gradients``.
    """
    model, optimizer, scaler = training.model, training.optimizer, training.scaler
    device = next(model.parameters()).device
    buffers = copies(list(model.buffers()))
    failed = sum(len(batch.skipped) for batch in batches)
    counts = [sum(len(batch) for batch in batches), failed, sum(seconds(batch) for batch in batches)]
    utterances, failed, audio_seconds = distributed.sum_over_ranks(counts, device)

    dtype = choose_precision(settings.precision, device)
    losses, names = (gradients or add_gradients)(training, wrapped, batches, dtype, max(utterances, 1.0))
    scaler.unscale_(optimizer)
    norm = get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    loss_sum, stop, save = distributed.sum_over_ranks([losses.sum().item(), *requests()], device)
    problem, clips = find_problem(losses, loss_sum, utterances, names, norm.item(), scaler.get_scale())
    if problem:
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    else:
        if settings.optim.grad_clip:
            clip_grads_with_norm_(model.parameters(), settings.optim.grad_clip, norm)
        scaler.step(optimizer)
        if training.average is not None and math.isfinite(norm):
            training.average.update(model)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return StepReport(loss_sum, utterances, failed, audio_seconds, norm.item(), problem, clips, stop > 0, save > 0)
