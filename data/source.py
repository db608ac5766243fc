"""Any corpus -> ``Splits``: the readers are asked one after the other whether they know what lies there.

    splits = open_source("cv-corpus/es")                # train, dev, test; dev and test held out where there are none
    clips, problems = fill_durations(splits.train)      # reads the headers of clips whose length nobody wrote down

The surprise: nothing is converted. mp3 stays mp3, and what a corpus needs (durations, splits) is worked out again on
each run in seconds instead of being written into a second copy that goes out of date.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from data.archive import SUFFIXES as ARCHIVES
from data.archive import extract_archive
from data.common_voice import CommonVoice
from data.corpus import PARTS, Corpus, folders_in
from data.folder import FolderOfClips
from data.kaldi import KaldiDirectory
from data.librispeech import LibriSpeech
from data.ljspeech import LJSpeech
from data.manifest import Utterance
from data.multilingual_librispeech import MultilingualLibriSpeech
from data.nemo_manifests import NemoManifests
from data.shards import Shards, is_shard
from data.sounds import is_sound
from data.splits import Splits, with_held_out
from data.table import Table
from quartznet.audio import audio_duration

READERS: tuple[Corpus, ...] = (
    NemoManifests(),
    Shards(),
    CommonVoice(),
    MultilingualLibriSpeech(),
    KaldiDirectory(),
    Table(),
    LibriSpeech(),
    LJSpeech(),
    FolderOfClips(),
)
LOOKED_FOR = "".join(f"\n  {what}" for what in (*(reader.looks_for for reader in READERS), "a .tar.gz of one of these"))


def open_source(path: str | Path) -> Splits:
    """What lies at ``path``, ready to train: where there is no dev part, dev (and test) are held out from train.

    Raises:
        FileNotFoundError: where nothing is at ``path``.
        ValueError: where what is there is no corpus, several corpora, or broken; the message says what is looked for.
    """
    return with_held_out(read_corpus(Path(path).expanduser()))


def is_single(path: str | Path) -> bool:
    """Whether ``path`` is a single manifest, table or shard, which is not divided into parts."""
    path = Path(path).expanduser()
    return path.is_file() and (is_shard(path) or not path.name.lower().endswith(ARCHIVES))


def read_source(path: str | Path, split: str | None = None) -> tuple[list[Utterance], list[str], str]:
    """Utterances to evaluate on, messages about clips left out, and a description.

    Args:
        path: as for ``open_source``.
        split: ``train``, ``dev``, ``test`` as ``open_source`` has them; ``all`` for every clip; None for every clip of
            a single manifest, table or shard, else test, or dev where there is no test.

    Raises:
        FileNotFoundError, ValueError: as ``open_source``; also for an unknown or an empty split.
    """
    if split not in (None, "all", *PARTS):
        raise ValueError(f"split must be train, dev, test or all, got {split!r}")
    path = Path(path).expanduser()
    if split == "all" or (split is None and is_single(path)):
        found = read_corpus(path)
        return [*found.train, *found.dev, *found.test], found.skipped, found.description
    splits = open_source(path)
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    name = split or ("test" if splits.test else "dev")
    if not parts[name]:
        raise ValueError(f"{path} has no {name} clips ({splits.description}); choose another split, or all")
    return parts[name], splits.skipped, f"{splits.description}; read: {name}"


def read_corpus(path: Path) -> Splits:
    """What lies at ``path`` as it is, nothing held out; a single manifest or shard or an unsplit folder is all train.

    Raises:
        FileNotFoundError, ValueError: as ``open_source``.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; correct the path of the corpus")
    if path.is_file() and path.name.lower().endswith(ARCHIVES) and not is_shard(path):
        path = extract_archive(path)
    reader, place = _recognised(path)
    found = reader.read(place)
    if not (found.train or found.dev or found.test):
        first = f"; the first of {len(found.skipped)} problems: {found.skipped[0]}" if found.skipped else ""
        raise ValueError(f"{found.description}: nothing to use{_corpus_above(path)}{first}")
    return found


def _recognised(path: Path) -> tuple[Corpus, Path]:
    """The reader for what lies at ``path`` or, where ``path`` is a folder, in a folder up to two levels below it."""
    for level in _levels(path) if path.is_dir() else [[path]]:
        found = [(reader, place) for place in level if (reader := _first_reader(place, whole_tree=False))]
        if len(found) > 1:
            corpora = ", ".join(str(place) for _, place in found[:9])
            raise ValueError(f"{path} holds several corpora: {corpora}; give one of them")
        if found:
            return found[0]
    reader = _first_reader(path, whole_tree=True)
    if reader is None:
        raise ValueError(f"{path} {_contents(path)}; known corpora are{LOOKED_FOR}")
    return reader, path


def _contents(path: Path) -> str:
    """What is there instead of a corpus, for a message."""
    if path.is_file():
        return "is no corpus"
    kinds = Counter(Path(name).suffix.lower() or name for _, _, names in os.walk(path) for name in names)
    if not kinds:
        return "is an empty folder"
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    return f"holds no corpus that is known: {shown}{'' if any(map(is_sound, kinds)) else ', and no sound files'}"


def _corpus_above(path: Path) -> str:
    """A hint for whoever gives the folder ``clips`` of a corpus."""
    above = path.absolute().parent
    inner = path.is_dir() and path.name.lower() in ("clips", "wavs", "audio")
    reader = _first_reader(above, whole_tree=False) if inner else None
    return f"; {above} looks like a {reader.called}, give that" if reader else ""


def _first_reader(place: Path, whole_tree: bool) -> Corpus | None:
    asked = (reader for reader in READERS if reader.whole_tree == whole_tree)
    return next((reader for reader in asked if reader.recognises(place)), None)


def _levels(path: Path) -> Iterator[list[Path]]:
    """The folder, those in it, and those in them; each level is listed only when it is asked for."""
    level = [path]
    for _ in range(3):
        yield level
        level = sorted(
            below
            for folder in level
            for below in folders_in(folder)
            if not below.name.startswith(".") and ".partial-" not in below.name
        )


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
