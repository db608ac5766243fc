"""Tables without a header, as LJSpeech, M-AILABS and many home-made corpora have them.

    metadata.csv + wavs/LJ001-0001.wav       lines ``LJ001-0001|text|text with numbers written out``
    transcripts.tsv + anything/a.wav         lines ``a<TAB>text``

There may be several tables, each in a folder of its own, and one speaker in all of them. Of two texts the second is
taken: in it numbers and abbreviations are written out.

The surprise: ``metadata.csv`` is no CSV. Its columns are divided by ``|`` and a quotation mark is only that, so a CSV
reader would join hundreds of lines at the first lone one.
"""

from pathlib import Path

from data.corpus import Corpus, by_folder, described, without_repeats
from data.lines import numbered_lines
from data.manifest import Utterance
from data.sounds import Sounds, any_below, walk
from data.splits import Splits

SEPARATORS = {"metadata.csv": "|", "transcripts.tsv": "\t"}  # name of the table -> what divides its columns


class LJSpeech(Corpus):
    """Clips named by tables without a header."""

    called = "LJSpeech folder"
    looks_for = "LJSpeech (metadata.csv with lines a|text, or transcripts.tsv with lines a<TAB>text)"
    whole_tree = True

    def recognises(self, path: Path) -> bool:
        """Whether there is such a table at any depth."""
        return any_below(path, lambda name: name in SEPARATORS)

    def read(self, path: Path) -> Splits:
        """Every clip that a table names; a clip that none names is a message, as is a line without its clip."""
        skipped: list[str] = []
        sounds = Sounds(path, skipped)
        clips = []
        for table in [file for file in walk(path, []) if file.name in SEPARATORS]:
            clips += _clips(table, sounds, skipped)
        clips = without_repeats(clips, skipped)
        used = {clip.audio_path for clip in clips}
        skipped += [f"{sound}: no line of a table names it" for sound in sounds.all() if sound not in used]
        parts = by_folder(path, clips)
        return Splits(**parts, skipped=skipped, description=described(f"{self.called} {path}", parts))


def _clips(table: Path, sounds: Sounds, skipped: list[str]) -> list[Utterance]:
    separator = SEPARATORS[table.name]
    clips = []
    for number, line in numbered_lines(table, skipped):
        key, *texts = line.split(separator)
        if not texts:
            if line.strip():
                skipped.append(f"{table}:{number}: no {separator!r} in this line; expected clip{separator}text")
            continue
        sound = sounds.find(key, table.parent)
        if isinstance(sound, str):
            skipped.append(f"{table}:{number}: {sound}")
            continue
        text = texts[1] if separator == "|" and len(texts) > 1 and texts[1].strip() else texts[0]
        clips.append(Utterance(sound, text.strip(), None, origin=f"{table}:{number}"))
    return clips
