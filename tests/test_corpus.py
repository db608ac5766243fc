"""What readers share: parts by name, sounds that come twice, one line about what was found; and their manners."""

from pathlib import Path

import pytest

from data.corpus import Corpus, by_folder, described, is_file, part_files, part_of, without_repeats
from data.manifest import Utterance
from data.source import LOOKED_FOR, READERS


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"), ("train-clean-100", "train"), ("Train_sp", "train"), ("train.clean", "train"),
        ("dev", "dev"), ("valid", "dev"), ("validation", "dev"), ("val", "dev"), ("test other", "test"),
        ("training", None), ("testimony", None), ("validated", None), ("my-train", None), ("", None),
    ],
)  # fmt: skip
def test_part_of(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_part_files_take_the_first_name_and_suffix(tmp_path: Path) -> None:
    for name in ("train.json", "train.jsonl", "valid.jsonl", "val.jsonl", "testing.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "test.jsonl").mkdir()
    found = part_files(tmp_path, (".jsonl", ".json"))
    assert found == {
        "train": tmp_path / "train.jsonl",
        "dev": tmp_path / "valid.jsonl",
        "test": tmp_path / "testing.jsonl",
    }


def test_by_folder_asks_the_first_folder_that_is_called_like_a_part() -> None:
    clips = [
        Utterance(Path("c", name), name, None) for name in ("a.wav", "x/dev-1/test/b.wav", "test.wav", "train/c.wav")
    ]
    parts = by_folder(Path("c"), clips)
    assert {part: [clip.text for clip in parts[part]] for part in parts} == {
        "train": ["a.wav", "test.wav", "train/c.wav"], "dev": ["x/dev-1/test/b.wav"], "test": [],
    }  # fmt: skip
    assert described("corpus", parts) == "corpus: 3 train, 1 dev"
    assert described("corpus", {"train": []}) == "corpus: no clip with a transcript"


def test_a_sound_that_comes_twice_is_a_message_but_its_pieces_are_not() -> None:
    clips = [
        Utterance(Path("a.wav"), "x", None, origin="t:1"),
        Utterance(Path("a.wav"), "x", None, offset=1.0, origin="t:2"),
        Utterance(Path("a.wav"), "y", None, origin="t:3"),
        Utterance(Path("a.wav"), "y", None, origin="t:4", start_byte=512, byte_count=9),
    ]
    skipped: list[str] = []
    assert without_repeats(clips, skipped) == [clips[0], clips[1], clips[3]]
    assert skipped == ["t:3: a.wav comes twice, first at t:1; the first is kept"]


def test_paths_that_no_system_takes_are_no_files(tmp_path: Path) -> None:
    assert not is_file(tmp_path / ("x" * 5000)) and not is_file(tmp_path / "a\0b") and not is_file(tmp_path)


@pytest.mark.parametrize("reader", READERS, ids=[reader.called for reader in READERS])
def test_every_reader_says_what_it_looks_for_and_does_not_know_an_empty_folder(tmp_path: Path, reader: Corpus) -> None:
    assert reader.called and reader.looks_for in LOOKED_FOR and "\n" not in reader.looks_for
    (tmp_path / "a.bin").touch()
    assert not reader.recognises(tmp_path) and not reader.recognises(tmp_path / "a.bin")


def test_a_role_is_not_a_reader() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Corpus()
