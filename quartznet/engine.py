"""Training: one loop, written once, in the order schedule, step, log, evaluate, save.

``fit`` knows nothing of speech. A model, a loader of batches and a ``Task`` (how to compute the losses of a batch, how
to score the model) are handed in, so any network can be trained by it.

A step takes ``accumulate`` batches on every rank. Its gradient is that of the mean loss over all their utterances, as
if they were one batch. A step whose loss or gradient is not finite is left out, with the clips' names; batch-norm
statistics, which the forward pass has already changed, are put back. Everything that continues the run is in
``last.pt``: the same command run again goes on, on a CPU bit for bit as if it had never stopped.

The surprise: even making an iterator over a DataLoader draws a random number. That happens here under a copy of the
generator, or a run resumed in the middle of an epoch would draw one number more than the run it continues.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.data import DataLoader

from quartznet import distributed
from quartznet.config import TrainSettings
from quartznet.ema import WeightAverage
from quartznet.interrupt import Interrupt
from quartznet.optim import build_optimizer
from quartznet.runlog import RunLog
from quartznet.runstate import Training, TrainState, keep_best, resume, save_last
from quartznet.schedules import learning_rate

# ---------------------------------------------------------------------------------------------------------------------
# What is handed in, and what is kept


class TrainBatch(Protocol):
    """What the loop asks of a batch; ``quartznet.batch.Batch`` is one."""

    names: list[str]
    skipped: list[str]

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "TrainBatch": ...


@dataclass(frozen=True)
class DevResult:
    """A whole evaluation. Rates are fractions."""

    loss: float
    wer: float
    cer: float
    examples: list[tuple[str, str]]  # a few (reference, hypothesis) pairs


@dataclass(frozen=True)
class Task:
    """What the loop cannot know: how this model computes losses, how it is scored, what identifies it."""

    loss: Callable[[nn.Module, TrainBatch, torch.Generator], Tensor]  # losses of a batch, (batch,) fp32
    evaluate: Callable[[nn.Module, Callable[[], bool]], DevResult | None]  # None: stopped because asked to
    seconds: Callable[[TrainBatch], float]  # audio in a batch
    identity: dict  # "model_config", "lang": goes into every checkpoint
    encoder: nn.Module | None = None  # the part that ``freeze_encoder`` holds still


@dataclass(frozen=True)
class StepReport:
    """What one step did, over all ranks."""

    loss_sum: float
    utterances: float
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


# ---------------------------------------------------------------------------------------------------------------------
# Small parts


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 on a GPU that has it, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def set_frozen(module: nn.Module | None, frozen: bool) -> None:
    """Weights that get no gradient are left alone by the optimiser, decay included; batch norm still updates."""
    for parameter in module.parameters() if module is not None else ():
        parameter.requires_grad_(not frozen)
        parameter.grad = None


def go_to(loader: DataLoader, epoch: int, batch: int) -> None:
    """Makes the next iteration over ``loader`` start at a batch of an epoch."""
    if hasattr(loader.dataset, "set_epoch"):
        loader.dataset.set_epoch(epoch)
    loader.batch_sampler.set_epoch(epoch)
    loader.batch_sampler.start_at(batch)


def count_batches(loader: DataLoader, epoch: int) -> int:
    """Batches of a whole epoch."""
    go_to(loader, epoch, 0)
    return len(loader.batch_sampler)


def groups(loader: DataLoader, size: int) -> Iterator[list[TrainBatch]]:
    """Lists of ``size`` batches, the last may be shorter; leaves the random number generator as it was."""
    with torch.random.fork_rng(devices=[]):
        batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def evaluation_is_due(state: TrainState, settings: TrainSettings, total_steps: int) -> bool:
    """After every ``evaluate_steps`` steps, or every ``evaluate_every`` epochs, and at the end."""
    if state.step >= total_steps:
        return True
    if settings.evaluate_steps is not None:
        return state.step % settings.evaluate_steps == 0
    return state.batch == 0 and state.epoch % settings.evaluate_every == 0


# ---------------------------------------------------------------------------------------------------------------------
# One step


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


def find_problem(losses: Tensor, loss_sum: float, names: list[str], norm: float, scaled: bool) -> tuple[str, list[str]]:
    """Why a step must be left out and the clips to blame; ``("", [])`` when all is well.

    With a loss scale (fp16) an infinite gradient is no problem: the scaler leaves the step out and lowers the scale.
    """
    if not losses.numel() and loss_sum == 0:
        return "no clip could be loaded", []
    if not math.isfinite(loss_sum):
        return f"the loss is {loss_sum}", [
            n for n, x in zip(names, losses.tolist(), strict=True) if not math.isfinite(x)
        ]
    if not math.isfinite(norm) and not scaled:
        return f"the norm of the gradient is {norm}", names
    return "", []


def train_step(
    training: Training,
    wrapped: nn.Module,
    batches: list[TrainBatch],
    settings: TrainSettings,
    task: Task,
    requests: Callable[[], list[float]],
) -> StepReport:
    """One optimiser step from ``batches``, or none if something is not finite. ``requests()``: stop, save (0 or 1)."""
    model, optimizer, scaler = training.model, training.optimizer, training.scaler
    device = next(model.parameters()).device
    buffers = [buffer.clone() for buffer in model.buffers()]
    counts = [sum(len(batch) for batch in batches), sum(task.seconds(batch) for batch in batches)]
    utterances, seconds = distributed.sum_over_ranks(counts, device)

    dtype = choose_precision(settings.precision, device)
    losses, names = add_gradients(training, wrapped, batches, dtype, max(utterances, 1.0))
    scaler.unscale_(optimizer)
    norm = get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    loss_sum, stop, save = distributed.sum_over_ranks([losses.sum().item(), *requests()], device)
    problem, clips = find_problem(losses, loss_sum, names, norm.item(), scaler.is_enabled())
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
    return StepReport(loss_sum, utterances, seconds, norm.item(), problem, clips, stop > 0, save > 0)


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def start(model: nn.Module, loader: DataLoader, settings: TrainSettings, task: Task, out: Path) -> Training:
    """A new run, or the one that ``out / "last.pt"`` holds."""
    device = next(model.parameters()).device
    dtype = choose_precision(settings.precision, device)
    seed = settings.seed + 1000 * distributed.rank()  # dropout, dither and masks differ between ranks
    torch.manual_seed(seed)
    training = Training(
        model=model,
        optimizer=build_optimizer(model.parameters(), settings.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        average=WeightAverage(model, settings.ema) if settings.ema else None,
        generator=torch.Generator().manual_seed(seed),
        state=TrainState(batches_per_epoch=count_batches(loader, 0)),
    )
    if training.state.batches_per_epoch == 0:
        raise ValueError("there is not a single batch to train on; check the data and data.min/max_duration")
    if (out / "last.pt").exists():
        resume(training, settings, task.identity, out / "last.pt")
    return training


def evaluate(
    training: Training, settings: TrainSettings, task: Task, out: Path, log: RunLog, interrupt: Interrupt
) -> None:
    """Scores the model (its average, if there is one), writes the score, keeps the weights if they are good."""
    state, model = training.state, training.model
    device = next(model.parameters()).device
    dtype = choose_precision(settings.precision, device)
    distributed.average_buffers(model)
    with training.average.applied(model) if training.average is not None else nullcontext():
        model.eval()
        with torch.random.fork_rng(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            result = task.evaluate(model, interrupt.requested)
        model.train()
        if result is None:  # asked to stop; the evaluation stays due
            return
        state.evaluation_due = False
        record = {"step": state.step, "epoch": state.epoch, "loss": result.loss, "wer": result.wer, "cer": result.cer}
        state.history.append({**record, "seconds": state.seconds})
        log.dev(state.history[-1], result.examples)
        keep_best(training, task.identity, out, result.wer, settings.keep_best)


def note_problem(training: Training, settings: TrainSettings, report: StepReport, log: RunLog) -> bool:
    """Counts a step that was left out; True when there were too many in a row."""
    state = training.state
    state.scaler_skips += int(
        training.scaler.is_enabled() and not report.problem and not math.isfinite(report.grad_norm)
    )
    if not report.problem:
        state.bad_in_a_row = 0
        return False
    state.skipped_steps += 1
    state.bad_in_a_row += 1
    log.skipped_step(state.step, report.problem, report.clips)
    return state.bad_in_a_row >= settings.max_bad_steps


def fit(
    model: nn.Module, loader: DataLoader, settings: TrainSettings, task: Task, out: Path
) -> tuple[TrainState, int | None]:
    """Trains ``model``, which is on its device, and leaves last.pt, best.pt, the best few and metrics.jsonl in ``out``.

    Args:
        loader: batches; its ``batch_sampler`` has ``set_epoch``, ``start_at`` and the length of a whole epoch.

    Returns:
        the final state, and the signal that ended the run early, or None.

    Raises:
        ValueError: nothing to train on, a ``last.pt`` of another network, or too many bad steps in a row.
    """
    out.mkdir(parents=True, exist_ok=True)
    training = start(model, loader, settings, task, out)
    state = training.state
    steps_per_epoch = math.ceil(state.batches_per_epoch / settings.optim.accumulate)
    total_steps = settings.steps if settings.steps is not None else settings.epochs * steps_per_epoch
    log = RunLog(out, state.step, total_steps)
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    wrapped, was_frozen = None, None

    with log, Interrupt() as interrupt:

        def requests() -> list[float]:
            is_time = distributed.is_main() and time.monotonic() - saved > 60 * settings.save_every
            return [float(interrupt.requested()), float(is_time)]

        stop = diverged = False
        if state.evaluation_due:  # the run was stopped during this evaluation
            evaluate(training, settings, task, out, log, interrupt)
        while state.step < total_steps and not stop:
            epoch, epoch_batches = state.epoch, count_batches(loader, state.epoch)
            go_to(loader, epoch, state.batch)
            is_frozen = epoch < settings.freeze_encoder
            if is_frozen != was_frozen:
                set_frozen(task.encoder, is_frozen)
                wrapped = distributed.wrap(LossModule(model, task.loss), next(model.parameters()).device)
                was_frozen = is_frozen
            model.train()

            for batches in groups(loader, settings.optim.accumulate):
                # schedule
                lr = learning_rate(state.step, total_steps, settings.schedule, settings.optim.lr)
                for group in training.optimizer.param_groups:
                    group["lr"] = lr

                # step
                report = train_step(training, wrapped, batches, settings, task, requests)
                state.step += 1
                state.batch += len(batches)
                if state.batch >= epoch_batches:
                    state.epoch, state.batch = epoch + 1, 0
                state.seconds = time.monotonic() - began
                state.audio_seconds += report.audio_seconds

                # log
                log.clips_left_out([message for batch in batches for message in batch.skipped])
                log.add(report.loss_sum, report.utterances, report.audio_seconds, bool(report.problem))
                diverged = note_problem(training, settings, report, log)
                if state.step % settings.log_every == 0 or state.step == total_steps:
                    log.train(state.step, epoch, lr, report.grad_norm, state.seconds, state.audio_seconds)

                # evaluate
                stop = report.stop or diverged
                state.evaluation_due = evaluation_is_due(state, settings, total_steps)
                just_evaluated = state.evaluation_due and not stop
                if just_evaluated:
                    evaluate(training, settings, task, out, log, interrupt)
                    stop = stop or state.evaluation_due

                # save
                if stop or just_evaluated or report.save:
                    save_last(training, settings, task.identity, out)
                    saved = time.monotonic()
                if stop or state.step >= total_steps:
                    break

        if diverged:
            raise ValueError(
                f"{settings.max_bad_steps} steps in a row were left out, the last because {report.problem}; try a "
                f"lower rate (--optim.lr {settings.optim.lr / 2:g}), --precision fp32 or --optim.grad_clip 1, and look "
                f"at the clips named above; everything learnt so far is in {out / 'last.pt'}"
            )
    return state, interrupt.signal
