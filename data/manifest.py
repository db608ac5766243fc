"""One utterance = one JSON line: the manifests of NeMo, read and written.

    {"audio_filepath": "clips/a.mp3", "duration": 3.2, "text": "hola"}        and optionally "offset", "speaker"

``audio_filepath`` (or ``audio_filename``) is relative to the folder of the manifest; ``~`` is the home folder.
``duration`` and ``offset`` are seconds and cut a piece out of the file, so one long recording can hold many utterances.
``start_byte`` and ``byte_count`` say that the sound file is that slice of ``audio_filepath``: a member of a tar shard.
Whatever else a line says in one short value (``"accent": "andino", "snr": 12.5``) is kept beside the clip and written
again; ``evaluate.py --by accent`` makes tables of it.

The surprise: a manifest is *not* a JSON file. ``[{...}, {...}]`` is the mistake that people make most often; it is read
all the same, and a warning names the command that converts it for everybody else's programs.
"""

import json
import logging
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data.lines import complain, numbered_lines

EXAMPLE = '{"audio_filepath": "clips/a.mp3", "duration": 3.2, "text": "hola"}'
CONVERT = (
    'python -c "import json, sys; '
    "[print(json.dumps(line)) for line in json.load(open(sys.argv[1], encoding='utf-8'))]\""
)
AUDIO_KEYS = ("audio_filepath", "audio_filename", "offset", "duration", "start_byte", "byte_count")
OWN_KEYS = frozenset((*AUDIO_KEYS, "text", "raw_text", "speaker"))
LONGEST_VALUE = 100  # characters of a field that is kept; longer ones are texts, and no table is made of them
LARGEST_ARRAY = 2**28  # bytes; an array must be read as a whole, and each takes ten times its size as Python objects

Value = str | int | float | bool  # of a field

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """A piece of a sound file and what is said in it."""

    audio_path: Path
    text: str
    duration: float | None  # seconds from ``offset`` on; None: not known yet (``data.source.fill_durations``)
    offset: float = 0.0  # seconds from the start of the file
    origin: str = ""  # file:line that declares it, for messages
    speaker: str = ""  # "" where it is not known
    start_byte: int = 0  # with ``byte_count``: the sound file is this slice of ``audio_path``, a member of a tar shard
    byte_count: int = 0  # 0: all of ``audio_path``
    whole: bool = False  # the clip is all of the file, and ``duration`` what somebody says of it; else it is a cut
    raw_text: str = ""  # before ``data.prepare`` normalised it, for people to look at; "": as ``text``
    fields: tuple[tuple[str, Value], ...] = ()  # what else is said of the clip: accent, age, ...; see ``other_fields``

    @property
    def name(self) -> str:
        """What tells this clip from every other in a message."""
        slice_of_shard = f"[{self.start_byte}:{self.start_byte + self.byte_count}]" if self.byte_count else ""
        return f"{self.audio_path}{slice_of_shard}" + (f"@{self.offset:.12g}s" if self.offset else "")

    @property
    def identity(self) -> tuple[str, str]:
        """What tells this clip from every other in a program: two cuts may begin at the same place."""
        return self.name, self.origin

    @property
    def span(self) -> tuple[int, int] | None:
        """(start_byte, byte_count) for ``read_audio``; None where the sound file is all of ``audio_path``."""
        return (self.start_byte, self.byte_count) if self.byte_count else None

    @property
    def described(self) -> dict[str, Value]:
        """All by which clips can be told apart in groups: ``fields``, and speaker and duration where they are known."""
        speaker = {"speaker": self.speaker} if self.speaker else {}
        duration = {} if self.duration is None else {"duration": self.duration}
        return {**dict(self.fields), **speaker, **duration}


def other_fields(entry: Mapping[str, object]) -> tuple[tuple[str, Value], ...]:
    """``Utterance.fields`` out of a line or a row: everything short that has a value and no place of its own.

    Left out are ``OWN_KEYS``, lists and objects, empty and long values, numbers that are not finite, and half
    characters, which no file can hold.
    """
    others = [key for key in entry if key not in OWN_KEYS]
    return tuple([pair for key in others if (pair := _field(key, entry[key]))]) if others else ()


def _field(key: str, value: object) -> tuple[str, Value] | None:
    """The pair, or None for what is not kept."""
    if isinstance(value, str):
        return _words(key, value) if len(value) <= LONGEST_VALUE else None
    is_number = isinstance(value, (int, float)) and -1e300 < value < 1e300  # no NaN, no infinity
    return (sys.intern(key), value) if is_number and _is_short(key) else None


@lru_cache(maxsize=4096)
def _words(key: str, value: str) -> tuple[str, str] | None:
    """The pair, the same object for all clips that share it: few accents, many clips."""
    return (key, value) if _is_short(key) and _is_short(value) else None


def _is_short(text: str) -> bool:
    whole = text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
    return len(text) <= LONGEST_VALUE and not text.isspace() and text != "" and whole


def clip_key(clip: Utterance) -> str:
    """What earlier work on a clip is found by: path, size, time of change and cut; another key for a changed file."""
    try:
        status = os.stat(clip.audio_path)
        state = f"{status.st_size} {status.st_mtime_ns}"
    except (OSError, ValueError):
        state = "missing"
    cut = f"{clip.offset!r} {clip.duration!r} {clip.start_byte} {clip.byte_count}"
    return f"{os.path.abspath(clip.audio_path)} {state} {cut}"


