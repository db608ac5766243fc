"""The figures of the report page: rates with intervals, a second system, kinds of error, tables by field, confusions.

Every function returns a piece of HTML. The surprise: bars that show rates side by side share one scale in a table, and
that scale leaves out groups of a single clip: one clip with ten errors in two words would press all others flat.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quartznet.breakdown import NONE, Clip, Group, groups, shown
from quartznet.confidence import Calibration
from quartznet.confusions import Confusion, Confusions
from quartznet.markup import Markup, Piece, joined, tag
from quartznet.metrics import ErrorCounts
from quartznet.report import Evaluation
from quartznet.significance import Comparison

MOST_FIELDS = 12  # tables
MOST_CONFUSIONS = 15  # rows
KINDS = ("substitution", "deletion", "insertion")
NAMES = {" ": "space", "": "nothing"}  # of units that cannot be seen


@dataclass(frozen=True)
class Texts:
    """How the transcripts are written."""

    lang: str  # ISO 639
    direction: str  # ltr or rtl

    def tag(self, name: str, text: Piece, style: str = "") -> Markup:
        """An element that holds transcribed text."""
        return tag(name, {"lang": self.lang, "dir": self.direction, **({"class": style} if style else {})}, text)


def per_cent(rate: float) -> str:
    """``3.12 %``; a dash where nothing was said."""
    return f"{100 * rate:.2f} %" if math.isfinite(rate) else "–"


def between(bounds: tuple[float, float] | None, form: str = ".2f") -> str:
    """``2.41 to 3.90``, in per cent; a dash for no interval."""
    if bounds is None or not all(map(math.isfinite, bounds)):
        return "–"
    return f"{100 * bounds[0]:{form}} to {100 * bounds[1]:{form}}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def cell(text: Piece, label: str = "", value: float | None = None) -> Markup:
    """A number in a table; ``label`` names it where a phone shows no head, ``value`` sorts it."""
    attributes: dict[str, str | float] = {"class": "number"}
    attributes |= {"data-label": label} if label else {}
    attributes |= {} if value is None else {"data-value": value}
    return tag("td", attributes, text)


def heads_row(heads: Sequence[str]) -> Markup:
    """The head of a table; names that end in ``#`` are over numbers, "" is over bars."""
    cells = []
    for head in heads:
        style = {"class": "number"} if head.endswith("#") else {} if head else {"class": "chart"}
        cells.append(tag("th" if head else "td", {"scope": "col", **style} if head else style, head.rstrip("#")))
    return tag("thead", {}, tag("tr", {}, *cells))


def table(caption: str, heads: Sequence[str], rows: Sequence[Markup], style: str = "figures") -> Markup:
    """A table whose first column is text; ``heads`` as for ``heads_row``."""
    inside = (tag("caption", {}, caption), heads_row(heads), tag("tbody", {}, *rows))
    return tag("div", {"class": "scroll"}, tag("table", {"class": style}, *inside))


def bar(share: float, interval: tuple[float, float] | None = None) -> Markup:
    """A share of the width from 0 to 1, and a line across it; for the eye only, the numbers stand beside it."""
    parts = [tag("b", {"style": f"width:{100 * min(1.0, share):.1f}%"})]
    if interval is not None:
        low, high = (100 * min(1.0, bound) for bound in interval)
        parts.append(tag("i", {"style": f"left:{low:.1f}%;width:{high - low:.1f}%"}))
    return tag("td", {"class": "chart"}, tag("div", {"class": "bar", "aria-hidden": "true"}, *parts))


# ---------------------------------------------------------------------------------------------------------------------
# The whole corpus


def cards(evaluation: Evaluation, seconds: float) -> Markup:
    """The large figures."""
    right = sum(not utterance.words.errors for utterance in evaluation.utterances)
    count = len(evaluation.utterances)
    loss = "" if evaluation.loss is None or not math.isfinite(evaluation.loss) else f", loss {evaluation.loss:.3f}"
    figures = (
        ("Word error rate", per_cent(evaluation.words.rate), f"95 % interval {between(evaluation.wer_interval)}"),
        (
            "Character error rate",
            per_cent(evaluation.characters.rate),
            f"95 % interval {between(evaluation.cer_interval)}",
        ),
        ("Without any wrong word", per_cent(right / count), f"{right:,} of {plural(count, 'utterance')}"),
        ("Speech", f"{seconds / 60:.1f} min", plural(evaluation.words.reference_length, "word") + loss),
    )
    made = [
        tag("div", {}, tag("p", {}, name), tag("p", {"class": "big"}, figure), tag("p", {"class": "quiet"}, note))
        for name, figure, note in figures
    ]
    return tag("div", {"class": "cards"}, *made)


