"""A training step from waveform to optimiser: milliseconds, times real time, memory, launches; and against others.

``steps`` is ours in every precision, length and size of batch, and how large a batch may be. ``others`` is ours beside
the twin of ``gpu_twin``, NeMo's encoder and ``torch.compile``. Times real time counts seconds of audio without the
padding; "launch" the kernels of a step, "waits" how often the host waited for the device in it, "host" the ms before
the first of these waits, or of the whole step where there is none.
"""

import gc
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import gpu_clock
from benchmarks.gpu_report import Column, Section
from benchmarks.gpu_twin import TWIN, as_nemo, as_twin, compiled, difference, is_nemo_here
from benchmarks.gpu_ways import (
    ENGLISH,
    PRECISIONS,
    Bench,
    NotOffered,
    Stepper,
    Way,
    checkpointed,
    precision,
    with_statistics,
)
from quartznet.batch import Batch

FIRST = (Column("way", "way", 9, left=True), Column("precision", "prec", 5, left=True))
SHAPE = (Column("clip", "clip", 5, ".1f"), Column("padded", "batch", 6, ".0f"))
SPEED = (
    Column("ms", "ms", 9, ",.2f"),
    Column("spread", "+-%", 5, ".1f"),
    Column("realtime", "x real", 8, ",.0f"),
)
STEP = (
    *FIRST,
    *SHAPE,
    *SPEED,
    Column("clips_per_second", "clips/s", 8, ",.0f"),
    Column("peak_gb", "GB", 7, ".2f"),
    Column("kernels", "launch", 7, ",d"),
    Column("waits", "waits", 6, "d"),
    Column("host_ms", "host", 5, ".0f"),
)
OTHER = (*FIRST, *SHAPE, *SPEED, Column("peak_gb", "peak GB", 8, ".2f"), Column("times", "x twin", 8, ".2f"))
LARGEST = (
    *FIRST,
    Column("recompute", "activations", 13, left=True),
    Column("clip", "clip", 6, ".1f"),
    Column("clips", "clips", 8, ",d"),
    Column("padded", "padded s", 10, ",.0f"),
    Column("peak_gb", "peak GB", 9, ".2f"),
    Column("realtime", "x real", 9, ",.0f"),
)


@dataclass(frozen=True)
class Cell:
    """One shape of input."""

    precision: str
    clip: float  # s
    padded: float  # s


