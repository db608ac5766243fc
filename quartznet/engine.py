"""Training: one loop, written once, in the order schedule, step, log, evaluate, save.

``fit`` knows nothing of speech. A model, a loader of batches and a ``Task`` (how to compute the losses of a batch, how
to score the model) are handed in, so any network can be trained by it.

A step (``quartznet.step``) takes ``accumulate`` batches on every rank. Everything that continues the run is in
``last.pt``: the same command run again goes on, on a CPU bit for bit as if it had never stopped.

The surprise: even making an iterator over a DataLoader draws a random number. That happens here under a copy of the
generator, or a run resumed in the middle of an epoch would draw one number more than the run it continues.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from quartznet import distributed
from quartznet.checkpoint import not_finite
from quartznet.config import LoopSettings
from quartznet.ema import WeightAverage
from quartznet.finetune import parameter_groups
from quartznet.interrupt import CHILD_ENDED, Interrupt, held_back
from quartznet.optim import build_optimizer
from quartznet.prefetch import prefetched
from quartznet.runlog import RunLog
from quartznet.runstate import Training, TrainState, resume, save_last
from quartznet.schedules import learning_rate
from quartznet.scoring import evaluate
from quartznet.settings import save_yaml
from quartznet.step import LossModule, StepReport, TrainBatch, choose_precision, train_step
from quartznet.task import Task, train_mode

# ---------------------------------------------------------------------------------------------------------------------
# Small parts


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


def groups(loader: DataLoader, size: int, device: torch.device) -> Iterator[list[TrainBatch]]:
    """Lists of ``size`` batches on ``device``, the last may be shorter; the random number generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        batches = prefetched(iter(loader), device)
    while group := list(islice(batches, size)):
        yield group


def steps_in_all(state: TrainState, settings: LoopSettings) -> int:
    """Steps of the whole run, counted from where it is: whoever continues with larger batches still gets all epochs."""
    if settings.steps is not None:
        return settings.steps
    if state.epoch >= settings.epochs:
        return state.step
    of_this_epoch, of_an_epoch = (
        math.ceil(batches / settings.optim.accumulate)
        for batches in (state.batches_per_epoch - state.batch, state.batches_per_epoch)
    )
    return state.step + of_this_epoch + (settings.epochs - state.epoch - 1) * of_an_epoch


