"""Shards: written and read back by us, read by webdataset, written by tar; hostile, cut off, and in training."""

import gc
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch
import webdataset

from data import write_shards as writer
from data.dataset import SpeechDataset
from data.loaders import training_loader
from data.manifest import Utterance, read_manifest, write_manifest
from data.prepare import main
from data.shards import is_shard, shard_numbers
from data.source import fill_durations, open_source, read_corpus, read_source
from data.write_shards import sound_file, write_shards
from quartznet.alphabet import Alphabet
from quartznet.audio import read_audio
from quartznet.config import DataSettings, TrainSettings

ALPHABET = Alphabet(tuple(" abcdefghijklmnopqrstuvwxyz"))


@pytest.fixture
def clips(tmp_path: Path) -> list[Utterance]:
    """Eleven clips: seven files in several formats, and a recording of four sentences."""
    generator = np.random.default_rng(0)
    (tmp_path / "source").mkdir()
    made = []
    for number, suffix in enumerate(("wav", "flac", "mp3", "ogg", "WAV", "wav", "wav")):
        path = tmp_path / "source" / f"a.{number}.{suffix}"
        soundfile.write(path, 0.1 * generator.standard_normal(8000 + 100 * number), 16000)
        text = chr(ord("a") + number)
        made.append(Utterance(path, text, soundfile.info(path).duration, speaker="ann", raw_text=text.upper()))
    long = tmp_path / "source" / "long.wav"
    soundfile.write(long, 0.1 * generator.standard_normal((4 * 8000, 2)), 8000)
    made += [Utterance(long, f"part {chr(97 + second)}", 1.0, offset=float(second)) for second in range(4)]
    return made


def signals(clips: list[Utterance]) -> dict[tuple[str, str, str], torch.Tensor]:
    """What a network would hear, by text, text as it was, and speaker."""
    return {
        (clip.text, clip.raw_text, clip.speaker): read_audio(
            clip.audio_path, 16000, clip.offset, clip.duration, clip.span
        )
        for clip in clips
    }


def test_every_clip_comes_back_once_with_its_sound(clips: list[Utterance], tmp_path: Path) -> None:
    found = write_shards(clips, tmp_path / "shards", "train", 3)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
        "train.index",
    ]
    before, after = signals(clips), signals(found)
    assert len(before) == len(found) == 11 and before.keys() == after.keys()
    for key, signal in before.items():
        assert (after[key] - signal).abs().max() <= 1.5 / 32768, (
            key
        )  # pieces of the long file are rounded, then resampled
        if not key[0].startswith("part"):
            assert torch.equal(after[key], signal)
    assert sorted(clip.duration for clip in found) == sorted(clip.duration for clip in clips)


def test_fields_travel_with_their_clips(clips: list[Utterance], tmp_path: Path) -> None:
    said = (("accent", "andino"), ("source", "tv"))
    told = [replace(clip, fields=(*said, ("number", n))) for n, clip in enumerate(clips)]
    found = write_shards(told, tmp_path / "shards", "train", 2)
    assert {clip.text: clip.fields for clip in found} == {clip.text: clip.fields for clip in told}
    write_shards(clips, tmp_path / "shards", "train", 2)  # the same sounds with less said of them: other shards
    assert all(clip.fields == () for clip in read_corpus(tmp_path / "shards").train)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_the_library_reads_what_it_wrote_for_us(clips: list[Utterance], tmp_path: Path) -> None:
    found = write_shards(clips, tmp_path / "shards", "train", 2)
    urls = str(tmp_path / "shards" / "train-{000000..000001}.tar")
    theirs = [
        (json.loads(sample["json"]), next(value for key, value in sample.items() if key[0] != "_" and key != "json"))
        for sample in webdataset.WebDataset(urls, shardshuffle=False)
    ]
    gc.collect()
    assert [entry["text"] for entry, _ in theirs] == [clip.text for clip in found]
    for (entry, sound), clip in zip(theirs, found, strict=True):
        assert entry["duration"] == clip.duration
        assert sound == clip.audio_path.read_bytes()[clip.start_byte : clip.start_byte + clip.byte_count]