def free(device: torch.device) -> None:
    """What nobody holds any more goes back to the device."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def step_row(bench: Bench, stepper: Stepper, batches: Sequence[Batch], counted: bool) -> dict:
    """The figures of one cell; ``counted``: launches and waits too."""

    def call(number: int) -> object:
        return stepper(batches[number % len(batches)])

    begin = time.perf_counter()
    call(0)
    gpu_clock.wait_for(bench.device)
    first = time.perf_counter() - begin
    gpu_clock.forget_peak(bench.device)
    found = bench.measure(call)
    peak = gpu_clock.peak(bench.device)
    seconds = sum(map(gpu_clock.audio_seconds, batches)) / len(batches)
    row = {"ms": found.median, "low_ms": found.low, "high_ms": found.high, "calls": found.calls, "first_s": first}
    row |= {"spread": found.spread, "realtime": 1000 * seconds / found.median, "peak_gb": peak}
    row |= {"clips": len(batches[0]), "clips_per_second": 1000 * len(batches[0]) / found.median}
    if counted:
        waits, launches = gpu_clock.waits(call, bench.device), gpu_clock.launches(call, bench.device)
        row |= {"kernels": launches.kernels, "runtime_calls": launches.calls, "busy_ms": launches.busy}
        row |= {"waits": len(waits) if bench.device.type == "cuda" else None}
        row |= {"host_ms": gpu_clock.host_time(call, bench.device, waits), "waited": [wait.place for wait in waits]}
    return row


def guarded(bench: Bench, section: Section, first: dict, work: Callable[[], dict]) -> dict:
    """A row of ``work``, or a note that the memory was full, or of what the product refuses."""
    try:
        return section.row({**first, **work()})
    except torch.OutOfMemoryError:
        found = {**first, "note": "out of memory"}
    except NotOffered as error:
        found = {**first, "note": str(error)}
    free(bench.device)  # not inside the handler, where the error still holds what did not fit
    return section.row(found)


# ---------------------------------------------------------------------------------------------------------------------
# Ours


def cells(bench: Bench, is_first: bool) -> list[Cell]:
    """What is measured of a network, by precision; of the first one more, with ``--full`` everything."""
    clips, padded = bench.sizes.clips, bench.sizes.padded
    middle_clip, middle = clips[len(clips) // 2], padded[len(padded) // 2]
    every = [Cell(name, clip, batch) for name in PRECISIONS for clip in clips for batch in padded]
    if bench.full:
        return every
    if is_first:
        return [cell for cell in every if cell.precision == "bf16" or (cell.clip > clips[0] and cell.padded == middle)]
    return [cell for cell in every if cell.padded == middle and (cell.clip == middle_clip or cell.precision == "bf16")]


def steps(bench: Bench, section: Section) -> None:
    """Section a."""
    for preset in bench.presets:
        section.say(f"{preset}: training step, waveform to optimiser")
        section.begin(f"steps {preset}", STEP)
        wanted = cells(bench, preset == bench.presets[0])
        for name in ("bf16", "tf32", "fp32"):
            for way in bench.ways:
                here = [cell for cell in wanted if cell.precision == name]
                if section.is_over(f"{preset} {way.name} {name}"):
                    return
                with precision(name) as dtype:
                    _steps_of(bench, section, way, preset, dtype, here)
    largest(bench, section)


def _steps_of(bench: Bench, section: Section, way: Way, preset: str, dtype: str, wanted: Sequence[Cell]) -> None:
    try:
        stepper = bench.stepper(way, preset, dtype)
    except NotOffered as error:
        section.row({"way": way.name, "precision": wanted[0].precision, "note": str(error)})
        return
    for number, cell in enumerate(wanted):
        if section.is_over(f"{len(wanted) - number} figures of {preset} {way.name} {cell.precision}"):
            return
        first = {"way": way.name, "precision": cell.precision, "clip": cell.clip, "padded": cell.padded}
        batches = bench.batches(cell.clip, cell.padded)
        row = guarded(bench, section, first, partial(step_row, bench, stepper, batches, number == 0))
        if row.get("waited"):
            places = ", ".join(f"{place} ({count})" for place, count in Counter(row["waited"]).items())
            section.say(f"{way.name} {cell.precision} waits for the device in {places}")


# ---------------------------------------------------------------------------------------------------------------------
# The largest batch


def largest(bench: Bench, section: Section) -> None:
    """The largest batch of the longest clips that fits, with activations kept and, where offered, computed again."""
    preset = bench.presets[0]
    section.say(f"{preset}: the largest batch of {bench.sizes.clips[-1]:g}-s clips, found by doubling")
    section.begin("largest", LARGEST)
    for way in (way for way in bench.ways if not way.graphs):  # whose recordings would stay in memory
        for name in ("bf16", "fp32"):
            for recompute in ("kept", "recomputed"):
                if section.is_over(f"largest batch, {way.name} {name} {recompute}"):
                    return
                first = {"way": way.name, "precision": name, "recompute": recompute, "clip": bench.sizes.clips[-1]}
                with precision(name) as dtype:
                    row = guarded(bench, section, first, partial(largest_of, bench, section, way, dtype, recompute))
                if "stopped_by" in row:
                    section.say(f"  ended by {row['stopped_by']}")
                free(bench.device)


def largest_of(bench: Bench, section: Section, way: Way, dtype: str, recompute: str) -> dict:
    """A row; raises NotOffered for a network that cannot compute its activations again."""
    stepper = bench.stepper(way, bench.presets[0], dtype)
    if recompute != "kept" and checkpointed(stepper.training.model) is None:
        raise NotOffered("with the fused kernels alone")
    return find_largest(bench, stepper, section)


def find_largest(bench: Bench, stepper: Stepper, section: Section) -> dict:
    """Doubles the batch until the memory is full, then tries what the two largest peaks let expect; the last success.

    Raises torch.OutOfMemoryError where not even the first batch fits.
    """
    padded, found, reason = bench.sizes.padded[-1], [], f"{bench.sizes.most_padded:g} s are enough"
    while padded <= bench.sizes.most_padded and not section.is_over("larger batches"):
        row, stopped = _try(bench, stepper, padded)
        if row is None:
            reason = f"{padded:g} s: {stopped}"
            break
        found.append(row)
        padded *= 2
    if not found:
        raise torch.OutOfMemoryError(f"a batch of {reason}")
    if bench.device.type == "cuda" and len(found) > 1:
        row, _ = _try(bench, stepper, expected(found[-2:], torch.cuda.mem_get_info()[1] / 1e9))
        found += [row] if row is not None and row["padded"] > found[-1]["padded"] else []
    return {**found[-1], "stopped_by": reason}


def expected(rows: Sequence[dict], total: float) -> float:
    """Padded seconds that fill 95 % of ``total`` GB, if memory grows as from the first row to the second."""
    first, second = rows
    slope = (second["peak_gb"] - first["peak_gb"]) / (second["padded"] - first["padded"])
    return first["padded"] + (0.95 * total - first["peak_gb"]) / slope


def _try(bench: Bench, stepper: Stepper, padded: float) -> tuple[dict | None, str]:
    """Two steps on a batch of that size, the second one timed, and ""; or None, and what stopped them."""
    try:
        row, reason = _two_steps(bench, stepper, padded), ""
    except torch.OutOfMemoryError:
        row, reason = None, "out of memory"
    except RuntimeError as error:  # a kernel that cannot count so far
        row, reason = None, str(error).split("\n")[0]
    stepper.training.optimizer.zero_grad(set_to_none=True)
    free(bench.device)  # not inside the handler, where the error still holds what did not fit
    return row, reason


def _two_steps(bench: Bench, stepper: Stepper, padded: float) -> dict:
    clip = bench.sizes.clips[-1]
    batch = gpu_clock.random_batch(clip, padded, len(ENGLISH), bench.device, seed=round(padded), host=False)
    gpu_clock.forget_peak(bench.device)
    found = gpu_clock.measure(lambda _: stepper(batch), bench.device, 1)
    row = {
        "clips": len(batch),
        "padded": len(batch) * clip,
        "ms": found.median,
        "peak_gb": gpu_clock.peak(bench.device),
    }
    return {**row, "realtime": 1000 * gpu_clock.audio_seconds(batch) / found.median}


# ---------------------------------------------------------------------------------------------------------------------
# Others


def others(bench: Bench, section: Section) -> None:
    """Section b."""
    preset, ways = bench.presets[0], [*bench.ways, Way(TWIN, as_twin)]
    section.say(f"{preset}: ours beside an nn.Conv1d twin with NeMo's masks, the same front end, loss and optimiser")
    check_twin(bench, section)
    missing = is_nemo_here()
    if missing:
        section.say(f"NeMo's own encoder is left out: {missing}")
    else:
        ways.append(Way("NeMo", as_nemo))
    sizes = bench.sizes
    middle = sizes.padded[len(sizes.padded) // 2]
    wanted = [Cell(name, clip, middle) for name in ("bf16", "tf32", "fp32") for clip in reversed(sizes.clips)]
    wanted = [cell for cell in wanted if bench.full or cell.precision == "bf16" or cell.clip == sizes.clips[-1]]
    section.begin("others", OTHER)
    twins = []
    for number, cell in enumerate(wanted):
        if section.is_over(f"{len(wanted) - number} comparisons"):
            break
        twins.append(compare(bench, section, ways, cell))
    if bench.compiler == "off":
        section.say("torch.compile is left out, as --compiler says")
    elif not section.is_over("torch.compile"):
        with_compiler(bench, section, wanted[0], twins[0])


def check_twin(bench: Bench, section: Section) -> float:
    """Says how far the twin's log-probabilities are from ours; its time would say nothing if they were not equal."""
    with precision("fp32"):
        batch, _ = bench.batches(bench.sizes.clips[-1], 4 * bench.sizes.clips[-1], host=False)
        model = with_statistics(bench.model(bench.presets[0]), batch)
        found = difference(model, as_twin(model), batch.signal, batch.signal_lengths)
    section.say(f"largest difference of log-probabilities, ours and the twin, fp32: {found:.1e}")
    if found > 1e-3:
        raise RuntimeError(f"the twin's log-probabilities differ by {found:.2g}; its time says nothing")
    return found


