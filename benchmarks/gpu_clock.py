"""How long a call takes on a device, what it launches, when it waits, and on what: fresh random batches.

On a GPU the times are those between CUDA events, of which one is recorded before and after each call while the calls
follow each other without a pause: what the device needs and what the host cannot hide are both in them. On a CPU they
are those of ``time.perf_counter``. Calls are warmed up first; the figure is the median, its spread half the distance
from the 10th to the 90th percentile.

The surprise: a step that waits for the device once, early, is as slow as its launches are, and no timer shows where.
``waits`` asks PyTorch to warn of each wait, and notes the clock at each warning.
"""

import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from quartznet.batch import Batch

Call = Callable[[int], object]  # is given the number of the call, so that inputs can take turns
LETTERS = 12.0  # a second, of random targets; English has about as many
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")  # calls of the CUDA runtime


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call."""

    median: float
    low: float  # 10th percentile
    high: float  # 90th
    calls: int

    @property
    def spread(self) -> float:
        """Percent of the median, above and below."""
        return 50 * (self.high - self.low) / self.median if self.median else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, between two of them if need be."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def timing(milliseconds: Sequence[float]) -> Timing:
    """The figures of measured calls."""
    low, high = quantile(milliseconds, 0.1), quantile(milliseconds, 0.9)
    return Timing(statistics.median(milliseconds), low, high, len(milliseconds))


def wait_for(device: torch.device) -> None:
    """Until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(call: Call, device: torch.device, repeat: int, seconds: float = 1.5) -> Timing:
    """``repeat`` calls after warm-up; fewer, but 3, where they would take longer than ``seconds``.

    With ``repeat`` below 3 that many, and one call to warm up.
    """
    for number in range(1 if repeat < 3 else 2):
        call(number)
    wait_for(device)
    begin = time.perf_counter()
    call(2)
    wait_for(device)
    fit = int(seconds / max(time.perf_counter() - begin, 1e-9))
    count = max(1, min(repeat, max(3, fit)))
    if device.type == "cuda":
        return timing(_on_events(call, count))
    marks = [time.perf_counter()]
    for number in range(count):
        call(number)
        marks.append(time.perf_counter())
    return timing([1000 * (after - before) for before, after in itertools.pairwise(marks)])


def _on_events(call: Call, count: int) -> list[float]:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for number in range(count):
        call(number)
        events[number + 1].record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(events)]


# ---------------------------------------------------------------------------------------------------------------------
# What a call asks of the device


@dataclass(frozen=True)
class Launches:
    """What one call put on the device; None on a CPU."""

    kernels: int | None  # that ran, those inside a graph included
    calls: int | None  # of the host: launches, graphs, copies, fills
    busy: float | None  # ms, the sum of the kernels' times


def launches(call: Call, device: torch.device) -> Launches:
    """What the profiler sees of one call."""
    if device.type != "cuda":
        return Launches(None, None, None)
    wait_for(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as found:
        call(0)
        wait_for(device)
    return counted(found.key_averages())


def counted(rows: Sequence[FunctionEventAvg]) -> Launches:
    """From the profiler's rows; a range that somebody named is on the device too, and is no kernel."""
    ran = [row for row in rows if row.device_type == DeviceType.CUDA and not row.is_user_annotation]
    kernels = [row for row in ran if not row.key.startswith(("Memcpy", "Memset"))]
    calls = sum(row.count for row in rows if row.device_type == DeviceType.CPU and row.key.startswith(LAUNCHES))
    return Launches(sum(row.count for row in kernels), calls, sum(row.self_device_time_total for row in kernels) / 1000)


@dataclass(frozen=True)
class Wait:
    """The host waited for the device."""

    milliseconds: float  # since the call began
    place: str  # file and line in Python; of a backward pass the line that asked for it


def waits(call: Call, device: torch.device) -> list[Wait]:
    """Each wait for the device in one call, in order; empty on a CPU, which nobody waits for.

    The first one's time is how long the host had to itself: a step without any is enqueued in its whole time.
    """
    if device.type != "cuda":
        return []
    wait_for(device)
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(action="ignore"):  # that this mode is new
        torch.cuda.set_sync_debug_mode("warn")
    try:
        return noted(call)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def noted(call: Call) -> list[Wait]:
    """The warnings of a wait while ``call`` runs, each with its time."""
    found: list[Wait] = []
    begin = time.perf_counter()

    def note(message: Warning | str, _kind: type, name: str, number: int, *_: object) -> None:
        if "called a synchronizing" in str(message):
            found.append(Wait(1000 * (time.perf_counter() - begin), f"{name.rpartition('/')[2]}:{number}"))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        begin = time.perf_counter()
        call(0)
    return found


def host_time(call: Call, device: torch.device, found: Sequence[Wait]) -> float | None:
    """ms that the host works before it first waits; of a call that never waits, until it returns. None on a CPU."""
    if device.type != "cuda":
        return None
    if found:
        return found[0].milliseconds
    wait_for(device)
    begin = time.perf_counter()
    call(0)
    return 1000 * (time.perf_counter() - begin)


# ---------------------------------------------------------------------------------------------------------------------
# Memory


def forget_peak(device: torch.device) -> None:
    """The largest memory counts from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float | None:
    """GB (10^9 bytes) of tensors at most since ``forget_peak``; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


# ---------------------------------------------------------------------------------------------------------------------
# Inputs


def random_batch(
    clip: float, padded: float, labels: int, device: torch.device, seed: int, rate: int = 16000, host: bool = True
) -> Batch:
    """Noise and random letters: as many clips of up to ``clip`` seconds as ``padded`` seconds hold, one at least.

    The first clip has its full length, the others nine tenths of it or more, as in a bucket of similar lengths.

    Args:
        labels: ids are drawn from 0 to ``labels`` - 1.
        host: the tensors lie in page-locked memory, where a training loop has them; False: on ``device``.
    """
    generator = torch.Generator(device).manual_seed(seed)
    count, samples = max(1, round(padded / clip)), round(clip * rate)
    lengths = torch.randint(round(0.9 * samples), samples + 1, (count,), generator=generator, device=device)
    lengths[0] = samples
    signal = torch.randn(count, samples, generator=generator, device=device).mul_(0.1)
    signal.masked_fill_(torch.arange(samples, device=device) >= lengths[:, None], 0.0)
    letters = (lengths * (LETTERS / rate)).long().clamp(min=1)
    targets = torch.randint(0, labels, (count, int(letters.max())), generator=generator, device=device)
    tensors = [signal, lengths, targets, letters]
    if host:
        tensors = [_on_host(tensor, device) for tensor in tensors]
    return Batch(*tensors, texts=[""] * count, names=[str(number) for number in range(count)])


def _on_host(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.cpu().pin_memory() if device.type == "cuda" else tensor


def audio_seconds(batch: Batch, rate: int = 16000) -> float:
    """Seconds of audio, padding not counted."""
    return float(batch.signal_lengths.sum()) / rate
