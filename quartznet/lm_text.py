"""Text for language models: files -> sentences by the rules of a language, and what is lost or should not be there.

Plain text has one sentence a line (.gz too) and is read line by line, however long; a manifest (.json, .jsonl) or a
table (.tsv, .csv) gives the texts of its clips and is read as a whole.

The surprise: the rules are those of the transcripts, word for word. A network writes what its transcripts held, and a
model of text with capitals, digits or commas knows none of those words.
"""

import gzip
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data.lines import numbered_lines
from data.source import read_source
from quartznet.audit import Audit
from quartznet.audit_file import read_texts
from quartznet.leaks import LeakFinder
from quartznet.text import Language, find_language, language_from_texts

MOST_LOST = 0.005  # share of the letters; a training stops above it

logger = logging.getLogger(__name__)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no text {path}; give a file with one sentence a line, or a manifest")
    return path


def raw_lines(path: str | Path, problems: list[str]) -> Iterator[tuple[int, str]]:
    """Number and text of every line of a file; those that cannot be read are messages in ``problems``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a manifest or table without text, or a gzip file that breaks off.
    """
    path = _existing(path)
    if path.suffix in (".json", ".jsonl", ".tsv", ".csv"):
        texts = read_texts(path)
        problems += [f"{path}:{line}: {fault}" for fault, line, _ in texts.faults]
        yield from texts.lines
    elif path.suffix == ".gz":
        yield from _unpacked_lines(path, problems)
    else:
        yield from numbered_lines(path, problems)


def _unpacked_lines(path: Path, problems: list[str]) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with gzip.open(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    yield number, line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    problems.append(f"{path}:{number}: not UTF-8 ({error.reason})")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}:{number + 1}: the gzip stream breaks off ({error}); copy the file again") from error


def rules(lang: str | None, paths: Sequence[str | Path]) -> Language | None:
    """The language of code ``lang``, with an alphabet out of the texts where it has no rules here; None: no code."""
    if lang is None:
        return None
    language = find_language(lang)
    if language is None:
        language = language_from_texts(lang, (text for path in paths for _, text in raw_lines(path, [])))
        logger.info("no alphabet is written down for %s; out of the text: %s", lang, language.letters)
    return language


class Text:
    """Sentences of some files. What was read, kept and lost is known when all of them were taken."""

    def __init__(self, paths: Sequence[str | Path], language: Language | None) -> None:
        """``language`` None: lines are taken as they are, with single spaces. Raises FileNotFoundError."""
        for path in paths:
            _existing(path)
        self.paths, self.language = paths, language
        self.audit = Audit(language) if language else None
        self.problems: list[str] = []  # lines that cannot be read
        self.lines = self.empty = 0  # empty: nothing is left of a line that held something

    def sentences(self) -> Iterator[str]:
        """The sentences that are not empty."""
        for path in self.paths:
            for number, line in raw_lines(path, self.problems):
                if line.strip():
                    self.lines += 1
                    text = self.audit.add(line, number) if self.audit else " ".join(line.split())
                    self.empty += not text
                    if text:
                        yield text

    def nothing_left(self) -> ValueError:
        """The error of who needs a sentence and got none."""
        unread = f" ({len(self.problems):,} cannot be read; {self.problems[0]})" if self.problems else ""
        names = ", ".join(map(str, self.paths))
        return ValueError(f"nothing is left of the {self.lines:,} lines of {names}{unread}; is --lang right?")

    def report(self) -> str:
        """What became of the text, for a terminal of 80 columns."""
        lines = [self.audit.table() if self.audit else f"{self.lines:,} lines, taken as they are (no --lang)"]
        if self.audit and self.audit.letters_lost > MOST_LOST:
            lines.append(f"WARNING: {self.audit.letters_lost:.2%} of the letters are lost; is --lang right?")
        if self.problems:
            lines.append(f"lines that could not be read: {len(self.problems):,}; the first: {self.problems[0]}")
        return "\n".join(lines)


def normalized(texts: Iterable[str], language: Language | None) -> list[str]:
    """Texts by the rules of a language, or with single spaces, without the empty ones."""
    written = (language.normalize(text) if language else " ".join(text.split()) for text in texts)
    return [text for text in written if text]


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation sentences


def leak_finders(
    against: Iterable[str | Path], texts: Iterable[str | Path], language: Language | None
) -> dict[str, LeakFinder]:
    """One for each corpus of ``against`` and each file of ``texts``, by its path.

    Raises:
        FileNotFoundError, ValueError: one of them cannot be read.
    """
    found = {}
    for path in against:
        clips, skipped, _ = read_source(path)
        if skipped:
            logger.info("%s clips of %s are not looked for; the first: %s", f"{len(skipped):,}", path, skipped[0])
        found[str(path)] = LeakFinder(normalized((clip.text for clip in clips), language))
    for path in texts:
        found[str(path)] = LeakFinder(Text([path], language).sentences())
    return found


def without_leaks(sentences: Iterable[str], finders: dict[str, LeakFinder], leave_out: bool) -> Iterator[str]:
    """The sentences, all of them looked at; ``leave_out``: but for those that hold an evaluation sentence."""
    for sentence in sentences:
        if not (any([finder.look(sentence) for finder in finders.values()]) and leave_out):
            yield sentence


def leak_report(finders: dict[str, LeakFinder], leave_out: bool) -> list[str]:
    """A warning for each evaluation whose sentences the text holds, or what was left out for it."""
    return [
        f"{finder.lines:,} lines with sentences of {path} were left out"
        if finder.found and leave_out
        else finder.warning(path) or f"no sentence of {path} stands in the text"
        for path, finder in finders.items()
    ]
