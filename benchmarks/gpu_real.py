"""Real clips: do the fast ways learn the same, and does the loader keep the device busy?

Each training sees the same batches in the same order, loaded once, and begins with the same weights. Plain fp32 runs
with two seeds, which differ in dither, holes and dropout; how far their losses are apart is the noise that nobody can
tell from luck. The other ways have the first seed, so they must stay within it. Then the dev clips are scored, and each
WER is told with the 95 % interval of its difference from the first one.

The last table is an epoch with the real loader: how long the training waits for data, and how busy the device is.
The surprise: a network with batch norm and dither does not repeat itself in another arithmetic; single losses drift
apart from the first step on, and only their distance beside that of two seeds says anything.
"""

import copy
import importlib.util
import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.utils.data import DataLoader

from benchmarks.gpu_report import Column, Section
from benchmarks.gpu_train import free
from benchmarks.gpu_ways import Bench, Stepper, Way, batches_of, precision
from data.clips import Clips, choose_language, prepare, read_data
from data.loaders import evaluation_loader, training_loader
from data.manifest import Utterance
from quartznet.batch import Batch
from quartznet.config import DataSettings, OptimSettings, TrainSettings
from quartznet.engine import go_to
from quartznet.initial import build_model, read_base
from quartznet.metrics import ErrorCounts, error_counts
from quartznet.model import QuartzNet
from quartznet.recognition import recognise
from quartznet.schedules import learning_rate
from quartznet.significance import paired_bootstrap

CPU = torch.device("cpu")
RATE = 0.001  # the default of optim.lr: a tenth of that from scratch
LEARNING = (
    Column("run", "", 23, left=True),
    Column("apart", "|loss - first|", 15, ".4f"),
    Column("last", "last loss", 10, ".3f"),
    Column("realtime", "x real", 9, ",.0f"),
    Column("wer", "WER %", 8, ".2f"),
    Column("interval", "change, 95 %", 15),
)
LOADING = (
    Column("run", "", 16, left=True),
    Column("steps", "steps", 7, "d"),
    Column("realtime", "x real", 9, ",.0f"),
    Column("waited", "data wait %", 13, ".1f"),
    Column("busy", "in steps %", 12, ".1f"),
    Column("sampled", "NVML %", 8, ".0f"),
    Column("start", "start, s", 10, ".2f"),
)


@dataclass(frozen=True)
class Run:
    """One training on the real clips."""

    name: str
    way: Way
    precision: str
    seed: int


@dataclass(frozen=True)
class Real:
    """The clips and the network that learns from them."""

    settings: TrainSettings
    clips: Clips
    start: QuartzNet

    def model(self, device: torch.device) -> QuartzNet:
        """A network that has learnt nothing yet."""
        return copy.deepcopy(self.start).to(device)


def runs_of(bench: Bench) -> list[Run]:
    """Plain fp32 with two seeds, then every way in bf16."""
    plain = bench.ways[0]
    seeds = [Run(f"{plain.name} fp32, seed {seed}", plain, "fp32", seed) for seed in (0, 1)]
    return [*seeds, *(Run(f"{way.name} bf16, seed 0", way, "bf16", 0) for way in bench.ways)]


def read(bench: Bench) -> Real:
    """Raises FileNotFoundError, ValueError as ``train.py`` does."""
    data = DataSettings(source=str(bench.data), workers=bench.workers, batch_seconds=bench.sizes.padded[0])
    settings = TrainSettings(
        lang=bench.lang, init=str(bench.init), steps=bench.steps, data=data, optim=OptimSettings(lr=RATE)
    )
    splits = read_data(settings)
    language = choose_language(splits, settings)
    torch.manual_seed(0)  # of the output rows that are new
    model = build_model(settings, language.labels, read_base(settings.init))
    frames_per_second = model.config.features.sample_rate / model.samples_per_output
    return Real(settings, prepare(splits, language, model.alphabet, frames_per_second, settings), model)


