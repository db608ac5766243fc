"""A Common Voice folder as it comes out of the archive: ``validated.tsv``, ``train.tsv``, ... and ``clips/*.mp3``.

Columns are found by name, because every release has others. Official ``train``, ``dev`` and ``test`` are taken as they
are; where only ``validated.tsv`` is there, everything goes to train and ``data.source`` holds out dev and test.

The surprise: the tables are not CSV. Sentences hold lone quotation marks, so lines are split at tabs and nothing else;
some releases did write whole sentences as CSV strings (``"a ""b"" c"``), and only those are undone.
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path

from data.lines import numbered_lines, shown
from data.manifest import Utterance
from data.splits import Splits, sentence_key

TABLES = ("validated", "train", "dev", "test")


def is_common_voice(folder: Path) -> bool:
    """Whether ``folder`` holds one of the four tables and a folder ``clips``."""
    return (folder / "clips").is_dir() and any((folder / f"{name}.tsv").is_file() for name in TABLES)


def read_common_voice(folder: Path) -> Splits:
    """The clips of the tables; a row without a clip, and a broken row, is a message in ``skipped``.

    Raises:
        ValueError: for a table without the columns ``path`` and ``sentence``.
    """
    skipped: list[str] = []
    clips = {entry.name for entry in os.scandir(folder / "clips")}
    durations = _clip_durations(folder / "clip_durations.tsv")

    def table(name: str) -> list[Utterance]:
        path = folder / f"{name}.tsv"
        return _read_table(path, clips, durations, skipped) if path.is_file() else []

    dev, test = table("dev"), table("test")
    train = table("train") or _without(table("validated"), [*dev, *test], skipped)
    counts = ", ".join(f"{len(part)} {name}" for name, part in (("train", train), ("dev", dev), ("test", test)) if part)
    return Splits(train, dev, test, skipped, f"Common Voice folder {folder}: {counts or 'no clip'}")


def _without(clips: list[Utterance], held_out: list[Utterance], skipped: list[str]) -> list[Utterance]:
    """``clips`` whose speaker and sentence are not among ``held_out``; the others are counted."""
    speakers = {clip.speaker for clip in held_out if clip.speaker}
    sentences = {sentence_key(clip.text) for clip in held_out}
    kept = [clip for clip in clips if clip.speaker not in speakers and sentence_key(clip.text) not in sentences]
    remaining = {clip.origin for clip in kept}
    skipped += [
        f"{clip.origin}: its speaker or sentence is in dev or test" for clip in clips if clip.origin not in remaining
    ]
    return kept


def _read_table(path: Path, clips: set[str], durations: dict[str, float], skipped: list[str]) -> list[Utterance]:
    lines = numbered_lines(path, skipped)
    header = next((line for _, line in lines), "").split("\t")
    missing = [name for name in ("path", "sentence") if name not in header]
    if missing:
        raise ValueError(
            f"{path}:1: no column {' and '.join(missing)} among {shown(header)}; is this a Common Voice table?"
        )
    utterances = []
    for number, line in lines:
        if not line.strip():
            continue
        fields = dict(zip(header, line.split("\t"), strict=False))
        if line.count("\t") >= len(header) or "path" not in fields or "sentence" not in fields:
            skipped.append(f"{path}:{number}: {line.count(chr(9)) + 1} columns, expected {len(header)}")
            continue
        name = _file_name(fields["path"], clips)
        if name is None:
            skipped.append(f"{path}:{number}: clip {shown(fields['path'])} is not in {path.parent / 'clips'}")
            continue
        utterances.append(
            Utterance(
                audio_path=path.parent / "clips" / name,
                text=_unquote(fields["sentence"]),
                duration=durations.get(name),
                origin=f"{path}:{number}",
                speaker=fields.get("client_id", ""),
            )
        )
    return utterances


def _file_name(name: str, clips: Iterable[str]) -> str | None:
    """The clip's file name; the first releases left ``.mp3`` out. A path out of the folder is no clip's name."""
    return next((candidate for candidate in (name, f"{name}.mp3") if candidate in clips), None)


def _unquote(sentence: str) -> str:
    inner = sentence[1:-1]
    if len(sentence) < 2 or sentence[0] != '"' or sentence[-1] != '"' or '"' in inner.replace('""', ""):
        return sentence
    return inner.replace('""', '"')


def _clip_durations(path: Path) -> dict[str, float]:
    """Clip name -> seconds, from the table of milliseconds that releases since 2023 carry; {} where there is none."""
    durations: dict[str, float] = {}
    if not path.is_file():
        return durations
    for _, line in numbered_lines(path, []):
        name, _, value = line.partition("\t")
        try:
            milliseconds = float(value)
        except ValueError:
            continue  # the header, or a broken row: that clip is measured instead
        if 0 < milliseconds < math.inf:
            durations[name] = milliseconds / 1000
    return durations
