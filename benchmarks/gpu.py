"""All that is to be known of the speed on a GPU, in one run of a few minutes: tables on the screen, one JSON file.

    python -m benchmarks.gpu --out gpu                                    # networks with random weights
    python -m benchmarks.gpu --out gpu --data clips.jsonl --init en.nemo  # with section e
    python -m benchmarks.gpu --out gpu --sections a,c --minutes 3

a: training steps in fp32, TF32 and bf16; b: beside an ``nn.Conv1d`` twin, NeMo and ``torch.compile``; c: time by part
beside bytes and operations counted; d: inference; e: 200 steps on real clips, and the real loader. Without a GPU the
same runs at tiny sizes, which shows that it runs and nothing else.

The surprise: what is left out for want of time is said, row by row. A missing row is never a fast one.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu_inference import inference
from benchmarks.gpu_parts import parts
from benchmarks.gpu_real import real_clips
from benchmarks.gpu_report import Report, Section, Task
from benchmarks.gpu_train import others, steps
from benchmarks.gpu_ways import Bench, add_options, bench_of
from quartznet import commandline, distributed

SECTIONS: dict[str, tuple[str, float, Callable[[Bench, Section], None]]] = {
    "a": ("training step", 30, steps),
    "b": ("against others", 22, others),
    "c": ("time by part", 8, parts),
    "d": ("inference", 18, inference),
    "e": ("real clips", 22, real_clips),
}
WHAT = ", ".join(f"{name} ({title})" for name, (title, *_) in SECTIONS.items())


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Raises ValueError for what cannot be understood."""
    parser = commandline.Parser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder, made where it is missing, for gpu.json")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"some of {WHAT} (a,b,c,d,e)")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which what is left is left out (8)")
    add_options(parser)
    options = commandline.parse(parser, arguments)
    unknown = [name for name in options.sections.split(",") if name not in SECTIONS]
    if unknown:
        raise ValueError(
            f"--sections are some of {','.join(SECTIONS)}, got {options.sections!r}; --help says what they are"
        )
    if not options.minutes > 0:
        raise ValueError(f"--minutes must be above 0, got {options.minutes:g}")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file; name a folder, gpu.json is written into it")
    return options


def about(bench: Bench) -> dict:
    """What the figures were measured on."""
    found = {"torch": torch.__version__, "device": bench.device.type, "ways": [way.name for way in bench.ways]}
    if bench.device.type == "cuda":
        properties = torch.cuda.get_device_properties(bench.device)
        found |= {"device": properties.name, "memory_gb": properties.total_memory / 1e9}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {**found, "repeat": bench.repeat, "presets": list(bench.presets)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done or left out for want of time, 1 a section failed, 2 something to correct."""

    def work() -> int:
        options = read_options(arguments)
        bench = bench_of(options, distributed.choose_device(options.device))
        found = about(bench)
        print(", ".join(f"{name} {value}" for name, value in found.items() if isinstance(value, str)))
        print(f"ways: {', '.join(found['ways'])}; x real: without padding; +-: 10th to 90th percentile")
        if bench.device.type != "cuda":
            print("no GPU is used: sizes are tiny, and figures say no more than that it runs")
        tasks = [
            Task(name, *SECTIONS[name][:2], partial(SECTIONS[name][2], bench)) for name in options.sections.split(",")
        ]
        report = Report(options.out, options.minutes, found)
        status = report.run(tasks)
        print(f"\nall figures  {report.path}")
        return status

    return commandline.run(work)


if __name__ == "__main__":
    sys.exit(main())
