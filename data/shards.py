"""Tar shards in the WebDataset layout as a corpus: ``train-000000.tar`` holds ``a.mp3`` and ``a.json``, ``b.mp3`` ...

Members with the same name up to the first dot belong together: a sound, and its text as ``.json`` (``{"text": ...,
"duration": ..., "speaker": ...}``) or ``.txt``. ``data.prepare --shards N`` writes such shards (``data.write_shards``).

The surprise: nothing is unpacked, and no stream is read through. In a tar without compression a member is a slice of
the file, so a clip is (shard, first byte, number of bytes), and any of them can be read at any time: an epoch has its
order, resumes and is shared among machines as it is with single files. ``data.samplers`` reads a few neighbouring
shards at a time, which is what disks and networks like.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from data.corpus import PARTS, Corpus, described, part_of
from data.hashing import stable_hash
from data.lines import shown
from data.manifest import Utterance, other_fields
from data.sounds import is_sound
from data.splits import Splits

NAME = re.compile(r".+[-_]\d{3,}\.tar")
LARGEST_TEXT = 2**20  # bytes of a .json or .txt
LOOKED_AT = 3  # clips, and shards, to tell shards from other archives
TEXT_KEYS = ("text", "sentence", "transcript", "transcription")
END = 2 * tarfile.BLOCKSIZE  # of zeros, which close a tar file


def is_shard(path: Path) -> bool:
    """Whether a file is called like a shard (``name-000000.tar``) and begins with a sound and its text.

    An archive of a corpus may be called so too (``corpus-2026.tar``), but begins otherwise.
    """
    if NAME.fullmatch(path.name.lower()) is None or not path.is_file():
        return False
    return any(_sound_and_text(members) is not None for _, members in islice(_samples(path, []), LOOKED_AT))


def shards_in(folder: Path) -> list[Path]:
    """All files called like shards, if one of the first is one: a damaged shard is to be complained of, not ignored."""
    named = sorted(file for file in folder.glob("*.tar") if NAME.fullmatch(file.name.lower()))
    return named if any(is_shard(path) for path in named[:LOOKED_AT]) else []


class Shards(Corpus):
    """A folder of shards, or one of them; ``train-...``, ``dev-...`` and ``test-...`` are those parts, others train."""

    called = "shards"
    looks_for = "tar shards (train-000000.tar)"

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` is a shard or holds one."""
        return is_shard(path) if path.is_file() else bool(shards_in(path))

    def read(self, path: Path) -> Splits:
        """Every clip of every shard; only the headers and the texts in them are read."""
        skipped: list[str] = []
        parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
        shards = [path] if path.is_file() else shards_in(path)
        for shard in shards:
            parts[part_of(shard.name) or "train"] += read_shard(shard, skipped)
        return Splits(**parts, skipped=skipped, description=described(f"{len(shards)} shards in {path}", parts))


def shard_numbers(clips: Sequence[Utterance]) -> list[int] | None:
    """For each clip the number of its shard, for ``BucketSampler``; None where no clip lies in one.

    Clips in files of their own, mixed in from another corpus, are spread evenly over the shards.
    """
    shards = {path: number for number, path in enumerate(sorted({clip.audio_path for clip in clips if clip.span}))}
    if not shards:
        return None
    return [shards[clip.audio_path] if clip.span else stable_hash(clip.name) % len(shards) for clip in clips]


# ---------------------------------------------------------------------------------------------------------------------
# One shard


def read_shard(shard: Path, skipped: list[str]) -> list[Utterance]:
    """The clips of a tar file; members without text or sound, and a file that is cut off, become messages."""
    clips = []
    with shard.open("rb") as file:
        for key, members in _samples(shard, skipped):
            clip = _clip(shard, key, members, file, skipped)
            if clip is not None:
                clips.append(clip)
    return clips


