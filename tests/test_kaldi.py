"""Kaldi directories: recordings and pieces of them, and a table of commands of which none is run."""

from pathlib import Path

import pytest
from test_folder import make

from data.kaldi import KaldiDirectory
from data.manifest import Utterance


def test_every_recording_is_an_utterance_where_there_are_no_segments(tmp_path: Path) -> None:
    files = {
        "wav.scp": "a wavs/a.wav\nb  wavs/with blank.wav \r\n\nc wavs/c.wav\n",
        "text": "\ufeffa  hola \r\nb dos  tres\nc\n",
        "utt2spk": "a ana\nc ben\n",
        "utt2dur": "a 1.5\nb nonsense\n",
        "wavs/a.wav": "", "wavs/with blank.wav": "", "wavs/c.wav": "",
    }  # fmt: skip
    assert KaldiDirectory().recognises(make(tmp_path, files))
    splits = KaldiDirectory().read(tmp_path)
    text = tmp_path / "text"
    assert splits.train == [
        Utterance(tmp_path / "wavs/a.wav", "hola", 1.5, 0.0, f"{text}:1", "ana", whole=True),
        Utterance(tmp_path / "wavs/with blank.wav", "dos  tres", None, 0.0, f"{text}:2", whole=True),
        Utterance(tmp_path / "wavs/c.wav", "", None, 0.0, f"{text}:3", "ben", whole=True),
    ]
    assert not splits.skipped and splits.description == f"Kaldi directory {tmp_path}: 3 train"


def test_segments_cut_recordings(tmp_path: Path) -> None:
    files = {
        "wav.scp": "r a.wav\n", "a.wav": "",
        "segments": "u1 r 0.5 2.0\nu2 r 2.0 -1\nu3 r 3 3\nu4 r nan 4\nu5 q 0 1\nu6 r 1\nu7 r 5.0 6.0\nu1 r 7 8\n",
        "text": "u1 uno\nu2 dos\nu3 tres\nu8 ocho\nu1 otra\n",
    }  # fmt: skip
    splits = KaldiDirectory().read(make(tmp_path, files))
    assert [(clip.text, clip.offset, clip.duration) for clip in splits.train] == [("uno", 0.5, 1.5), ("dos", 2.0, None)]
    expected = {
        "segments:3: expected utterance recording start end in seconds, got 'r 3 3'",
        "segments:4: expected utterance recording start end in seconds, got 'r nan 4'",
        "segments:5: 'q' has no usable line in wav.scp",
        "segments:6: expected utterance recording start end in seconds, got 'r 1'",
        "segments:8: 'u1' comes twice, first in line 1",
        "text:3: 'u3' has no usable line in segments",
        "text:4: 'u8' has no usable line in segments",
        "text:5: 'u1' comes twice, first in line 1",
        "text: no line for 'u7'",
    }
    assert {message.removeprefix(f"{tmp_path}/") for message in splits.skipped} == expected


def test_commands_are_never_run(tmp_path: Path) -> None:
    trap = f"touch {tmp_path}/trap"
    table = f"a {trap} |\nb {trap}|\nc |{trap}\nd {trap} ; cat a.wav |  \ne a.wav\nf raw.ark:1234\n"
    texts = "".join(f"{key} x\n" for key in "abcdef")
    splits = KaldiDirectory().read(make(tmp_path, {"wav.scp": table, "text": texts, "a.wav": ""}))
    assert [clip.audio_path.name for clip in splits.train] == ["a.wav"] and not (tmp_path / "trap").exists()
    commands = [message for message in splits.skipped if "a command, and nothing is executed: 'touch " in message]
    assert [message.removeprefix(f"{tmp_path}/")[:10] for message in commands[:3]] == [
        "wav.scp:1:",
        "wav.scp:2:",
        "wav.scp:4:",
    ] and len(commands) == 3
    problems = "\n".join(splits.skipped)
    assert "wav.scp:3: a command, and nothing is executed: '|touch" in problems
    assert "wav.scp:6: there is no sound file 'raw.ark:1234' (an archive of Kaldi's; write wav or flac" in problems


def test_paths_start_at_the_directory_then_at_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "data/train/wav.scp": "a a.wav\nb b.wav\nc /no/c.wav\n", "data/train/text": "a x\nb y\nc z\n",
        "data/train/a.wav": "", "a.wav": "", "b.wav": "",
    }  # fmt: skip
    make(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    splits = KaldiDirectory().read(tmp_path / "data/train")
    assert [clip.audio_path for clip in splits.train] == [tmp_path / "data/train/a.wav", tmp_path / "b.wav"]
    assert "wav.scp:3: there is no sound file '/no/c.wav' (relative to it or to here)" in splits.skipped[0]


def test_folders_that_are_called_like_parts(tmp_path: Path) -> None:
    def directory(name: str) -> dict[str, str]:
        return {f"{name}/wav.scp": "a a.wav\n", f"{name}/text": f"a {name}\n", f"{name}/a.wav": ""}

    def texts() -> list[list[str]]:
        splits = KaldiDirectory().read(tmp_path)
        return [[clip.text for clip in part] for part in (splits.train, splits.dev, splits.test)]

    make(tmp_path, directory("train_clean_5") | directory("dev_clean_2") | directory("lang"))
    assert KaldiDirectory().recognises(tmp_path)
    assert texts() == [["train_clean_5"], ["dev_clean_2"], []]
    make(tmp_path, directory("train") | directory("test"))  # then train_clean_5 is a part or a copy of it
    assert texts() == [["train"], [], ["test"]]


def test_hostile_bytes_cost_their_lines_only(tmp_path: Path) -> None:
    files = {
        "wav.scp": b"a a.wav\n\xff\xfe\nb \0.wav\nc " + b"x" * 5000 + b"\nd ../a.wav\n",
        "text": b"a uno\nb dos\n\xe9\n", "a.wav": b"",
    }  # fmt: skip
    splits = KaldiDirectory().read(make(tmp_path / "k", files))
    assert [clip.text for clip in splits.train] == ["uno"]
    reasons = [
        "scp:2: not UTF-8",
        "scp:3: there is no",
        "scp:4: there is no",
        "scp:5: there is no",
        "text:2:",
        "text:3: not",
    ]
    assert all(any(reason in message for message in splits.skipped) for reason in reasons)
    assert len(splits.skipped) == len(reasons)


def test_other_folders_are_no_kaldi_directory(tmp_path: Path) -> None:
    make(tmp_path, {"wav.scp": "a a.wav", "x/text": "a b"})
    assert not any(KaldiDirectory().recognises(path) for path in (tmp_path, tmp_path / "x", tmp_path / "wav.scp"))
