"""``python -m quartznet.lm`` from end to end: build, report, warn; and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_lmplz import stand_in

from quartznet.arpa import read_arpa
from quartznet.lm_command import main

LINES = ["El perro busca la casa.", "La niña busca 3 gatos", "el perro come", "la casa de la niña", "¡Пиво!"] * 3
LEAK = "la niña busca tres gatos"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts and a manifest, and no lmplz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "text.txt").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    (tmp_path / "dev.txt").write_text("El gato busca al perro.\n", encoding="utf-8")
    for name in ("a.wav", "c.wav"):
        (tmp_path / name).touch()
    texts = {"a.wav": "La niña busca 3 gatos.", "c.wav": "Otra frase distinta", "b.wav": "el perro come"}
    clips = [{"audio_filepath": path, "text": text} for path, text in texts.items()]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    return tmp_path


def build(*options: str) -> int:
    return main(["build", "text.txt", "--lang", "es", "--order", "3", "--out", "es.arpa", *options])


def test_build_with_everything(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert build("--prune", "0", "0", "1", "--dev", "dev.txt", "--against", "test.jsonl") == 0
    out = capsys.readouterr().out
    for part in (
        "1 clips of test.jsonl are not looked for; the first: test.jsonl:3: there is no sound file 'b.wav'",
        "estimating with quartznet.ngram (lmplz is not installed)",
        "12 sentences, 54 words, 10 different ones",
        "too little text for the discounts of order ",
        " 1-grams             13\n",
        "15 texts",
        "3 of the texts are empty after this",
        "3 -> tres",
        "WARNING: 1 of 2 sentences of test.jsonl\nstand in 3 lines of the text",
        f"\n  {LEAK}\n",
        "no sentence of dev.txt stands in the text",
        "dev.txt: 1 sentences, 5 words, 40.00% of them not in the model\nperplexity ",
    ):
        assert part in out, part
    assert max(map(len, out.split("\n")[1:])) <= 80
    assert " ".join(sorted(read_arpa("es.arpa").vocabulary())) == "busca casa come de el gatos la niña perro tres"


def test_leaks_can_be_left_out(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert build("--against", "test.jsonl", "--leave-out") == 0
    assert "3 lines with sentences of test.jsonl were left out" in capsys.readouterr().out
    assert "gatos" not in read_arpa("es.arpa").vocabulary()


def test_dev_sentences_in_the_text_are_a_warning(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "dev.txt").write_text("El perro come.\n")
    assert build("--dev", "dev.txt") == 0
    assert "WARNING: 1 of 1 sentences of dev.txt" in capsys.readouterr().out


def test_lmplz_is_used_where_it_is_installed(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert build() == 0
    model = (place / "es.arpa").read_bytes()
    (place / "model").write_bytes(model)
    script = '#!/bin/sh\n/bin/cat > "{folder}/text"\n/bin/cat "{folder}/model"\necho "Substituting fallback" >&2\n'
    program = stand_in(place, "lmplz", script=script)
    stand_in(place, "build_binary", script='#!/bin/sh\n/bin/cp "$1" "$2"\n')
    capsys.readouterr()
    assert build("--binary", "--prune", "0", "0", "1") == 0
    out = capsys.readouterr().out
    assert f"estimating with {program}\nSubstituting fallback\n" in out and "es.binary: the same" in out
    assert (place / "text").read_text().split("\n")[:2] == ["el perro busca la casa", LEAK]
    assert (place / "es.binary").read_bytes() == (place / "es.arpa").read_bytes() == model
    assert build("--own") == 0 and "estimating with quartznet.ngram\n" in capsys.readouterr().out


def test_perplexity(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert build() == 0
    (place / "dev.txt").write_bytes("El perro come\nLa niña\n".encode() + b"\xff\n")
    capsys.readouterr()
    assert main(["perplexity", "es.arpa", "dev.txt", "--lang", "es"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dev.txt: 2 sentences, 5 words, 0.00% of them not in the model\nperplexity ")
    assert "lines that could not be read: 1; the first: dev.txt:3: not UTF-8" in out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--order", "9"], "from 1 to 6"),
        (["--prune", "1"], "begin with 0"),
        (["--out", "nowhere/es.arpa"], "no folder nowhere; make it first"),
        (["--out", "."], "--out . is a folder; name a file"),
        (["--out", "./text.txt"], "is one of the texts, which the model would replace"),
        (["--out", "dev.txt", "--dev", "dev.txt"], "is one of the texts"),
        (["--binary"], "--binary needs build_binary"),
        (["--lang", "español"], "is no language code"),
        (["--dev", "nothing.txt"], "there is no text nothing.txt"),
        (["--against", "nothing.jsonl"], "there is no nothing.jsonl"),
    ],
)
def test_what_it_refuses(place: Path, capsys: pytest.CaptureFixture, options: list[str], problem: str) -> None:
    assert build(*options) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and problem in err and err.count("\n") == 1
    assert not (place / "es.arpa").exists() and (place / "text.txt").read_text(encoding="utf-8").startswith(LINES[0])


def test_a_text_of_nothing(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "text.txt").write_text("...\n!\n\n")
    assert build() == 2
    assert capsys.readouterr().err == "error: nothing is left of the 2 lines of text.txt; is --lang right?\n"


def test_a_text_that_is_none(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "text.txt").write_bytes(b"\xff\xfe\n")
    assert build() == 2
    assert "1 cannot be read; text.txt:1: not UTF-8" in capsys.readouterr().err


def test_every_text_is_looked_for_before_the_work(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["build", "text.txt", "absent.txt", "--lang", "es", "--out", "es.arpa"]) == 2
    printed = capsys.readouterr()
    assert "there is no text absent.txt" in printed.err and printed.out == ""


def test_a_full_disk(place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("816 requested and 0 written")

    monkeypatch.setattr("quartznet.lm_command.build_model", full)
    assert build() == 2
    assert "es.arpa cannot be written: is the disk full? (816 requested" in capsys.readouterr().err


def test_the_wrong_language_is_a_warning(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert build("--lang", "ru") == 0
    assert "WARNING: 92.19% of the letters are lost; is --lang right?" in capsys.readouterr().out


def test_a_damaged_model(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "es.arpa").write_text("\\data\\\nngram 1=5\n")
    assert main(["perplexity", "es.arpa", "dev.txt"]) == 2
    assert "error: es.arpa:3: the file ends before" in capsys.readouterr().err


def test_as_it_is_typed(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quartznet.lm", "build", "text.txt", "--lang", "es", "--out", "es.arpa"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": str(place)},
    )
    assert done.returncode == 0 and done.stderr == "" and "es.arpa: " in done.stdout
