"""Lines of texts in, and out: files, or a pipe that is answered while it is still being written.

A pipe is read as it comes: each portion is what has arrived, so a line that waits for an answer gets one, and of many
none waits for more. A file of results is written whole or not at all, at the end of each text; what there was of the
next one when Ctrl-C or an error came lies beside it as ``.part``.

The surprise: files are read to their ends before the first line is given out, so that a broken line 5,000 is known now
and not after an hour. A pipe cannot be; what came before its broken line is given out first.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from data.lines import LONGEST_LINE, numbered_lines
from quartznet.checkpoint import replace_atomically

BLOCK = 128  # lines given out together at most
PIPE = "standard input"

logger = logging.getLogger(__name__)


def arriving(stream: BinaryIO) -> Iterator[list[str]]:
    """Lines of a pipe as they come: each time all that have arrived, at least one.

    Raises:
        ValueError: a line is not UTF-8 or longer than 1 MiB; it is named. What came before it has been given.
    """
    rest, number = b"", 0
    while piece := stream.read1(1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from _decoded(lines, number)
        number += len(lines)
        if len(rest) > LONGEST_LINE:
            raise ValueError(f"{PIPE}:{number + 1}: this line is longer than {LONGEST_LINE} bytes; is it text?")
    yield from _decoded([rest] if rest else [], number)


def _decoded(lines: Sequence[bytes], before: int) -> Iterator[list[str]]:
    """The lines as texts, those before a broken one too; ``before``: lines before these."""
    texts: list[str] = []
    for number, line in enumerate(lines, before + 1):
        try:
            texts.append(line.decode("utf-8").lstrip("\ufeff").rstrip("\r"))
        except UnicodeDecodeError as error:
            yield from [texts] if texts else []
            raise ValueError(f"{PIPE}:{number}: not UTF-8 ({error.reason}); convert it with iconv") from error
    yield from [texts] if texts else []


def read_files(paths: Iterable[str]) -> dict[str, list[str]]:
    """The lines of all files but standard input.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: a line is not UTF-8 or longer than 1 MiB; it is named.
    """
    found = {}
    for path in paths:
        if path != "-":
            if not Path(path).is_file():
                raise FileNotFoundError(f"there is no file of texts {path}")
            found[path] = [line for _, line in numbered_lines(Path(path))]
    return found


def blocks(path: str, files: dict[str, list[str]]) -> Iterator[tuple[str, int, list[str]]]:
    """A file, or standard input (-), in portions: its name, the number of the first line, lines."""
    parts = arriving(sys.stdin.buffer) if path == "-" else [files[path]]
    name, number = PIPE if path == "-" else path, 1
    for lines in parts:
        for start in range(0, len(lines), BLOCK):
            part = lines[start : start + BLOCK]
            yield name, number, part
            number += len(part)


class Output:
    """Where lines are written: the screen at once, or a file at the end of each text."""

    def __init__(self, path: str | None) -> None:
        self.path, self.lines, self.saved = Path(path) if path else None, [], 0

    def write(self, lines: Iterable[str]) -> None:
        """Takes lines; on the screen they show at once."""
        if self.path:
            self.lines += lines
            return
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    def save(self) -> None:
        """Writes the file with all lines so far; on the screen they are already."""
        if self.path:
            self._write(self.path)
            self.saved = len(self.lines)
            self._part.unlink(missing_ok=True)

    def save_rest(self) -> None:
        """After a text that did not come to its end: the lines so far as ``.part``; nothing if they are saved."""
        if self.path and len(self.lines) > self.saved:
            self._write(self._part)
            logger.warning("%s has the first %d lines, which were done before the end", self._part, len(self.lines))

    @property
    def _part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    def _write(self, path: Path) -> None:
        text = "".join(f"{line}\n" for line in self.lines)
        replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))
