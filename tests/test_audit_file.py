"""``python -m quartznet.text audit``: files of every kind, the report, the exit status."""

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from quartznet.audit import columns_of
from quartznet.audit_file import audit_file, main, read_texts

PLANTED = [
    "Una frase limpia.",
    "cafe\u0301 con leche",
    "la cаsa",
    "una 猫",
    "son 3",
    "a\ufeffb",
    "",
    "\u200bx Ã¡ y",
]


def written(path: Path, lines: list[str], start: bytes = b"") -> Path:
    path.write_bytes(start + "\r\n".join([*lines, ""]).encode())
    return path


def test_plain_text_with_planted_faults(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = written(tmp_path / "es.txt", PLANTED, b"\xef\xbb\xbf")
    assert main(["audit", str(path), "--lang", "es"]) == 1  # one letter of 45 is lost
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Spanish (es): 33 letters and the space" and lines[1] == "8 texts, 45 letters"
    faults = lines[lines.index("faults") + 1 :]
    for number, name in (
        (1, "byte-order mark at the start"),
        (2, "decomposed accent: e◌́ for é"),
        (3, "Cyrillic letter in a Latin word: cаsa"),
        (4, "letter of another script, CJK: 猫"),
        (5, "digits: 3"),
        (6, "byte-order mark inside the text: U+FEFF"),
        (7, "empty line"),
        (8, "zero-width character: U+200B"),
        (8, "wrong encoding: Ã¡ is á"),
    ):
        assert any(line.startswith(f"{f'line {number}':<13}{name} ") and line.endswith(" 1 line") for line in faults), (
            name
        )
    assert any(line.startswith("lost     猫") and "line 4: una 猫" in line for line in lines)
    assert any(line.startswith("spelled  3 -> tres ") and line.endswith("1  line 5") for line in lines)
    assert max(map(columns_of, lines)) <= 80


def test_a_clean_file_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = written(tmp_path / "ru.txt", ["Ещё раз, 21 %!", "Привет."])
    assert main(["audit", str(path), "--lang", "ru-fold"]) == 0
    out = capsys.readouterr().out
    assert "ё -> е" in out and "двадцать один" in out and "digits: 21" in out


def test_manifests_and_tables_give_the_same(tmp_path: Path) -> None:
    texts = ["uno, dos", 'dijo "sí"', "tres"]
    manifest = "".join(json.dumps({"audio_filepath": "a", "text": text}) + "\n" for text in texts)
    (tmp_path / "m.json").write_text(manifest, encoding="utf-8")
    (tmp_path / "t.tsv").write_text("path\tsentence\n" + "".join(f"a\t{text}\n" for text in texts), encoding="utf-8")
    (tmp_path / "t.csv").write_text('path,sentence\na,"uno, dos"\na,"dijo ""sí"""\na,tres\n', encoding="utf-8")
    for name, first in (("m.json", 1), ("t.tsv", 2), ("t.csv", 2)):
        assert read_texts(tmp_path / name).lines == list(enumerate(texts, first))
    assert read_texts(tmp_path / "t.tsv", "path").lines == [(2, "a"), (3, "a"), (4, "a")]
    assert audit_file(tmp_path / "m.json", "es")[0].texts == 3


def test_missing_texts_are_empty_lines(tmp_path: Path) -> None:
    manifest = written(tmp_path / "m.jsonl", ['{"text": "uno"}', "", '{"text": null}'])
    assert read_texts(manifest).lines == [(1, "uno"), (3, "")]
    assert read_texts(written(tmp_path / "t.tsv", ["path\ttext", "a\tuno", "b"])).lines == [(2, "uno"), (3, "")]


def test_bytes_that_are_no_utf8_and_rare_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("uno\x85dos\u2028tres\n".encode() + b"ma\xf1ana")
    texts = read_texts(path)
    assert texts.lines == [(1, "uno\x85dos\u2028tres"), (2, "ma\ufffdana")]
    assert texts.faults == [("bytes that are no UTF-8", 2, "b'\\xf1ana'")]


def test_an_alphabet_from_the_file_itself(tmp_path: Path) -> None:
    path = written(tmp_path / "sw.txt", ["Habari za asubuhi"])
    result, faults = audit_file(path, "sw")
    assert result.language.letters == "abhirsuz" and faults == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"", "x.txt holds no text"),
        ("x.txt", "\ufeffhola".encode("utf-16-le"), "is UTF-16 or no text; save it as UTF-8"),
        ("x.bin", b"RIFF\0\0", "is UTF-16 or no text"),
        ("x.json", b'{"text": "a"}\n{"text', "x.json:2: no JSON object on one line .* a manifest has one a line"),
        ("x.json", b'["a"]', "x.json:1: .* is no JSON object; a manifest has one a line"),
        ("x.json", b'{"words": "a"}', "x.json:1: no field text or sentence or .* among words; choose one with --field"),
        ("x.tsv", b"path\twords\n", "x.tsv:1: no field text or .* among path, words"),
        ("x.csv", b"", "x.csv:1: no field text or .* among none"),
        (
            "x.csv",
            b"text\n" + b"a" * 200_000,
            "x.csv: no table with commas .*field larger .* save it again, or as .tsv",
        ),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_texts(tmp_path / name)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*; give a text file, a manifest or a table"):
        read_texts(tmp_path / "none.txt")
    assert main(["audit", str(tmp_path / "none.txt"), "--lang", "es"]) == 2
    path = written(tmp_path / "es.txt", ["hola"])
    assert main(["audit", str(path), "--lang", "spanish"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_the_command_as_it_is_typed(tmp_path: Path) -> None:
    path = written(tmp_path / "es.txt", ["hola mundo", "mañana"])
    command = [sys.executable, "-W", "error", "-m", "quartznet.text", "audit", str(path), "--lang", "es"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.endswith("\nno faults\n"), done.stderr


def test_any_line_of_the_report_fits_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    texts = ["東" * 300, "क्षि" * 200, "9" * 3000, "\u0301" * 50, "a" * 20 + "я" * 200, "x\x07" * 90, "Ã¡" * 99]
    main(["audit", str(written(tmp_path / "x.txt", texts)), "--lang", "es"])
    for line in capsys.readouterr().out.splitlines():
        assert columns_of(line) <= 80 and not any(unicodedata.category(c) == "Cc" for c in line), line


def test_brackets_without_end_are_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "m.jsonl").write_text("[" * 100_000)
    assert main([*["audit", "--lang", "es"], str(tmp_path / "m.jsonl")]) == 2
    assert "m.jsonl:1: no JSON object on one line" in capsys.readouterr().err
