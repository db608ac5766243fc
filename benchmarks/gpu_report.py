"""Sections of a long measurement: each in its own time, none of them lost when another one fails.

A section prints its rows while they are measured and keeps them for the JSON file, which is written anew after each
section. What a section had found before it failed, or before its time was over, stays.

The surprise: ``Report.run`` catches every exception. A machine with a GPU is lent for minutes, and a section that
meets a full memory or a compiler that is missing must not cost the figures of the others; it is said on the screen,
the traceback is in the file, and the exit status is 1.
"""

import json
import math
import textwrap
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WIDTH = 80  # columns of the screen


@dataclass(frozen=True)
class Column:
    """One column of a table; the format is that of numbers, text is right-aligned, or left in the first columns."""

    key: str
    title: str
    width: int  # with the space before it
    format: str = ""  # as in "{:,.1f}".format; "" for text
    left: bool = False

    def cell(self, value: object) -> str:
        """``value`` in exactly ``width`` columns; None, NaN: a dash."""
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        text = "-" if missing else format(value, "" if isinstance(value, str) else self.format)
        text = text[: self.width - 1]
        return f"{text:<{self.width}}" if self.left else f"{text:>{self.width}}"


def line(columns: Sequence[Column], row: dict) -> str:
    """A row of a table; where it has a ``note`` in place of figures, that is said after the columns of text."""
    if row.get("note"):
        first = "".join(column.cell(row.get(column.key)) for column in columns if column.left)
        return f"{first}{row['note']}"[:WIDTH]
    return "".join(column.cell(row.get(column.key)) for column in columns).rstrip()


def heading(columns: Sequence[Column]) -> str:
    """The titles; raises ValueError for a table wider than the screen."""
    width = sum(column.width for column in columns)
    if width > WIDTH:
        raise ValueError(f"a table of {width} columns does not fit the screen; {WIDTH} are possible")
    return "".join(column.cell(column.title) for column in columns).rstrip()


@dataclass
class Section:
    """Where a section puts what it finds; ``tables`` and ``lines`` are what the JSON file has of it."""

    name: str
    deadline: float  # of time.monotonic()
    tables: dict[str, list[dict]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    columns: tuple[Column, ...] = ()
    rows: list[dict] = field(default_factory=list)

    def say(self, text: str) -> None:
        """One sentence on the screen, folded to 80 columns."""
        self.lines.append(text)
        print("\n".join(fold(text)), flush=True)

    def begin(self, name: str, columns: Sequence[Column]) -> None:
        """A new table."""
        self.columns, self.rows = tuple(columns), self.tables.setdefault(name, [])
        print(f"\n{heading(columns)}", flush=True)

    def row(self, row: dict) -> dict:
        """One more row of the table that was begun last; returned as it was given."""
        self.rows.append(row)
        print(line(self.columns, row), flush=True)
        return row

    def is_over(self, left_out: str) -> bool:
        """Whether the section's time is over; then ``left_out`` is said to be."""
        over = time.monotonic() > self.deadline
        if over:
            self.say(f"left out, the time of this section is over: {left_out}")
        return over


def fold(text: str) -> list[str]:
    """Lines of at most 80 columns, cut at spaces where there are any."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False) or [""]


@dataclass(frozen=True)
class Task:
    """A section to run: its letter, what it is called, its share of the time, and the work."""

    name: str
    title: str
    share: float
    work: Callable[[Section], None]


class Report:
    """All sections of one run, on the screen and in ``out / "gpu.json"``."""

    def __init__(self, out: Path, minutes: float, about: dict):
        self.path, self.end, self.about = out / "gpu.json", time.monotonic() + 60 * minutes, about
        self.minutes, self.sections = minutes, {}
        out.mkdir(parents=True, exist_ok=True)

    def run(self, tasks: Sequence[Task]) -> int:
        """Runs the sections in order; the exit status: 0 all done, or left out for want of time; 1 one failed."""
        failed = False
        for number, task in enumerate(tasks):
            left, now = sum(other.share for other in tasks[number:]), time.monotonic()
            section = Section(task.name, now + max(0.0, self.end - now) * task.share / left)
            print(f"\n== {task.name}: {task.title}", flush=True)
            state = "left out" if now > self.end else self._guarded(task, section)
            if state == "left out":
                section.say(f"section {task.name} left out: the {self.minutes:g} minutes are over")
            failed = failed or state.startswith("failed")
            self.sections[task.name] = {
                "title": task.title,
                "state": state.split("\n")[0],
                "traceback": state.partition("\n")[2],
                "seconds": time.monotonic() - now,
                "tables": section.tables,
                "lines": section.lines,
            }
            self.write()
        return int(failed)

    def _guarded(self, task: Task, section: Section) -> str:
        try:
            task.work(section)
        except Exception as error:  # see the top of this file: no failure may cost the figures of the other sections
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            section.say(f"section {task.name} failed: {reason}")
            return f"failed: {reason}\n{traceback.format_exc()}"
        return "done"

    def write(self) -> None:
        """The file as it is known so far; NaN becomes null, which JSON has."""
        text = json.dumps(_finite({**self.about, "sections": self.sections}), indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n", encoding="utf-8")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