def compare(bench: Bench, section: Section, ways: Sequence[Way], cell: Cell) -> float | None:
    """One row for each way, on the same two batches, the twin's first; returns its ms, None without memory."""
    twin, batches = None, bench.batches(cell.clip, cell.padded)
    for way in sorted(ways, key=lambda way: way.name != TWIN):
        first = {"way": way.name, "precision": cell.precision, "clip": cell.clip, "padded": cell.padded}
        row = guarded(bench, section, first, partial(beside, bench, way, cell, batches, twin))
        twin = row.get("ms") if way.name == TWIN else twin
    return twin


def beside(bench: Bench, way: Way, cell: Cell, batches: Sequence[Batch], twin: float | None) -> dict:
    """A row with ``times``: the twin's ms over those of ``way``."""
    with precision(cell.precision) as dtype:
        row = step_row(bench, bench.stepper(way, bench.presets[0], dtype), batches, False)
    return {**row, "times": 1.0 if way.name == TWIN else twin and twin / row["ms"]}


def with_compiler(bench: Bench, section: Section, cell: Cell, twin: float | None) -> None:
    """The row of ``torch.compile``; what the compiler cannot do is said in it.

    Blocks of different sizes are versions of one function, of which PyTorch keeps 8 unless it is told otherwise. What
    PyTorch warns of while it compiles is its own affair.
    """
    import torch._dynamo

    way, batches = compiled(bench.compiler), bench.batches(cell.clip, cell.padded)
    first = {"way": way.name, "precision": cell.precision, "clip": cell.clip, "padded": cell.padded}
    try:
        with torch._dynamo.config.patch(recompile_limit=64), warnings.catch_warnings(action="ignore"):
            row = guarded(bench, section, first, partial(beside, bench, way, cell, batches, twin))
        if "first_s" in row:
            section.say(f"compiling took {row['first_s']:.1f} s")
    except torch._dynamo.exc.TorchDynamoException as error:
        section.row({**first, "note": f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]})
    finally:
        torch._dynamo.reset()
