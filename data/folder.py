"""A folder of sound files with transcripts, in the four layouts that people have.

    clips/a.wav + clips/a.txt                one text file beside each clip
    metadata.csv + wavs/a.wav                lines ``a|text|text with numbers written out`` (LJSpeech)
    transcripts.tsv + anything/a.wav         lines ``a<TAB>text``
    84/121/84-121.trans.txt + 84-121-0.flac  lines ``84-121-0 TEXT``, the first number is the speaker (LibriSpeech)

The surprise: a folder whose first level is called ``train-...``, ``dev-...`` and ``test-...`` is split already, and
mixing those would train on the test set.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.lines import numbered_lines, shown
from data.manifest import Utterance
from data.splits import Splits

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus")
TABLES = {"metadata.csv": "|", "transcripts.tsv": "\t"}  # name -> what stands between the columns
LIBRISPEECH = ".trans.txt"


@dataclass(frozen=True)
class _Files:
    sounds: list[Path]
    tables: list[Path]
    librispeech: list[Path]


def read_folder(folder: Path) -> Splits | None:
    """The clips of the folder and of all folders below it, or None where there is no sound file at all.

    A clip without transcript, a transcript without clip, an unreadable transcript, and a folder that is a link (it may
    lead in a circle) or cannot be listed, is a message in ``skipped``.
    """
    skipped: list[str] = []
    files = _walk(folder, skipped)
    if not files.sounds:
        return None
    if files.tables or files.librispeech:
        clips = _from_tables(files, skipped)
        names = {path.name for path in files.tables} | ({f"*{LIBRISPEECH}"} if files.librispeech else set())
        kind = " and ".join(sorted(names))
    else:
        clips, kind = _beside(files.sounds, skipped), "one text file beside each"
    parts: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for clip in clips:
        parts[_part(clip.audio_path.relative_to(folder))].append(clip)
    counts = ", ".join(f"{len(part)} {name}" for name, part in parts.items() if part)
    description = f"folder of clips {folder} ({kind}): {counts or 'no clip with a transcript'}"
    return Splits(parts["train"], parts["dev"], parts["test"], skipped, description)


def _walk(folder: Path, skipped: list[str]) -> _Files:
    """Every file below, sorted; hidden ones (``._a.wav`` of a Mac) do not count."""
    files = _Files([], [], [])

    def complain(error: OSError) -> None:
        skipped.append(f"{error.filename}: this folder cannot be listed: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=complain):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = (Path(place, name) for name in folders if Path(place, name).is_symlink())
        skipped += [f"{link}: a link to a folder, not followed; give its target as --data" for link in links]
        for name in sorted(name for name in names if not name.startswith(".")):
            if name.lower().endswith(SOUNDS):
                files.sounds.append(Path(place, name))
            elif name in TABLES:
                files.tables.append(Path(place, name))
            elif name.endswith(LIBRISPEECH):
                files.librispeech.append(Path(place, name))
    return files


def _part(relative: Path) -> str:
    """train, dev or test, from the first folder that is named like one; train where none is."""
    for folder in relative.parts[:-1]:
        found = re.fullmatch(r"(train|dev|valid|validation|test)([-_. ].*)?", folder.lower())
        if found:
            return {"train": "train", "test": "test"}.get(found[1], "dev")
    return "train"


# ---------------------------------------------------------------------------------------------------------------------
# One text file beside each clip


def _beside(sounds: list[Path], skipped: list[str]) -> list[Utterance]:
    clips = []
    for sound in sounds:
        path = sound.with_suffix(".txt")
        if not path.is_file():
            skipped.append(f"{sound}: no transcript; expected it in {path}")
            continue
        problems = len(skipped)
        text = " ".join(" ".join(line.split()) for _, line in numbered_lines(path, skipped)).strip()
        if len(skipped) == problems:  # half a transcript is worse than none
            clips.append(Utterance(sound, text, None, origin=f"{path}:1"))
    return clips


# ---------------------------------------------------------------------------------------------------------------------
# Tables of transcripts


def _from_tables(files: _Files, skipped: list[str]) -> list[Utterance]:
    by_name: dict[str, list[Path]] = {}
    for sound in files.sounds:
        by_name.setdefault(sound.stem, []).append(sound)
    clips = []
    for origin, folder, key, text, speaker in _rows(files, skipped):
        sound = _find(key, folder, by_name)
        if isinstance(sound, Path):
            clips.append(Utterance(sound, text, None, origin=origin, speaker=speaker))
        else:
            skipped.append(f"{origin}: {sound}")
    used = {clip.audio_path for clip in clips}
    skipped += [f"{sound}: no line of a transcript table names it" for sound in files.sounds if sound not in used]
    return clips


def _rows(files: _Files, skipped: list[str]) -> Iterator[tuple[str, Path, str, str, str]]:
    """Origin, folder, clip, text, speaker."""
    for path in files.tables:
        separator = TABLES[path.name]
        for number, line in numbered_lines(path, skipped):
            clip, *texts = line.split(separator)
            if texts:
                text = texts[1] if separator == "|" and len(texts) > 1 and texts[1].strip() else texts[0]
                yield f"{path}:{number}", path.parent, clip.strip(), text.strip(), ""
            elif line.strip():
                skipped.append(f"{path}:{number}: no {separator!r} in this line; expected clip{separator}text")
    for path in files.librispeech:
        for number, line in numbered_lines(path, skipped):
            clip, _, text = line.strip().partition(" ")
            if clip:
                yield f"{path}:{number}", path.parent, clip, text.strip(), clip.split("-")[0]


def _find(key: str, folder: Path, by_name: dict[str, list[Path]]) -> Path | str:
    """The clip that ``key`` names, with or without folder and suffix, or what is wrong."""
    name = Path(key.replace("\\", "/")).name
    stem = name[: name.rfind(".")] if name.lower().endswith(SOUNDS) else name
    found = by_name.get(stem, [])
    exact = [sound for sound in found if sound == folder / key] or [sound for sound in found if sound.parent == folder]
    if len(found) > 1 and len(exact) != 1:
        return f"several clips are called {shown(key)}: {found[0]}, {found[1]}; write its path relative to {folder}"
    if not found:
        return f"no clip is called {shown(key)}; looked for {'/'.join(SOUNDS)} below {folder}"
    return exact[0] if len(found) > 1 else found[0]
