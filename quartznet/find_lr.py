"""The range test for the learning rate (arXiv:1506.01186): it rises with every step, and the loss shows how far it may.

    rate of step k = lr / 1000 * 100,000 ** (k / 99),    k = 0 ... 99,    lr = optim.lr

A throw-away copy of the network takes these steps with the run's own optimiser, batches, precision and augmentation;
the network itself stays as it is. The loss falls, is least, and rises: a tenth of the rate where the smoothed loss is
least is the advice. The rate of the steepest descent is told beside it. Where the loss explodes the test ends.

The surprise: the loss is counted in nats per second of audio, not per utterance as in training. Batches hold clips of
one length, and the loss of long clips is higher: a curve per utterance would show the order of the batches.
"""

import copy
import itertools
import json
import logging
import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from quartznet import distributed
from quartznet.config import TrainSettings
from quartznet.engine import count_batches, go_to, groups, loaders_may_die
from quartznet.finetune import parameter_groups
from quartznet.optim import build_optimizer
from quartznet.report import COLORS, COLUMNS, smooth
from quartznet.runstate import Training, TrainState
from quartznet.step import LossModule, StepReport, TrainBatch, choose_precision, train_step
from quartznet.task import Task, train_mode

logger = logging.getLogger(__name__)

STEPS = 100
LOWEST, HIGHEST = 1e-3, 100.0  # times optim.lr
REACH = 3  # steps before and after each that it is averaged with
RISE = 3.0  # times the best loss; this far above the best it has exploded
NEARLY = 0.05  # of the fall: the loss may lie flat for a decade of rates, and the first of them is meant
MARGIN = 10.0  # the advice is this much below the rate where the loss is least, which is about to be too high

# ---------------------------------------------------------------------------------------------------------------------
# The curve, and what it says


@dataclass(frozen=True)
class Advice:
    """What a curve says; a rate is None where the curve does not show it."""

    suggestion: float | None  # two digits, for --optim.lr
    at_minimum: float | None  # the lowest where the smoothed loss is nearly least
    steepest: float | None  # where it falls fastest with the logarithm of the rate
    reason: str