def evaluation_is_due(state: TrainState, settings: LoopSettings, total_steps: int) -> bool:
    """After every ``evaluate_steps`` steps, or every ``evaluate_every`` epochs, and at the end."""
    if state.step >= total_steps:
        return True
    if settings.evaluate_steps is not None:
        return state.step % settings.evaluate_steps == 0
    return state.batch == 0 and state.epoch % settings.evaluate_every == 0


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def start(model: nn.Module, loader: DataLoader, settings: LoopSettings, task: Task, out: Path) -> Training:
    """A new run, or the one that ``out / "last.pt"`` holds."""
    device = next(model.parameters()).device
    dtype = choose_precision(settings.precision, device)
    seed = settings.seed + 1000 * distributed.rank()  # dropout, dither and masks differ between ranks
    torch.manual_seed(seed)
    training = Training(
        model=model,
        optimizer=build_optimizer(
            parameter_groups(model, settings.layer_decay),
            settings.optim,
            task.fused_optimizer,
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        average=WeightAverage(model, settings.ema) if settings.ema else None,
        generator=torch.Generator().manual_seed(seed),
        state=TrainState(batches_per_epoch=count_batches(loader, 0)),
    )
    if training.state.batches_per_epoch == 0:
        raise ValueError("there is not a single batch to train on; check the data and data.min/max_duration")
    if (out / "last.pt").exists():
        resume(training, settings, task.identity, out / "last.pt")
    if distributed.is_main():  # not before the run is known to be the same one
        out.mkdir(parents=True, exist_ok=True)
        save_yaml(settings, out / "settings.yaml")
    return training


def note_problem(training: Training, settings: LoopSettings, report: StepReport, log: RunLog) -> bool:
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


def advance(state: TrainState, batches: int, epoch_batches: int, report: StepReport, seconds: float) -> None:
    """One step of ``batches`` further; after the last of the epoch stands the first of the next."""
    if state.batch == 0:
        state.epoch_clips = state.epoch_failed = 0
    state.step += 1
    state.batch += batches
    state.epoch_clips += int(report.utterances + report.failed)
    state.epoch_failed += int(report.failed)
    if state.batch >= epoch_batches:
        state.epoch, state.batch = state.epoch + 1, 0
    state.seconds = seconds
    state.audio_seconds += report.audio_seconds
    if not report.problem:
        state.period_loss += report.loss_sum
        state.period_utterances += report.utterances


def too_many_failures(state: TrainState, limit: float) -> bool:
    """Whether more than ``limit`` of this epoch's clips could not be loaded: something is wrong with the whole corpus.

    One bad clip must not stop a small corpus: in the middle of an epoch 10 must have failed, at its end 3.
    """
    return state.epoch_failed >= (3 if state.batch == 0 else 10) and state.epoch_failed > limit * state.epoch_clips


def give_up(report: StepReport, settings: LoopSettings, last: Path, saved_step: int) -> ValueError:
    """The error after too many bad steps in a row."""
    steps = f"{settings.max_bad_steps} steps in a row were left out, the last because {report.problem}"
    if report.utterances == 0:
        return ValueError(f"{steps}; see {last.with_name('skipped.txt')}; the same command continues from {last}")
    return ValueError(
        f"{steps}; try a lower rate (--optim.lr {settings.optim.lr / 2:g}), --precision fp32 or --optim.grad_clip 1, "
        f"and look at what is named above; the same command continues from {last} of step {saved_step}, and if that "
        "changes nothing its weights are past help: delete it to start again"
    )


def clips_fail(state: TrainState, settings: LoopSettings, out: Path) -> ValueError:
    """The error after too many clips that could not be loaded."""
    return ValueError(
        f"{state.epoch_failed} of {state.epoch_clips} clips of this epoch could not be loaded, more than the "
        f"{settings.max_failures:.1%} of data.max_failures; {out / 'skipped.txt'} names them. Mend them, or leave "
        f"out all at once with python -m data.prepare, or raise --data.max_failures; the same command continues from "
        f"{out / 'last.pt'}"
    )


def is_suspect(state: TrainState, report: StepReport) -> bool:
    """Losses of several steps in a row are not finite: perhaps the weights are past help, and last.pt is better."""
    return state.bad_in_a_row > 1 and report.utterances > 0 and state.saved_step is not None


def check_weights(model: nn.Module, state: TrainState, lr: float, last: Path) -> None:
    """Before anything is saved: weights that are not finite never recover and must not take the place of good ones.

    Raises:
        ValueError: on all ranks, if some weight or statistic is NaN or infinite on any of them.
    """
    broken = not_finite(model)
    device = next(model.parameters()).device
    if distributed.sum_over_ranks([len(broken)], device)[0]:
        rest = (
            f"{last} is from before: the same command with a lower rate continues from it"
            if last.exists()
            else ("nothing had been saved yet: start again with a lower rate")
        )
        raise ValueError(
            f"the run diverged: at step {state.step} {(broken or ['a weight of another process'])[0]} is not finite; "
            f"{rest} (--optim.lr {lr / 2:g})"
        )


def save_and_evaluate(
    training: Training,
    settings: LoopSettings,
    task: Task,
    out: Path,
    log: RunLog,
    interrupt: Interrupt,
    suspect: bool,
    stop: bool,
) -> None:
    """Saves, and saves again after an evaluation that is due, because much can go wrong in one."""
    if not suspect:
        check_weights(training.model, training.state, settings.optim.lr, out / "last.pt")
        save_last(training, settings, task.identity, out)
    if training.state.evaluation_due and not stop:
        evaluate(training, settings, task, out, log, interrupt)
        if not suspect:
            save_last(training, settings, task.identity, out)


@contextmanager
def loaders_may_die(save: Callable[[], None], state: TrainState, last: Path) -> Iterator[None]:
    """A loader process that is killed, usually because memory is full, becomes an error that says so, after ``save``.

    Raises:
        ValueError: in place of the loader's own RuntimeError; any other passes through.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        save()
        kept = "nothing was saved yet" if state.saved_step is None else f"{last} holds step {state.saved_step}"
        raise ValueError(
            f"a loader process was killed ({str(error).splitlines()[0]}). Usually the memory is full: lower "
            f"--data.workers, --data.batch_seconds or --data.cache_gigabytes. {kept}; the same command continues"
        ) from error


def fit(
    model: nn.Module, loader: DataLoader, settings: LoopSettings, task: Task, out: Path
) -> tuple[TrainState, int | None]:
    """Trains ``model``, which is on its device; ``out`` gets settings.yaml, last.pt, best.pt, the best few and the log.

    Args:
        loader: batches; its ``batch_sampler`` has ``set_epoch``, ``start_at`` and the length of a whole epoch.

    Returns:
        the final state, and the signal to some process that ended the run early, or None.

    Raises:
        ValueError: nothing to train on, a ``last.pt`` of another network, too many bad steps in a row, divergence, or a
            loader process that was killed.
    """
    training = start(model, loader, settings, task, out)
    state = training.state
    total_steps = steps_in_all(state, settings)
    scored = state.history[-1]["step"] if state.history else -1
    if (state.step >= total_steps and scored < state.step) or (state.step == 0 and scored < 0 and task.evaluate_first):
        state.evaluation_due = True  # told to do fewer steps than are done, or nothing yet is better than the base
    log = RunLog(out, state.step, total_steps, state.evaluation_due, task.unit, task.measures)
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    wrapped = None

    def save_whole_steps() -> None:  # one rank cannot save alone: all take part
        if distributed.world_size() == 1:
            save_last(training, settings, task.identity, out)

    with log, Interrupt() as interrupt, loaders_may_die(save_whole_steps, state, out / "last.pt"):

        def requests() -> list[float]:
            is_time = distributed.is_main() and time.monotonic() - saved > 60 * settings.save_every
            return [float(interrupt.requested()), float(is_time)]

        diverged = failing = stop = False
        if state.evaluation_due:  # the run was stopped during this evaluation, or begins with trained weights
            evaluate(training, settings, task, out, log, interrupt)
            save_last(training, settings, task.identity, out)
            stop = state.evaluation_due
        while state.step < total_steps and not stop:
            epoch, epoch_batches = state.epoch, count_batches(loader, state.epoch)
            go_to(loader, epoch, state.batch)
            changed = task.tuning is not None and task.tuning.begin_epoch(model, epoch)
            if wrapped is None or changed:
                wrapped = distributed.wrap(LossModule(model, task.loss), next(model.parameters()).device)
            train_mode(model, task)

            for batches in groups(loader, settings.optim.accumulate, next(model.parameters()).device):
                # schedule
                lr = learning_rate(state.step, total_steps, settings.schedule, settings.optim.lr)
                for group in training.optimizer.param_groups:
                    group["lr"] = lr * group["scale"]

                # step
                with held_back(CHILD_ENDED):  # a loader that dies meanwhile finds a whole step to save
                    report = train_step(training, wrapped, batches, settings, task.seconds, requests, task.gradients)
                    advance(state, len(batches), epoch_batches, report, time.monotonic() - began)

                # log
                log.clips_left_out([message for batch in batches for message in batch.skipped])
                log.add(report.loss_sum, report.utterances, report.audio_seconds, bool(report.problem))
                diverged = note_problem(training, settings, report, log)
                failing = too_many_failures(state, settings.max_failures)
                if state.step % settings.log_every == 0 or state.step in (1, total_steps):
                    log.train(state.step, epoch, lr, report.grad_norm, state.seconds, state.audio_seconds)

                # save, and evaluate
                stop = report.stop or diverged or failing
                state.evaluation_due = evaluation_is_due(state, settings, total_steps)
                if stop or state.evaluation_due or report.save:
                    save_and_evaluate(training, settings, task, out, log, interrupt, is_suspect(state, report), stop)
                    saved = time.monotonic()
                    stop = stop or state.evaluation_due
                if stop or state.step >= total_steps:
                    break

        if diverged:
            raise give_up(report, settings, out / "last.pt", state.saved_step)
        if failing:
            raise clips_fail(state, settings, out)
        signals = [number for number in distributed.gather(interrupt.signal) if number is not None]
    return state, signals[0] if signals else None
