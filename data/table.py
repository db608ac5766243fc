"""A table with a header: any csv or tsv that has a column for the sound file and one for what is said in it.

    path,text,speaker,duration               wav_filename,wav_filesize,transcript         file_name<TAB>sentence

The columns are found by name, in any order and case; ``speaker``, ``duration`` and ``split`` (train, dev, test) are
used where they are there, short values of all others (``accent``) stay with the clip. ``train.csv``, ``dev.csv`` and
``test.csv`` in a folder are its parts.

The surprise: only commas and semicolons come with quotation marks that mean something. At tabs and bars a line is
simply divided. And in a real csv one lone quotation mark makes a CSV reader swallow the rest of the file as one field,
so a text that does not end within a few lines is a message, and reading goes on in the next line.
"""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data.corpus import PART_NAMES, PARTS, Corpus, described, is_file, names_in, part_files, part_of, without_repeats
from data.lines import numbered_lines, shown, unquoted
from data.manifest import Utterance, other_fields
from data.sounds import Sounds, is_sound
from data.splits import Splits

SUFFIXES = (".csv", ".tsv")
DELIMITERS = "\t,;|"
QUOTING = ",;"  # the delimiters that come with quotation marks
LONGEST_TEXT = 20  # lines that a quoted text may have

AUDIO = (
    "path", "file", "audio", "filename", "file_name", "filepath", "file_path", "audio_path", "audio_file",
    "audio_filepath", "audio_filename", "wav", "wav_path", "wav_file", "wav_filename", "clip", "sound",
)  # fmt: skip
TEXT = ("text", "sentence", "transcript", "transcription", "normalized_text", "normalised_text", "utterance")
SPEAKER = ("speaker", "speaker_id", "speaker_name", "client_id", "reader", "reader_id")
SECONDS = ("duration", "duration_s", "duration_seconds", "seconds")
MILLISECONDS = ("duration_ms", "duration[ms]")


