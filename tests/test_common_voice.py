"""Common Voice tables: any columns in any order, quotation marks, rows without clips, the official splits."""

from pathlib import Path

import pytest

from data.common_voice import CommonVoice
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
    assert CommonVoice().recognises(folder) and not CommonVoice().recognises(folder / "clips")
    splits = CommonVoice().read(folder)
    tsv = folder / "validated.tsv"
    assert splits.train == [
        Utterance(folder / "clips/c1.mp3", 'Er sagte "ja', 1.5, origin=f"{tsv}:2", speaker="ana", whole=True),
        Utterance(folder / "clips/c2.mp3", '"Ja", sagte er.', None, origin=f"{tsv}:3", speaker="ana", whole=True),
        Utterance(folder / "clips/c4.mp3", '"a" und "b"', None, origin=f"{tsv}:9", speaker="ben", whole=True),
    ]
    expected = [
        ":5: clip 'c77.mp3' is not in",
        ":6: clip '../c1.mp3' is not in",
        ":7: 2 columns, expected 4",
        ":8: 5 columns",
    ]
    assert len(splits.skipped) == 4
    assert all(part in message for part, message in zip(expected, splits.skipped, strict=True))


@pytest.mark.parametrize("column", ["accent", "accents"])
def test_what_is_said_of_a_speaker_stays_with_the_clip(tmp_path: Path, column: str) -> None:
    header = f"client_id\tpath\tsentence\tup_votes\tage\tgender\t{column}\tlocale"
    rows = "ana\tc1.mp3\tuno\t2\tteens\tother\tandino\tes\nben\tc2.mp3\tdos\t2\t\t\t\tes\nben\tc3.mp3\ttres\t2\n"
    clips = CommonVoice().read(folder_with(tmp_path, validated=f"{header}\n{rows}")).train
    full = (("age", "teens"), ("gender", "other"), ("accent", "andino"), ("locale", "es"))
    assert [clip.fields for clip in clips] == [full, (("locale", "es"),), ()]


def test_official_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    tables = {
        name: f"client_id\tpath\tsentence\ns{n}\tc{n}.mp3\tsatz {n}\n"
        for n, name in enumerate(["train", "dev", "test", "validated"])
    }
    splits = CommonVoice().read(folder_with(tmp_path, **tables))
    assert [clip.text for clip in (*splits.train, *splits.dev, *splits.test)] == ["satz 0", "satz 1", "satz 2"]
    assert [clip.text for clip in splits.extra] == ["satz 3"]
    assert splits.description.endswith(": 1 train, 1 dev, 1 test, 1 more validated")


def test_extra_other_and_invalidated_are_read_and_nothing_is_named_twice(tmp_path: Path) -> None:
    def table(*numbers: int) -> str:
        return "path\tsentence\n" + "".join(f"c{number}\tsatz {number}\n" for number in numbers)

    tables = {"train": table(0, 60), "dev": table(1), "test": table(2), "validated": table(2, 1, 60, 0, 3, 61)}
    folder = folder_with(tmp_path, **tables, other=table(4, 70, 71), invalidated=table(5, 5))
    splits = CommonVoice().read(folder)
    parts = (splits.train, splits.dev, splits.test, splits.extra, splits.other, splits.invalidated)
    assert [[clip.text[-1] for clip in part] for part in parts] == [["0"], ["1"], ["2"], ["3"], ["4"], ["5"]]
    assert [message.removeprefix(f"{folder}/") for message in splits.skipped] == [
        f"train.tsv:3: clip 'c60' is not in {folder / 'clips'}",
        f"validated.tsv:7: clip 'c61' is not in {folder / 'clips'}",
        f"other.tsv: 2 rows whose clips are not in {folder / 'clips'}",
        f"invalidated.tsv:3: clip c5.mp3 comes twice, first at {folder / 'invalidated.tsv'}:2; the first is kept",
    ]


HEADERS = (
    "path\tsentence",
    "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent",
    "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\tlocale\tsegment",
    "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment",
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\t"
    "locale\tsegment",
)


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_the_columns_of_every_release(tmp_path: Path, header: str) -> None:
    values = {"client_id": "ana", "path": "c1.mp3", "sentence": "hola", "sentence_id": "7f"}
    row = "\t".join(values.get(name, "") for name in header.split("\t"))
    [clip] = CommonVoice().read(folder_with(tmp_path, validated=f"\ufeff{header}\r\n{row}\r\n")).train
    assert (clip.text, clip.speaker) == ("hola", "ana" if "client_id" in header else "")


def test_a_hostile_table_costs_its_bad_lines_only(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbfpath\tsentence",
        b"c0\teins",
        b"c1\tk\xe4se",
        b"\xef\xbb\xbfpath\tsentence",
        b"c2\tzwei",
        b"c3\t",
    ]
    lines += [b"c4\t" + b"x" * 2_000_000, b"c2\tzwei", b"\x00\tnull", b'c5\t"', b"\xff\xfe"]
    folder = folder_with(tmp_path, validated="")
    (folder / "validated.tsv").write_bytes(b"\r\n".join(lines))
    splits = CommonVoice().read(folder)
    assert [clip.text for clip in splits.train] == ["eins", "zwei", "", '"']
    expected = {3: "not UTF-8", 4: "'path' is not in", 7: "longer than", 8: "twice", 9: "is not in", 11: "not UTF-8"}
    assert len(splits.skipped) == len(expected)
    for (line, reason), message in zip(expected.items(), splits.skipped, strict=True):
        assert f"validated.tsv:{line}: " in message and reason in message


def test_without_train_the_validated_clips_that_are_new_are_trained_on(tmp_path: Path) -> None:
    head = "client_id\tpath\tsentence\n"
    rows = ["a\tc1.mp3\teins\n", "b\tc2.mp3\tEins!\n", "a\tc3.mp3\tzwei\n", "c\tc4.mp3\tdrei\n"]
    splits = CommonVoice().read(folder_with(tmp_path, dev=head + rows[0], validated=head + "".join(rows)))
    assert [clip.text for clip in splits.train] == ["drei"]
    assert len(splits.skipped) == 2 and "its speaker or sentence is in dev or test" in splits.skipped[0]


def test_other_tables_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, train="file\ttext\nc1.mp3\thallo\n")
    with pytest.raises(ValueError, match=r"train\.tsv:1: no column path and sentence among \['file', 'text'\]"):
        CommonVoice().read(folder)


@pytest.mark.parametrize("lang", ["de", "en", "fr", "it", "pt"])
def test_real_samples(shared: Path, lang: str) -> None:
    splits = CommonVoice().read(shared / "corpora" / "common_voice_sample" / lang)
    assert len(splits.train) == 100 and not splits.skipped
    assert all(clip.speaker and clip.text and '""' not in clip.text for clip in splits.train)


@pytest.mark.parametrize("content", [b"", b"nothing\tuseful\n"])
def test_a_broken_table_that_is_not_needed_stops_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp3").touch()
    (tmp_path / "validated.tsv").write_text("client_id\tpath\tsentence\nx\ta.mp3\tuno\n")
    (tmp_path / "other.tsv").write_bytes(content)
    found = CommonVoice().read(tmp_path)
    assert len(found.train) == 1 and found.other == []
    assert len(found.skipped) == 1 and "other.tsv:1: no column path and sentence" in found.skipped[0]
