"""Where does it go wrong: the error rates of an evaluation in groups, by what is said of the clips or done to them.

    print(breakdown_table("accent", clips))         # one row for each accent
    print(conditions_table([clean, noisy]))         # the same clips heard in two ways, and how much the second costs

A field of numbers with many values (an estimated ratio of signal to noise) is cut at its quantiles into five groups of
about as many clips, durations at 2, 4, 7 and 11 s; a lower bound belongs to its group, an upper one to the next. Clips
that do not say are a group too, so the groups always add up to the whole.

The surprise: small groups mislead. An interval draws the group again from its own clips, so a single clip has none; and
the rise from clean to noisy is drawn clip by clip, since both rows hold the same clips: its interval is much narrower
than the two intervals of the rates suggest.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from quartznet.metrics import ErrorCounts, bootstrap_interval, total

NONE = "(none)"  # the group of the clips that do not say
MOST_ROWS = 20  # of a table; what is left is one row
MOST_NUMBERS = 10  # different numbers that are groups of their own; with more of them they are binned
BINS = 5  # of such numbers
SECONDS = (0.0, 2.0, 4.0, 7.0, 11.0)  # lower bounds of the groups of durations
WIDTH = 28  # columns for a value

Value = str | int | float | bool


@dataclass(frozen=True)
class Clip:
    """One evaluated clip."""

    said: Mapping[str, Value]  # of it: accent, age, duration, ...
    seconds: float
    words: ErrorCounts
    characters: ErrorCounts


@dataclass(frozen=True)
class Group:
    """Clips that share a value, whose numbers lie between two bounds, or that were heard in one way."""

    value: str
    clips: tuple[Clip, ...]

    @property
    def seconds(self) -> float:
        return sum(clip.seconds for clip in self.clips)

    @property
    def words(self) -> ErrorCounts:
        return total(clip.words for clip in self.clips)

    @property
    def characters(self) -> ErrorCounts:
        return total(clip.characters for clip in self.clips)

    @property
    def is_said(self) -> bool:
        """Whether there is a reference word, without which there is no rate."""
        return self.words.reference_length > 0

    @property
    def wer_interval(self) -> tuple[float, float] | None:
        """95 %, fractions; None for a single clip, which drawn again is always itself."""
        return bootstrap_interval([clip.words for clip in self.clips]) if len(self.clips) > 1 else None


# ---------------------------------------------------------------------------------------------------------------------
# Groups


def check_fields(names: Iterable[str], said: Iterable[Mapping[str, Value]]) -> None:
    """Raises ValueError for a field that no clip has; it names those that there are."""
    known = sorted({name for one in said for name in one})
    for name in names:
        if name not in known:
            hint = "give --noise FOLDER to have noise mixed in, or " if name == "snr" else ""
            raise ValueError(f"--by {name}: no clip has such a field; {hint}choose among {', '.join(known)}")


def _plain(value: Value | None) -> str:
    """As text on one line, without characters that would steer a terminal; "" for no value."""
    text = "" if value is None else " ".join(str(value).split())
    return "".join(character if character.isprintable() else "?" for character in text)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bins(name: str, numbers: Sequence[float]) -> tuple[Sequence[float], list[str]]:
    """Lower bounds, ascending, and what each bin is called."""
    if name == "duration":
        return SECONDS, [*(f"{low:g}-{high:g} s" for low, high in pairwise(SECONDS)), f"{SECONDS[-1]:g}+ s"]
    different = sorted(set(numbers))
    if len(different) <= MOST_NUMBERS:
        return different, [f"{number:.12g}" for number in different]
    edges = sorted({float(edge) for edge in np.quantile(numbers, np.linspace(0, 1, BINS + 1), method="lower")})
    return edges[:-1], [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]


def _by_number(name: str, clips: Sequence[Clip], numbers: Sequence[float]) -> list[Group]:
    bounds, labels = _bins(name, numbers)
    members: list[list[Clip]] = [[] for _ in labels]
    for clip, number in zip(clips, numbers, strict=True):
        members[bisect_right(bounds, number) - 1].append(clip)
    return [Group(label, tuple(chosen)) for label, chosen in zip(labels, members, strict=True) if chosen]


def _by_name(clips: Sequence[Clip], values: Sequence[str]) -> list[Group]:
    members: dict[str, list[Clip]] = {}
    for clip, value in zip(clips, values, strict=True):
        members.setdefault(value, []).append(clip)
    order = sorted(members, key=lambda value: (-len(members[value]), value))
    return [Group(value, tuple(members[value])) for value in order]


def groups(name: str, clips: Sequence[Clip]) -> list[Group]:
    """Every clip in one group: numbers from small to large, names from many clips to few; then ``NONE``, if any.

    ``speaker``, ``id`` and ``..._id`` are names even where they look like numbers.
    """
    values = [_plain(clip.said.get(name)) for clip in clips]
    saying = [clip for clip, value in zip(clips, values, strict=True) if value]
    silent = tuple(clip for clip, value in zip(clips, values, strict=True) if not value)
    said = [value for value in values if value]
    numbers = [number for value in said if (number := _number(value)) is not None]
    is_name = name in ("speaker", "id") or name.endswith("_id") or len(numbers) < len(said)
    found = _by_name(saying, said) if is_name else _by_number(name, saying, numbers)
    return [*found, Group(NONE, silent)] if silent else found


def shown(found: Sequence[Group]) -> list[Group]:
    """The first ``MOST_ROWS`` groups, and all others but ``NONE`` as one."""
    named = [group for group in found if group.value != NONE]
    others = named[MOST_ROWS:]
    if len(others) <= 1:
        return list(found)
    pooled = Group(f"others, {len(others)} values", tuple(clip for group in others for clip in group.clips))
    return [*named[:MOST_ROWS], pooled, *(group for group in found if group.value == NONE)]


def rise(clean: Group, noisy: Group) -> tuple[float, tuple[float, float]]:
    """How much higher the WER of the same clips is, as a fraction, with its 95 % interval.

    The references are the same, so the difference of two counts of errors is itself such a count.

    Raises:
        ValueError: for groups that do not hold the same clips in the same order.
    """
    lengths = [[clip.words.reference_length for clip in group.clips] for group in (clean, noisy)]
    if lengths[0] != lengths[1]:
        raise ValueError(f"{noisy.value!r} does not hold the same clips as {clean.value!r}; compare what is in both")
    more = [
        ErrorCounts(substitutions=after.words.errors - before.words.errors, reference_length=length)
        for before, after, length in zip(clean.clips, noisy.clips, lengths[0], strict=True)
    ]
    return total(more).rate, bootstrap_interval(more)


# ---------------------------------------------------------------------------------------------------------------------
# To read, and for programs


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _rate(rate: float, is_said: bool, form: str = ".2f") -> str:
    return f"{100 * rate:{form}}" if is_said else "-"


def _interval(bounds: tuple[float, float] | None, is_said: bool) -> str:
    return f"{100 * bounds[0]:.2f} .. {100 * bounds[1]:.2f}" if bounds is not None and is_said else "-"


def breakdown_table(name: str, clips: Sequence[Clip]) -> str:
    """One row for each group and one for all: clips, minutes, WER with its 95 % interval, CER; at most 80 columns.

    A dash stands where there is none: no interval of a single clip, no rate where nothing was said.
    """
    head = f"{'clips':>7}{'minutes':>9}{'WER %':>9}{'95 % interval':>18}{'CER %':>9}"
    lines = [f"{_cut(f'by {name}', WIDTH):{WIDTH}}{head}"]
    for group in (*shown(groups(name, clips)), Group("all", tuple(clips))):
        size = f"{len(group.clips):>7}{group.seconds / 60:>9.1f}"
        wer, cer = (_rate(counts.rate, group.is_said) for counts in (group.words, group.characters))
        rates = f"{wer:>9}{_interval(group.wer_interval, group.is_said):>18}{cer:>9}"
        lines.append(f"{_cut(group.value, WIDTH):{WIDTH}}{size}{rates}")
    return "\n".join(lines)


def conditions_table(heard: Sequence[Group]) -> str:
    """One row for each condition: WER, how much it rises over the first row's, both with 95 % intervals, and CER.

    Raises:
        ValueError: for conditions that do not hold the same clips.
    """
    clean = heard[0]
    first = f"{len(clean.clips)} clips each"
    lines = [f"{first:18}{'WER %':>8}{'95 % interval':>18}{'rise':>9}{'95 % interval':>18}{'CER %':>9}"]
    for group in heard:
        more, bounds = rise(clean, group)
        wer, cer = (_rate(counts.rate, group.is_said) for counts in (group.words, group.characters))
        rises = f"{_rate(more, group.is_said, '+.2f'):>9}{_interval(bounds, group.is_said):>18}"
        rises = f"{'':27}" if group is clean else rises
        rates = f"{wer:>8}{_interval(group.wer_interval, group.is_said):>18}"
        lines.append(f"{_cut(group.value, 18):18}{rates}{rises}{cer:>9}")
    return "\n".join(lines)


def _bounds(bounds: tuple[float, float] | None, is_said: bool) -> list[float | None] | None:
    return None if bounds is None else [bound if is_said else None for bound in bounds]


def groups_json(found: Sequence[Group]) -> list[dict]:
    """Every group, ready for ``json.dump``: rates are fractions, null where there are no references."""
    return [
        {
            "value": group.value,
            "clips": len(group.clips),
            "seconds": group.seconds,
            "words": group.words.reference_length,
            "wer": group.words.rate if group.is_said else None,
            "wer_interval": _bounds(group.wer_interval, group.is_said),
            "cer": group.characters.rate if group.is_said else None,
        }
        for group in found
    ]


def conditions_json(heard: Sequence[Group]) -> list[dict]:
    """``groups_json`` with ``rise`` and ``rise_interval`` over the first condition."""
    rises = [rise(heard[0], group) for group in heard]
    return [
        {**row, "rise": more if row["words"] else None, "rise_interval": _bounds(bounds, row["words"] > 0)}
        for row, (more, bounds) in zip(groups_json(heard), rises, strict=True)
    ]