def kinds(words: ErrorCounts, characters: ErrorCounts) -> Markup:
    """Substitutions, deletions and insertions, as a bar and as a table."""
    numbers = [(counts.substitutions, counts.deletions, counts.insertions) for counts in (words, characters)]
    parts = [
        tag("b", {"class": kind, "style": f"width:{100 * number / max(1, words.errors):.2f}%"})
        for kind, number in zip(KINDS, numbers[0], strict=True)
    ]
    rows = []
    for kind, (word, character) in zip(KINDS, zip(*numbers, strict=True), strict=True):
        head = tag("th", {"scope": "row"}, tag("span", {"class": f"dot {kind}"}), f"{kind}s")
        shares = (per_cent(n / max(1, c.reference_length)) for n, c in ((word, words), (character, characters)))
        cells = [
            part for n, share in zip((word, character), shares, strict=True) for part in (cell(f"{n:,}"), cell(share))
        ]
        rows.append(tag("tr", {}, head, *cells))
    heads = ("kind", "words#", "rate#", "characters#", "rate#")
    picture = tag("div", {"class": "kinds", "aria-hidden": "true"}, *parts)
    return joined((picture, table("Errors of the alignment with fewest errors", heads, rows)))


def comparison(found: Comparison) -> Markup:
    """This system against another one, in numbers and in words."""
    rows = []
    for name, difference in (("WER", found.words), ("CER", found.characters)):
        tone = {"better": "number good", "worse": "number bad"}.get(difference.verdict, "number")
        cells = [
            tag("th", {"scope": "row"}, name),
            cell(per_cent(difference.first.rate)),
            cell(per_cent(difference.second.rate)),
            tag("td", {"class": tone}, f"{100 * difference.value:+.2f}"),
            cell(between(difference.interval, "+.2f")),
            cell(f"{100 * difference.improvement:.1f} %"),
        ]
        rows.append(tag("tr", {}, *cells))
    heads = ("rate", "other#", "this#", "change#", "95 % interval#", "P#")
    words = found.words
    said = {
        "better": "This system makes fewer word errors than the other: the interval of the change leaves zero out.",
        "worse": "This system makes more word errors than the other: the interval of the change leaves zero out.",
        "undecided": "Undecided: the interval of the change holds zero, so the difference may be luck.",
    }[words.verdict]
    counts = f"Better on {plural(words.better, 'utterance')}, worse on {words.worse:,}, equal on {words.equal:,}."
    missing = f" Left out: {found.only_second:,} that only this system heard, {found.only_first:,} only the other."
    left_out = missing if found.only_second or found.only_first else ""
    return joined(
        (
            tag("p", {}, tag("strong", {}, said), f" {counts}{left_out}"),
            table("Paired bootstrap over utterances; P is the probability of improvement", heads, rows),
            tag("p", {"class": "quiet"}, "The other system: ", found.label),
        )
    )


# ---------------------------------------------------------------------------------------------------------------------
# Where it goes wrong


def fields_worth_showing(clips: Sequence[Clip]) -> list[str]:
    """Fields that divide the clips: at least two groups, and not nearly as many groups as clips; speaker first."""
    names = dict.fromkeys(("duration", "speaker"), True) | {name: True for clip in clips for name in sorted(clip.said)}
    found = []
    for name in names:
        sizes = [len(group.clips) for group in groups(name, clips)]
        if len(sizes) > 1 and 2 * len(sizes) <= len(clips):
            found.append(name)
    return found


def rates_table(caption: str, first_head: str, found: Sequence[Group], whole: Group | None = None) -> Markup:
    """One row for each group: clips, minutes, WER with interval and bar, CER."""
    rows = [*found, *([whole] if whole else [])]
    bounds = [group.wer_interval for group in rows]
    finite = [high for interval in bounds if interval for high in interval if math.isfinite(high)]
    scale = max([1e-9, *finite])
    made = []
    for group, interval in zip(rows, bounds, strict=True):
        rate = group.words.rate
        shares = tuple(bound / scale for bound in interval) if interval and all(map(math.isfinite, interval)) else None
        cells = [
            tag("th", {"scope": "row"}, group.value),
            cell(f"{len(group.clips):,}"),
            cell(f"{group.seconds / 60:.1f}"),
            cell(per_cent(rate)),
            cell(between(interval)),
            bar(rate / scale if math.isfinite(rate) else 0.0, shares),
            cell(per_cent(group.characters.rate)),
        ]
        made.append(tag("tr", {"class": "all"} if group is whole else {}, *cells))
    heads = (first_head, "clips#", "minutes#", "WER#", "95 % interval#", "", "CER#")
    return table(caption, heads, made, "rates")