def loader_of(real: Real, model: QuartzNet, clips: Sequence[Utterance], device: torch.device) -> DataLoader:
    """The loader of ``train.py``."""
    rate, pin = model.config.features.sample_rate, device.type == "cuda"
    shortest, outputs = model.front_end.shortest, model.samples_per_output
    make = partial(training_loader, clips, model.alphabet, real.settings, rate, pin)
    return make(shortest=shortest, samples_per_output=outputs, speed_later=pin)


def first_batches(real: Real, bench: Bench) -> list[Batch]:
    """As many batches as there are steps, of as many epochs as that takes."""
    loader, found = loader_of(real, real.model(CPU), real.clips.train, bench.device), []
    for epoch in itertools.count():
        go_to(loader, epoch, 0)
        for batch in batches_of(loader, CPU):
            found += [batch] if len(batch) else []
            if len(found) == bench.steps:
                return found
        if not found:
            raise ValueError(f"not one clip of {bench.data} could be loaded: {batch.skipped[0]}")


# ---------------------------------------------------------------------------------------------------------------------
# Learning


def learn(run: Run, real: Real, batches: Sequence[Batch], device: torch.device) -> tuple[list[float], float, QuartzNet]:
    """The loss of each step, the seconds that all took by the median step, and the network that came of it."""
    model = run.way.prepare(real.model(device))
    with precision(run.precision) as dtype:
        settings = replace(real.settings, precision=dtype, seed=run.seed)
        stepper, losses, marks = Stepper(run.way, model, settings, run.seed), [], [time.perf_counter()]
        for number, batch in enumerate(batches):
            stepper.set_rate(learning_rate(number, len(batches), settings.schedule, settings.optim.lr))
            losses.append(float(stepper(batch)))
            marks.append(time.perf_counter())
    return losses, len(batches) * statistics.median(b - a for a, b in itertools.pairwise(marks)), model


def score(model: QuartzNet, clips: Sequence[Utterance]) -> list[ErrorCounts]:
    """Word errors of each clip, in fp32."""
    rate, shortest = model.config.features.sample_rate, model.front_end.shortest
    batches = evaluation_loader(clips, model.alphabet, rate, 600.0, shortest=shortest)
    with precision("fp32"):
        rows, _ = recognise(model, batches)
    rows.sort(key=lambda row: row.name)
    return error_counts([row.reference for row in rows], [row.hypothesis for row in rows])


