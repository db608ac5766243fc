"""Folders of clips in each of the four layouts."""

import os
from pathlib import Path

import pytest

from data.folder import read_folder
from data.manifest import Utterance


def make(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_a_text_file_beside_each_clip(tmp_path: Path) -> None:
    files = {
        "a.wav": "", "a.txt": "\ufeffhola \r\n mundo\n", "sub/b.OPUS": "", "sub/b.txt": "dos", "c.flac": "",
        "d.ogg": "", "d.txt": b"caf\xe9", "._a.wav": "", ".hidden/e.wav": "", "notes.txt": "x",
    }  # fmt: skip
    splits = read_folder(make(tmp_path, files))
    assert splits.train == [
        Utterance(tmp_path / "a.wav", "hola mundo", None, origin=f"{tmp_path / 'a.txt'}:1"),
        Utterance(tmp_path / "sub/b.OPUS", "dos", None, origin=f"{tmp_path / 'sub/b.txt'}:1"),
    ]
    assert len(splits.skipped) == 2
    assert "c.flac: no transcript; expected it in" in splits.skipped[0] and "d.txt:1: not UTF-8" in splits.skipped[1]
    assert splits.description.endswith("(one text file beside each): 2 train")


def test_metadata_csv_prefers_the_normalised_text(tmp_path: Path) -> None:
    table = 'L1|Dr. "A"|doctor a\nL2|dos|\nL3|tres\nL9|nadie|nadie\nno bar\n'
    wavs = {f"deep/wavs/L{n}.wav": "" for n in (1, 2, 3, 4)}
    splits = read_folder(make(tmp_path, {"deep/metadata.csv": table, **wavs}))
    assert [(clip.audio_path.name, clip.text) for clip in splits.train] == [
        ("L1.wav", "doctor a"), ("L2.wav", "dos"), ("L3.wav", "tres"),
    ]  # fmt: skip
    problems = "\n".join(splits.skipped)
    assert len(splits.skipped) == 3
    assert "metadata.csv:4: no clip is called 'L9'" in problems and "metadata.csv:5: no '|' in this line" in problems
    assert "L4.wav: no line of a transcript table names it" in problems


def test_transcripts_tsv_names_clips_with_or_without_folder(tmp_path: Path) -> None:
    files = {"x/a.wav": "", "y/a.wav": "", "b.c.mp3": "", "transcripts.tsv": "x/a.wav\tuno\nb.c\tdos\na\ttres\n\n"}
    splits = read_folder(make(tmp_path, files))
    assert [(clip.audio_path, clip.text) for clip in splits.train] == [
        (tmp_path / "x/a.wav", "uno"), (tmp_path / "b.c.mp3", "dos"),
    ]  # fmt: skip
    assert "transcripts.tsv:3: several clips are called 'a'" in splits.skipped[0]


def test_librispeech_has_speakers_and_splits(tmp_path: Path) -> None:
    files = {
        "LibriSpeech/train-clean-100/84/1/84-1.trans.txt": "84-1-0 HELLO THERE\n84-1-1 AND\n",
        "LibriSpeech/train-clean-100/84/1/84-1-0.flac": "",
        "LibriSpeech/train-clean-100/84/1/84-1-1.flac": "",
        "LibriSpeech/test-clean/9/1/9-1.trans.txt": "9-1-0 LAST\n",
        "LibriSpeech/test-clean/9/1/9-1-0.flac": "",
    }
    splits = read_folder(make(tmp_path, files))
    assert [(clip.speaker, clip.text) for clip in splits.train] == [("84", "HELLO THERE"), ("84", "AND")]
    assert [(clip.speaker, clip.text) for clip in splits.test] == [("9", "LAST")]
    assert "(*.trans.txt): 2 train, 1 test" in splits.description


def test_links_to_folders_and_closed_folders_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "c", {"a.wav": "", "a.txt": "uno", "sub/b.wav": "", "sub/b.txt": "dos"})
    (tmp_path / "c" / "sub" / "circle").symlink_to(tmp_path / "c")
    (tmp_path / "c" / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    (tmp_path / "c" / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    splits = read_folder(tmp_path / "c")
    assert [clip.text for clip in splits.train] == ["uno", "dos"]
    problems = "\n".join(splits.skipped)
    assert "closed: this folder cannot be listed: Permission denied" in problems
    assert "circle: a link to a folder, not followed" in problems
    assert "gone.wav: no transcript" in problems and len(splits.skipped) == 3


def test_no_sound_at_all(tmp_path: Path) -> None:
    assert read_folder(make(tmp_path, {"a.txt": "hola"})) is None
