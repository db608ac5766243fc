"""What is in a prepared corpus, for people (report.md, durations.png) and for programs (report.json).

    report = Report(...)          # everything that ``data.prepare`` knows at the end
    write_report(report)          # the three files
    print(report.summary())       # twelve lines for the terminal

The surprise: most of the report is about what is *not* there. A clip that is missing from train says nothing; a line
that says why it is missing can be put right.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from data.inspect_clips import Inspection
from data.manifest import Utterance
from data.splits import Splits, overlaps
from quartznet.audit import Audit

STAGES = {
    "reading": "could not be read",
    "text": "no letter of the text is in the alphabet",
    "sound": "do not decode",
    "length": "text empty, or too long for the clip",
    "duplicate": "the same sound twice",
    "leak": "speaker or sentence is in dev or test",
    "split": "in no official part",
}
EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, float("inf"))  # seconds, of the histogram
LOUD = 0.999  # peak from which on a clip may be clipped
APART = "no speaker and no sentence lies in two parts"
EXAMPLES = 20  # lines of a list in report.md


@dataclass(frozen=True)
class Report:
    """Everything that is known about a prepared corpus."""

    source: str
    out: Path
    splits: Splits
    found: dict[tuple[str, str], Inspection]  # by ``Utterance.identity``
    rejected: list[tuple[str, str, str]]  # where, why, stage
    audit: Audit
    raw_texts: Sequence[str]
    too_fast: Sequence[str]  # texts that fit, but not at the fastest speed
    official_hours: float  # of the official train part; 0: there is none
    unused: dict[str, int]  # tables of the corpus that are not used, and their clips

    @property
    def parts(self) -> dict[str, list[Utterance]]:
        return {"train": self.splits.train, "dev": self.splits.dev, "test": self.splits.test}

    @cached_property
    def unknown_words(self) -> Counter[str]:
        """Words of the texts that hold a letter, digit or sign which is lost."""
        words: Counter[str] = Counter()
        lost = set(self.audit.dropped)
        for text in self.raw_texts:
            words.update(word for word in text.split() if not lost.isdisjoint(word.lower()))
        return words

    @cached_property
    def contents(self) -> dict:
        """All of it as plain data, for report.json."""
        every = [clip for part in self.parts.values() for clip in part]
        found = [self.found[clip.identity] for clip in every]
        stages = Counter(stage for _, _, stage in self.rejected)
        return {
            "source": self.source,
            "language": self.audit.language.code,
            "description": self.splits.description,
            "parts": {name: _part(clips) for name, clips in self.parts.items()},
            "hours_gained": round(_hours(self.splits.train) - self.official_hours, 4) if self.official_hours else None,
            "overlaps": overlaps(self.splits),
            "durations": {name: _histogram(clips) for name, clips in self.parts.items()},
            "sample_rates": _counts(one.sample_rate for one in found),
            "channels": _counts(one.channels for one in found),
            "silent": sorted(clip.name for clip, one in zip(every, found, strict=True) if one.peak == 0),
            "perhaps_clipped": sum(one.peak >= LOUD for one in found),
            "rejected": {stage: stages[stage] for stage in STAGES if stages[stage]},
            "unused_tables": {name: count for name, count in self.unused.items() if count},
            "too_fast": list(self.too_fast),
            "letters": {
                "kept": dict(self.audit.kept.most_common()),
                "mapped": self._written(self.audit.mapped),
                "spelled": self._written(self.audit.spelled),
                "lost": {
                    letter: {"count": count, "example": self.audit.examples[letter]}
                    for letter, count in self.audit.dropped.most_common()
                },
                "share_lost": self.audit.letters_lost,
                "unused": self.audit.unused,
            },
            "unknown_words": dict(self.unknown_words.most_common()),
        }

    def _written(self, counts: Counter[str]) -> dict[str, dict]:
        """Characters, or numbers and signs, with what is written for them."""
        return {
            what: {"to": self.audit.written[what], "count": count, "example": self.audit.examples[what]}
            for what, count in counts.most_common()
        }

    def summary(self) -> str:
        """For a terminal of 80 columns."""
        contents = self.contents
        lines = [f"\n{'':8}{'hours':>9}{'clips':>10}{'speakers':>10}{'shortest':>10}{'longest':>9}"]
        for name, part in contents["parts"].items():
            lines.append(
                f"{name:8}{part['hours']:>9.2f}{part['clips']:>10,}{part['speakers'] or '-':>10}"
                f"{part['shortest']:>8.1f} s{part['longest']:>7.1f} s"
            )
        if contents["hours_gained"] is not None:
            lines.append(f"{contents['hours_gained']:+.3f} hours against the official train part")
        shared = {name: count for name, count in contents["overlaps"].items() if count}
        unknown = None in contents["overlaps"].values()
        apart = "no sentence lies in two parts; of speakers nothing is known" if unknown else APART
        lines.append(f"shared: {_listed(shared)}" if shared else apart)
        lines.append(
            f"letters: {self.audit.letters_lost:.2%} lost, {len(self.audit.mapped)} characters mapped to others, "
            f"{len(self.audit.spelled)} numbers or signs spelled"
        )
        for stage, count in contents["rejected"].items():
            lines.append(f"left out {count:>7,}  {STAGES[stage]}")
        lines += [f"\nreport    {self.out / 'report.md'}", f"left out  {self.out / 'rejected.tsv'}"]
        lang = self.audit.language.code
        lines.append(f"next      python train.py --init ENGLISH.nemo --lang {lang} --data {self.out}")
        return "\n".join(lines)


def _hours(clips: Iterable[Utterance]) -> float:
    return sum(clip.duration for clip in clips) / 3600


def _part(clips: Sequence[Utterance]) -> dict:
    durations = [clip.duration for clip in clips]
    return {
        "clips": len(clips),
        "hours": round(_hours(clips), 4),
        "speakers": len({clip.speaker for clip in clips if clip.speaker}),
        "sentences": len({clip.text for clip in clips}),
        "words": sum(len(clip.text.split()) for clip in clips),
        "shortest": min(durations, default=0.0),
        "longest": max(durations, default=0.0),
    }


def _histogram(clips: Sequence[Utterance]) -> dict[str, int]:
    """Clips by length: ``{"0-1 s": 3, ...}``."""
    names = [f"{low:g}-{high:g} s" if high < float("inf") else f"over {low:g} s" for low, high in pairwise(EDGES)]
    counts = dict.fromkeys(names, 0)
    for clip in clips:
        place = next(index for index, high in enumerate(EDGES[1:]) if clip.duration < high)
        counts[names[place]] += 1
    return counts


def _counts(values: Iterable[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _listed(counts: dict) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


# ---------------------------------------------------------------------------------------------------------------------
# Files


def write_report(report: Report) -> None:
    """``report.json``, ``report.md`` and ``durations.png`` in ``report.out``; each is complete or the old one."""
    _write(
        report.out / "report.json", json.dumps(report.contents, ensure_ascii=False, indent=1, sort_keys=False) + "\n"
    )
    _write(report.out / "report.md", "\n".join(_markdown(report)) + "\n")
    _draw(report.parts, report.out / "durations.png")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return [*lines, *(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows), ""]


def _cell(value: object) -> str:
    """Text that neither ends the cell nor hides: no bars, no line ends, invisible characters by their numbers."""
    text = "".join(c if c.isprintable() else f"U+{ord(c):04X} " for c in str(value))
    return text.replace("|", "\\|").replace("<", "&lt;")[:200]


def _markdown(report: Report) -> list[str]:
    contents, audit = report.contents, report.audit
    lines = [f"# {_cell(report.source)}", "", _cell(contents["description"]), "", "![durations](durations.png)", ""]
    heads = ("", "hours", "clips", "speakers", "sentences", "words", "shortest", "longest")
    rows = []
    for name, part in contents["parts"].items():
        lengths = (f"{part['shortest']:.1f} s", f"{part['longest']:.1f} s")
        counts = (part["clips"], part["speakers"] or "unknown", part["sentences"], part["words"])
        rows.append((name, f"{part['hours']:.2f}", *counts, *lengths))
    lines += _table(heads, rows)
    if contents["hours_gained"] is not None:
        lines += [f"{contents['hours_gained']:+.3f} hours to train on, against the official part.", ""]
    shared = [(name, "unknown" if count is None else count) for name, count in contents["overlaps"].items()]
    lines += ["## What parts share", "", *_table(("", "shared"), shared)]
    reasons = [(STAGES[stage], count) for stage, count in contents["rejected"].items()]
    lines += ["## Left out", "", "Every one is in `rejected.tsv`." if reasons else "Nothing.", ""]
    lines += _table(("why", "clips or lines"), reasons) if reasons else []
    if contents["unused_tables"]:
        lines += [f"Not used: {_listed(contents['unused_tables'])} clips.", ""]
    lines += [*_sound(contents), *_text(report)]
    if report.too_fast:
        lines += [
            "## Texts that do not fit at the fastest speed",
            "",
            "Training at 1.1 times the speed skips them.",
            "",
        ]
        lines += [f"- {_cell(message)}" for message in report.too_fast[:EXAMPLES]] + [""]
    return [*lines, f"Alphabet ({audit.language.code}): `{_cell(''.join(audit.language.labels))}`"]


def _sound(contents: dict) -> list[str]:
    return [
        "## Sound",
        "",
        f"- sample rates, Hz: {_listed(contents['sample_rates'])}",
        f"- channels: {_listed(contents['channels'])}",
        f"- perhaps clipped (peak at full scale): {contents['perhaps_clipped']:,}",
        f"- digital silence: {len(contents['silent']):,}",
        *(f"  - {_cell(name)}" for name in contents["silent"][:EXAMPLES]),
        "",
    ]


def _text(report: Report) -> list[str]:
    audit, letters = report.audit, report.contents["letters"]
    lines = ["## Text", "", f"{audit.letters:,} letters, {audit.letters_lost:.2%} lost.", ""]
    kept = "  ".join(f"{_cell(letter)} {count:,}" for letter, count in audit.kept.most_common())
    lines += [f"Kept: {kept}", ""]
    if audit.unused:
        lines += [f"In no text, so never learnt: {' '.join(audit.unused)}", ""]
    if letters["mapped"]:
        rows = ((name, one["to"] or "nothing", one["count"], one["example"]) for name, one in letters["mapped"].items())
        lines += ["### Mapped", "", *_table(("character", "becomes", "count", "for instance"), rows)]
    if letters["spelled"]:
        rows = ((name, one["to"], one["count"], one["example"]) for name, one in letters["spelled"].items())
        lines += ["### Spelled as words", "", *_table(("written", "becomes", "count", "for instance"), rows)]
    if letters["lost"]:
        rows = ((name, one["count"], one["example"]) for name, one in letters["lost"].items())
        lines += ["### Lost", "", *_table(("character", "count", "for instance"), rows)]
    if report.unknown_words:
        lines += ["### Words with characters that are lost", ""]
        lines += _table(("word", "count"), report.unknown_words.most_common(EXAMPLES))
    return lines


def _draw(parts: dict[str, list[Utterance]], path: Path) -> None:
    """A histogram of durations, one panel a part, on one axis of time."""
    from matplotlib.figure import Figure  # slow to import; a bare Figure draws with Agg and keeps no global state

    drawn = {name: [clip.duration for clip in clips] for name, clips in parts.items() if clips}
    figure = Figure(figsize=(8, 1.2 + 1.6 * len(drawn)), dpi=110, layout="constrained")
    figure.suptitle("Length of clips", fontweight="bold")
    panels = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    longest = max(max(durations) for durations in drawn.values())
    for panel, (name, durations) in zip(panels, drawn.items(), strict=True):
        panel.hist(durations, bins=60, range=(0, longest), color="#0072B2")
        panel.set_ylabel("clips")
        panel.yaxis.get_major_locator().set_params(integer=True)
        panel.set_title(f"{name}: {len(durations):,} clips, {sum(durations) / 3600:.2f} h", fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("seconds")
    partial = path.with_name(path.name + ".tmp")
    figure.savefig(partial, format="png", metadata={"Software": None})
    os.replace(partial, path)