def test_only_what_changed_is_written_again(
    clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shards"
    first = write_shards(clips, folder, "train", 3)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = []
    monkeypatch.setattr(writer, "_write_shard", lambda clips, path: written.append(path.name))
    assert write_shards(clips, folder, "train", 3) == first and written == []
    monkeypatch.undo()
    (folder / "train-000001.tar").unlink()
    (folder / "train.index").write_text('["not", "ours"]')
    assert write_shards(clips, folder, "train", 3) == first  # the same bytes again
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    changed = [replace(clip, text="new") for clip in clips]
    assert {clip.text for clip in write_shards(changed, folder, "train", 2)} == {"new"}
    assert not (folder / "train-000002.tar").exists()


def test_an_index_names_no_file_outside(clips: list[Utterance], tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "train-x").write_text("precious")
    (tmp_path / "shards" / "train.index").write_text('{"../train-x": "1", "train-/../../train-x": "2"}')
    write_shards(clips, tmp_path / "shards", "train", 1)
    assert (tmp_path / "train-x").read_text() == "precious"


def test_shards_of_shards(clips: list[Utterance], tmp_path: Path) -> None:
    once = write_shards(clips, tmp_path / "once", "train", 3)
    twice = write_shards(once, tmp_path / "twice", "train", 2)
    before, after = signals(once), signals(twice)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(ValueError, match="write elsewhere"):
        write_shards(once, tmp_path / "once", "train", 2)
    assert signals(once).keys() == before.keys()


def test_no_shards_of_nothing(clips: list[Utterance], tmp_path: Path) -> None:
    assert write_shards([], tmp_path / "shards", "dev", 1) == []
    assert len(write_shards(clips[:2], tmp_path / "shards", "train", 9)) == 2
    with pytest.raises(ValueError, match="at least 1, got 0"):
        write_shards(clips, tmp_path / "shards", "train", 0)
    clips[0].audio_path.unlink()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_shards(clips, tmp_path / "other", "train", 1)
    assert not list((tmp_path / "other").glob("*.tar*"))


@pytest.mark.parametrize(
    ("start", "suffix"),
    [
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"ID3\4", "mp3"),
        (b"\xff\xfb\x90d", "mp3"),
        (b"RIFF", "wav"),
        (b"\0\0\0 ftypM4A ", "m4a"),
        (b"\x1aE\xdf\xa3", "webm"),
    ],
)
def test_names_for_sounds_without_one(start: bytes, suffix: str) -> None:
    assert writer._suffix(start + b"\0" * 20) == suffix


def test_a_file_with_an_odd_name_is_named_by_its_content(clips: list[Utterance]) -> None:
    odd = clips[1].audio_path.rename(clips[1].audio_path.with_suffix(".audio"))
    assert sound_file(replace(clips[1], audio_path=odd)) == ("flac", odd.read_bytes())
    assert sound_file(clips[4])[0] == "wav"


# ---------------------------------------------------------------------------------------------------------------------
# Shards of other programs


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def sound(clips: list[Utterance]) -> bytes:
    return clips[0].audio_path.read_bytes()


def test_other_programs_shards(sound: bytes, tmp_path: Path) -> None:
    write_tar(
        tmp_path / "my_speech-000.tar",
        [
            ("./a.wav", sound),
            ("./a.txt", "\ufeffuno\r\n dos\n".encode()),
            ("b/x.seg1.wav", sound),
            ("b/x.json", b'{"sentence": "tres", "duration": "long", "speaker": 7}'),
            ("c/x.JSON", b'{"transcript": "cuatro", "duration": 0.25}'),
            ("c/x.WAV", sound),
        ],
    )
    write_tar(tmp_path / "dev-000.tar", [("d.wav", sound), ("d.json", b'{"text": "cinco"}')])
    splits = read_corpus(tmp_path)
    assert [(clip.text, clip.duration, clip.speaker) for clip in splits.train] == [
        ("uno dos", None, ""),
        ("tres", None, "7"),
        ("cuatro", 0.25, ""),
    ]
    assert [clip.text for clip in splits.dev] == ["cinco"] and splits.skipped == []
    assert [clip.duration for clip in fill_durations(splits.train)[0]] == [0.5, 0.5, 0.25]
    clips, _, _ = read_source(tmp_path / "dev-000.tar")
    assert [clip.text for clip in clips] == ["cinco"] and not (tmp_path / "dev-000.tar.extracted").exists()


