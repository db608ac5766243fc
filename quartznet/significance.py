"""Is one system better than another, or was it luck: a paired bootstrap over the utterances (Bisani and Ney, 2004).

    python -m quartznet.significance before.json after.json         two files that evaluate.py --json wrote

Both systems heard the same utterances. The corpus is drawn again from its own utterances many times, the same draw for
both systems, and each time

    difference = errors(second) / units(second) - errors(first) / units(first)

is computed. The middle 95 % of the differences are its interval; the share of draws in which the second system makes
fewer errors (a tie is half a draw) is the probability of improvement (ICASSP 2004, equations 3 to 6).

The surprise: two intervals of the rates may overlap widely although the difference is certain. What makes an utterance
hard is hard for both systems; the difference on it is small, and only the differences are drawn.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quartznet import commandline
from quartznet.metrics import ErrorCounts, error_counts, total

DRAWN_AT_ONCE = 2**21  # utterances; bounds the memory of a large corpus


@dataclass(frozen=True)
class Difference:
    """A rate of two systems on the same utterances; fractions, below zero where the second one is better."""

    first: ErrorCounts
    second: ErrorCounts
    interval: tuple[float, float]  # of ``value``, 95 %
    improvement: float  # probability that the second system makes fewer errors
    better: int  # utterances on which the second makes fewer errors
    worse: int
    equal: int

    @property
    def value(self) -> float:
        return self.second.rate - self.first.rate

    @property
    def verdict(self) -> str:
        """ "better" or "worse", said of the second system, where the interval leaves zero out; else "undecided"."""
        low, high = self.interval
        return "better" if high < 0 else "worse" if low > 0 else "undecided"


def _draws(sums: np.ndarray, generator: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Corpora drawn from rows (utterances, columns): the sums of each (draws, columns), in portions."""
    count = len(sums)
    portion = max(1, DRAWN_AT_ONCE // count)
    for begin in range(0, resamples, portion):
        yield sums[generator.integers(count, size=(min(portion, resamples - begin), count))].sum(axis=1)


def paired_bootstrap(
    first: Sequence[ErrorCounts], second: Sequence[ErrorCounts], seed: int = 0, resamples: int = 10_000
) -> Difference:
    """The difference of two systems.

    Args:
        first, second: counts of the same utterances in the same order.
        resamples: draws; those without a reference unit have no rate and are left out.

    Raises:
        ValueError: for lists of different lengths, without utterances, or where nothing was said.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} utterances of one system but {len(second)} of the other; give the same ones")
    if not first:
        raise ValueError("no utterances to compare; give at least one")
    if not total(first).reference_length or not total(second).reference_length:
        raise ValueError("nothing was said in any of the utterances, so there are no error rates to compare")
    rows = [(a.errors, a.reference_length, b.errors, b.reference_length) for a, b in zip(first, second, strict=True)]
    drawn = np.concatenate(list(_draws(np.array(rows), np.random.default_rng(seed), resamples)))
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    differences = drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(differences, [0.025, 0.975])
    improvement = np.mean(differences < 0) + np.mean(differences == 0) / 2
    signs = Counter(np.sign([a.errors - b.errors for a, b in zip(first, second, strict=True)]).tolist())
    return Difference(
        total(first), total(second), (float(low), float(high)), float(improvement), signs[1], signs[-1], signs[0]
    )


# ---------------------------------------------------------------------------------------------------------------------
# Two results of evaluate.py --json


@dataclass(frozen=True)
class Result:
    """The transcripts of a system."""

    label: str
    rows: tuple[tuple[str, str, str], ...]  # name, reference, hypothesis


def _what(error: Exception) -> str:
    return f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else repr(error)


def read_result(path: str | Path) -> Result:
    """What ``evaluate.py --json`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no result {path}; evaluate.py --json FILE writes one")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["transcripts"]
        found = tuple((row["name"], row["reference"], row["hypothesis"]) for row in rows)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a result of evaluate.py --json ({_what(error)}); write it with that"
        ) from error
    if not found or not all(isinstance(text, str) for row in found for text in row):
        raise ValueError(f"{path} holds no transcripts of evaluate.py --json; write it with that")
    return Result(str(path), found)


Key = tuple[str, str, int]  # name, reference, and how many before it share both


def _keys(rows: Sequence[tuple[str, str, str]], folder: str) -> dict[Key, str]:
    """The hypothesis of each clip, found by its name without ``folder`` and its reference."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for name, reference, hypothesis in rows:
        clip = (name[len(folder) :], reference)
        found[(*clip, seen[clip])] = hypothesis
        seen[clip] += 1
    return found


def _shared_folder(names: Iterable[str]) -> str:
    """What all names begin with, up to a slash: ``corpora/es/`` or ``/data/es/``; "" for nothing."""
    start = os.path.commonprefix(list(names))  # noqa: RUF071  (the next line ends it at a slash)
    return start[: start.rfind("/") + 1]


@dataclass(frozen=True)
class Comparison:
    """Two systems on the utterances that both have heard."""

    label: str  # of the first
    words: Difference
    characters: Difference
    hypotheses: dict[int, str]  # of the first, by the place of the utterance among the rows of the second
    only_first: int  # utterances that are not in the other result, or have another reference there
    only_second: int

    @property
    def verdict(self) -> str:
        """One sentence about the words."""
        if self.words.verdict == "undecided":
            return "undecided: the interval holds zero, the difference may be luck"
        return f"the second is {self.words.verdict} than the first: the interval leaves zero out"


def _shared(first: Result, second: Result) -> tuple[dict[Key, str], dict[Key, str]]:
    """Both results by keys that they share as far as possible."""
    folders = tuple(_shared_folder(name for name, _, _ in result.rows) for result in (first, second))
    for left, right in (("", ""), folders):
        found = _keys(first.rows, left), _keys(second.rows, right)
        if not found[0].keys().isdisjoint(found[1]):
            return found
    raise ValueError(
        f"{first.label} and {second.label} share no utterance with the same reference; "
        "compare results of one data set, with the same --split and the same --lang"
    )


def compare(first: Result, second: Result, seed: int = 0, resamples: int = 10_000) -> Comparison:
    """Finds the utterances of one result in another, the same name and the same reference, and draws from them.

    Names are compared as they are, and if no two are equal, without the folder that all names of a result share: the
    corpus may have been given by another path.

    Raises:
        ValueError: the two share no utterance, or nothing was said in those that they share.
    """
    left, right = _shared(first, second)
    places = {place: key for place, key in enumerate(right) if key in left}
    references = [reference for _, reference, _ in places.values()]
    hypotheses = [[side[key] for key in places.values()] for side in (left, right)]
    found = [
        paired_bootstrap(*(error_counts(references, texts, unit) for texts in hypotheses), seed, resamples)
        for unit in ("word", "character")
    ]
    heard = {place: left[key] for place, key in places.items()}
    return Comparison(first.label, *found, heard, len(left) - len(places), len(right) - len(places))


def comparison_table(found: Comparison) -> str:
    """Both rates of both systems, the difference with its interval, the probability of improvement; 80 columns."""
    lines = [f"{'':5}{'first':>10}{'second':>11}{'change':>10}{'95 % interval':>20}{'P(better)':>13}"]
    for name, one in (("WER", found.words), ("CER", found.characters)):
        rates = f"{100 * one.first.rate:>8.2f} %{100 * one.second.rate:>9.2f} %{100 * one.value:>+10.2f}"
        interval = f"{100 * one.interval[0]:+.2f} .. {100 * one.interval[1]:+.2f}"
        lines.append(f"{name:5}{rates}{interval:>20}{100 * one.improvement:>11.1f} %")
    words = found.words
    counts = f"better on {words.better} utterances, worse on {words.worse}, equal on {words.equal}"
    lines.append(f"words: the second is {counts}")
    if found.only_first or found.only_second:
        lines.append(f"left out: {found.only_first} only in the first, {found.only_second} only in the second")
    return "\n".join([*lines, found.verdict])


def seed(text: str) -> int:
    """A whole number from 0 on."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def whole(text: str) -> int:
    """A whole number from 100 on."""
    value = int(text)
    if value < 100:
        raise argparse.ArgumentTypeError(f"fewer than 100 draws say nothing about the outermost 5 %, got {text}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""
    parser = commandline.Parser(
        prog="python -m quartznet.significance", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("first", help="result of one system, written by evaluate.py --json")
    parser.add_argument("second", help="result of the other one on the same data")
    parser.add_argument("--seed", type=seed, default=0, help="of the draws (0)")
    parser.add_argument("--resamples", type=whole, default=10_000, help="draws (10000)")

    def work() -> None:
        options = commandline.parse(parser, arguments)
        first, second = (read_result(path) for path in (options.first, options.second))
        found = compare(first, second, options.seed, options.resamples)
        print(f"first:  {first.label}\nsecond: {second.label}\n{len(found.hypotheses)} utterances in both\n")
        print(comparison_table(found))

    return commandline.run(work)


if __name__ == "__main__":
    sys.exit(main())
