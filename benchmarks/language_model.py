"""Time and memory of ``quartznet.ngram`` on a million made-up sentences, and of lmplz where it is installed.

    python benchmarks/language_model.py --sentences 1000000 --order 5

The sentences walk through word pairs: the successors of each word follow Zipf's law, so that the number of different
n-grams grows with the text as it does in speech. Peak memory is that of a process of its own, above what it takes to
import torch (which ``quartznet`` does); mapped pages of temporary files are counted, which the system can drop.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from quartznet.arpa import read_counts
from quartznet.lmplz import run_lmplz
from quartznet.ngram import build_model

WORDS, SUCCESSORS = 200_000, 400  # in the vocabulary; of each word
AT_ONCE = 20_000  # sentences made at once


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """Made-up sentences of 4 to 16 words."""
    source = np.random.default_rng(seed)
    names = np.array([f"w{number}" for number in range(WORDS)], dtype=object)
    frequent = (1 / np.arange(1, WORDS + 1)).cumsum()
    steps = (1 / np.arange(1, SUCCESSORS + 1)).cumsum()
    for start in range(0, count, AT_ONCE):
        rows = min(AT_ONCE, count - start)
        lengths, word, columns = source.integers(4, 17, rows), np.zeros(rows, np.int64), []
        for _ in range(16):
            anything = np.searchsorted(frequent, source.random(rows) * frequent[-1])
            step = np.searchsorted(steps, source.random(rows) * steps[-1])
            usual = np.searchsorted(frequent, ((word * 7919 + step * 104729) % 1_000_003) / 1_000_003 * frequent[-1])
            word = np.where(source.random(rows) < 0.3, anything, usual)
            columns.append(names[word])
        for length, row in zip(lengths.tolist(), zip(*columns, strict=True), strict=True):
            yield " ".join(row[:length])


def measure(program: str, text: Path, order: int, out: Path) -> None:
    """Builds in this process and prints one line."""
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    with open(text, encoding="utf-8") as file:
        lines = (line.rstrip("\n") for line in file)
        if program == "ours":
            build_model(lines, out, order)
        else:
            run_lmplz(program, lines, out, order, ())
    seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + children.ru_utime + children.ru_stime
    peak = children.ru_maxrss if children.ru_maxrss else after.ru_maxrss - before.ru_maxrss
    ngrams = sum(read_counts(out))
    print(f"{Path(program).name:<8}{ngrams:>14,} n-grams{seconds:>8.0f} s{cpu:>8.0f} s of CPU{peak / 1024:>8.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=int, default=1_000_000)
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("PROGRAM", "TEXT", "OUT"), help="used by itself: one measurement")
    options = parser.parse_args()
    if options.one:
        program, text, out = options.one
        measure(program, Path(text), options.order, Path(out))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        with open(text, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in sentences(options.sentences))
        for program in ("ours", shutil.which("lmplz")):
            if program:
                out = Path(folder) / "model.arpa"
                command = [
                    sys.executable,
                    __file__,
                    "--order",
                    str(options.order),
                    "--one",
                    program,
                    str(text),
                    str(out),
                ]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
