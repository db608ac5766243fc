"""A Common Voice folder as it comes out of the archive: ``validated.tsv``, ``train.tsv``, ... and ``clips/*.mp3``.

Columns are found by name, because every release has others; only ``path`` and ``sentence`` must be there. Official
``train``, ``dev`` and ``test`` are taken as they are, and the validated clips that are in none of them (usually most of
them) are ``extra``. Where only ``validated.tsv`` is there, everything goes to train and ``data.source`` holds out dev
and test. ``other`` was not voted on yet, ``invalidated`` was voted down. What is said of the speaker (age, gender,
accent) and of the sentence stays with each clip; ``accents``, as releases since 2021 have it, is called ``accent``.

The surprise: the tables are not CSV. Sentences hold lone quotation marks, so lines are split at tabs and nothing else;
some releases did write whole sentences as CSV strings (``"a ""b"" c"``), and only those are undone.
"""

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.corpus import Corpus, described, is_file, is_folder
from data.lines import numbered_lines, shown, unquoted
from data.manifest import Utterance, other_fields
from data.splits import Splits, sentence_key

TABLES = ("validated", "train", "dev", "test")
USED = ("path", "sentence", "client_id")
SAID = (
    "age",
    "gender",
    "accent",
    "accents",
    "variant",
    "locale",
    "segment",
    "sentence_domain",
)  # columns kept as fields


class CommonVoice(Corpus):
    """Mozilla's layout, of any release."""

    called = "Common Voice folder"
    looks_for = "a Common Voice folder (validated.tsv or train.tsv beside clips/)"

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` holds one of the four tables and a folder ``clips``."""
        return is_folder(path / "clips") and any(is_file(path / f"{name}.tsv") for name in TABLES)

    def read(self, path: Path) -> Splits:
        """The clips of the tables; a row without a clip, and a broken row, is a message in ``skipped``.

        Of ``other`` and ``invalidated``, which many people do not unpack, the rows without a clip are one message.

        Raises:
            ValueError: for a table without the columns ``path`` and ``sentence``.
        """
        folder = _Folder(path, {entry.name for entry in os.scandir(path / "clips")}, _clip_durations(path))
        dev, test, train = (folder.table(name) for name in ("dev", "test", "train"))
        validated = folder.table("validated", passed_over=set(folder.named))
        if not train:
            train, validated = _without(validated, [*dev, *test], folder.skipped), []
        parts = {"train": train, "dev": dev, "test": test, "more validated": validated}
        return Splits(
            train=train,
            dev=dev,
            test=test,
            skipped=folder.skipped,
            description=described(f"{self.called} {path}", parts),
            extra=validated,
            other=folder.minor_table("other"),
            invalidated=folder.minor_table("invalidated"),
        )


@dataclass
class _Folder:
    """What the tables of one folder share."""

    path: Path
    clips: set[str]  # file names in clips/
    durations: dict[str, float]  # of clips, seconds
    skipped: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # clips that a table has named so far, as that table writes them

    def table(self, name: str, passed_over: Collection[str] = (), summarise: bool = False) -> list[Utterance]:
        """The clips of a table, without those ``passed_over``; [] where there is no such table."""
        path = self.path / f"{name}.tsv"
        clips: dict[str, Utterance] = {}
        absent = 0
        for origin, row in _rows(path, self.skipped):
            if row["path"] in passed_over:
                continue
            self.named.add(row["path"])
            clip = _file_name(row["path"], self.clips)
            if clip is None and summarise:
                absent += 1
            elif clip is None:
                self.skipped.append(f"{origin}: clip {shown(row['path'])} is not in {self.path / 'clips'}")
            elif clip in clips:
                repeat = f"clip {clip} comes twice, first at {clips[clip].origin}; the first is kept"
                self.skipped.append(f"{origin}: {repeat}")
            else:
                clips[clip] = self._utterance(clip, origin, row)
        if absent:
            self.skipped.append(f"{path}: {absent} rows whose clips are not in {self.path / 'clips'}")
        return list(clips.values())

    def minor_table(self, name: str) -> list[Utterance]:
        """A table that most people do not need: what is wrong with its header is a message and stops nothing."""
        try:
            return self.table(name, summarise=True)
        except ValueError as error:
            self.skipped.append(str(error))
            return []

    def _utterance(self, clip: str, origin: str, row: dict[str, str]) -> Utterance:
        return Utterance(
            audio_path=self.path / "clips" / clip,
            text=unquoted(row["sentence"]),
            duration=self.durations.get(clip),
            origin=origin,
            speaker=row.get("client_id", ""),
            whole=True,
            fields=other_fields({name.replace("accents", "accent"): row[name] for name in SAID if name in row}),
        )


def _rows(path: Path, skipped: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """``file:line`` and the fields that are used, of each row with the right number of columns."""
    if not is_file(path):
        return
    lines = numbered_lines(path, skipped)
    header = next((line for _, line in lines), "").split("\t")
    missing = [name for name in ("path", "sentence") if name not in header]
    if missing:
        raise ValueError(
            f"{path}:1: no column {' and '.join(missing)} among {shown(header)}; is this a Common Voice table?"
        )
    at = {name: header.index(name) for name in (*USED, *SAID) if name in header}
    for number, line in lines:
        fields = line.split("\t")
        if not max(at["path"], at["sentence"]) < len(fields) <= len(header):
            if line.strip():
                skipped.append(f"{path}:{number}: {len(fields)} columns, expected {len(header)}")
            continue
        yield f"{path}:{number}", {name: fields[place] for name, place in at.items() if place < len(fields)}


def _file_name(name: str, clips: Collection[str]) -> str | None:
    """The clip's file name; the first releases left ``.mp3`` out. A path out of the folder is no clip's name."""
    return next((candidate for candidate in (name, f"{name}.mp3") if candidate in clips), None)


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


def _clip_durations(folder: Path) -> dict[str, float]:
    """Clip name -> seconds, from the table of milliseconds that releases since 2023 carry; {} where there is none."""
    path = folder / "clip_durations.tsv"
    durations: dict[str, float] = {}
    if not is_file(path):
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