def apart(first: Sequence[float], second: Sequence[float]) -> float:
    """Mean absolute difference, step by step."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)


def tell(run: Run, losses: list[float], took: float, counts: list[ErrorCounts], before: list, seconds: float) -> dict:
    """One row; ``before``: losses and counts of the first run, empty for that itself."""
    last = losses[-max(1, len(losses) // 10) :]
    row = {"run": run.name, "last": sum(last) / len(last), "realtime": seconds / took, "losses": losses}
    row["wer"] = 100 * sum(count.errors for count in counts) / max(1, sum(count.reference_length for count in counts))
    if before:
        found = paired_bootstrap(before[1], counts)
        low, high = (100 * value for value in found.interval)
        row |= {"apart": apart(before[0], losses), "interval": f"{low:+.2f}..{high:+.2f}", "verdict": found.verdict}
    return row


def learning(bench: Bench, real: Real, section: Section) -> None:
    """The first table."""
    batches = first_batches(real, bench)
    seconds = sum(batch.seconds(real.start.config.features.sample_rate) for batch in batches)
    dev = real.clips.dev[: bench.sizes.dev]
    section.say(
        f"{len(batches)} steps, {seconds:,.0f} s of {bench.data}, rate {RATE:g}; {len(dev)} of "
        f"{len(real.clips.dev)} dev clips scored; {len(real.clips.skipped)} clips left out"
    )
    section.begin("learning", LEARNING)
    first: list = []
    rows = []
    for run in runs_of(bench):
        if section.is_over(run.name):
            return
        losses, took, model = learn(run, real, batches, bench.device)
        counts = score(model, dev)
        rows.append(section.row(tell(run, losses, took, counts, first, seconds)))
        first = first or [losses, counts]
        del model
        free(bench.device)
    noise = rows[1]["apart"]
    for row in rows[2:]:
        inside = "within" if row["apart"] <= noise else "OUTSIDE"
        section.say(f"{row['run']}: {row['apart']:.4f}, {inside} the {noise:.4f} between two seeds")


# ---------------------------------------------------------------------------------------------------------------------
# Loading


@contextmanager
def sampled_use(device: torch.device) -> Iterator[list[float]]:
    """Percent of use that the driver tells, asked for five times a second; stays empty where it cannot be asked."""
    found: list[float] = []
    done = threading.Event()
    if device.type != "cuda" or importlib.util.find_spec("pynvml") is None:
        yield found
        return
    import pynvml

    def ask() -> None:
        while not done.wait(0.2):
            try:
                found.append(float(torch.cuda.utilization(device)))
            except pynvml.NVMLError:  # the driver refuses
                return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def epoch(bench: Bench, real: Real, section: Section) -> None:
    """The second table: the last way, bf16, with the loader of ``train.py``."""
    way, padded = bench.ways[-1], bench.sizes.padded[len(bench.sizes.padded) // 2]
    large = replace(real.settings.data, batch_seconds=padded, max_batch=1024)
    real = replace(real, settings=replace(real.settings, data=large))
    model = way.prepare(real.model(bench.device))
    heard = sum(clip.duration for clip in real.clips.train)
    times = max(1, round(bench.sizes.epoch / heard))
    clips = [clip for clip in real.clips.train for _ in range(times)]
    section.say(
        f"an epoch of {times * heard / 3600:.2f} h ({len(real.clips.train)} clips, each {times} times), "
        f"batches of {padded:g} s, {bench.workers} loader processes, {way.name} bf16"
    )
    with precision("bf16") as dtype, sampled_use(bench.device) as sampled:
        stepper = Stepper(way, model, replace(real.settings, precision=dtype))
        begin = time.perf_counter()
        loader = loader_of(real, model, clips, bench.device)
        go_to(loader, 0, 0)
        figures = run_epoch(stepper, batches_of(loader, bench.device), bench, begin)
    section.begin("epoch", LOADING)
    mean = sum(sampled) / len(sampled) if sampled else None
    section.row({"run": f"{way.name} bf16", "sampled": mean, **figures})


def run_epoch(stepper: Stepper, batches: Iterator[Batch], bench: Bench, begin: float) -> dict:
    """Steps until the epoch ends or patience does; the first batch, for which processes start, is not counted."""
    stepper(next(batches))
    start, waited, seconds, count, spans = time.perf_counter(), 0.0, 0.0, 0, []
    before = start
    for batch in batches:
        waited += time.perf_counter() - before
        if len(batch):
            spans.append(_span(stepper, batch, bench.device))
            seconds, count = seconds + batch.seconds(stepper.rate), count + 1
        before = time.perf_counter()
        if before - start > bench.sizes.patience:
            break
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    whole = max(time.perf_counter() - start, 1e-9)
    busy = sum(
        first.elapsed_time(last) / 1000 if bench.device.type == "cuda" else last - first for first, last in spans
    )
    figures = {"steps": count, "realtime": seconds / whole, "waited": 100 * waited / whole, "busy": 100 * busy / whole}
    return {**figures, "start": start - begin}


def _span(stepper: Stepper, batch: Batch, device: torch.device) -> tuple:
    """A step between two events of the device, or two readings of the clock."""
    if device.type != "cuda":
        first = time.perf_counter()
        stepper(batch)
        return first, time.perf_counter()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    stepper(batch)
    last.record()
    return first, last


def real_clips(bench: Bench, section: Section) -> None:
    """Section e."""
    if bench.data is None:
        section.say("left out: real clips need --data MANIFEST --init CHECKPOINT")
        return
    real = read(bench)
    learning(bench, real, section)
    if not section.is_over("an epoch with the real loader"):
        epoch(bench, real, section)
