"""Manifests as a corpus: what is read of them is in test_manifest.py, here which files, parts and sounds."""

import json
from pathlib import Path

import pytest
import tones
from test_folder import make

from data.nemo_manifests import NemoManifests


def line(name: str, **more: object) -> str:
    return json.dumps({"audio_filepath": name, "text": name, **more}) + "\n"


def test_a_file_is_train_and_a_folder_has_parts(tmp_path: Path) -> None:
    make(tmp_path, {"a.wav": "", "train.json": line("a.wav"), "valid.jsonl": line("a.wav", duration=1.0), "x.txt": ""})
    reader = NemoManifests()
    assert [reader.recognises(tmp_path / name) for name in ("", "train.json", "x.txt")] == [True, True, False]
    splits = reader.read(tmp_path)
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [1, 1, 0]
    assert splits.description == f"manifests in {tmp_path}: 1 train, 1 dev"
    splits = reader.read(tmp_path / "valid.jsonl")
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [1, 0, 0]


def test_broken_lines_missing_sounds_and_repeats_are_messages(tmp_path: Path) -> None:
    lines = [
        line("a.wav"),
        "oops\n",
        line("b.wav"),
        line("a.wav"),
        line("a.wav", offset=1.0),
        line("s.tar", byte_count=5),
    ]
    make(tmp_path, {"a.wav": "", "s.tar": "", "m.jsonl": "".join(lines)})
    splits = NemoManifests().read(tmp_path / "m.jsonl")
    assert [clip.origin[-1] for clip in splits.train] == ["1", "5", "6"]
    reasons = ["m.jsonl:2: not JSON", "m.jsonl:3: there is no sound file", "m.jsonl:4: "]
    assert all(reason in message for reason, message in zip(reasons, splits.skipped, strict=True))
    assert "a.wav comes twice" in splits.skipped[2]


def test_a_manifest_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.jsonl holds no utterance; the first problem: .*m\.jsonl:1: not JSON"):
        NemoManifests().read(make(tmp_path, {"m.jsonl": "oops"}) / "m.jsonl")


def test_manifests_of_parts_that_are_not_used_are_named(tmp_path: Path) -> None:
    for name in ("train", "dev", "valid", "test_other", "notes"):
        tones.write_corpus(tmp_path, ("abba",), name)
    found = NemoManifests().read(tmp_path)
    assert found.description.endswith("1 train, 1 dev; not used: test_other.jsonl, valid.jsonl")
