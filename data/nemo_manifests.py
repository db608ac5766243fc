"""NeMo manifests as a corpus: one file of JSON lines, or a folder with ``train.jsonl``, ``dev.jsonl``, ``test.jsonl``.

``.json`` is read like ``.jsonl``. The lines themselves are the matter of ``data.manifest``.

The surprise: a manifest may name files that are not there, because it came from another computer; it is a list of what
somebody had. Such lines are messages, and the rest is used.
"""

from pathlib import Path

from data.corpus import PARTS, Corpus, described, is_file, names_in, part_files, part_of, without_repeats
from data.lines import shown
from data.manifest import Utterance, read_manifest
from data.splits import Splits

SUFFIXES = (".jsonl", ".json")


class NemoManifests(Corpus):
    """A manifest, or a folder of them."""

    called = "manifest"
    looks_for = "a manifest (.jsonl), or a folder with train.jsonl"

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` is called like a manifest or holds one that is called like a part."""
        return path.suffix.lower() in SUFFIXES if path.is_file() else bool(part_files(path, SUFFIXES))

    def read(self, path: Path) -> Splits:
        """The utterances whose sound file is there; a single manifest is all train.

        Raises:
            ValueError: for a manifest without a single utterance.
        """
        skipped: list[str] = []
        parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
        paths = {"train": path} if path.is_file() else part_files(path, SUFFIXES)
        for part, manifest in paths.items():
            there = [clip for clip in read_manifest(manifest, skipped) if _is_there(clip, skipped)]
            parts[part] = without_repeats(there, skipped)
        what = f"manifest {path}" if path.is_file() else f"manifests in {path}"
        return Splits(**parts, skipped=skipped, description=described(what, parts) + _unused(path, paths))


def _unused(folder: Path, used: dict[str, Path]) -> str:
    """What else in the folder looks like a manifest of a part: ``test_other.jsonl``, ``valid.jsonl`` beside ``dev``."""
    files = [folder / name for name in names_in(folder) if name.endswith(SUFFIXES) and part_of(name)]
    names = [file.name for file in files if file not in used.values()] if folder.is_dir() else []
    return f"; not used: {', '.join(names)}" if names else ""


def _is_there(clip: Utterance, skipped: list[str]) -> bool:
    there = is_file(clip.audio_path)
    if not there:
        absent = shown(str(clip.audio_path), 500)
        skipped.append(f"{clip.origin}: there is no sound file {absent}; paths start at the manifest")
    return there
