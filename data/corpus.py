"""The role of a reader: it knows one layout of corpora on disk, says whether it sees it, and reads it into ``Splits``.

    class KaldiDirectory(Corpus):
        called = "Kaldi directory"
        looks_for = "a Kaldi directory (wav.scp and text)"
        def recognises(self, path): ...
        def read(self, path): ...

``data.source`` holds the readers in a tuple and asks one after the other. To teach the project a new layout, write such
a class in a file of its own and put it into that tuple.

The surprise: most of reading is saying what could not be read. A reader never drops a row: what does not become an
utterance becomes a message "where: reason" in ``Splits.skipped``.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from data.manifest import Utterance
from data.splits import Splits

PARTS = ("train", "dev", "test")
PART_NAMES = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"} | {
    "development": "dev", "eval": "test", "evaluation": "test", "testing": "test"
}  # fmt: skip


class Corpus(ABC):
    """One layout of corpora on disk."""

    called: str  # what people call this layout
    looks_for: str  # what there must be, in one line; the message of a failed search joins those of all readers
    whole_tree: bool = False  # looks into all folders below by itself: asked last, about the top folder only

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether this layout lies at ``path``, an existing folder or file; looks at names and first lines only."""

    @abstractmethod
    def read(self, path: Path) -> Splits:
        """The corpus at ``path``, which ``recognises`` has said yes to, with nothing held out.

        Raises:
            ValueError: where the layout is there but cannot be read at all; the message names file and line.
        """


def part_of(name: str) -> str | None:
    """train, dev or test for a file or folder called like one (``train-clean-100``, ``validation``), else None."""
    found = re.fullmatch(rf"({'|'.join(PART_NAMES)})([-_. ].*)?", name.lower())
    return PART_NAMES[found[1]] if found else None


def by_folder(folder: Path, clips: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """The clips by part: the first folder on the way from ``folder`` to a clip that is named like one; else train."""
    parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
    for clip in clips:
        names = clip.audio_path.relative_to(folder).parts[:-1]
        parts[next((part for name in names if (part := part_of(name))), "train")].append(clip)
    return parts


def part_files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """The files ``train.*``, ``dev.*`` (or ``validation.*`` ...) and ``test.*`` of a folder, by part."""
    found: dict[str, Path] = {}
    for name, part in PART_NAMES.items():
        for suffix in suffixes:
            if part not in found and is_file(folder / f"{name}{suffix}"):
                found[part] = folder / f"{name}{suffix}"
    return found


def is_file(path: Path) -> bool:
    """``path.is_file()``; False too for a path that is too long or that leads through a closed folder."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """``path.is_dir()``; False too for a link that leads in a circle, and in a closed folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def names_in(folder: Path) -> list[str]:
    """Names of what is in a folder, sorted; none of one that cannot be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def folders_in(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted; none of one that cannot be listed."""
    return [path for name in names_in(folder) if is_folder(path := folder / name)]


def without_repeats(clips: Iterable[Utterance], skipped: list[str]) -> list[Utterance]:
    """``clips`` without those that name a sound for the second time, which become messages."""
    first: dict[tuple, str] = {}
    kept = []
    for clip in clips:
        cut = (clip.audio_path, clip.span, clip.offset, None if clip.whole else clip.duration)
        if cut in first:
            skipped.append(f"{clip.origin}: {clip.name} comes twice, first at {first[cut]}; the first is kept")
        else:
            first[cut] = clip.origin
            kept.append(clip)
    return kept


def described(what: str, parts: dict[str, list[Utterance]]) -> str:
    """``what: 90 train, 10 dev``."""
    counts = ", ".join(f"{len(clips)} {name}" for name, clips in parts.items() if clips)
    return f"{what}: {counts or 'no clip with a transcript'}"
