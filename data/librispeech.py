"""LibriSpeech: book readings, a folder a speaker and a chapter.

    LibriSpeech/train-clean-100/84/121/84-121.trans.txt     lines ``84-121-0 TEXT``, beside 84-121-0.flac

The first number is the speaker. ``dev-clean`` and ``dev-other`` are both dev, all folders ``train-...`` are train.

The surprise: a folder that is called ``dev-clean`` is dev only below the folder that was asked for. Whoever points to
that folder itself wants its clips, and gets them as train, to be split like any other corpus.
"""

from pathlib import Path

from data.corpus import Corpus, by_folder, described, without_repeats
from data.lines import numbered_lines, shown
from data.manifest import Utterance
from data.sounds import any_below, is_sound, walk
from data.splits import Splits

SUFFIX = ".trans.txt"


class LibriSpeech(Corpus):
    """LibriSpeech, a part of it or a speaker of it, and everything else that has its layout."""

    called = "LibriSpeech folder"
    looks_for = "LibriSpeech (84/121/84-121.trans.txt beside 84-121-0.flac)"
    whole_tree = True

    def recognises(self, path: Path) -> bool:
        """Whether there is a ``*.trans.txt`` at any depth."""
        return any_below(path, lambda name: name.endswith(SUFFIX))

    def read(self, path: Path) -> Splits:
        """Every clip that a transcript names, in the part that a folder on its way is called like, else in train."""
        skipped: list[str] = []
        files = list(walk(path, skipped))
        sounds = {(file.parent, file.stem): file for file in files if is_sound(file.name)}
        clips = []
        for table in (file for file in files if file.name.endswith(SUFFIX)):
            clips += _clips(table, sounds, skipped)
        clips = without_repeats(clips, skipped)
        used = {clip.audio_path for clip in clips}
        skipped += [f"{sound}: no transcript names it" for sound in sounds.values() if sound not in used]
        parts = by_folder(path, clips)
        return Splits(**parts, skipped=skipped, description=described(f"{self.called} {path}", parts))


def _clips(table: Path, sounds: dict[tuple[Path, str], Path], skipped: list[str]) -> list[Utterance]:
    clips = []
    for number, line in numbered_lines(table, skipped):
        key, _, text = line.strip().partition(" ")
        sound = sounds.get((table.parent, key))
        origin = f"{table}:{number}"
        if sound:
            clips.append(Utterance(sound, text.strip(), None, origin=origin, speaker=key.split("-")[0]))
        elif key:
            skipped.append(f"{origin}: no clip is called {shown(key)} in {table.parent}")
    return clips
