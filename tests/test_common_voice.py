"""Common Voice tables: any columns in any order, quotation marks, rows without clips, the official splits."""

from pathlib import Path

import pytest

from data.common_voice import is_common_voice, read_common_voice
from data.manifest import Utterance


def folder_with(tmp_path: Path, **tables: str) -> Path:
    (tmp_path / "clips").mkdir()
    for number in range(9):
        (tmp_path / "clips" / f"c{number}.mp3").touch()
    for name, table in tables.items():
        (tmp_path / f"{name}.tsv").write_bytes(table.encode())
    return tmp_path


def test_rows_by_hand_and_counted_skips(tmp_path: Path) -> None:
    table = (
        "sentence\tclient_id\tnew column\tpath\r\n"
        'Er sagte "ja\tana\t\tc1.mp3\r\n'
        '"""Ja"", sagte er."\tana\t\tc2\r\n'
        "\r\n"
        "fehlt\tana\t\tc77.mp3\r\n"
        "fort\tana\t\t../c1.mp3\r\n"
        "zu\tana\n"
        "zu\tviele\ttabs\there\tc3.mp3\n"
        '"a" und "b"\tben\t\tc4.mp3'
    )
    folder = folder_with(tmp_path, validated=table, clip_durations="clip\tduration[ms]\nc1.mp3\t1500\nc2.mp3\tnan\nx\n")
    assert is_common_voice(folder) and not is_common_voice(folder / "clips")
    splits = read_common_voice(folder)
    tsv = folder / "validated.tsv"
    assert splits.train == [
        Utterance(folder / "clips/c1.mp3", 'Er sagte "ja', 1.5, origin=f"{tsv}:2", speaker="ana"),
        Utterance(folder / "clips/c2.mp3", '"Ja", sagte er.', None, origin=f"{tsv}:3", speaker="ana"),
        Utterance(folder / "clips/c4.mp3", '"a" und "b"', None, origin=f"{tsv}:9", speaker="ben"),
    ]
    expected = [
        ":5: clip 'c77.mp3' is not in",
        ":6: clip '../c1.mp3' is not in",
        ":7: 2 columns, expected 4",
        ":8: 5 columns",
    ]
    assert len(splits.skipped) == 4
    assert all(part in message for part, message in zip(expected, splits.skipped, strict=True))


def test_official_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    tables = {
        name: f"client_id\tpath\tsentence\ns{n}\tc{n}.mp3\tsatz {n}\n"
        for n, name in enumerate(["train", "dev", "test", "validated"])
    }
    splits = read_common_voice(folder_with(tmp_path, **tables))
    assert [clip.text for clip in (*splits.train, *splits.dev, *splits.test)] == ["satz 0", "satz 1", "satz 2"]
    assert splits.description.endswith(": 1 train, 1 dev, 1 test")


def test_without_train_the_validated_clips_that_are_new_are_trained_on(tmp_path: Path) -> None:
    head = "client_id\tpath\tsentence\n"
    rows = ["a\tc1.mp3\teins\n", "b\tc2.mp3\tEins!\n", "a\tc3.mp3\tzwei\n", "c\tc4.mp3\tdrei\n"]
    splits = read_common_voice(folder_with(tmp_path, dev=head + rows[0], validated=head + "".join(rows)))
    assert [clip.text for clip in splits.train] == ["drei"]
    assert len(splits.skipped) == 3 and "its speaker or sentence is in dev or test" in splits.skipped[0]


def test_other_tables_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, train="file\ttext\nc1.mp3\thallo\n")
    with pytest.raises(ValueError, match=r"train\.tsv:1: no column path and sentence among \['file', 'text'\]"):
        read_common_voice(folder)


@pytest.mark.parametrize("lang", ["de", "en", "fr", "it", "pt"])
def test_real_samples(shared: Path, lang: str) -> None:
    splits = read_common_voice(shared / "corpora" / "common_voice_sample" / lang)
    assert len(splits.train) == 100 and not splits.skipped
    assert all(clip.speaker and clip.text and '""' not in clip.text for clip in splits.train)
