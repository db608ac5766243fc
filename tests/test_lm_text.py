"""Files of every kind become sentences by the rules of a language, what is lost is counted, what leaks is found."""

import gzip
import json
import logging
from pathlib import Path

import pytest

from quartznet.leaks import LeakFinder
from quartznet.lm_text import Text, leak_finders, leak_report, normalized, raw_lines, rules, without_leaks
from quartznet.text import find_language

SPANISH = find_language("es")


def read(path: Path, language: object = SPANISH) -> tuple[list[str], Text]:
    text = Text([path], language)
    return list(text.sentences()), text


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.tsv"])
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path, lines = tmp_path / name, ["¡Hola, Señor!", "", "Son 3 пива.", "..."]
    content = "".join(f"{line}\r\n" for line in lines)
    if name.endswith("jsonl"):
        content = "".join(json.dumps({"audio_filepath": "a.wav", "text": line}) + "\n" for line in lines)
    elif name.endswith("tsv"):
        content = "path\tsentence\n" + "".join(f"a.mp3\t{line}\n" for line in lines)
    path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    sentences, text = read(path)
    assert sentences == ["hola señor", "son tres"] and (text.lines, text.empty) == (3, 1)
    assert text.audit.dropped == {letter: 1 for letter in "пива"}
    assert "1 of the texts are empty after this" in text.report() and "lost" in text.report()


def test_without_a_language_lines_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("¡Hola,  Señor!\n\n 3 \n", encoding="utf-8")
    sentences, text = read(tmp_path / "a.txt", None)
    assert sentences == ["¡Hola, Señor!", "3"]
    assert text.report() == "2 lines, taken as they are (no --lang)"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines_that_are_no_utf8_are_counted(tmp_path: Path, name: str) -> None:
    content = "hola\nseñor\n".encode("latin1") + b"adi\xc3\xb3s\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    sentences, text = read(tmp_path / name)
    assert sentences == ["hola", "adiós"]
    assert "lines that could not be read: 1; the first: " in text.report() and f"{name}:2: not UTF-8" in text.report()


def test_files_that_are_not_there_or_break_off(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no text"):
        list(raw_lines(tmp_path / "a.txt", []))
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"hola\n" * 1000)[:-12])
    with pytest.raises(ValueError, match=r"a\.gz:\d+: the gzip stream breaks off"):
        list(raw_lines(tmp_path / "a.gz", []))
    (tmp_path / "a.jsonl").write_text('{"audio_filepath": "a.wav"}\n')
    with pytest.raises(ValueError, match="no field text"):
        list(raw_lines(tmp_path / "a.jsonl", []))


def test_rules(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "a.txt").write_text("ħobż\n", encoding="utf-8")
    assert rules(None, []) is None and rules("es", []) == SPANISH and caplog.text == ""
    assert set(rules("mt", [tmp_path / "a.txt"]).letters) == set("ħobż")  # Maltese has no rules here
    assert "no alphabet is written down for mt; out of the text: boħż" in caplog.text


def test_an_error_for_who_got_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("привет\n".encode() + b"se\xf1or\n")
    sentences, text = read(tmp_path / "a.txt")
    assert sentences == []
    expected = (
        r"nothing is left of the 1 lines of .*a\.txt \(1 cannot be read; .*a\.txt:2: not UTF-8.* is --lang right\?"
    )
    with pytest.raises(ValueError, match=expected):
        raise text.nothing_left()


def test_normalized_texts() -> None:
    assert normalized(["¡Hola!", "...", "a  b"], SPANISH) == ["hola", "a b"]
    assert normalized(["¡Hola!", " ", "a  b"], None) == ["¡Hola!", "a b"]


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation sentences


def test_leaks_of_corpora_and_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "a.wav").touch()
    clips = [{"audio_filepath": name, "text": "¡El gato bebe!"} for name in ("a.wav", "b.wav")]
    manifest, dev = tmp_path / "test.jsonl", tmp_path / "dev.txt"
    manifest.write_text("".join(json.dumps(clip) + "\n" for clip in clips), encoding="utf-8")
    dev.write_text("La perra come.\nNada de eso.\n", encoding="utf-8")
    finders = leak_finders([manifest], [dev], SPANISH)
    assert "1 clips of" in caplog.text and "are not looked for; the first: " in caplog.text
    assert [finder.sentences for finder in finders.values()] == [{"el gato bebe"}, {"la perra come", "nada de eso"}]
    assert list(without_leaks(["el gato bebe", "otra cosa"], finders, leave_out=False)) == ["el gato bebe", "otra cosa"]
    warning, none = leak_report(finders, leave_out=False)
    assert warning.startswith(f"WARNING: 1 of 1 sentences of {manifest}")
    assert none == f"no sentence of {dev} stands in the text"


def test_leaks_left_out() -> None:
    finders = {"dev": LeakFinder(["el gato bebe"])}
    assert list(without_leaks(["el gato bebe", "otra cosa"], finders, leave_out=True)) == ["otra cosa"]
    assert leak_report(finders, leave_out=True) == ["1 lines with sentences of dev were left out"]