GOOD = b'{"text": "a"}'


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("b.json", GOOD)], r"b: needs one sound and a \.json or \.txt beside it, has json"),
        ([("b.wav", b"x")], "b: needs one sound and .* has wav"),
        ([("b.wav", b"x"), ("b.mp3", b"x"), ("b.txt", b"a")], "b: needs one sound .* has mp3, txt, wav"),
        ([("b.wav", b"x"), ("b.json", b"{}")], 'no "text"'),
        ([("b.wav", b"x"), ("b.json", b"[1]")], 'no "text"'),
        ([("b.wav", b"x"), ("b.json", b'{"text": 5}')], 'no "text"'),
        ([("b.wav", b"x"), ("b.json", b"[" * 100_000)], "not readable"),
        ([("b.wav", b"x"), ("b.txt", b"\xff\xfe")], "not readable .* write JSON or plain text in UTF-8"),
        ([("b.wav", b"x"), ("b.txt", b"a" * (2**20 + 1))], r"its text has 1048577 bytes"),
    ],
)
def test_bad_members_are_named_and_the_others_kept(
    sound: bytes, tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    write_tar(folder / "x-000.tar", [("a.wav", sound), ("a.json", GOOD), *members, ("z.wav", sound), ("z.txt", b"z")])
    splits = read_corpus(folder)
    assert [clip.text for clip in splits.train] == ["a", "z"]
    assert len(splits.skipped) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(splits.skipped[0])


def test_links_and_damage(sound: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    two = [("a.wav", sound), ("a.json", GOOD), ("b.wav", sound), ("b.json", GOOD)]
    whole = write_tar(folder / "x-000.tar", two).read_bytes()
    link = tarfile.TarInfo("c.wav")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(folder / "x-001.tar", "w") as tar:
        tar.addfile(link)
    (folder / "x-002.tar").write_bytes(whole[: len(sound) + 3000])  # in the middle of b.wav
    (folder / "x-003.tar").write_bytes(b"")
    (folder / "x-004.tar").write_bytes(os.urandom(5000))
    write_tar(folder / "x-005.tar", two, "w:gz")
    last = 512 * 4 + 1024 + 2 * (-(-len(sound) // 512) * 512)  # where the end mark begins
    (folder / "x-006.tar").write_bytes(whole[:last])
    splits = read_corpus(folder)
    assert [(clip.audio_path.name, clip.text) for clip in splits.train] == [
        ("x-000.tar", "a"),
        ("x-000.tar", "a"),
        ("x-002.tar", "a"),
        ("x-006.tar", "a"),
        ("x-006.tar", "a"),
    ]
    found = "\n".join(splits.skipped)
    for expected in (
        "x-001.tar: 'c.wav' is no plain file",
        "x-002.tar: cut off within 'b.wav'; copy the shard again",
        "x-003.tar: ",
        "x-004.tar: damaged after 0 bytes",
        "x-005.tar: damaged after 0 bytes",
        "x-006.tar: it has no end mark",
    ):
        assert expected in found
    assert len(splits.skipped) == 6


def test_an_archive_of_a_corpus_is_no_shard(sound: bytes, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "corpus-2026.tar", [("corpus/readme.txt", b"hi"), ("corpus/clips/a.wav", sound)])
    assert not is_shard(archive) and not is_shard(tmp_path) and not is_shard(tmp_path / "no-000.tar")
    assert is_shard(write_tar(tmp_path / "x-2026.tar", [("a.wav", sound), ("a.txt", b"a")]))


# ---------------------------------------------------------------------------------------------------------------------
# From data.prepare to training


def test_prepare_writes_shards_and_training_reads_them(tmp_path: Path) -> None:
    tones.write_corpus(tmp_path / "corpus", tuple("abcd"[n % 4] * (3 + n) for n in range(12)))
    plain, sharded = tmp_path / "plain", tmp_path / "sharded"
    arguments = ["--lang", "es", "--jobs", "0"]
    assert main([str(tmp_path / "corpus"), str(plain), *arguments]) == 0
    assert main([str(tmp_path / "corpus"), str(sharded), *arguments, "--shards", "3"]) == 0
    before = {path: path.read_bytes() for path in sharded.rglob("*") if path.is_file()}
    assert main([str(tmp_path / "corpus"), str(sharded), *arguments, "--shards", "3"]) == 0
    assert {path: path.read_bytes() for path in sharded.rglob("*") if path.is_file()} == before

    ours, theirs = read_corpus(sharded), read_corpus(plain)
    for part in ("train", "dev", "test"):
        assert signals(getattr(ours, part)).keys() == signals(getattr(theirs, part)).keys()
    shutil.rmtree(tmp_path / "corpus")  # the copies are all that is needed
    moved = sharded.rename(tmp_path / "elsewhere")
    clips = open_source(moved).train
    settings = TrainSettings(data=DataSettings(batch_seconds=2.0, workers=0))
    batches = list(training_loader(clips, ALPHABET, settings, 16000))
    assert sorted(name for batch in batches for name in batch.names) == sorted(clip.name for clip in clips)
    assert not any(batch.skipped for batch in batches)
    assert signals(read_corpus(moved / "shards").dev).keys() == signals(open_source(moved).dev).keys()


def test_numbers_of_shards() -> None:
    """Paths are fixed: where a clip outside goes is drawn from its path."""
    inside = [Utterance(Path(f"x-{n // 2:03d}.tar"), "a", 1.0, start_byte=512 * n, byte_count=9) for n in range(6)]
    outside = [Utterance(Path(f"{n}.wav"), "a", 1.0) for n in range(300)]
    assert shard_numbers(outside) is None
    assert shard_numbers(inside) == [0, 0, 1, 1, 2, 2]
    mixed = shard_numbers([*inside, *outside])
    assert mixed[:6] == [0, 0, 1, 1, 2, 2] and all(80 < mixed[6:].count(number) < 120 for number in range(3))


def test_a_shard_that_changed_is_named(clips: list[Utterance], tmp_path: Path) -> None:
    found = write_shards(clips, tmp_path / "shards", "train", 1)
    write_manifest(tmp_path / "m.jsonl", found)
    os.truncate(found[0].audio_path, found[-1].start_byte + 10)
    items = [SpeechDataset(read_manifest(tmp_path / "m.jsonl"), ALPHABET)[index] for index in range(len(found))]
    assert [bool(item.problem) for item in items] == [False] * (len(found) - 1) + [True]
    assert "write manifest and shards again together" in items[-1].problem
