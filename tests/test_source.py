"""Any corpus through one door, and durations out of headers."""

import json
import os
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
from bad_corpus import BadCorpus, write_bad_common_voice, write_bad_manifest

from data.manifest import Utterance, read_manifest, write_manifest
from data.source import fill_durations, open_source, read_corpus, read_source
from data.splits import Splits
from quartznet.audio import read_audio

RATE = 8000


def sound(path: Path, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(RATE * seconds), dtype=np.float32), RATE)
    return path


def manifest(folder: Path, name: str, count: int) -> Path:
    clips = [Utterance(sound(folder / f"clips/{name}{n}.wav"), f"{name} {n}", 0.5) for n in range(count)]
    write_manifest(folder / f"{name}.jsonl", clips)
    return folder / f"{name}.jsonl"


def common_voice(folder: Path, count: int = 10) -> Path:
    for number in range(count):
        sound(folder / f"clips/c{number}.wav")
    rows = [f"s{n}\tc{n}.wav\tfrase {n}\n" for n in range(count)]
    (folder / "validated.tsv").write_text("client_id\tpath\tsentence\n" + "".join(rows))
    return folder


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.dev), len(splits.test)


def test_a_single_manifest_is_split(tmp_path: Path) -> None:
    path = manifest(tmp_path, "all", 20)
    splits = open_source(str(path))
    assert sizes(splits) == (16, 2, 2) and "held out from train by sentence" in splits.description
    utterances, skipped, _ = read_source(path)
    assert utterances == read_manifest(path) and not skipped
    assert read_source(path, "test")[0] == splits.test


def test_a_folder_of_manifests(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("dev", 2)):
        manifest(tmp_path / "corpus", name, count)
    assert sizes(open_source(tmp_path)) == (3, 2, 0)
    assert [clip.text for clip in read_source(tmp_path)[0]] == ["dev 0", "dev 1"]
    assert len(read_source(tmp_path, "all")[0]) == 5
    with pytest.raises(
        ValueError, match=r"has no test clips \(manifests in .*: 3 train, 2 dev\); choose another split"
    ):
        read_source(tmp_path, "test")
    with pytest.raises(ValueError, match="split must be train, dev, test or all, got 'Test'"):
        read_source(tmp_path, "Test")


def test_lines_without_their_sound_file_are_counted(tmp_path: Path) -> None:
    path = manifest(tmp_path, "train", 4)
    (tmp_path / "clips/train2.wav").unlink()
    splits = open_source(path)
    assert sum(sizes(splits)) == 3
    assert splits.skipped == [
        f"{path}:3: there is no sound file '{tmp_path / 'clips/train2.wav'}'; paths start at the manifest"
    ]


def test_a_path_that_no_file_system_takes_is_counted(tmp_path: Path) -> None:
    path = manifest(tmp_path, "train", 4)
    long = json.dumps({"audio_filepath": "x" * 5000, "text": "a", "duration": 1})
    path.write_text(path.read_text() + long + "\n")
    splits = open_source(path)
    assert sum(sizes(splits)) == 4 and len(splits.skipped[0]) < 800
    assert splits.skipped[0].startswith(f"{path}:5: there is no sound file '")


def test_an_archive_of_each_real_sample_gives_what_its_folder_gives(shared: Path, tmp_path: Path) -> None:
    """In the same order, with the same texts and speakers."""
    for lang in ("de", "en", "fr", "it", "pt"):
        folder = shared / "corpora" / "common_voice_sample" / lang
        with tarfile.open(tmp_path / f"{lang}.tar.gz", "w:gz", compresslevel=1) as tar:
            tar.add(folder, f"cv-corpus-6.1/{lang}")
        parts = [
            [(clip.audio_path.name, clip.text, clip.speaker) for part in (s.train, s.dev, s.test) for clip in part]
            for s in (open_source(folder), open_source(tmp_path / f"{lang}.tar.gz"))
        ]
        assert parts[0] == parts[1] and len(parts[0]) == 100


@pytest.mark.parametrize("write", [write_bad_common_voice, write_bad_manifest])
def test_a_corpus_of_bad_files_loses_those_and_no_other(tmp_path: Path, write: Callable[[Path], BadCorpus]) -> None:
    """Readers and decoding together find every bad file but those whose sound is good and whose text is not."""
    corpus = write(tmp_path)
    splits = open_source(corpus.path)
    problems, kept = list(splits.skipped), set()
    for clip in (*splits.train, *splits.dev, *splits.test):
        try:
            read_audio(clip.audio_path, 16000, clip.offset)
            kept.add(clip.audio_path.name)
        except ValueError as error:
            problems.append(str(error))
    assert kept == corpus.good | {"no_text.wav", "text_too_long.wav"}
    for place, reason in corpus.bad.items():
        if place not in ("no_text.wav", "text_too_long.wav"):
            assert any(place in problem and re.search(reason, problem) for problem in problems), place
    assert len(problems) == len(corpus.bad) - 2


