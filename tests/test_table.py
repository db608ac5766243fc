"""Tables with a header: columns by name, real CSV and lines that only look like it, sounds by path or by name."""

import csv
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_folder import make

from data.manifest import Utterance
from data.splits import Splits
from data.table import LONGEST_TEXT, Table


def read(folder: Path, table: str | bytes, name: str = "all.csv", sounds: str = "abcdef") -> Splits:
    make(folder, {name: table, **{f"clips/{sound}.wav": "" for sound in sounds}})
    assert Table().recognises(folder / name)
    return Table().read(folder / name)


def test_other_columns_stay_with_the_clip(tmp_path: Path) -> None:
    header = "path,Accent,text,sentence,speaker,snr,split,duration,offset"
    splits = read(tmp_path, f"{header}\na.wav, andino ,uno,Uno.,ana,12.5,dev,1,7\nb.wav,,dos,Dos.,,,train,,\n")
    assert splits.dev[0].fields == (("accent", "andino"), ("snr", "12.5"))  # no text, no place in the file
    assert splits.train[0].fields == ()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("all.csv", 'path,text\nclips/a.wav,"hola, mundo"\nclips/b.wav,dos'),
        ("all.csv", 'wav_filename,wav_filesize,transcript\na.wav,1,"hola, mundo"\nb.wav,2,dos'),
        ("all.csv", "\ufeffText;File Name\r\nhola, mundo;a\r\ndos;b\r\n".replace("File Name", "file_name")),
        ("all.csv", "audio_file|text\nclips/a.wav|hola, mundo\nclips/b.wav|dos\n"),
        ("all.csv", ",Audio , SENTENCE\n0,a.wav, \"hola, mundo\"\n1,b.wav,dos\n"),
        ("all.TSV", "id\tsentence\tfilename\n1\thola, mundo\tclips\\a.wav\n2\tdos\t/home/somebody/b.wav\n"),
        ("all.tsv", 'file\ttranscription\na.wav\t"hola, mundo"\nb.wav\tdos\n'),
    ],
)  # fmt: skip
def test_columns_by_name_with_any_delimiter(tmp_path: Path, name: str, table: str) -> None:
    splits = read(tmp_path, table, name)
    assert [replace(clip, fields=()) for clip in splits.train] == [
        Utterance(tmp_path / "clips/a.wav", "hola, mundo", None, origin=f"{tmp_path / name}:2", whole=True),
        Utterance(tmp_path / "clips/b.wav", "dos", None, origin=f"{tmp_path / name}:3", whole=True),
    ]
    assert not splits.skipped


def test_speaker_duration_and_split(tmp_path: Path) -> None:
    table = (
        "path,text,client_id,Duration,split\na,x,ana,1.5,train\nb,y,ben,?,dev\nc,z,,-1,validation\nd,w,eva,nan,test\n"
    )
    splits = read(tmp_path, table + "e,v,,2,\n")
    assert [(clip.text, clip.speaker, clip.duration) for clip in splits.train] == [("x", "ana", 1.5), ("v", "", 2.0)]
    assert [(clip.text, clip.duration) for clip in splits.dev] == [("y", None), ("z", None)]
    assert [(clip.text, clip.duration) for clip in splits.test] == [("w", None)]
    assert read(tmp_path, "path,text,duration_ms\na,x,1500\n").train[0].duration == 1.5


def test_a_header_without_the_two_columns_is_an_error_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"all\.csv:1: needs a column for the sound file .* found \['name', 'text'\]; re"
    ):
        read(tmp_path, "name,text\na,b\n")
    with pytest.raises(ValueError, match=r"all\.csv:1: needs a column for the sound file .* found \[''\]"):
        read(tmp_path, "")


def test_quoted_texts_of_several_lines_and_the_lines_after_them(tmp_path: Path) -> None:
    splits = read(tmp_path, 'path,text\na,"uno\r\n\r\ndos ""tres"""\r\nb,x\r\n')
    assert [(clip.text, clip.origin[-2:]) for clip in splits.train] == [('uno dos "tres"', ":2"), ("x", ":5")]