def fields(names: Sequence[str], clips: Sequence[Clip]) -> Markup:
    """A table for each field."""
    parts = []
    for name in names[:MOST_FIELDS]:
        found = groups(name, clips)
        silent = " Clips that do not say are a group too." if any(group.value == NONE for group in found) else ""
        whole = Group("all", tuple(clips))
        parts.append(tag("h3", {}, f"By {name}"))
        parts.append(rates_table(f"{plural(len(found), 'group')}.{silent}", name, shown(found), whole))
    if len(names) > MOST_FIELDS:
        parts.append(tag("p", {"class": "quiet"}, f"Not shown: {', '.join(names[MOST_FIELDS:])}."))
    return joined(parts)


def calibration(found: Calibration) -> Markup:
    """How many words were right in each bin of confidence."""
    rows = []
    for part in found.bins:
        head = tag("th", {"scope": "row"}, f"{part.low:.1f} to {part.high:.1f}")
        cells = (cell(f"{part.words:,}"), cell(per_cent(part.confidence)), cell(per_cent(part.right)), bar(part.right))
        rows.append(tag("tr", {}, head, *cells))
    heads = ("confidence", "words#", "mean#", "right#", "")
    said = f"{found.right:,} of {plural(found.words, 'word')} right; calibration error {found.error:.3f}, 0 is best."
    if math.isfinite(found.separation):
        said += f" A right word is surer than a wrong one in {per_cent(found.separation)} of all pairs, 50 % is chance."
    caption = "Words by how sure the network was of them, and how many of them were right"
    return joined((table(caption, heads, rows, "rates"), tag("p", {}, said)))


def unit(text: str, texts: Texts) -> Markup:
    """A letter or a word, or the name of what cannot be seen."""
    if text in NAMES:
        return tag("span", {"class": "none"}, NAMES[text])
    return texts.tag("bdi", text, "unit")


def confusions_table(caption: str, found: Sequence[Confusion], texts: Texts) -> Markup:
    """The most frequent confusions, with a bar each."""
    most = max([1, *(confusion.count for confusion in found)])
    rows = [
        tag(
            "tr", {}, tag("th", {"scope": "row"}, unit(one.said, texts)), tag("td", {}, unit(one.heard, texts)),
            cell(f"{one.count:,}"), bar(one.count / most),
        )
        for one in found
    ]  # fmt: skip
    return table(caption, ("said", "heard", "times#", ""), rows)


def missed_table(caption: str, found: Confusions, name: Callable[[str], Markup]) -> Markup:
    """The units that are missed most often, with the share of their occurrences."""
    said, missed = found.said(), found.missed()
    order = sorted(missed, key=lambda one: (-missed[one], one))[:MOST_CONFUSIONS]
    most = max([1e-9, *(missed[one] / said[one] for one in order)])
    rows = []
    for one in order:
        share = missed[one] / said[one]
        cells = (cell(f"{said[one]:,}"), cell(f"{missed[one]:,}"), cell(per_cent(share)), bar(share / most))
        rows.append(tag("tr", {}, tag("th", {"scope": "row"}, name(one)), *cells))
    return table(caption, ("said", "times#", "missed#", "share#", ""), rows)


def confusions(words: Confusions, letters: Confusions, texts: Texts) -> Markup:
    """Words and letters that are taken for others, and those that are missed most."""
    if not letters.most(1):
        return tag("p", {}, "Nothing is confused.")
    spaces = f"Right letters, wrong spaces: {plural(words.spaces, 'place')} where words are cut elsewhere."
    tables = (
        ("Words taken for others", confusions_table, words.most(MOST_CONFUSIONS)),
        ("Letters taken for others", confusions_table, letters.most(MOST_CONFUSIONS)),
    )
    parts = [tag("div", {}, make(caption, found, texts)) for caption, make, found in tables]
    for caption, found in (("Words missed most", words), ("Letters missed most", letters)):
        parts.append(tag("div", {}, missed_table(caption, found, lambda one: unit(one, texts))))
    return joined((tag("p", {}, spaces) if words.spaces else "", tag("div", {"class": "side"}, *parts)))
