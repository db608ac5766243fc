"""Clips -> tar shards: a million small files become a few hundred large ones, which disks and networks read faster.

    shards/train-000000.tar    000000000.mp3  000000000.json  000000001.mp3  000000001.json ...
    shards/train.index         what each shard was made of, so that the next call writes only what has changed

A sound file goes in as it is; a piece of a longer one is decoded and stored as mono 16-bit flac at its own rate. Which
clip goes where is drawn by name, so that neighbours in a shard are not neighbours in the corpus.

The surprise: shards are read again after writing, and what is returned is what was found there.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import soundfile
import webdataset
from tqdm import tqdm

from data.cache import to_int16
from data.hashing import stable_hash
from data.manifest import Utterance, clip_key
from data.shards import read_shard
from data.sounds import is_sound
from quartznet.audio import ROUNDED, audio_duration, decode_audio


def write_shards(clips: Sequence[Utterance], folder: Path, name: str, shards: int) -> list[Utterance]:
    """Writes ``name-000000.tar`` and so on, and returns the clips in them, shard by shard.

    Each shard appears complete or not at all; one that holds the same clips already is left alone, one that an earlier
    call wrote and that is no longer needed is deleted.

    Args:
        clips: with durations; their files can be decoded (``data.prepare`` has seen to that).
        shards: their number; at most one for each clip.

    Raises:
        ValueError, OSError: a clip that cannot be read any more, or lies in ``folder`` itself; no room on the disk.
    """
    if shards < 1:
        raise ValueError(f"the number of shards must be at least 1, got {shards}")
    if any(clip.span and clip.audio_path.parent.absolute() == folder.absolute() for clip in clips):
        raise ValueError(
            f"the clips lie in {folder} already, where the new shards would overwrite them; write elsewhere"
        )
    folder.mkdir(parents=True, exist_ok=True)
    order = sorted(clips, key=lambda clip: (stable_hash("shard", clip.name), clip.name))
    dealt = [order[number::shards] for number in range(min(shards, len(order)))]
    index = folder / f"{name}.index"
    earlier = _read_index(index)
    written: dict[str, str] = {}
    found: list[Utterance] = []
    for number, members in enumerate(tqdm(dealt, desc=f"{name} shards", disable=None)):
        path = folder / f"{name}-{number:06d}.tar"
        made_of = f"{stable_hash(*(_identity(clip) for clip in members)):016x}"
        if earlier.get(path.name) != made_of or not path.is_file():
            _write_shard(members, path)
        written[path.name] = made_of
        found += _read_back(path, len(members))
        _write_index(index, earlier | written)
    for old in earlier.keys() - written.keys():
        (folder / old).unlink(missing_ok=True)
    _write_index(index, written)
    return found


def _identity(clip: Utterance) -> str:
    """Changes with anything that would be in the shard."""
    return repr((clip_key(clip), clip.text, clip.raw_text, clip.speaker, clip.duration, *clip.fields))


def _read_index(path: Path) -> dict[str, str]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: then every shard is written again
        return {}
    prefix = path.stem + "-"
    names = (name for name in entries if name.startswith(prefix) and name == Path(name).name) if entries else ()
    return {name: str(entries[name]) for name in names} if isinstance(entries, dict) else {}


def _write_index(path: Path, entries: dict[str, str]) -> None:
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _write_shard(clips: Sequence[Utterance], path: Path) -> None:
    partial = path.with_name(path.name + ".tmp")
    try:
        with webdataset.TarWriter(str(partial), compress=False, encoder=False, mtime=0) as tar:
            for number, clip in enumerate(clips):
                suffix, sound = sound_file(clip)
                tar.write({"__key__": f"{number:09d}", suffix: sound, "json": _description(clip)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sound_file(clip: Utterance) -> tuple[str, bytes]:
    """Suffix and bytes of a sound file that holds the clip and nothing else."""
    whole = audio_duration(clip.audio_path, clip.span) if clip.offset == 0 else 0.0
    if clip.offset == 0 and (clip.duration is None or whole - clip.duration < ROUNDED):
        with open(clip.audio_path, "rb") as file:
            file.seek(clip.start_byte)
            content = file.read(clip.byte_count or -1)
        suffix = clip.audio_path.suffix.lower()
        return suffix[1:] if is_sound(suffix) else _suffix(content), content
    samples, rate = decode_audio(clip.audio_path, clip.offset, clip.duration, clip.span)
    buffer = BytesIO()
    soundfile.write(buffer, to_int16(samples.mean(dim=1)), rate, format="FLAC", subtype="PCM_16")
    return "flac", buffer.getvalue()


def _suffix(content: bytes) -> str:
    """For a sound whose name does not say what it is, such as one from another shard. Decoders look at the bytes."""
    kinds = {b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3", b"\xff": "mp3", b"\x1aE\xdf\xa3": "webm"}
    if content[4:8] == b"ftyp":
        return "m4a"
    return next((kind for start, kind in kinds.items() if content.startswith(start)), "wav")


def _description(clip: Utterance) -> bytes:
    entry = {"text": clip.text, "duration": clip.duration, "audio_filepath": clip.name}
    entry |= {key: value for key, value in (("speaker", clip.speaker), ("raw_text", clip.raw_text)) if value}
    entry |= dict(clip.fields)
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _read_back(path: Path, expected: int) -> list[Utterance]:
    problems: list[str] = []
    clips = read_shard(path, problems)
    if problems or len(clips) != expected:
        reason = problems[0] if problems else f"{len(clips)} of {expected} clips are there"
        raise OSError(f"{path} was not written as it should be: {reason}; delete it and run the same command again")
    return [replace(clip, origin=clip.name) for clip in clips]
