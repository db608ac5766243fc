"""A Kaldi directory: ``wav.scp``, ``text``, and where they are there ``segments``, ``utt2spk``, ``utt2dur``.

    wav.scp     recording path           text      utterance what is said
    segments    utterance recording start end      utt2spk   utterance speaker

Times are seconds; without ``segments`` every recording is one utterance. A path is relative to the directory, or, as
in Kaldi's recipes, to where the command is started. ``data/{train,dev,test}`` are the parts of a corpus.

The surprise: ``wav.scp`` is not a list of paths but of shell commands: ``sph2pipe -f wav a.sph |`` is a sound file to
Kaldi. A table that somebody else wrote would run whatever it says. Nothing is ever executed here; such a line is a
message that says how to write the sound out once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.corpus import PARTS, Corpus, described, folders_in, is_file, part_of, without_repeats
from data.lines import numbered_lines, shown
from data.manifest import Utterance
from data.splits import Splits


class KaldiDirectory(Corpus):
    """One Kaldi directory, or a folder of them that are called train, dev and test."""

    called = "Kaldi directory"
    looks_for = "a Kaldi directory (wav.scp and text; segments and utt2spk are read too)"

    def recognises(self, path: Path) -> bool:
        """Whether ``wav.scp`` and ``text`` lie in ``path``, or in a folder in it that is named like a part."""
        return bool(_directories(path))

    def read(self, path: Path) -> Splits:
        """Every utterance that has a text and a sound file; each line that leads to none is a message."""
        skipped: list[str] = []
        parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
        for part, folder in _directories(path):
            parts[part] += _Directory(folder, skipped).clips()
        return Splits(**parts, skipped=skipped, description=described(f"{self.called} {path}", parts))


def _directories(path: Path) -> list[tuple[str, Path]]:
    """(part, directory): ``path`` itself as train; or train, dev, test in it, or all that begin like that."""
    if _is_directory(path):
        return [("train", path)]
    inside = folders_in(path) if path.is_dir() else []
    found = [(part, folder) for folder in inside if (part := part_of(folder.name)) and _is_directory(folder)]
    plain = [(part, folder) for part, folder in found if folder.name == part]
    return plain if any(part == "train" for part, _ in plain) else found


def _is_directory(folder: Path) -> bool:
    return is_file(folder / "wav.scp") and is_file(folder / "text")


@dataclass(frozen=True)
class _Directory:
    folder: Path
    skipped: list[str]

    def clips(self) -> list[Utterance]:
        recordings = {key: path for key, value, at in self._table("wav.scp") if (path := self._sound(value, at))}
        speakers = {key: value for key, value, _ in self._table("utt2spk")}
        pieces = self._pieces(recordings)
        clips = []
        for key, text, origin in self._table("text"):
            if key not in pieces:
                where = "segments" if is_file(self.folder / "segments") else "wav.scp"
                self.skipped.append(f"{origin}: {shown(key)} has no usable line in {where}")
                continue
            path, offset, duration = pieces.pop(key)
            whole = not is_file(self.folder / "segments")
            clips.append(Utterance(path, text, duration, offset, origin, speakers.get(key, ""), whole=whole))
        self.skipped.extend(f"{self.folder / 'text'}: no line for {shown(key)}" for key in pieces)
        return without_repeats(clips, self.skipped)

    def _table(self, name: str) -> Iterator[tuple[str, str, str]]:
        """Key, the rest of the line, ``file:line``; a key's second line is a message."""
        path = self.folder / name
        first: dict[str, int] = {}
        for number, line in numbered_lines(path, self.skipped) if is_file(path) else ():
            key, *rest = line.strip().split(maxsplit=1)[:2] or [""]
            if key in first:
                self.skipped.append(f"{path}:{number}: {shown(key)} comes twice, first in line {first[key]}")
            elif key:
                first[key] = number
                yield key, rest[0] if rest else "", f"{path}:{number}"

    def _sound(self, value: str, origin: str) -> Path | None:
        """The file that a line of ``wav.scp`` names, or None after a message."""
        paths = [base / value for base in (self.folder, Path.cwd())]
        found = next((path for path in paths if is_file(path)), None)
        if value.endswith("|") or value.startswith("|"):
            remedy = "run it yourself, keep its sound as a file and write that path here"
            self.skipped.append(f"{origin}: a command, and nothing is executed: {shown(value, 100)}; {remedy}")
            return None
        if found is None:
            kind = "an archive of Kaldi's; write wav or flac files" if ".ark:" in value else "relative to it or to here"
            self.skipped.append(f"{origin}: there is no sound file {shown(value)} ({kind})")
        return found

    def _pieces(self, recordings: dict[str, Path]) -> dict[str, tuple[Path, float, float | None]]:
        """Utterance -> sound file, offset, duration (None: to be measured)."""
        if not is_file(self.folder / "segments"):
            durations = {key: _seconds(value) for key, value, _ in self._table("utt2dur")}
            return {key: (path, 0.0, durations.get(key) or None) for key, path in recordings.items()}
        pieces = {}
        for key, value, origin in self._table("segments"):
            recording, start, end = [*value.split(), "", "", ""][:3]
            begins, ends = _seconds(start), _seconds(end)
            if recording not in recordings:
                self.skipped.append(f"{origin}: {shown(recording)} has no usable line in wav.scp")
            elif begins is None or (end != "-1" and (ends is None or ends <= begins)):
                self.skipped.append(f"{origin}: expected utterance recording start end in seconds, got {shown(value)}")
            else:
                pieces[key] = (recordings[recording], begins, None if ends is None else ends - begins)
        used = {path for path, _, _ in pieces.values()}
        unused = [key for key, path in recordings.items() if path not in used]
        self.skipped.extend(f"{self.folder / 'segments'}: no line for recording {shown(key)}" for key in unused)
        return pieces


def _seconds(value: str) -> float | None:
    """A number of seconds, or None where it is none."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None
