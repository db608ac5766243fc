"""``python -m quartznet.text audit FILE --lang es``: what the rules of a language make of a file, and its faults.

FILE is plain text with one sentence a line, a manifest (.json, .jsonl: one JSON object a line) or a table (.tsv, .csv
with a header). Exit status: 0 fine, 1 more than 0.5 % of the letters would be lost, 2 the file cannot be read.

The surprise: the file is read as bytes and parted at line feeds only. Python's own notion of a line ends at rare
control characters too, and every line number behind one of them would be wrong.
"""

import csv
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quartznet import commandline
from quartznet.audit import Audit, audit, columns_of, cut, padded, visible
from quartznet.faults import BYTE_ORDER_MARK, Fault, FaultFinder
from quartznet.text import find_language, language_from_texts

FIELDS = ("text", "sentence", "transcript", "transcription")  # looked for in this order


@dataclass
class Texts:
    """What a file holds."""

    lines: list[tuple[int, str]] = field(default_factory=list)  # number of the line, text
    faults: list[tuple[str, int, str]] = field(default_factory=list)  # of the file: name, line, example


def read_texts(path: Path, name: str | None = None) -> Texts:
    """The texts of a file with their line numbers; ``name``: of the field or column, None: one of ``FIELDS``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no such field, or is no text at all; the message says where.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give a text file, a manifest or a table")
    texts = Texts()
    lines = list(_decoded(path, texts))
    if path.suffix in (".json", ".jsonl"):
        texts.lines = list(_from_manifest(path, lines, name))
    elif path.suffix in (".tsv", ".csv"):
        texts.lines = list(_from_table(path, lines, name))
    else:
        texts.lines = lines
    if not texts.lines:
        raise ValueError(f"{path} holds no text")
    return texts


def _decoded(path: Path, texts: Texts) -> Iterator[tuple[int, str]]:
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:1000]:
        raise ValueError(f"{path} is UTF-16 or no text; save it as UTF-8")
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            text = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            texts.faults.append(("bytes that are no UTF-8", number, repr(line[error.start : error.start + 4])))
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
        if number == 1 and text.startswith(BYTE_ORDER_MARK):
            texts.faults.append(("byte-order mark at the start", 1, ""))
            text = text.removeprefix(BYTE_ORDER_MARK)
        yield number, text


def _from_manifest(path: Path, lines: list[tuple[int, str]], name: str | None) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}:{number}: no JSON object on one line ({error}); a manifest has one a line"
            ) from None
        if not isinstance(entry, dict):
            raise ValueError(f"{path}:{number}: {line[:40]!r} is no JSON object; a manifest has one a line")
        value = entry.get(_field(entry, name, f"{path}:{number}"))
        yield number, value if isinstance(value, str) else ""


def _from_table(path: Path, lines: list[tuple[int, str]], name: str | None) -> Iterator[tuple[int, str]]:
    """Tabs part the columns of a .tsv and quotes mean nothing there, as in Common Voice; a .csv has quotes."""
    if path.suffix == ".tsv":
        rows = ((number, line.split("\t")) for number, line in lines)
    else:
        reader = csv.reader(line + "\n" for _, line in lines)
        rows = ((reader.line_num, row) for row in reader)
    try:
        _, header = next(rows, (1, []))
        column = header.index(_field(header, name, f"{path}:1"))
        for number, row in rows:
            yield number, row[column] if column < len(row) else ""
    except csv.Error as error:
        raise ValueError(f"{path}: no table with commas ({error}); save it again, or as .tsv") from error


def _field(names: Sequence[str] | dict, name: str | None, where: str) -> str:
    """The name of the field that holds the text."""
    for candidate in (name,) if name else FIELDS:
        if candidate in names:
            return candidate
    raise ValueError(
        f"{where}: no field {name or ' or '.join(FIELDS)} among {', '.join(list(names)[:10]) or 'none'}; "
        "choose one with --field"
    )


# ---------------------------------------------------------------------------------------------------------------------
# The report


def fault_lines(faults: Sequence[Fault]) -> Iterator[str]:
    """``line 3      decomposed accent: é                  12 lines``, at most 80 columns."""
    for fault in faults:
        example = "".join(map(visible, fault.example[:40]))
        what = cut(f"{fault.name}: {example}" if example else fault.name, 50)
        assert columns_of(what) <= 50, what
        yield f"{f'line {fault.line:,}':<13}{padded(what, 52)}{fault.count:>8,} line{'s' if fault.count > 1 else ''}"


def audit_file(path: Path, lang: str, name: str | None = None) -> tuple[Audit, list[Fault]]:
    """Everything that ``main`` prints; raises what ``read_texts`` and ``find_language`` raise."""
    texts = read_texts(path, name)
    sentences = [text for _, text in texts.lines]
    language = find_language(lang) or language_from_texts(lang, sentences)
    finder = FaultFinder(language)
    for fault in texts.faults:
        finder.add(*fault)
    for line, text in texts.lines:
        finder.look(line, text)
    return audit(sentences, language, (line for line, _ in texts.lines)), finder.most_frequent_first()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 fine, 1 too many letters lost, 2 something to correct (one line on stderr)."""
    parser = commandline.Parser(prog="python -m quartznet.text", description="Looks at the texts of a corpus.")
    command = parser.add_subparsers(dest="command", required=True).add_parser("audit", help="what would be lost, where")
    command.add_argument("file", type=Path, help="plain text, a manifest (.json, .jsonl) or a table (.tsv, .csv)")
    command.add_argument("--lang", required=True, help="code of the language, such as es, pt-BR or ru-fold")
    command.add_argument("--field", help=f"field or column of the text; without it one of {', '.join(FIELDS)}")

    def work() -> int:
        options = commandline.parse(parser, arguments)
        result, faults = audit_file(options.file, options.lang, options.field)
        print(result.table())
        print("\n".join(["", "faults", *fault_lines(faults)] if faults else ["", "no faults"]))
        try:
            result.check()
        except ValueError as error:
            print(f"\n{textwrap.fill(str(error), 80, break_on_hyphens=False)}")
            return 1
        return 0

    return commandline.run(work)