@pytest.mark.parametrize("below", ["", "es", "cv-corpus-9/es"])
def test_common_voice_at_any_depth(tmp_path: Path, below: str) -> None:
    common_voice(tmp_path / below)
    assert sizes(open_source(tmp_path)) == (8, 1, 1)


def test_two_languages_are_not_guessed_between(tmp_path: Path) -> None:
    for lang in ("es", "it"):
        common_voice(tmp_path / lang)
    with pytest.raises(ValueError, match=r"holds several corpora: .*es, .*it; give one of them"):
        open_source(tmp_path)


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path) -> None:
    folder = common_voice(tmp_path / "cv-corpus-9/es")
    path = tmp_path / "es.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder.parent, "cv-corpus-9")
    for _ in range(2):
        splits = open_source(path)
        assert [clip.text for clip in splits.dev] == [clip.text for clip in open_source(folder).dev]
        assert all(clip.audio_path.is_file() for clip in splits.train)


def test_a_folder_of_clips(tmp_path: Path) -> None:
    for number in range(5):
        sound(tmp_path / f"{number}.wav")
        (tmp_path / f"{number}.txt").write_text(f"frase {number}")
    assert sizes(open_source(tmp_path)) == (3, 1, 1)


LAYOUTS = {
    "LibriSpeech": {
        "LibriSpeech/train-clean/1/2/1-2.trans.txt": "1-2-0 UNO",
        "LibriSpeech/train-clean/1/2/1-2-0.wav": "",
    },
    "Multilingual": {"mls/train/transcripts.txt": "1_2_0\tuno", "mls/train/audio/1/2/1_2_0.wav": ""},
    "LJSpeech": {"LJ/metadata.csv": "a|uno|uno", "LJ/wavs/a.wav": ""},
    "Kaldi": {"data/train/wav.scp": "a a.wav", "data/train/text": "a uno", "data/train/a.wav": ""},
    "table": {"x/y/all.csv": "path,text\na.wav,uno", "x/y/a.wav": ""},
    "manifest": {"x/train.jsonl": '{"audio_filepath": "a.wav", "text": "uno"}', "x/a.wav": ""},
    "folder of clips": {"x/y/z/a.wav": "", "x/y/z/a.lab": "uno"},
    "Common Voice": {
        "cv/es/train.tsv": "path\tsentence\na.wav\tuno",
        "cv/es/clips/a.wav": "",
        "cv/es/clips/a.txt": "no",
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_from_above(tmp_path: Path, layout: str) -> None:
    for name, content in LAYOUTS[layout].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    splits = open_source(tmp_path)
    assert splits.description.startswith(layout)
    assert [clip.text.lower() for clip in splits.train] == ["uno"] and not splits.skipped


def test_a_single_table_is_a_corpus(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "all.csv").write_text("path,text\na,uno\n")
    assert [clip.text for clip in read_source(tmp_path / "all.csv")[0]] == ["uno"]
    (tmp_path / "all.csv").write_text("name,words\na,uno\n")
    with pytest.raises(ValueError, match=r"all\.csv:1: needs a column for the sound file .*'name', 'words'"):
        open_source(tmp_path / "all.csv")


@pytest.mark.parametrize("seed", range(20))
def test_noise_instead_of_tables_is_a_message_or_a_clear_error(tmp_path: Path, seed: int) -> None:
    """Bytes drawn from what tables are made of, and from everything: no reader ends in anything but a ValueError."""
    draw = random.Random(seed)
    names = ("validated.tsv", "all.csv", "metadata.csv", "wav.scp", "text", "1-2.trans.txt", "train.jsonl", "a.txt")
    (tmp_path / "clips").mkdir()
    sound(tmp_path / "clips/a.wav")
    for name in draw.sample(names, 2):
        start = draw.choice(["", "path\tsentence\n", "path,text\n", "text;path\n", "["])
        pieces = [draw.choice(["a", "a.wav", "\t", ",", "|", '"', "\r", "\n", '{"text": ', " "]) for _ in range(300)]
        noise = bytes(draw.randrange(256) for _ in range(draw.choice([0, 30])))
        (tmp_path / name).write_bytes(start.encode() + "".join(pieces).encode() + noise)
    try:
        splits = open_source(tmp_path)
    except ValueError as error:
        assert str(tmp_path) in str(error)
    else:
        assert all(clip.audio_path.is_file() for clip in splits.train)


def test_nothing_there_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*none; correct the path of the corpus"):
        open_source(tmp_path / "none")
    with pytest.raises(ValueError, match=r"is an empty folder; known corpora are\n  a manifest \(\.jsonl\)"):
        open_source(tmp_path)
    (tmp_path / "a.zip").touch()
    with pytest.raises(ValueError, match=r"a\.zip is no corpus; known corpora are\n(  .*\n)+  a \.tar\.gz of one of"):
        open_source(tmp_path / "a.zip")
    (tmp_path / "b.zip").touch()
    (tmp_path / "notes").touch()
    with pytest.raises(ValueError, match=r"holds no corpus that is known: 2 \.zip, 1 notes, and no sound files; known"):
        open_source(tmp_path)
    sound(tmp_path / "a.wav")
    with pytest.raises(
        ValueError, match=r"no clip with a transcript: nothing to use; the first of 1 problems: .*a\.wav"
    ):
        open_source(tmp_path)


def test_the_folder_of_clips_points_to_its_corpus(tmp_path: Path) -> None:
    sound((tmp_path / "clips").mkdir() or tmp_path / "clips" / "a.wav")
    (tmp_path / "validated.tsv").write_text("client_id\tpath\tsentence\nx\ta.wav\tuno\n")
    with pytest.raises(ValueError, match=r"nothing to use; .* looks like a Common Voice folder, give that"):
        open_source(tmp_path / "clips")


def test_durations_come_from_headers_and_keep_the_order(tmp_path: Path) -> None:
    (tmp_path / "broken.mp3").write_bytes(b"nothing" * 50)
    clips = [
        Utterance(sound(tmp_path / "a.wav", 0.5), "a", None),
        Utterance(tmp_path / "unread.wav", "b", 7.0),
        Utterance(tmp_path / "broken.mp3", "c", None, origin="m:3"),
        Utterance(tmp_path / "a.wav", "d", None, offset=0.125),
        Utterance(tmp_path / "a.wav", "e", None, offset=9.0, origin="m:5"),
        Utterance(tmp_path / "missing.wav", "f", None, origin="m:6"),
    ]
    kept, skipped = fill_durations(clips, jobs=2)
    assert [(clip.text, clip.duration) for clip in kept] == [("a", 0.5), ("b", 7.0), ("d", 0.375)]
    assert [message.split(": ")[0] for message in skipped] == ["m:3", "m:5", "m:6"]
    assert "broken.mp3" in skipped[0] and "offset 9 s lies behind the end" in skipped[1]
    assert fill_durations([], jobs=0) == ([], [])


def test_a_stated_duration_of_zero_is_a_message() -> None:
    kept, skipped = fill_durations([Utterance(Path("a.wav"), "a", 0.0, origin="m:1")])
    assert (kept, skipped) == (
        [],
        ["m:1: its duration is 0; correct it, or take the duration out to have it measured"],
    )


def test_every_real_manifest_reads_and_its_durations_are_right(shared: Path) -> None:
    paths = sorted((shared / "corpora").glob("*/*.jsonl"))
    assert len(paths) >= 10
    for path in paths:
        clips = read_manifest(path)
        assert len(clips) == len(path.read_text(encoding="utf-8").splitlines())
        first = json.loads(path.read_text(encoding="utf-8").split("\n")[0])
        assert (clips[0].text, clips[0].duration) == (first["text"], first["duration"])
        for clip in clips[:: max(1, len(clips) // 3)][:3]:
            assert len(read_audio(clip.audio_path)) / 16000 == pytest.approx(clip.duration, abs=0.01)


@pytest.mark.parametrize("lang", ["de", "en", "fr", "it", "pt"])
def test_real_common_voice_is_split_and_measured(shared: Path, lang: str) -> None:
    splits = open_source(shared / "corpora" / "common_voice_sample" / lang)
    assert sum(sizes(splits)) == 100 and not splits.skipped and "by speaker" in splits.description
    kept, skipped = fill_durations(splits.dev[:3], jobs=2)
    assert len(kept) == 3 and not skipped
    for clip in kept:  # an mp3 header may promise two frames more than there are
        assert len(read_audio(clip.audio_path)) / 16000 == pytest.approx(clip.duration, abs=0.05)


def test_links_in_a_circle_are_passed_over(tmp_path: Path) -> None:
    tones.write_corpus(tmp_path / "inner" / "deep")
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "loop").symlink_to("loop")
        (folder / "away").symlink_to("nowhere")
    assert len(read_corpus(tmp_path).train) == 4


def test_a_folder_that_cannot_be_listed_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones.write_corpus(tmp_path / "corpus")
    (tmp_path / "lost+found").mkdir()
    for name in ("scandir", "listdir"):
        original = getattr(os, name)

        def refused(path: Path, original: Callable = original) -> object:
            if Path(path).name == "lost+found":
                raise PermissionError(13, "Permission denied", str(path))
            return original(path)

        monkeypatch.setattr(os, name, refused)
    assert len(read_corpus(tmp_path).train) == 4