class Table(Corpus):
    """A csv or tsv with a header, or a folder with one or with one a part."""

    called = "table"
    looks_for = "a csv or tsv with a header (such as path,text or wav_filename,transcript)"

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` is called like a table, or is a folder with a table whose header has both columns."""
        return path.suffix.lower() in SUFFIXES if path.is_file() else bool(_tables(path))

    def read(self, path: Path) -> Splits:
        """The clips of the rows; a row without its sound file, and a broken row, is a message.

        Raises:
            ValueError: for a header that lacks one of the two columns; it names the columns that are there.
        """
        skipped: list[str] = []
        folder = path.parent if path.is_file() else path
        sounds = Sounds(folder, skipped)
        parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
        for part, table in {"train": path}.items() if path.is_file() else _tables(path).items():
            rows = list(_rows(table, sounds, skipped))
            clips = without_repeats([clip for clip, _ in rows], skipped)
            split_of = {clip.origin: split for clip, split in rows}
            for clip in clips:
                parts[split_of[clip.origin] or part].append(clip)
        return Splits(**parts, skipped=skipped, description=described(f"{self.called} {path}", parts))


@dataclass(frozen=True)
class _Columns:
    """Where in a row the fields are; -1: nowhere."""

    delimiter: str
    names: tuple[str, ...]
    audio: int
    text: int
    speaker: int
    seconds: int
    milliseconds: int
    split: int

    def others(self, fields: Sequence[str]) -> dict[str, str]:
        """What a row says in columns that have no other use."""
        used = {self.audio, self.text, self.speaker, self.seconds, self.milliseconds, self.split}
        places = (place for place, name in enumerate(self.names) if place not in used and name not in (*AUDIO, *TEXT))
        return {self.names[place]: fields[place].strip() for place in places}


def _columns(line: str, delimiter: str) -> _Columns:
    names = tuple(name.strip().lower() for name in _fields(line, delimiter))
    wanted = (AUDIO, TEXT, SPEAKER, SECONDS, MILLISECONDS, ("split",))
    places = [next((names.index(alias) for alias in aliases if alias in names), -1) for aliases in wanted]
    return _Columns(delimiter, names, *places)


def _header(line: str) -> _Columns:
    """The header read with the delimiter that finds the two columns, or with the one that makes most columns."""
    tried = [_columns(line, delimiter) for delimiter in DELIMITERS]
    return next((columns for columns in tried if _fits(columns)), max(tried, key=lambda columns: len(columns.names)))


def _fits(columns: _Columns) -> bool:
    return columns.audio >= 0 and columns.text >= 0


def _tables(folder: Path) -> dict[str, Path]:
    """``train.csv`` ... by part, or the only table in the folder as train; tables without both columns do not count."""
    if not folder.is_dir():
        return {}
    found = {part: path for part, path in part_files(folder, SUFFIXES).items() if _has_header(path)}
    if found:
        return found
    names = [name for name in names_in(folder) if name.lower().endswith(SUFFIXES)]
    single = [folder / name for name in names if is_file(folder / name) and _has_header(folder / name)]
    return {"train": single[0]} if len(single) == 1 else {}


def _has_header(path: Path) -> bool:
    return _fits(_header(next((line for _, line in numbered_lines(path, [])), "")))


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def _rows(path: Path, sounds: Sounds, skipped: list[str]) -> Iterator[tuple[Utterance, str | None]]:
    """The utterance and the part of each row."""
    lines = numbered_lines(path, skipped)
    columns = _header(next((line for _, line in lines), ""))
    if not _fits(columns):
        raise ValueError(
            f"{path}:1: needs a column for the sound file (path, file, audio, ...) and one for the text (text, "
            f"sentence, transcript, ...), found {shown(list(columns.names), 300)}; rename the columns or add a header"
        )
    for number, fields in _records(lines, columns, path, skipped):
        origin = f"{path}:{number}"
        if len(fields) != len(columns.names):
            skipped.append(f"{origin}: {len(fields)} columns, expected {len(columns.names)}")
            continue
        sound = sounds.find(fields[columns.audio], path.parent)
        if isinstance(sound, str):
            skipped.append(f"{origin}: {sound}")
            continue
        text = " ".join(fields[columns.text].split())
        speaker = fields[columns.speaker].strip() if columns.speaker >= 0 else ""
        named = fields[columns.split].strip() if columns.split >= 0 else ""
        split = part_of(named) if named else None
        if named and split is None:  # to train on what may be a test set would be the worst guess
            skipped.append(f"{origin}: split {shown(named)} is none of {', '.join(PART_NAMES)}; correct it")
            continue
        others = other_fields(columns.others(fields))
        yield (
            Utterance(
                sound, text, _duration(fields, columns), origin=origin, speaker=speaker, whole=True, fields=others
            ),
            split,
        )


def _duration(fields: Sequence[str], columns: _Columns) -> float | None:
    """Seconds; None, so that the clip is measured, where the table says nothing or nonsense."""
    place, unit = (columns.seconds, 1.0) if columns.seconds >= 0 else (columns.milliseconds, 1000.0)
    try:
        seconds = float(fields[place]) / unit if place >= 0 else 0.0
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e9 else None


def _records(
    lines: Iterator[tuple[int, str]], columns: _Columns, path: Path, skipped: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row with the number of its first line; a quoted text may go on in the next lines."""
    ahead: deque[tuple[int, str]] = deque()
    while ahead.extend(islice(lines, LONGEST_TEXT - len(ahead))) or ahead:
        used = _lines_of_row([line for _, line in ahead], columns)
        row = [ahead.popleft() for _ in range(max(1, used))]
        number, line = row[0]
        if not used:
            skipped.append(f"{path}:{number}: a quotation mark opens a text that does not end: {shown(line, 100)}")
        elif line.strip():
            yield number, _fields("\n".join(line for _, line in row), columns.delimiter)


def _lines_of_row(ahead: list[str], columns: _Columns) -> int:
    """How many of the lines ``ahead`` make the first row; 0 where a quotation mark opens and none of them closes it."""
    for count, line in enumerate(ahead, 1):
        if count > 1 and _is_row(line, columns):
            return 0  # otherwise two lone marks, lines apart, would turn everything between them into one text
        if not _is_open("\n".join(ahead[:count]), columns.delimiter):
            return count
    return 0


def _is_row(line: str, columns: _Columns) -> bool:
    """Whether a line that may be inside a text is rather a row of its own; one that ends a text has a mark too many."""
    fields = _fields(line, columns.delimiter)
    whole = line.count('"') % 2 == 0 or _is_open(line, columns.delimiter)
    return whole and len(fields) == len(columns.names) and is_sound(fields[columns.audio])


def _is_open(record: str, delimiter: str) -> bool:
    """Whether ``record`` ends inside quotation marks: then a line after it would be a part of it."""
    return delimiter in QUOTING and _parsed([record, "after"], delimiter)[-1] != ["after"]


def _fields(record: str, delimiter: str) -> list[str]:
    if delimiter not in QUOTING:
        return [unquoted(field) for field in record.split(delimiter)]
    return _parsed([record], delimiter)[0]


def _parsed(records: list[str], delimiter: str) -> list[list[str]]:
    """What the csv module makes of lines; of those that it refuses (a field of 131,072 letters) a row of one column."""
    lines = [f"{line.replace(chr(13), ' ')}\n" for record in records for line in record.split("\n")]
    try:
        return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return [[record] for record in records]
