"""Multilingual LibriSpeech (MLS): one table of transcripts a part, and a folder a speaker and a book.

    mls_spanish/train/transcripts.txt                       lines ``84_121_000000<TAB>text``
    mls_spanish/train/audio/84/121/84_121_000000.flac       or .opus, or .mp3
    mls_spanish/train/limited_supervision/9hr/handles.txt   a share of train: one clip name a line

The first number is the speaker.

The surprise: the folders of "limited supervision" (ten hours, one hour) hold no sound and no text, only names of clips.
Whoever points to one wants those clips of train, and the dev and test of the language far above.
"""

import os
from functools import lru_cache
from pathlib import Path

from data.corpus import PARTS, Corpus, described, is_file, is_folder, without_repeats
from data.lines import numbered_lines, shown
from data.manifest import Utterance
from data.sounds import is_sound
from data.splits import Splits

TRANSCRIPTS = "transcripts.txt"
HANDLES = "handles.txt"
LIMITED = "limited_supervision"


class MultilingualLibriSpeech(Corpus):
    """A language of MLS, one part of it, or a folder of its limited supervision."""

    called = "Multilingual LibriSpeech folder"
    looks_for = "Multilingual LibriSpeech (train/transcripts.txt beside train/audio/)"

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` is such a folder, one part of it, or a folder of handles below its train part."""
        return bool(_parts(path)) or _language_above(path) is not None

    def read(self, path: Path) -> Splits:
        """The clips of every part; of train only those that the handles name, where ``path`` holds handles."""
        skipped: list[str] = []
        language = _language_above(path)
        folders = _parts(language or path)
        parts = {part: _read_part(folders[part], skipped) if part in folders else [] for part in PARTS}
        if language:
            parts["train"] = _limited(parts["train"], path, skipped)
        return Splits(**parts, skipped=skipped, description=described(f"{self.called} {path}", parts))


def _parts(path: Path) -> dict[str, Path]:
    """The folders with transcripts and sound, by part; a part that is given by itself is train."""
    found = {part: path / part for part in PARTS if _has_transcripts(path / part)}
    return found or ({"train": path} if _has_transcripts(path) else {})


def _has_transcripts(folder: Path) -> bool:
    return is_file(folder / TRANSCRIPTS) and is_folder(folder / "audio")


def _language_above(path: Path) -> Path | None:
    """The folder of the language, where ``path`` is a folder of handles in it."""
    path = path.absolute()
    train = next((above.parent for above in (path, *path.parents) if above.name == LIMITED), None)
    return train.parent if train and path.is_dir() and _has_transcripts(train) and _handles(path) else None


def _handles(path: Path) -> list[Path]:
    """``9hr/handles.txt``; below ``1hr`` there are six folders of ten minutes with one each."""
    return sorted(path.rglob(HANDLES))


def _read_part(folder: Path, skipped: list[str]) -> list[Utterance]:
    listed = lru_cache(maxsize=None)(_sounds_in)
    table = folder / TRANSCRIPTS
    clips = []
    for number, line in numbered_lines(table, skipped):
        key, _, text = line.partition("\t")
        speaker, _, rest = key.partition("_")
        book, _, count = rest.partition("_")
        place = folder / "audio" / speaker / book
        if not line.strip():
            continue
        if "\t" not in line or not count or os.sep in key:
            skipped.append(f"{table}:{number}: expected speaker_book_number<TAB>text, got {shown(line)}")
        elif key not in listed(place):
            skipped.append(f"{table}:{number}: no clip is called {shown(key)} in {place}")
        else:
            sound = place / listed(place)[key]
            clips.append(Utterance(sound, text.strip(), None, origin=f"{table}:{number}", speaker=speaker))
    return without_repeats(clips, skipped)


def _sounds_in(folder: Path) -> dict[str, str]:
    """Name without suffix -> file name."""
    if not folder.is_dir():
        return {}
    return {Path(entry.name).stem: entry.name for entry in os.scandir(folder) if is_sound(entry.name)}


def _limited(clips: list[Utterance], path: Path, skipped: list[str]) -> list[Utterance]:
    """The clips that the handles name; a handle without a clip is a message."""
    wanted = {}
    for file in _handles(path):
        wanted |= {line.strip(): f"{file}:{number}" for number, line in numbered_lines(file, skipped) if line.strip()}
    there = {clip.audio_path.stem for clip in clips}
    skipped += [f"{at}: train has no clip {shown(name)}" for name, at in wanted.items() if name not in there]
    return [clip for clip in clips if clip.audio_path.stem in wanted]
