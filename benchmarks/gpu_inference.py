"""From waveform to text: how soon one clip is answered, how much a device answers at once, and a long recording.

All of it is greedy and by ``QuartzNet.for_inference``. A clip begins in page-locked memory and ends as a ``str`` on the
host, so these are times of the wall clock. Latency is that of one clip alone, the next one sent when the text of the
last is there.

The surprise: what an answer costs depends on what is heard, for letters become text on the host. Random weights are
therefore set so that a quarter of the frames has a letter, a few more than in speech; with ``--init`` the network is a
trained one, which hears little in noise.
"""

import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks import gpu_clock
from benchmarks.gpu_report import Column, Section
from benchmarks.gpu_train import free
from benchmarks.gpu_ways import Bench, NotOffered, Way, for_inference, recogniser, refusals, speaking
from quartznet import load_model
from quartznet.batch import Batch
from quartznet.model import QuartzNet

Made = TypeVar("Made")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WHO = (Column("way", "way", 9, left=True), Column("precision", "prec", 6, left=True))
LATENCY = (
    *WHO,
    Column("clip", "clip", 7, ".1f"),
    Column("median", "median ms", 12, ".2f"),
    Column("p95", "95 % ms", 10, ".2f"),
    Column("least", "least ms", 10, ".2f"),
    Column("kernels", "launch", 9, ",d"),
    Column("waits", "waits", 8, "d"),
)
THROUGHPUT = (
    *WHO,
    Column("clip", "clip", 6, ".1f"),
    Column("rows", "batch", 7, "d"),
    Column("ms", "ms", 10, ",.2f"),
    Column("spread", "+-%", 6, ".1f"),
    Column("realtime", "x real", 10, ",.0f"),
    Column("clips_per_second", "clips/s", 10, ",.0f"),
    Column("peak_gb", "peak GB", 9, ".2f"),
)
LONG = (
    *WHO,
    Column("seconds", "file, s", 9, ",.0f"),
    Column("took", "s", 9, ".3f"),
    Column("realtime", "x real", 10, ",.0f"),
)


def network(bench: Bench, way: Way) -> QuartzNet:
    """That of ``--init``, or the first preset with random weights, in evaluation mode. Raises NotOffered."""
    if bench.init is not None:
        model = load_model(bench.init).to(bench.device)
    else:
        batch, _ = bench.batches(bench.sizes.clips[-1], 4 * bench.sizes.clips[-1], host=False)
        model = speaking(bench.model(bench.presets[0]), batch)
    with refusals():
        return way.prepare(model).eval()


def clock(answer: Callable[[Batch], list[str]], batches: Sequence[Batch], count: int) -> list[float]:
    """ms of ``count`` answers, one after the other."""
    times = []
    for number in range(count):
        begin = time.perf_counter()
        answer(batches[number % len(batches)])
        times.append(1000 * (time.perf_counter() - begin))
    return times


def made(bench: Bench, section: Section, way: Way, precision: str, make: Callable[..., Made]) -> Made | None:
    """``make`` of a way, its network and a type of numbers; None, and a row that says why, where that is refused."""
    try:
        return make(way, network(bench, way), TYPES[precision])
    except NotOffered as error:
        section.row({"way": way.name, "precision": precision, "note": str(error)})
        return None


def chosen(bench: Bench) -> list[str]:
    """Types of numbers; fp16 is for GPUs."""
    return [name for name in TYPES if name != "fp16" or bench.device.type == "cuda"]


def inference(bench: Bench, section: Section) -> None:
    """Section d."""
    name = bench.presets[0] if bench.init is None else str(bench.init)
    section.say(f"{name}: for_inference, greedy, waveform to text")
    for measured in (latency, throughput, long_file):
        measured(bench, section)
        free(bench.device)


