"""Were the custom words found? Hits, misses and false alarms of each phrase, as a table and for JSON.

A phrase that the reference has r times and the recognised text h times, as whole words in any of its spellings, was hit
min(r, h) times, missed max(0, r - h) times, and heard max(0, h - r) times where nobody said it.

    precision = hits / (hits + false alarms)      recall = hits / (hits + misses)      F = their harmonic mean

The surprise: an F of 100 % says nothing about the other words. A weight that is too high bends those towards the
phrases, so look at the WER beside it.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quartznet.hotwords import HotWord

COLUMNS = 80


@dataclass(frozen=True)
class PhraseCounts:
    """How one phrase, or the sum of several, fared."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0

    @property
    def precision(self) -> float:
        """Of what was written; nan if nothing was."""
        return _share(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """Of what was said; nan if nothing was."""
        return _share(self.hits, self.hits + self.misses)

    @property
    def f_score(self) -> float:
        """2 hits / (2 hits + misses + false alarms)."""
        return _share(2 * self.hits, 2 * self.hits + self.misses + self.false_alarms)

    def __add__(self, other: "PhraseCounts") -> "PhraseCounts":
        return PhraseCounts(self.hits + other.hits, self.misses + other.misses, self.false_alarms + other.false_alarms)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def count_phrase(entry: HotWord, references: Sequence[str], texts: Sequence[str], has_space: bool) -> PhraseCounts:
    """One phrase over a corpus; ``has_space``: words are parted by spaces."""
    forms = sorted({entry.phrase, *entry.spellings}, key=len, reverse=True)
    pattern = "|".join(map(re.escape, forms))
    found = re.compile(rf"(?<!\S)(?:{pattern})(?!\S)" if has_space else pattern)
    counts = PhraseCounts()
    for reference, text in zip(references, texts, strict=True):
        said, heard = len(found.findall(reference)), len(found.findall(text))
        counts += PhraseCounts(min(said, heard), max(0, said - heard), max(0, heard - said))
    return counts


@dataclass(frozen=True)
class HotWordReport:
    """All phrases of a list over a corpus."""

    entries: tuple[HotWord, ...]
    counts: tuple[PhraseCounts, ...]

    @property
    def total(self) -> PhraseCounts:
        """The sum over the phrases that are wanted: those with a weight above 0."""
        wanted = (count for entry, count in zip(self.entries, self.counts, strict=True) if entry.weight > 0)
        return sum(wanted, PhraseCounts())

    def for_json(self) -> dict:
        """Numbers of each phrase and of all; None where a share has nothing to be a share of."""
        rows = zip(self.entries, self.counts, strict=True)
        return {
            "total": _numbers(self.total),
            "phrases": [{"phrase": entry.phrase, "weight": entry.weight, **_numbers(count)} for entry, count in rows],
        }

    def __str__(self) -> str:
        """A table of 80 columns: the phrases that were said or heard, and how many were neither."""
        rows = [pair for pair in zip(self.entries, self.counts, strict=True) if pair[1] != PhraseCounts()]
        width = COLUMNS - 49
        lines = [
            f"{'phrase':{width}}{'weight':>7}{'hits':>7}{'missed':>7}{'false':>7}{'prec.':>7}{'recall':>7}{'F':>7}"
        ]
        lines += [_line(entry.phrase, f"{entry.weight:g}", count, width) for entry, count in rows]
        lines.append(_line("all that are wanted", "", self.total, width))
        if len(rows) < len(self.entries):
            lines.append(f"{len(self.entries) - len(rows)} more were neither said nor heard")
        return "\n".join(lines)


def _numbers(count: PhraseCounts) -> dict[str, float | None]:
    shares = {"precision": count.precision, "recall": count.recall, "f_score": count.f_score}
    return {
        "hits": count.hits,
        "misses": count.misses,
        "false_alarms": count.false_alarms,
        **{name: None if math.isnan(share) else share for name, share in shares.items()},
    }


def _line(name: str, weight: str, count: PhraseCounts, width: int) -> str:
    shares = (
        f"{'-' if math.isnan(share) else f'{100 * share:.1f}':>7}"
        for share in (count.precision, count.recall, count.f_score)
    )
    name = name if len(name) < width else f"{name[: width - 4]}..."
    return f"{name:{width}}{weight:>7}{count.hits:7}{count.misses:7}{count.false_alarms:7}{''.join(shares)}"


def report_hotwords(
    entries: Iterable[HotWord], references: Sequence[str], texts: Sequence[str], has_space: bool = True
) -> HotWordReport:
    """Counts every phrase in pairs of a reference and what was recognised.

    Raises:
        ValueError: if there are not as many texts as references.
    """
    if len(references) != len(texts):
        raise ValueError(f"{len(references)} references and {len(texts)} texts; they must be pairs")
    chosen = tuple(entries)
    return HotWordReport(chosen, tuple(count_phrase(entry, references, texts, has_space) for entry in chosen))