@dataclass(frozen=True)
class RateCurve:
    """The steps of a range test, all with finite losses."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]  # before the step of that rate, nats per second of audio
    smoothed: tuple[float, ...]
    advice: Advice
    ended: str  # why there are no more
    clips_left_out: int  # they could not be loaded


def steepest_step(rates: Sequence[float], smoothed: Sequence[float]) -> int:
    """The step around which the loss falls most for a given factor of the rate."""

    def slope(step: int) -> float:
        first, last = max(0, step - REACH), min(len(rates) - 1, step + REACH)
        return (smoothed[last] - smoothed[first]) / math.log(rates[last] / rates[first])

    return min(range(len(rates)), key=slope)


def advise(rates: Sequence[float], losses: Sequence[float]) -> Advice:
    """A tenth of the rate where the smoothed loss is nearly least; none where it falls by less than batches differ."""
    if len(rates) <= 2 * REACH:
        return Advice(None, None, None, f"{len(rates)} steps say nothing; try again with a far lower --optim.lr")
    smoothed = smooth(losses, REACH)
    fall = smoothed[0] - min(smoothed)
    least = next(step for step, loss in enumerate(smoothed) if loss <= min(smoothed) + NEARLY * fall)
    noise = statistics.pstdev(a - b for a, b in zip(losses[: least + 1], smoothed, strict=False))
    if least < REACH or fall <= noise:
        reason = f"the loss falls by {fall:.3g} at most, while batches differ by {noise:.3g}: no rate shows to be good"
        return Advice(None, None, None, reason)
    steepest = rates[steepest_step(rates[: least + 1], smoothed[: least + 1])]
    reason = "a tenth of the rate at which the smoothed loss is least"
    lowest = smoothed.index(min(smoothed))
    if lowest >= len(rates) - 1 - REACH and least > lowest - STEPS // 5:  # a decade of rates
        reason += "; it still falls at the highest rate tried, so more may do"
    return Advice(float(f"{rates[least] / MARGIN:.2g}"), rates[least], steepest, reason)


def has_exploded(losses: Sequence[float]) -> bool:
    """Whether the mean of the last losses is above that of the first step and far above the least such mean."""
    means = [statistics.fmean(losses[max(0, step - REACH) : step + 1]) for step in range(len(losses))]
    return means[-1] > max(min(means) + RISE * abs(min(means)), means[0])


# ---------------------------------------------------------------------------------------------------------------------
# The test


def rates_to_try(lr: float) -> list[float]:
    """``STEPS`` rates from ``LOWEST`` to ``HIGHEST`` times ``lr``, each the same factor above the one before."""
    return [lr * LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(STEPS)]


def endless_groups(loader: DataLoader, size: int, device: torch.device) -> Iterator[list[TrainBatch]]:
    """Lists of up to ``size`` batches, epoch after epoch; raises ValueError where an epoch has none."""
    for epoch in itertools.count():
        if count_batches(loader, epoch) == 0:
            raise ValueError("there is not a single batch to train on; check the data and data.min/max_duration")
        go_to(loader, epoch, 0)
        yield from groups(loader, size, device)


def throw_away_training(model: nn.Module, settings: TrainSettings, task: Task) -> Training:
    """A copy of the model with an optimiser, as the first epoch of the run has them."""
    copied = copy.deepcopy(model)
    if task.tuning is not None:
        task.tuning.begin_epoch(copied, 0)
    train_mode(copied, task)
    device = next(model.parameters()).device
    is_half = choose_precision(settings.precision, device) == torch.float16
    return Training(
        model=copied,
        optimizer=build_optimizer(
            parameter_groups(copied, settings.tune.layer_decay),
            settings.optim,
            task.fused_optimizer,
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=is_half),
        average=None,
        generator=torch.Generator().manual_seed(settings.seed),
        state=TrainState(),
    )


def take_step(
    training: Training, wrapped: LossModule, batches: Iterator[list[TrainBatch]], settings: TrainSettings, task: Task
) -> StepReport:
    """One step; batches of which no clip could be loaded are passed over. Clips left out are counted in the state."""
    for _ in range(settings.max_bad_steps):
        group = next(batches)
        report = train_step(training, wrapped, group, settings, task.seconds, lambda: [0.0, 0.0])
        training.state.epoch_failed += int(report.failed)
        if report.utterances:
            return report
    message = next((message for batch in group for message in batch.skipped), "none was due")
    raise ValueError(f"of {settings.max_bad_steps} steps in a row no clip could be loaded; the last problem: {message}")


def range_test(training: Training, loader: DataLoader, settings: TrainSettings, task: Task) -> RateCurve:
    """Steps until the rates are used up, the loss explodes, or something is not finite; errors as ``find_rate``."""
    device = next(training.model.parameters()).device
    wrapped, batches = LossModule(training.model, task.loss), endless_groups(loader, settings.optim.accumulate, device)
    rates: list[float] = []
    losses: list[float] = []
    ended = f"all {STEPS} rates were tried"
    for rate in rates_to_try(settings.optim.lr):
        for group in training.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        report = take_step(training, wrapped, batches, settings, task)
        if report.problem and not rates:
            raise ValueError(
                f"{report.problem} at the first and lowest rate, {rate:.2g}: not the rate is at fault but the data or "
                f"the precision; try --precision fp32, and look at {', '.join(report.clips[:3])}"
            )
        if report.problem:
            ended = f"{report.problem} at rate {rate:.2g}"
            break
        rates.append(rate)
        losses.append(report.loss_sum / report.audio_seconds)
        if len(rates) % 10 == 0:
            logger.info("step %3d of %d   rate %8.2g   loss %9.4g", len(rates), STEPS, rate, losses[-1])
        if has_exploded(losses):
            ended = f"the loss exploded at rate {rate:.2g}"
            break
    smoothed = tuple(smooth(losses, REACH))
    failed = training.state.epoch_failed
    return RateCurve(tuple(rates), tuple(losses), smoothed, advise(rates, losses), ended, failed)


# ---------------------------------------------------------------------------------------------------------------------
# How it looks


def highest_shown(curve: RateCurve) -> float:
    """The top of the pictures: what rises far above the start is cut off, for the fall is what counts."""
    start, least, most = curve.smoothed[0], min(curve.smoothed), max(curve.smoothed)
    rise = max(start - least, 0.1 * abs(start)) or most - least
    return min(most, start + rise) if most > least else least + 1.0


def sketch(curve: RateCurve, height: int = 12, margin: int = 10) -> str:
    """The smoothed loss against the logarithm of the rate, in characters: ``*`` the loss, ``:`` the advice."""
    width = COLUMNS - margin - 2
    low, top = min(curve.smoothed), highest_shown(curve)
    span = math.log(curve.rates[-1] / curve.rates[0]) or 1.0

    def column(rate: float) -> int:
        return max(0, min(width - 1, round((width - 1) * math.log(rate / curve.rates[0]) / span)))

    grid = [[" "] * width for _ in range(height)]
    if curve.advice.suggestion is not None:
        for row in grid:
            row[column(curve.advice.suggestion)] = ":"
    for rate, loss in zip(curve.rates, curve.smoothed, strict=True):
        grid[min(height - 1, max(0, round((height - 1) * (top - loss) / (top - low))))][column(rate)] = "*"
    labels = {0: f"{top:.4g}", height - 1: f"{low:.4g}"}
    lines = [f"{labels.get(number, ''):>{margin}} |{''.join(row).rstrip()}" for number, row in enumerate(grid)]
    axis, ticks = ["-"] * width, [" "] * width
    for power in range(
        math.ceil(math.log10(curve.rates[0]) - 1e-9), math.floor(math.log10(curve.rates[-1]) + 1e-9) + 1
    ):
        place = column(10.0**power)
        axis[place] = "+"
        start = min(place, width - 5)
        ticks[start : start + 5] = f"1e{power:03d}" if power < 0 else f"1e+{power:02d}"
    return "\n".join([*lines, " " * margin + " +" + "".join(axis), " " * (margin + 2) + "".join(ticks).rstrip()])


def curve_table(curve: RateCurve, lr: float) -> str:
    """The sketch, three rates and the advice, 80 columns wide; ``lr`` is the present optim.lr."""
    advice = curve.advice
    lines = ["loss in nats per second of audio, smoothed, against the rate", sketch(curve), "", curve.ended]
    if curve.clips_left_out:
        lines.append(f"clips left out because they could not be loaded: {curve.clips_left_out}")
    rows = (("least loss", advice.at_minimum), ("steepest fall", advice.steepest), ("optim.lr now", lr))
    lines += [f"{name:14}{rate:8.2g}" for name, rate in rows if rate is not None]
    last = f"no advice: {advice.reason}"
    if advice.suggestion is not None:
        last = f"try --optim.lr {advice.suggestion:g} ({advice.reason})"
    return "\n".join([*lines, *textwrap.wrap(last, COLUMNS, break_on_hyphens=False)])


def draw_curve(curve: RateCurve, lr: float, path: str | Path) -> None:
    """Writes a PNG: every loss faint, the smoothed one, and the rates of the advice."""
    from matplotlib.figure import Figure  # slow to import; a bare Figure draws with Agg and keeps no global state

    figure = Figure(figsize=(8, 4.6), dpi=110, layout="constrained")
    panel = figure.subplots()
    panel.plot(curve.rates, curve.losses, color=COLORS[0], alpha=0.3, linewidth=0.8, label="of each step")
    panel.plot(curve.rates, curve.smoothed, color=COLORS[0], linewidth=2, label="smoothed")
    advice = curve.advice
    panel.axvline(lr, color="#888888", linestyle=":", label=f"optim.lr now, {lr:g}")
    for rate, name, color in ((advice.steepest, "steepest fall", COLORS[4]), (advice.at_minimum, "least", COLORS[1])):
        if rate is not None:
            height = curve.smoothed[curve.rates.index(rate)]
            panel.plot(rate, height, "o", color=color, markersize=8, label=f"{name}, {rate:.2g}")
    if advice.suggestion is not None:
        panel.axvline(advice.suggestion, color=COLORS[2], linewidth=2, label=f"try {advice.suggestion:g}")
    low, top = min(curve.losses), highest_shown(curve)
    panel.set_ylim(low - 0.1 * (top - low), top + 0.1 * (top - low))
    panel.set_xscale("log")
    panel.set_title("Learning rate range test", fontsize=12, fontweight="bold")
    panel.set_xlabel("learning rate")
    panel.set_ylabel("loss, nats per second of audio")
    panel.grid(color="#DDDDDD", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=9)
    figure.savefig(path)


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def find_rate(model: nn.Module, loader: DataLoader, settings: TrainSettings, task: Task, out: Path) -> RateCurve:
    """Tests a copy of ``model``, which is on its device; ``out`` gets find_lr.json and find_lr.png.

    The model, its statistics and the generators of random numbers are afterwards as they were; a ``last.pt`` in ``out``
    is not looked at. Arguments are those of ``quartznet.engine.fit``.

    Raises:
        ValueError: several processes, nothing to train on, clips that cannot be loaded, or a loss that is not finite
            from the first step on.
    """
    if distributed.world_size() > 1:
        raise ValueError("--find-lr is for one process; run it without torchrun (python train.py ... --find-lr)")
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        training = throw_away_training(model, settings, task)
        with loaders_may_die(lambda: None, training.state, out / "last.pt"):
            curve = range_test(training, loader, settings, task)
    go_to(loader, 0, 0)
    out.mkdir(parents=True, exist_ok=True)
    (out / "find_lr.json").write_text(json.dumps(asdict(curve), indent=1) + "\n", encoding="utf-8")
    draw_curve(curve, settings.optim.lr, out / "find_lr.png")
    logger.info("curve: %s, its numbers: find_lr.json beside it", out / "find_lr.png")
    return curve
