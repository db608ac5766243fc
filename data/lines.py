"""Text files that strangers wrote, line by line: the line number is kept, and a line that cannot be read is a message.

The surprise: a "line" may have no end. A binary file or a manifest written without line ends is read in pieces of 1 MiB
and never held as a whole, so the worst input costs time and not memory.
"""

from collections.abc import Iterator
from pathlib import Path

LONGEST_LINE = 1 << 20  # bytes; a manifest line of a one-minute clip has about 2,000


def complain(message: str, skipped: list[str] | None) -> None:
    """Raises ``ValueError(message)``, or appends it where the caller keeps a list of what is skipped."""
    if skipped is None:
        raise ValueError(message)
    skipped.append(message)


def shown(value: object, most: int = 200) -> str:
    """A value of a stranger's file in quotes for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def numbered_lines(path: Path, skipped: list[str] | None = None) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file (Unix or Windows ends), counted from 1, without line end.

    A byte-order mark at the start of any line is taken off: files that were appended to each other carry one in the
    middle, and it would become part of a name or a letter of a sentence.

    Raises:
        ValueError: for a line that is not UTF-8 or longer than 1 MiB; it names file, line and remedy. With a list
            ``skipped`` the message is appended there instead and the line is left out.
    """
    with open(path, "rb") as file:
        number = 0
        while raw := file.readline(LONGEST_LINE):
            number += 1
            if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
                _pass_over_rest(file)
                problem = f"{path}:{number}: this line is longer than {LONGEST_LINE} bytes; is it the right text file?"
                complain(problem, skipped)
                continue
            try:
                line = raw.decode("utf-8").lstrip("\ufeff")
            except UnicodeDecodeError as error:
                complain(f"{path}:{number}: {_not_utf8(raw, error, path.name)}", skipped)
                continue
            yield number, line.rstrip("\r\n")


def unquoted(field: str) -> str:
    """A field without the quotation marks of CSV, where all of it is a CSV string (``"a ""b"" c"``); else unchanged."""
    inner = field[1:-1]
    if len(field) < 2 or field[0] != '"' or field[-1] != '"' or '"' in inner.replace('""', ""):
        return field
    return inner.replace('""', '"')


def _pass_over_rest(file: object) -> None:
    while (piece := file.readline(LONGEST_LINE)) and not piece.endswith(b"\n"):
        pass


def _not_utf8(raw: bytes, error: UnicodeDecodeError, name: str) -> str:
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
    where = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
    return f"not UTF-8 ({where}); convert the file, for instance: iconv -f {encoding} -t utf-8 {name} > utf8_{name}"
