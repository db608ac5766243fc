"""MLS: one table a part, folders by speaker and book, and the shares of its limited supervision."""

from pathlib import Path

import pytest
from test_folder import make

from data.multilingual_librispeech import MultilingualLibriSpeech


def sound(part: str, name: str, suffix: str) -> str:
    speaker, book, _ = name.split("_")
    return f"mls_spanish/{part}/audio/{speaker}/{book}/{name}.{suffix}"


@pytest.fixture
def language(tmp_path: Path) -> Path:
    files: dict[str, str | bytes] = {
        "mls_spanish/train/transcripts.txt": "11_2_000000\tuno\r\n11_2_000001\tdos\n12_3_000000\ttres tres\n",
        "mls_spanish/dev/transcripts.txt": "13_1_000000\tcuatro\n",
        "mls_spanish/test/transcripts.txt": "14_1_000000\tcinco\n",
        "mls_spanish/train/limited_supervision/9hr/handles.txt": "11_2_000001\n12_3_000000\n99_9_999999\n",
        "mls_spanish/train/limited_supervision/1hr/0/handles.txt": "12_3_000000\n",
        "mls_spanish/train/limited_supervision/1hr/1/handles.txt": "11_2_000000\n",
        "mls_spanish/metainfo.txt": "SPEAKER | GENDER\n",
    }
    for name in ("11_2_000000", "11_2_000001", "12_3_000000"):
        files[sound("train", name, "flac")] = ""
    files |= {sound("dev", "13_1_000000", "opus"): "", sound("test", "14_1_000000", "mp3"): ""}
    return make(tmp_path, files) / "mls_spanish"


def texts(folder: Path) -> list[list[str]]:
    assert MultilingualLibriSpeech().recognises(folder)
    splits = MultilingualLibriSpeech().read(folder)
    return [[clip.text for clip in part] for part in (splits.train, splits.dev, splits.test)]


def test_a_language(language: Path) -> None:
    assert texts(language) == [["uno", "dos", "tres tres"], ["cuatro"], ["cinco"]]
    splits = MultilingualLibriSpeech().read(language)
    assert [clip.speaker for clip in splits.train] == ["11", "11", "12"] and not splits.skipped
    assert all(clip.audio_path.is_file() for clip in (*splits.train, *splits.dev, *splits.test))
    assert splits.train[1].origin == f"{language / 'train/transcripts.txt'}:2"


def test_a_part_by_itself_is_train(language: Path) -> None:
    assert texts(language / "dev") == [["cuatro"], [], []]


def test_limited_supervision_is_a_share_of_train(language: Path) -> None:
    limited = language / "train/limited_supervision"
    assert texts(limited / "9hr") == [["dos", "tres tres"], ["cuatro"], ["cinco"]]
    assert texts(limited / "1hr")[0] == ["uno", "tres tres"]
    assert texts(limited / "1hr/1")[0] == ["uno"]
    assert texts(limited)[0] == ["uno", "dos", "tres tres"]
    [message] = MultilingualLibriSpeech().read(limited / "9hr").skipped
    assert message == f"{limited / '9hr/handles.txt'}:3: train has no clip '99_9_999999'"


def test_broken_rows_are_messages(language: Path) -> None:
    table = b"\xef\xbb\xbf13_1_000000\tcuatro\nno tab\n13_1_000009\tx\n../../x\ty\n77_1_1\tz\n"
    (language / "dev/transcripts.txt").write_bytes(table + b"13_1_000000\tq\n1_2_3\tcaf\xe9\n\n")
    splits = MultilingualLibriSpeech().read(language)
    assert [clip.text for clip in splits.dev] == ["cuatro"]
    reasons = {2: "expected", 3: "no clip is called", 4: "expected", 5: "no clip", 7: "not UTF-8", 6: "twice"}
    assert len(splits.skipped) == len(reasons)
    for (line, reason), message in zip(reasons.items(), splits.skipped, strict=True):
        assert f"dev/transcripts.txt:{line}: " in message and reason in message


def test_other_folders_are_not_mls(tmp_path: Path, language: Path) -> None:
    make(tmp_path, {"x/handles.txt": "a", "limited_supervision/9hr/handles.txt": "a", "y/transcripts.txt": "a"})
    others = (tmp_path, tmp_path / "x", tmp_path / "limited_supervision/9hr", tmp_path / "y", language / "metainfo.txt")
    assert not any(MultilingualLibriSpeech().recognises(folder) for folder in others)