def read_manifest(path: str | Path, skipped: list[str] | None = None) -> list[Utterance]:
    """The utterances of a manifest; blank lines are passed over. The sound files themselves are not looked at.

    Args:
        path: UTF-8 text with or without byte-order mark, any line ends.
        skipped: where a list is given, the message of each broken line is appended and the line is left out;
            otherwise the first broken line is an error.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a broken line (names file and line and says what to do), for a JSON array that is broken or
            larger than 256 MiB, or where there is no utterance at all.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no manifest {path}; it is a text file of lines such as {EXAMPLE}")
    utterances: list[Utterance] = []
    for origin, entry in _array(path) if _is_array(path) else _lines(path, skipped):
        try:
            utterances.append(_utterance(entry, path.parent, origin))
        except ValueError as error:
            complain(f"{origin}: {error}", skipped)
    if not utterances:
        reason = f"; the first problem: {skipped[0]}" if skipped else ""
        needed = "" if EXAMPLE in reason else f"; it needs lines such as {EXAMPLE}"
        raise ValueError(f"{path} holds no utterance{reason}{needed}")
    return utterances


def _lines(path: Path, skipped: list[str] | None) -> Iterator[tuple[str, object]]:
    """``file:line`` and what stands there, of each line of JSON."""
    for number, line in numbered_lines(path, skipped):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = f"not JSON ({error}); write one object on a line, such as {EXAMPLE}"
            complain(f"{path}:{number}: {problem}", skipped)


def _is_array(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array(path: Path) -> Iterator[tuple[str, object]]:
    """``file: entry n`` and the entry, of a JSON array, with a warning that it should not be one."""
    convert = f"Convert it: {CONVERT} {path.name} > {path.stem}.lines.jsonl"
    if path.stat().st_size > LARGEST_ARRAY:
        raise ValueError(f"{path} is a JSON array of more than {LARGEST_ARRAY >> 20} MiB. {convert}")
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: a broken JSON array ({error}); better write lines such as {EXAMPLE}") from error
    logger.warning("%s is a JSON array and was read; other programs want one object a line. %s", path, convert)
    return ((f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1))


def _utterance(entry: object, folder: Path, origin: str) -> Utterance:
    """One entry; raises ``ValueError`` without file and line, which the caller adds."""
    if not isinstance(entry, dict):
        raise ValueError(f"must be an object such as {EXAMPLE}, got {type(entry).__name__}")
    key = "audio_filename" if "audio_filepath" not in entry and "audio_filename" in entry else "audio_filepath"
    audio = _text(entry, key)
    if not audio or "\0" in audio:
        raise ValueError(f"{key} must be the path of a sound file, got {reprlib.repr(audio)}")
    speaker = entry.get("speaker")
    start_byte, byte_count = _bytes(entry, "start_byte"), _bytes(entry, "byte_count")
    if start_byte and not byte_count:
        raise ValueError('"start_byte" without "byte_count"; give both (a slice of a tar shard) or neither')
    return Utterance(
        audio_path=_resolve(audio, folder),
        text=_text(entry, "text"),
        duration=_seconds(entry, "duration"),
        offset=_seconds(entry, "offset") or 0.0,
        origin=origin,
        speaker="" if speaker is None else str(speaker),
        start_byte=start_byte,
        byte_count=byte_count,
        raw_text=_text(entry, "raw_text") if isinstance(entry.get("raw_text"), str) else "",
        fields=other_fields(entry),
    )


def _text(entry: dict, key: str) -> str:
    if key not in entry:
        raise ValueError(f'no "{key}", only {", ".join(list(entry)[:9])[:200] or "nothing"}; a line is {EXAMPLE}')
    value = entry[key]
    if not isinstance(value, str):
        raise ValueError(f'"{key}" must be text in quotes, got {reprlib.repr(value)}')
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f'"{key}" holds half a character: {reprlib.repr(value)}; escape both halves or write UTF-8')
    return value


def _seconds(entry: dict, key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'"{key}" must be a number of seconds without quotes, got {reprlib.repr(value)}')
    if not 0 <= value < 1e9:  # also refuses NaN, infinity and integers that no float holds
        raise ValueError(f'"{key}" must be a number of seconds from 0 on, got {reprlib.repr(value)}')
    return float(value)


def _bytes(entry: dict, key: str) -> int:
    value = entry.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f'"{key}" must be a whole number of bytes from 0 on, got {reprlib.repr(value)}')
    return value


def _resolve(audio: str, folder: Path) -> Path:
    if audio.startswith("~"):
        try:
            return Path(audio).expanduser()
        except RuntimeError:  # no such user: then it is a file whose name begins with ~
            pass
    return folder / audio


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Writes a manifest, complete or not at all. Clips below its folder get relative paths, others absolute ones.

    Raises:
        ValueError: for a path or a text that UTF-8 cannot write; it names the clip.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent)
    partial = path.with_name(path.name + ".tmp")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            for utterance in utterances:
                file.write(_line(utterance, folder))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _line(utterance: Utterance, folder: str) -> str:
    audio = os.path.abspath(utterance.audio_path)
    if os.path.commonpath([audio, folder]) == folder:
        audio = os.path.relpath(audio, folder)
        audio = f"./{audio}" if audio.startswith("~") else audio
    entry: dict[str, Value] = {"audio_filepath": audio.replace(os.sep, "/")}
    if utterance.duration is not None:
        entry["duration"] = utterance.duration
    entry["text"] = utterance.text
    if utterance.raw_text:
        entry["raw_text"] = utterance.raw_text
    if utterance.offset:
        entry["offset"] = utterance.offset
    if utterance.speaker:
        entry["speaker"] = utterance.speaker
    if utterance.byte_count:
        entry |= {"start_byte": utterance.start_byte, "byte_count": utterance.byte_count}
    entry |= dict(utterance.fields)
    line = json.dumps(entry, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{entry!a}: path or text cannot be written as UTF-8; rename the file") from error
    return line + "\n"
