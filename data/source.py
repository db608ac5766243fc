"""Any corpus -> ``Splits``: a manifest, a folder of manifests, Common Voice, an archive of it, or a folder of clips.

    splits = open_source("cv-corpus/es")                # train, dev, test; dev and test held out where there are none
    clips, problems = fill_durations(splits.train)      # reads the headers of clips whose length nobody wrote down

The surprise: nothing is converted. mp3 stays mp3, and what a corpus needs (durations, splits) is worked out again on
each run in seconds instead of being written into a second copy that goes out of date.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from data.archive import SUFFIXES, extract_archive
from data.common_voice import is_common_voice, read_common_voice
from data.folder import read_folder
from data.lines import shown
from data.manifest import Utterance, read_manifest
from data.splits import Splits, with_held_out
from quartznet.audio import audio_duration

MANIFESTS = (".json", ".jsonl")
PARTS = ("train", "dev", "test")
LOOKED_FOR = (
    "a manifest (.jsonl), a folder with train.jsonl, a Common Voice folder (validated.tsv or train.tsv beside clips/), "
    "its .tar.gz, or a folder of wav/flac/mp3/ogg/opus with transcripts (a.txt beside a.wav, metadata.csv, "
    "transcripts.tsv or *.trans.txt)"
)


def open_source(path: str | Path) -> Splits:
    """What lies at ``path``, ready to train: where there is no dev part, dev (and test) are held out from train.

    Raises:
        FileNotFoundError: where nothing is at ``path``.
        ValueError: where what is there is no corpus, several corpora, or broken; the message says what is looked for.
    """
    return with_held_out(_read(Path(path).expanduser()))


def read_source(path: str | Path, split: str | None = None) -> tuple[list[Utterance], list[str], str]:
    """Utterances to evaluate on, messages about clips left out, and a description.

    Args:
        path: as for ``open_source``.
        split: ``train``, ``dev``, ``test`` as ``open_source`` has them; ``all`` for every clip; None for every clip of
            a single manifest, else test, or dev where there is no test.

    Raises:
        FileNotFoundError, ValueError: as ``open_source``; also for an unknown or an empty split.
    """
    if split not in (None, "all", *PARTS):
        raise ValueError(f"split must be train, dev, test or all, got {split!r}")
    path = Path(path).expanduser()
    if split == "all" or (split is None and path.is_file() and path.suffix in MANIFESTS):
        found = _read(path)
        return [*found.train, *found.dev, *found.test], found.skipped, found.description
    splits = open_source(path)
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    name = split or ("test" if splits.test else "dev")
    if not parts[name]:
        raise ValueError(f"{path} has no {name} clips ({splits.description}); choose another split, or all")
    return parts[name], splits.skipped, f"{splits.description}; read: {name}"


def _read(path: Path) -> Splits:
    """What lies at ``path`` as it is, nothing held out; a single manifest or an unsplit folder is all train."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; looked for {LOOKED_FOR}")
    if path.is_dir():
        found = _read_folder(path)
    elif path.name.lower().endswith(SUFFIXES):
        found = _read_folder(extract_archive(path))
    elif path.suffix.lower() in MANIFESTS:
        found = _read_manifests({"train": path}, f"manifest {path}")
    else:
        raise ValueError(f"{path} is not a corpus; looked for {LOOKED_FOR}")
    if not (found.train or found.dev or found.test):
        first = f"; the first of {len(found.skipped)} problems: {found.skipped[0]}" if found.skipped else ""
        raise ValueError(f"{found.description}: nothing to use{first}")
    return found


def _read_folder(path: Path) -> Splits:
    for level in _levels(path):
        corpora = [folder for folder in level if is_common_voice(folder) or _manifests_in(folder)]
        if len(corpora) > 1:
            raise ValueError(f"{path} holds several corpora: {', '.join(map(str, corpora))}; give one of them")
        if corpora and is_common_voice(corpora[0]):
            return read_common_voice(corpora[0])
        if corpora:
            return _read_manifests(_manifests_in(corpora[0]), f"manifests in {corpora[0]}")
    found = read_folder(path)
    if found is None:
        raise ValueError(f"nothing to train on in {path}; looked for {LOOKED_FOR}")
    return found


def _levels(path: Path) -> Iterator[list[Path]]:
    """The folder, those in it, and those in them; each level is listed only when it is asked for."""
    level = [path]
    for _ in range(3):
        yield level
        level = sorted(
            Path(entry.path)
            for folder in level
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".") and ".partial-" not in entry.name
        )


def _manifests_in(folder: Path) -> dict[str, Path]:
    paths = {
        name: folder / f"{name}{suffix}"
        for name in PARTS
        for suffix in MANIFESTS
        if (folder / f"{name}{suffix}").is_file()
    }
    return paths


def _is_file(path: Path) -> bool:
    """``path.is_file()``; False too for a path that is too long or that leads through a closed folder."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_manifests(paths: dict[str, Path], description: str) -> Splits:
    """Manifests as they are; a broken line is an error, a line whose sound file is missing a message."""
    skipped: list[str] = []
    parts: dict[str, list[Utterance]] = {name: [] for name in PARTS}
    for name, path in paths.items():
        for clip in read_manifest(path):
            if _is_file(clip.audio_path):
                parts[name].append(clip)
            else:
                absent = shown(str(clip.audio_path), 500)
                skipped.append(f"{clip.origin}: there is no sound file {absent}; paths start at the manifest")
    counts = ", ".join(f"{len(part)} {name}" for name, part in parts.items() if part)
    return Splits(parts["train"], parts["dev"], parts["test"], skipped, f"{description}: {counts or 'no clip'}")


# ---------------------------------------------------------------------------------------------------------------------
# Durations


def fill_durations(utterances: Sequence[Utterance], jobs: int = 8) -> tuple[list[Utterance], list[str]]:
    """Every utterance with a duration, in the given order, and a message for each clip that cannot be read.

    Only headers are read, by ``jobs`` threads (libsndfile lets other threads run meanwhile); clips with a duration are
    not touched at all, and a stated duration of 0 is a message.
    """
    unknown = [clip for clip in utterances if clip.duration is None]
    measured: dict[Utterance, Utterance | str] = {}
    with ThreadPoolExecutor(max(1, jobs)) as pool, tqdm(total=len(unknown), desc="durations", disable=None) as bar:
        for start in range(0, len(unknown), 4096):  # a million waiting tasks would cost a gigabyte
            block = unknown[start : start + 4096]
            for clip, result in zip(block, pool.map(_measure, block), strict=True):
                measured[clip] = result
                bar.update()
    results = [measured.get(clip, clip) if clip.duration != 0 else _lasts_no_time(clip) for clip in utterances]
    kept = [result for result in results if isinstance(result, Utterance)]
    return kept, [result for result in results if isinstance(result, str)]


def _lasts_no_time(clip: Utterance) -> str:
    return f"{clip.origin or clip.name}: its duration is 0; correct it, or take the duration out to have it measured"


def _measure(clip: Utterance) -> Utterance | str:
    """The clip with its duration, or what is wrong with it."""
    where = clip.origin or clip.name
    try:
        seconds = audio_duration(clip.audio_path, clip.span) - clip.offset
    except (OSError, ValueError, RuntimeError) as error:
        return f"{where}: {clip.audio_path} cannot be read: {error}"
    if seconds <= 0:
        return f"{where}: offset {clip.offset:g} s lies behind the end of {clip.audio_path}; correct the offset"
    return replace(clip, duration=seconds)
