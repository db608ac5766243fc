"""What correcting did, for people: error rates before and after, sentences helped and harmed, repairs by kind of error.

    outcome(references, recognised, corrected).table()

An error is a run of neighbouring wrong words (``postcorrect.errors``), in parts where its letters, aligned, share a
space: a sentence of which all words are wrong is not one error. It is *repaired* where the words of the reference that
it covers are all right afterwards, else *left*, though it may have shrunk; an error of the corrected text is *new*
where everything that it covers was right before.

The surprise: choosing sentences by their errors tilts the figures. One that was right can only be harmed, and one that
was hopeless can hardly be; so the rows by the input's WER say where harm is done, and whether correcting pays is
decided by the first table alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

from postcorrect.errors import COLUMNS, KINDS, Run, find_runs
from quartznet.audit import columns_of, cut
from quartznet.hotwords import CONTROL
from quartznet.metrics import ErrorCounts, bootstrap_interval, error_counts, total
from quartznet.significance import Difference, paired_bootstrap

Fate = Literal["helped", "harmed", "no effect", "same"]
FATES: dict[Fate, str] = {
    "helped": "helped: fewer wrong words",
    "harmed": "harmed: more wrong words",
    "no effect": "changed, as many wrong words",
    "same": "not changed",
}
BUCKETS = {"right": 0.0, "up to 10 %": 0.1, "up to 30 %": 0.3, "above 30 %": float("inf")}  # WER of the input
EXAMPLE = 36  # columns of one repair at most
EXAMPLE_LINES = 3  # of typical repairs, and of harms


@dataclass(frozen=True)
class Sentence:
    """One sentence, all texts with single spaces."""

    reference: str
    before: str
    after: str
    errors_before: ErrorCounts  # of words
    errors_after: ErrorCounts

    @property
    def gain(self) -> int:
        """Wrong words fewer than before; below 0 where there are more."""
        return self.errors_before.errors - self.errors_after.errors

    @property
    def fate(self) -> Fate:
        """What became of it, judged by its wrong words."""
        if self.before == self.after:
            return "same"
        return "helped" if self.gain > 0 else "harmed" if self.gain < 0 else "no effect"

    @property
    def bucket(self) -> str:
        """Name of the first of ``BUCKETS`` that its input fits in."""
        return next(name for name, most in BUCKETS.items() if self.errors_before.rate <= most)


@dataclass(frozen=True)
class Errors:
    """Errors of one kind."""

    before: int
    repaired: int
    new: int

    @property
    def left(self) -> int:
        return self.before - self.repaired


@dataclass(frozen=True)
class Part:
    """Some of the sentences, summed; rates are fractions."""

    sentences: int
    before: ErrorCounts
    after: ErrorCounts
    fates: Counter[Fate]


def _part(sentences: Sequence[Sentence]) -> Part:
    before, after = (total(getattr(s, name) for s in sentences) for name in ("errors_before", "errors_after"))
    return Part(len(sentences), before, after, Counter(s.fate for s in sentences))


# ---------------------------------------------------------------------------------------------------------------------
# Repaired, left, new


def find_errors(reference: str, text: str) -> list[Run]:
    """The errors of a text, in order: those of ``find_runs``, in parts where both sides have a space.

    >>> [str(error) for error in find_errors("por el talento de", "porel ta ento de")]
    ['por el > porel', 'talento > ta ento']
    """
    return [part for run in find_runs(reference, text) for part in _parts(run)]


def _parts(run: Run) -> Iterator[Run]:
    if not (run.said and run.heard):
        yield run
        return
    place = run.place
    for is_space, letters in groupby(run.letters(), key=lambda pair: pair == (" ", " ")):
        if not is_space:
            said, heard = (tuple("".join(side).split()) for side in zip(*letters, strict=True))
            if said != heard:
                yield Run(place, said, heard)
            place += len(said)


def _touch(one: Run, other: Run) -> bool:
    """Whether they cover a word of the reference together; what was added stands beside both of its neighbours."""
    ends = one.place + len(one.said), other.place + len(other.said)
    if one.said and other.said:
        return one.place < ends[1] and other.place < ends[0]
    return one.place <= ends[1] and other.place <= ends[0]


def repaired_and_new(reference: str, before: str, after: str) -> tuple[list[Run], list[Run]]:
    """Errors of ``before`` that are gone, and errors of ``after`` where there were none; see the top of the file."""
    if before == after:
        return [], []
    old, now = find_errors(reference, before), find_errors(reference, after)
    repaired = [run for run in old if not any(_touch(run, other) for other in now)]
    return repaired, [run for run in now if not any(_touch(run, other) for other in old)]


def _shown(wrong: tuple[str, ...], right: tuple[str, ...]) -> str:
    return f"{' '.join(wrong) or '-'} > {' '.join(right) or '-'}"


# ---------------------------------------------------------------------------------------------------------------------
# The whole


@dataclass(frozen=True)
class Outcome:
    """A corpus before and after."""

    sentences: tuple[Sentence, ...]
    words: Difference  # first: before, second: after
    characters: Difference
    intervals: dict[str, tuple[tuple[float, float], tuple[float, float]]]  # of WER and CER: before, after
    kinds: dict[str, Errors]  # by name of ``postcorrect.errors.KINDS``
    repairs: Counter[str]  # "recognised > corrected", what was repaired
    harms: Counter[str]  # what was right and is wrong

    @cached_property
    def fates(self) -> Counter[Fate]:
        return Counter(sentence.fate for sentence in self.sentences)

    @cached_property
    def made_wrong(self) -> int:
        """Right sentences that are wrong now."""
        return sum(not s.errors_before.errors and s.errors_after.errors > 0 for s in self.sentences)

    @cached_property
    def made_right(self) -> int:
        """Wrong sentences that are right now."""
        return sum(s.errors_before.errors > 0 and not s.errors_after.errors for s in self.sentences)

    @cached_property
    def buckets(self) -> dict[str, Part]:
        """By WER of the input, in the order of ``BUCKETS``; those without sentences too."""
        return {name: _part([s for s in self.sentences if s.bucket == name]) for name in BUCKETS}

    @property
    def verdict(self) -> str:
        """A line about the words and one about the letters."""
        if self.fates.keys() == {"same"}:
            return "nothing was changed"
        return "\n".join(_verdict(name, one) for name, one in (("WER", self.words), ("CER", self.characters)))

    def table(self) -> str:
        """All of it, for a terminal of 80 columns."""
        parts = (_rates(self), _sentences(self), _buckets(self), _kinds(self), _typical(self))
        return "\n\n".join(text for part in parts if (text := "\n".join(part)))

    def for_json(self) -> dict:
        """Rates as fractions, counts, all repairs and harms, ready for ``json.dump``."""
        rates = {}
        for name, one in (("wer", self.words), ("cer", self.characters)):
            before, after = self.intervals[name]
            rates[name] = {
                "before": one.first.rate, "before_interval": list(before),
                "after": one.second.rate, "after_interval": list(after),
                "change": one.value, "change_interval": list(one.interval),
                "improvement": one.improvement, "verdict": one.verdict,
            }  # fmt: skip
        return {
            **rates,
            "sentences": {"all": len(self.sentences), **{fate: self.fates[fate] for fate in FATES}},
            "made_right": self.made_right,
            "made_wrong": self.made_wrong,
            "errors": {kind: {**vars(one), "left": one.left} for kind, one in self.kinds.items()},
            "by_wer": {name: _part_json(part) for name, part in self.buckets.items()},
            "repairs": dict(self.repairs.most_common()),
            "harms": dict(self.harms.most_common()),
        }


def _part_json(part: Part) -> dict:
    words = {"words": part.before.reference_length, "before": part.before.errors, "after": part.after.errors}
    return {"sentences": part.sentences, **words, **{fate: part.fates[fate] for fate in FATES}}


def outcome(
    references: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    seed: int = 0,
    resamples: int = 10_000,
) -> Outcome:
    """Compares what was recognised and what was made of it with what was said.

    Args:
        seed, resamples: of the paired bootstrap.

    Raises:
        ValueError: there are not as many texts of each, there are none, or nothing was said in any.
    """
    sizes = len(references), len(before), len(after)
    if len(set(sizes)) > 1:
        raise ValueError("{} references, {} texts before and {} after; give one of each".format(*sizes))
    references, before, after = ([" ".join(text.split()) for text in texts] for texts in (references, before, after))
    counts = {
        unit: [error_counts(references, side, unit) for side in (before, after)] for unit in ("word", "character")
    }
    words, characters = (paired_bootstrap(*counts[unit], seed, resamples) for unit in counts)
    intervals = {
        name: tuple(bootstrap_interval(side, seed) for side in counts[unit])
        for name, unit in (("wer", "word"), ("cer", "character"))
    }
    sentences = tuple(map(Sentence, references, before, after, *counts["word"]))
    return Outcome(sentences, words, characters, intervals, *_compared(sentences))


def _compared(sentences: Iterable[Sentence]) -> tuple[dict[str, Errors], Counter[str], Counter[str]]:
    """Errors by kind, repairs and harms."""
    wrong, repaired, new = Counter(), Counter(), Counter()
    repairs, harms = Counter(), Counter()
    for one in sentences:
        good, bad = repaired_and_new(one.reference, one.before, one.after)
        wrong.update(run.kind for run in find_errors(one.reference, one.before))
        repaired.update(run.kind for run in good)
        new.update(run.kind for run in bad)
        repairs.update(_shown(run.heard, run.said) for run in good)
        harms.update(_shown(run.said, run.heard) for run in bad)
    return {kind: Errors(wrong[kind], repaired[kind], new[kind]) for kind in KINDS}, repairs, harms


# ---------------------------------------------------------------------------------------------------------------------
# Its tables


def _interval(ends: tuple[float, float], sign: str = "") -> str:
    digits = 2 if max(map(abs, ends)) < 9.999 else 0  # from 1000 % on they would not fit
    return f"{100 * ends[0]:{sign}.{digits}f} .. {100 * ends[1]:{sign}.{digits}f}"


def _rates(found: Outcome) -> Iterator[str]:
    yield f"{f'{found.words.first.reference_length:,} words':<29}{'before':>15}{'after':>17}{'change':>19}"
    for name, one in (("WER", found.words), ("CER", found.characters)):
        before, after = found.intervals[name.lower()]
        yield f"{name:<29}{100 * one.first.rate:>13.2f} %{100 * one.second.rate:>15.2f} %{100 * one.value:>+19.2f}"
        yield f"{'  95 % interval':<27}{_interval(before):>17}{_interval(after):>17}{_interval(one.interval, '+'):>19}"
    yield found.verdict


def _verdict(name: str, one: Difference) -> str:
    done = {"better": "lower", "worse": "HIGHER", "undecided": "undecided"}[one.verdict]
    zero = "holds zero" if one.verdict == "undecided" else "leaves zero out"
    return f"{name}: {done}, the interval of its change {zero}; P(lower) {100 * one.improvement:.1f} %"


def _sentences(found: Outcome) -> Iterator[str]:
    yield f"{'sentences':<29}{'number':>10}{'share':>10}{'wrong words before':>21}{'after':>10}"
    for fate, meaning in FATES.items():
        part = _part([sentence for sentence in found.sentences if sentence.fate == fate])
        yield _sentence_row(meaning, part, len(found.sentences))
    yield _sentence_row("all", _part(found.sentences), len(found.sentences))
    right = found.buckets["right"].sentences
    wrong = len(found.sentences) - right
    yield f"made right: {found.made_right:,} of {wrong:,} wrong; made wrong: {found.made_wrong:,} of {right:,} right"


def _sentence_row(label: str, part: Part, count: int) -> str:
    errors = f"{part.before.errors:>21,}{part.after.errors:>10,}"
    return f"{label:<29}{part.sentences:>10,}{100 * part.sentences / count:>8.1f} %{errors}"


def _buckets(found: Outcome) -> Iterator[str]:
    yield f"{'by WER of the input':<22}{'sentences':>10}{'WER before':>14}{'after':>12}{'helped':>11}{'harmed':>11}"
    for name, part in found.buckets.items():
        if part.sentences:
            rates = "".join(_rate(counts).rjust(width) for counts, width in ((part.before, 14), (part.after, 12)))
            yield f"{name:<22}{part.sentences:>10,}{rates}{part.fates['helped']:>11,}{part.fates['harmed']:>11,}"


def _rate(counts: ErrorCounts) -> str:
    return f"{100 * counts.rate:.2f} %" if counts.reference_length else "no words"


def _kinds(found: Outcome) -> Iterator[str]:
    yield f"{'errors':<34}{'before':>10}{'repaired':>12}{'left':>12}{'new':>12}"
    rows = {KINDS[kind]: one for kind, one in found.kinds.items() if one.before or one.new}
    everything = Errors(*(sum(getattr(one, name) for one in rows.values()) for name in ("before", "repaired", "new")))
    for name, one in (*rows.items(), ("all", everything)):
        yield f"{name:<34}{one.before:>10,}{one.repaired:>12,}{one.left:>12,}{one.new:>12,}"


def _typical(found: Outcome) -> Iterator[str]:
    for title, counts in (("repairs", found.repairs), ("harms", found.harms)):
        if counts:
            yield f"typical {title} (recognised > corrected)"
            yield from _wrapped(counts)


def _wrapped(counts: Counter[str]) -> Iterator[str]:
    """The most frequent ones, of equals the first ones, in ``EXAMPLE_LINES`` lines."""
    lines = [""]
    for change, count in counts.most_common():
        text = cut(CONTROL.sub("\ufffd", change), EXAMPLE) + (f" ({count}x)" if count > 1 else "")
        if lines[-1] and columns_of(f"  {lines[-1]}, {text}") > COLUMNS:
            if len(lines) == EXAMPLE_LINES:
                break
            lines.append("")
        lines[-1] += f", {text}" if lines[-1] else text
    yield from (f"  {line}" for line in lines)
