"""Evaluation inside a training run: the dev set, the watched sets, and the weights kept if they are good.

The surprise: with averaged weights it is the average that is scored, and its batch-norm statistics are what the ranks
must agree on; so the average takes the network's place first, and buffers are averaged over ranks after that.
"""

from contextlib import nullcontext
from pathlib import Path

import torch

from quartznet import distributed
from quartznet.config import LoopSettings
from quartznet.diagnosis import named_cause
from quartznet.interrupt import Interrupt
from quartznet.runlog import RunLog
from quartznet.runstate import Training, TrainState, keep_best
from quartznet.step import choose_precision
from quartznet.task import DevResult, Task, train_mode


def note_watched(state: TrainState, scores: dict[str, tuple[float, float]], log: RunLog) -> None:
    """Keeps and writes the scores of the watched sets."""
    if scores:
        state.watched.append({"step": state.step, "scores": {name: list(pair) for name, pair in scores.items()}})
        log.watched(state.step, scores)


def cause_of(state: TrainState, result: DevResult, task: Task) -> str:
    """Why a recogniser's WER is still near 100 %; "" where it is not."""
    return named_cause(state.history, result.empty, result.impossible, state.skipped_steps, task.suspicion, task.is_ctc)


def evaluate(
    training: Training, settings: LoopSettings, task: Task, out: Path, log: RunLog, interrupt: Interrupt
) -> None:
    """Scores the model (its average, if there is one), writes the score, keeps the weights if they are good."""
    state, model = training.state, training.model
    device = next(model.parameters()).device
    dtype = choose_precision(settings.precision, device)
    with log.not_training(), training.average.applied(model) if training.average is not None else nullcontext():
        distributed.average_buffers(model)  # those of the average, where there is one
        model.eval()
        with torch.random.fork_rng(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            result = task.evaluate(model, interrupt.requested)
            watched = task.watch(model, interrupt.requested) if task.watch is not None and result is not None else {}
        train_mode(model, task)
        if result is None or watched is None:  # asked to stop; the evaluation stays due
            return
        state.evaluation_due = False
        log.clips_left_out(result.skipped)
        train_loss = state.period_loss / state.period_utterances if state.period_utterances else None
        state.period_loss = state.period_utterances = 0.0
        record = {"step": state.step, "epoch": state.epoch, "loss": result.loss, "wer": result.wer, "cer": result.cer}
        state.history.append({**record, "train_loss": train_loss, "seconds": state.seconds})
        log.dev(state.history[-1], result.examples)
        if task.is_speech and (cause := cause_of(state, result, task)):
            log.say(f"WER {100 * result.wer:.0f} %: {cause}")
        note_watched(state, watched, log)
        keep_best(training, task.identity, out, result.wer, settings.keep_best, task.measures[0])
