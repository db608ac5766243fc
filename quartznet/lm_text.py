"""Text for language models: files -> sentences by the rules of a language, with a count of what is lost.

Plain text has one sentence a line (.gz too) and is read line by line, however long; a manifest (.json, .jsonl) or a
table (.tsv, .csv) gives the texts of its clips and is read as a whole.

The surprise: the rules are those of the transcripts, word for word. A network writes what its transcripts held, and a
model of text with capitals, digits or commas knows none of those words.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data.lines import numbered_lines
from quartznet.audit import Audit
from quartznet.audit_file import read_texts
from quartznet.text import Language, find_language, language_from_texts

MOST_LOST = 0.005  # share of the letters; a training stops above it


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
    return find_language(lang) or language_from_texts(lang, (text for path in paths for _, text in raw_lines(path, [])))


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