def test_a_lone_quotation_mark_costs_its_line_only(tmp_path: Path) -> None:
    rows = [
        "a.wav,x",
        'b.wav,"never ends',
        "c.wav,y",
        'd.wav,"nor does this',
        'e.wav,"again',
        "a.wav,z",
        'f.wav,5" nails',
    ]
    splits = read(tmp_path, "path,text\n" + "\n".join(rows))
    assert [clip.text for clip in splits.train] == ["x", "y", '5" nails']
    assert [message.partition(": ")[0][-6:] for message in splits.skipped] == [".csv:3", ".csv:5", ".csv:6", ".csv:7"]
    assert all("a quotation mark opens a text that does not end" in message for message in splits.skipped[:3])
    assert "a.wav comes twice" in splits.skipped[3]
    long = 'path,text\na,"' + "no name\n" * (LONGEST_TEXT + 3) + "b,x\n"
    assert [clip.text for clip in read(tmp_path, long).train] == ["x"]


def test_hostile_lines_cost_themselves_only(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbfpath,text", b"a,uno", b"b,caf\xe9", b"\xef\xbb\xbfpath,text", b"c,tres", b"d", b"e,f,g", b"",
        b"a.wav,again", b"zz,none", b"../../x.wav,none", b"\0,none", b"f," + b"y" * 140_000, b"d,cuatro\rcinco",
    ]  # fmt: skip
    splits = read(tmp_path, b"\r\n".join(lines))
    assert [clip.text for clip in splits.train] == ["uno", "tres", "cuatro cinco"]
    reasons = {
        3: "not UTF-8", 4: "no clip is called 'path'", 6: "1 columns, expected 2", 7: "3 columns", 9: "twice",
        10: "no clip", 11: "no clip", 12: "no sound file is named", 13: "1 columns",
    }  # fmt: skip
    messages = sorted(splits.skipped, key=lambda message: int(message.split(":")[1]))
    assert len(messages) == len(reasons)
    for (line, reason), message in zip(reasons.items(), messages, strict=True):
        assert message.startswith(f"{tmp_path / 'all.csv'}:{line}: ") and reason in message
        assert len(message) < 600


def test_what_the_csv_module_writes_is_read_again(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices('ab ñ",;|\t\n', k=12)) for _ in range(200)]
    for delimiter in ",;":
        make(tmp_path, {f"{number}.wav": "" for number in range(len(texts))})
        with open(tmp_path / "all.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["text", "path"])
            writer.writerows([text, f"{number}.wav"] for number, text in enumerate(texts))
        splits = Table().read(tmp_path / "all.csv")
        assert [clip.text for clip in splits.train] == [" ".join(text.split()) for text in texts] and not splits.skipped


def test_a_folder_with_a_table_a_part_or_with_one_table(tmp_path: Path) -> None:
    parts = {f"{name}.csv": f"path,text\nwavs/{name},{name}\n" for name in ("train", "validation", "test")}
    make(tmp_path, {**parts, **{f"wavs/{name[:-4]}.wav": "" for name in parts}, "notes.csv": "what,why\n"})
    assert Table().recognises(tmp_path)
    splits = Table().read(tmp_path)
    assert [[clip.text for clip in part] for part in (splits.train, splits.dev, splits.test)] == [
        ["train"], ["validation"], ["test"],
    ]  # fmt: skip
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).unlink()
    (tmp_path / "test.csv").rename(tmp_path / "metadata.csv")
    assert [clip.text for clip in Table().read(tmp_path).train] == ["test"]
    make(tmp_path, {"second.tsv": "path\ttext\n"})
    assert not Table().recognises(tmp_path)  # which of the two?


def test_folders_without_a_header_are_no_table(tmp_path: Path) -> None:
    make(
        tmp_path, {"lj/metadata.csv": "LJ1|text|text\n", "empty/train.csv": "", "none/a.wav": "", "a.txt": "path,text"}
    )
    assert not any(Table().recognises(tmp_path / name) for name in ("lj", "empty", "none", "a.txt"))


def test_a_split_that_is_none_is_not_trained_on(tmp_path: Path) -> None:
    for name in "abcd":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(800), 8000)
    table = tmp_path / "all.csv"
    table.write_text("path,text,split\na.wav,a,train\nb.wav,b,Eval\nc.wav,c,holdout\nd.wav,d,\n")
    found = Table().read(table)
    assert [[clip.text for clip in part] for part in (found.train, found.dev, found.test)] == [["a", "d"], [], ["b"]]
    assert len(found.skipped) == 1 and "all.csv:4: split 'holdout' is none of train, dev" in found.skipped[0]
