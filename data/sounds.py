"""The sound files below a folder, and which of them a table means by ``LJ001-0001``, ``a.mp3`` or ``wavs\\a``.

The surprise: tables rarely say where a file lies. They give a name without folder, without suffix, with the folder of
another computer, or with the backslashes of another system. A name that only one file can have is clear all the same; a
name that two files share is a message and never a guess.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from data.corpus import is_file
from data.lines import shown

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr")


def is_sound(name: str) -> bool:
    """Whether a file is called like a sound file."""
    return name.lower().endswith(SOUNDS)


def walk(folder: Path, skipped: list[str]) -> Iterator[Path]:
    """Every file below, folder by folder, sorted; hidden ones (``._a.wav`` of a Mac) do not count.

    Messages as for ``_listed``.
    """
    return (Path(place, name) for place, names in _listed(folder, skipped) for name in sorted(names))


def any_below(folder: Path, wanted: Callable[[str], bool]) -> bool:
    """Whether a file below ``folder`` has a name that is ``wanted``; stops at the first."""
    return folder.is_dir() and any(wanted(name) for _, names in _listed(folder, []) for name in names)


def _listed(folder: Path, skipped: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder below with the names of its files.

    A folder that is a link (it may lead in a circle) or that cannot be listed is a message in ``skipped``.
    """

    def closed(error: OSError) -> None:
        skipped.append(f"{error.filename}: this folder cannot be listed: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=closed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = (Path(place, name) for name in folders if Path(place, name).is_symlink())
        skipped += [f"{link}: a link to a folder, not followed; give its target as --data" for link in links]
        yield place, [name for name in names if not name.startswith(".")]


class Sounds:
    """Finds the sound that a table means; the folders below are listed only once a name is not a path already.

    Args:
        folder: in which, at any depth, the sounds lie.
        skipped: gets the messages of ``walk``.
    """

    def __init__(self, folder: Path, skipped: list[str]) -> None:
        self.folder = folder
        self.skipped = skipped
        self._by_stem: dict[str, list[Path]] | None = None

    def all(self) -> list[Path]:
        """Every sound below the folder, sorted."""
        return [sound for sounds in self._stems().values() for sound in sounds]

    def find(self, key: str, folder: Path) -> Path | str:
        """The sound that a table in ``folder`` calls ``key``, or what is wrong."""
        key = key.strip()
        written = folder / key.replace("\\", "/")
        if not key or "\0" in key:
            return f"no sound file is named: {shown(key)}"
        if is_sound(key) and is_file(written):
            return written
        stem = written.name[: written.name.rfind(".")] if is_sound(key) else written.name
        found = self._stems().get(stem, [])
        beside = [sound for sound in found if sound.parent == written.parent]
        near = beside or [sound for sound in found if folder in sound.parents] or found
        if len(near) > 1:
            return f"several clips are called {shown(key)}: {near[0]}, {near[1]}; write its path relative to {folder}"
        if not near:
            return f"no clip is called {shown(key)}; looked for {'/'.join(SOUNDS)} below {self.folder}"
        return near[0]

    def _stems(self) -> dict[str, list[Path]]:
        if self._by_stem is None:
            self._by_stem = {}
            for path in walk(self.folder, self.skipped):
                if is_sound(path.name):
                    self._by_stem.setdefault(path.stem, []).append(path)
        return self._by_stem