def _samples(shard: Path, skipped: list[str]) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Neighbouring members that share a key, by their suffix: ``("a", {"mp3": ..., "json": ...})``."""
    key, members = "", {}
    for member in _members(shard, skipped):
        path = PurePosixPath(member.name)
        stem, _, suffix = path.name.partition(".")
        name = str(path.with_name(stem)) if stem else member.name
        if name != key and members:
            yield key, members
            members = {}
        key = name
        members[suffix.lower()] = member
    if members:
        yield key, members


def _members(shard: Path, skipped: list[str]) -> Iterator[tarfile.TarInfo]:
    """The files in a tar without compression, as far as they are there."""
    size = shard.stat().st_size
    end = 0
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # tarfile remembers every member: a gigabyte for a million clips
                if not member.isreg() or member.issparse():
                    if not member.isdir():
                        skipped.append(f"{shard}: {shown(member.name)} is no plain file; left out")
                    continue
                end = member.offset_data + member.size
                if end > size:
                    skipped.append(f"{shard}: cut off within {shown(member.name)}; copy the shard again")
                    return
                yield member
    except (tarfile.TarError, EOFError) as error:
        remedy = "a shard is a tar without compression" if not end else "copy the shard again"
        skipped.append(f"{shard}: damaged after {end} bytes ({error}); {remedy}")
        return
    if size < end + END:
        skipped.append(f"{shard}: it has no end mark, so clips may be missing; copy the shard again")


def _clip(
    shard: Path, key: str, members: dict[str, tarfile.TarInfo], file: object, skipped: list[str]
) -> Utterance | None:
    origin = f"{shard}: {key}"
    found = _sound_and_text(members)
    if found is None:
        there = ", ".join(sorted(members))[:100]
        skipped.append(f"{origin}: needs one sound and a .json or .txt beside it, has {there}")
        return None
    sound, text = found
    try:
        entry = _description(text, file)
    except ValueError as error:
        skipped.append(f"{origin}: {error}")
        return None
    return Utterance(
        audio_path=shard,
        text=entry["text"],
        duration=entry.get("duration"),
        origin=origin,
        speaker=str(entry.get("speaker") or ""),
        start_byte=sound.offset_data,
        byte_count=sound.size,
        raw_text=entry.get("raw_text") or "",
        fields=entry["fields"],
    )


def _sound_and_text(members: dict[str, tarfile.TarInfo]) -> tuple[tarfile.TarInfo, tarfile.TarInfo] | None:
    """The two members that make a clip; None where there are none, or several sounds."""
    sounds = [member for suffix, member in members.items() if is_sound(f".{suffix}")]
    text = members.get("json") or members.get("txt")
    return (sounds[0], text) if len(sounds) == 1 and text is not None else None


def _description(member: tarfile.TarInfo, file: object) -> dict:
    """Text and, from a .json, duration, speaker and other fields. Raises ValueError for what is not usable."""
    if member.size > LARGEST_TEXT:
        raise ValueError(f"its text has {member.size} bytes; is that the right member?")
    file.seek(member.offset_data)
    content = file.read(member.size)
    try:
        text = content.decode("utf-8-sig")
        entry = json.loads(text) if member.name.lower().endswith(".json") else {"text": " ".join(text.split())}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its text is not readable ({error}); write JSON or plain text in UTF-8") from error
    key = next((key for key in TEXT_KEYS if isinstance(entry, dict) and isinstance(entry.get(key), str)), None)
    if key is None:
        raise ValueError(f'its .json has no "text"; write {{"text": "..."}}, got {shown(entry)}')
    duration, raw_text = entry.get("duration"), entry.get("raw_text")
    known = isinstance(duration, int | float) and not isinstance(duration, bool) and 0 < duration < 1e9
    return {
        "text": entry[key],
        "duration": float(duration) if known else None,  # else it is measured
        "speaker": entry.get("speaker"),
        "raw_text": raw_text if isinstance(raw_text, str) else "",
        "fields": other_fields({name: value for name, value in entry.items() if name != key}),
    }
