"""A folder of sound files, each with a text file of the same name beside it: ``clips/a.wav`` and ``clips/a.txt``.

``.lab`` is read where there is no ``.txt``. Lines of a text are joined with blanks.

The surprise: a folder whose first level is called ``train-...``, ``dev-...`` and ``test-...`` is split already, and
mixing those would train on the test set.
"""

from pathlib import Path

from data.corpus import Corpus, by_folder, described, is_file
from data.lines import numbered_lines
from data.manifest import Utterance
from data.sounds import any_below, is_sound, walk
from data.splits import Splits

TEXTS = (".txt", ".lab")


class FolderOfClips(Corpus):
    """The layout without any table; everything with a sound file in it is one."""

    called = "folder of clips"
    looks_for = "a folder of clips (wav, flac, mp3, ogg, opus, m4a ...) with a.txt beside a.wav"
    whole_tree = True

    def recognises(self, path: Path) -> bool:
        """Whether there is a sound file at any depth."""
        return any_below(path, is_sound)

    def read(self, path: Path) -> Splits:
        """Every clip with a text beside it; a clip without one, and an unreadable text, is a message."""
        skipped: list[str] = []
        sounds = [file for file in walk(path, skipped) if is_sound(file.name)]
        parts = by_folder(path, [clip for sound in sounds if (clip := _clip(sound, skipped))])
        return Splits(**parts, skipped=skipped, description=described(f"{self.called} {path}", parts))


def _clip(sound: Path, skipped: list[str]) -> Utterance | None:
    texts = [sound.with_suffix(suffix) for suffix in TEXTS]
    path = next((text for text in texts if is_file(text)), None)
    if path is None:
        skipped.append(f"{sound}: no transcript; expected it in {texts[0]}")
        return None
    problems = len(skipped)
    text = " ".join(" ".join(line.split()) for _, line in numbered_lines(path, skipped)).strip()
    if len(skipped) > problems:  # half a transcript is worse than none
        return None
    return Utterance(sound, text, None, origin=str(sound))
