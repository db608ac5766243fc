"""Folders of clips with a text file beside each."""

import os
from pathlib import Path

import pytest

from data.folder import FolderOfClips
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
    splits = FolderOfClips().read(make(tmp_path, files))
    assert splits.train == [
        Utterance(tmp_path / "a.wav", "hola mundo", None, origin=f"{tmp_path / 'a.wav'}"),
        Utterance(tmp_path / "sub/b.OPUS", "dos", None, origin=f"{tmp_path / 'sub/b.OPUS'}"),
    ]
    assert len(splits.skipped) == 2
    assert "c.flac: no transcript; expected it in" in splits.skipped[0] and "d.txt:1: not UTF-8" in splits.skipped[1]
    assert splits.description.endswith(": 2 train")


def test_lab_files_where_there_is_no_txt(tmp_path: Path) -> None:
    files = {"a.wav": "", "a.lab": "uno", "b.wav": "", "b.lab": "no", "b.txt": "dos"}
    assert [clip.text for clip in FolderOfClips().read(make(tmp_path, files)).train] == ["uno", "dos"]


def test_folders_that_are_called_like_parts_are_parts(tmp_path: Path) -> None:
    files = {f"{folder}/{n}.wav": "" for n, folder in enumerate(["train", "Validation", "x/test-other", "testimony"])}
    files |= {name.replace(".wav", ".txt"): name for name in files}
    splits = FolderOfClips().read(make(tmp_path, files))
    assert [[clip.text for clip in part] for part in (splits.train, splits.dev, splits.test)] == [
        ["testimony/3.wav", "train/0.wav"], ["Validation/1.wav"], ["x/test-other/2.wav"],
    ]  # fmt: skip


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
    splits = FolderOfClips().read(tmp_path / "c")
    assert [clip.text for clip in splits.train] == ["uno", "dos"]
    problems = "\n".join(splits.skipped)
    assert "closed: this folder cannot be listed: Permission denied" in problems
    assert "circle: a link to a folder, not followed" in problems
    assert "gone.wav: no transcript" in problems and len(splits.skipped) == 3


def test_no_sound_at_all(tmp_path: Path) -> None:
    make(tmp_path, {"a.txt": "hola", ".hidden/a.wav": ""})
    assert not FolderOfClips().recognises(tmp_path) and not FolderOfClips().recognises(tmp_path / "a.txt")
    assert FolderOfClips().recognises(make(tmp_path, {"deep/down/a.M4A": ""}))