def latency(bench: Bench, section: Section) -> None:
    """One clip of the shortest length, alone."""
    clip, count = bench.sizes.clips[0], bench.sizes.answers
    batches = [batch for _ in range(4) for batch in bench.batches(clip, clip)]
    section.begin("latency", LATENCY)
    for way in bench.ways:
        for precision in chosen(bench):
            if section.is_over(f"latency of {way.name} {precision}"):
                return
            answer = made(bench, section, way, precision, recogniser)
            if answer is None:
                continue
            clock(answer, batches, min(10, count))
            times = clock(answer, batches, count)

            def call(_: int, answer: Callable = answer) -> object:
                return answer(batches[0])

            row = {"way": way.name, "precision": precision, "clip": clip, "answers": count}
            row |= {"median": gpu_clock.quantile(times, 0.5), "p95": gpu_clock.quantile(times, 0.95)}
            waits = gpu_clock.waits(call, bench.device)
            row |= {"least": min(times), "kernels": gpu_clock.launches(call, bench.device).kernels}
            row |= {"waited": [wait.place for wait in waits]}
            section.row({**row, "waits": len(waits) if bench.device.type == "cuda" else None})


def throughput(bench: Bench, section: Section) -> None:
    """All sizes of the batch; in bf16 for each length, in other types for the longest one."""
    sizes, best = bench.sizes, None
    section.begin("throughput", THROUGHPUT)
    for way in bench.ways:
        for precision in sorted(chosen(bench), key=lambda name: name != "bf16"):
            clips = sizes.clips if precision == "bf16" or bench.full else sizes.clips[-1:]
            answer = made(bench, section, way, precision, recogniser)
            for clip in clips if answer is not None else ():
                for count in sizes.rows:
                    if section.is_over(f"throughput of {way.name} {precision} from {clip:g} s, {count} clips on"):
                        return
                    row = section.row(_together(bench, answer, way.name, precision, clip, count))
                    best = max(row, best or row, key=lambda row: row.get("realtime", 0.0))
    if best is not None and "realtime" in best:
        name = f"{best['way']} {best['precision']}, {best['rows']} clips of {best['clip']:g} s"
        section.say(f"best: {best['realtime']:,.0f} times real time ({name})")


def _together(
    bench: Bench, answer: Callable[[Batch], list[str]], way: str, precision: str, clip: float, count: int
) -> dict:
    """A batch of ``count`` clips, or a note that the memory was full."""
    row = {"way": way, "precision": precision, "clip": clip, "rows": count}
    batches = bench.batches(clip, clip * count)
    gpu_clock.forget_peak(bench.device)
    try:
        found = bench.measure(lambda number: answer(batches[number % 2]))
    except torch.OutOfMemoryError:
        return {**row, "note": f"{count} clips of {clip:g} s: out of memory"}
    seconds = sum(map(gpu_clock.audio_seconds, batches)) / 2
    row |= {"ms": found.median, "spread": found.spread, "realtime": 1000 * seconds / found.median}
    return {**row, "clips_per_second": 1000 * count / found.median, "peak_gb": gpu_clock.peak(bench.device)}


def write_noise(path: Path, seconds: float, rate: int) -> None:
    """A recording of noise, 16-bit."""
    samples = torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(0)).mul_(3000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.short().numpy().tobytes())


def long_file(bench: Bench, section: Section) -> None:
    """One recording by ``quartznet.recordings``: reading, features, windows and the cutting into pieces included."""
    seconds = bench.sizes.recording
    section.begin("long file", LONG)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.wav"
        for way in (way for way in bench.ways if not way.graphs):  # which has no windows
            for precision in ("bf16", "fp32"):
                if section.is_over(f"long file, {way.name} {precision}"):
                    return
                model = made(bench, section, way, precision, for_inference)
                if model is None:
                    continue
                write_noise(path, seconds, model.config.features.sample_rate)
                model.transcribe([path], 600.0)
                begin = time.perf_counter()
                model.transcribe([path], 600.0)
                took = time.perf_counter() - begin
                row = {"way": way.name, "precision": precision, "seconds": seconds, "took": took}
                section.row({**row, "realtime": seconds / took})
