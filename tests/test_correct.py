"""The command: texts in, texts out, nothing lost; measuring; bad input is one line and exit status 2."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_corrector import by_heart, save_run

from postcorrect import correct as command
from postcorrect import text_stream
from postcorrect.correct import main
from postcorrect.pairs import Pair, write_part
from quartznet.significance import read_result

LINES = ["the contry", "", "dont worry", "Señor", "a b"]
BETTER = ["the country's", "", "don't worry", "Señor", "a b"]
PAIRS = [
    Pair("the contry", "the country's", "1.wav"),
    Pair("dont worry", "don't worry", "2.wav"),
    Pair("a b", "a b", "3.wav"),
    Pair("", "a", "4.wav"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run folder whose gate lets through what was learnt by heart."""
    folder = save_run(tmp_path_factory.mktemp("run"), by_heart(tmp_path_factory.mktemp("bert")))
    (folder / "gate.yaml").write_text("margin: 3\nmost_edits: 0.5\n", "utf-8")
    return str(folder)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), "utf-8")
    return path


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


# ---------------------------------------------------------------------------------------------------------------------
# Texts


def test_one_line_out_for_each_line_in(run: str, texts: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--corrector", run, str(texts), str(texts)]) == 0
    printed, told = capsys.readouterr()
    assert printed.splitlines() == BETTER * 2
    for part in (f"{'lines':<44}        10", f"{'  corrected':<44}         4", f"{'  empty':<44}         2"):
        assert part in told
    assert "the vocabulary cannot write: S 2, ñ 2\n" in told
    assert f"the first: {texts}:4" in told and "lines a second" in told and "gate: margin 3" in told


def test_a_pipe(run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pipe(monkeypatch, b"the contry\r\n\ndont worry")
    assert main(["--corrector", run, "-"]) == 0
    assert capsys.readouterr().out == "the country's\n\ndon't worry\n"


def test_a_broken_line_of_a_pipe_loses_nothing(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pipe(monkeypatch, b"the contry\nse\xf1or\na b\n")
    assert main(["--corrector", run, "-"]) == 2
    printed, told = capsys.readouterr()
    assert printed == "the country's\n" and "error: standard input:2: not UTF-8" in told


def test_a_broken_line_of_a_file_is_known_at_once(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "x.txt").write_bytes(b"the contry\nse\xf1or\n")
    assert main(["--corrector", run, str(tmp_path / "x.txt")]) == 2
    printed, told = capsys.readouterr()
    assert printed == "" and "x.txt:2: not UTF-8" in told and len(told.splitlines()) == 1


def test_long_lines_and_an_empty_file(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "x.txt").write_text("a q b q " * 500 + "\n", "utf-8")
    (tmp_path / "empty.txt").write_text("", "utf-8")
    assert main(["--corrector", run, str(tmp_path / "x.txt"), str(tmp_path / "empty.txt")]) == 0
    printed, told = capsys.readouterr()
    assert len(printed.splitlines()) == 1 and "1 too long for the network, cut into" in told


def test_files(run: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, report = tmp_path / "out.txt", tmp_path / "report.json"
    assert main(["--corrector", run, str(texts), "--out", str(out), "--json", str(report)]) == 0
    assert out.read_text("utf-8").splitlines() == BETTER and capsys.readouterr().out == ""
    found = json.loads(report.read_text("utf-8"))
    assert found["gate"]["margin"] == 3.0 and [line["text"] for line in found["lines"]] == BETTER
    assert [line["reason"] for line in found["lines"]] == ["accepted", "empty", "accepted", "letters", "same"]
    assert found["lines"][2]["line"] == 3 and found["lines"][2]["pieces"][0]["gain"] > 3
    assert main(["--corrector", run, str(texts), "--gate", "open", "--json", str(report)]) == 0
    assert json.loads(report.read_text("utf-8"))["gate"]["most_edits"] is None  # infinite


def test_ctrl_c_loses_nothing(
    run: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The second file is stopped in its second portion."""
    monkeypatch.setattr(text_stream, "BLOCK", 3)
    plain, calls = command.correct, []

    def stopped(setup: object, lines: list[str]) -> list:
        calls.append(lines)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(setup, lines)

    monkeypatch.setattr(command, "correct", stopped)
    out = tmp_path / "out.txt"
    assert main(["--corrector", run, str(texts), str(texts), "--out", str(out)]) == 130
    assert out.read_text("utf-8").splitlines() == BETTER
    assert Path(f"{out}.part").read_text("utf-8").splitlines() == [*BETTER, *BETTER[:3]]
    told = capsys.readouterr().err
    assert "out.txt.part has the first 8 lines" in told and told.endswith("stopped\n")
    calls.clear()
    assert main(["--corrector", run, str(texts), str(texts)]) == 130
    assert capsys.readouterr().out.splitlines() == [*BETTER, *BETTER[:3]]


def test_alternatives(run: str, texts: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--corrector", run, str(texts), "--nbest", "2", "--beam", "3"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["1", "1", "2", "3", "3", "4", "5", "5"]
    assert rows[0][2] == "the country's" and float(rows[0][1]) > 3.0
    assert rows[2] == ["2", "0.000", ""] and rows[5] == ["4", "0.000", "Señor"] and rows[6] == ["5", "0.000", "a b"]


def test_protected_words(run: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "names.txt").write_text("Contry\t6\n", "utf-8")
    assert main(["--corrector", run, str(texts), "--protect", str(tmp_path / "names.txt")]) == 0
    printed, told = capsys.readouterr()
    assert printed.splitlines() == ["the contry", *BETTER[1:]] and "only protected words" in told


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def test_pairs(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_part(tmp_path, "test", PAIRS)
    out, report = tmp_path / "out.txt", tmp_path / "report.json"
    assert main(["--corrector", run, "--pairs", str(tmp_path), "--out", str(out), "--json", str(report)]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    for part in (
        "WER                                  42.86 %          14.29 %",
        "helped: fewer wrong words             2    50.0 %                    2         0",
        "made right: 2 of 3 wrong; made wrong: 0 of 1 right",
        "dont > don't",
        f"{'  empty':<44}         1",
    ):
        assert part in table
    assert out.read_text("utf-8").splitlines() == ["the country's", "don't worry", "a b", ""]
    found = json.loads(report.read_text("utf-8"))
    assert found["wer"]["after"] == pytest.approx(1 / 7) and found["sentences"]["helped"] == 2
    assert found["transcripts"][1]["before"] == "dont worry"


def test_a_result_of_evaluate(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [{"name": p.utterance, "reference": p.said, "hypothesis": p.recognised} for p in PAIRS]
    (tmp_path / "es.json").write_text(json.dumps({"transcripts": rows}), "utf-8")
    report = tmp_path / "better.json"
    assert main(["--corrector", run, "--result", str(tmp_path / "es.json"), "--json", str(report)]) == 0
    assert "made right: 2 of 3 wrong" in capsys.readouterr().out
    assert read_result(report).rows[0] == ("1.wav", "the country's", "the country's")  # significance reads it


def test_unequal_pairs_name_the_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "test.pred").write_text("a\nb\n", "utf-8")
    (tmp_path / "test.real").write_text("a\n", "utf-8")
    assert main(["--corrector", run, "--pairs", str(tmp_path)]) == 2
    assert "test.pred:2: this line has no partner" in capsys.readouterr().err
    (tmp_path / "dev.jsonl").write_text("", "utf-8")
    assert main(["--corrector", run, "--pairs", str(tmp_path), "--part", "dev"]) == 2
    assert "has no pairs in its part dev" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.txt"], "--corrector is missing"),
        (["--corrector", "RUN"], "nothing to correct: give files of text, - for standard input"),
        (["--corrector", "RUN", "x.txt", "--pairs", "p"], "only one of these at a time"),
        (["--corrector", "RUN", "x.txt", "--part", "dev"], "--part is a part of --pairs FOLDER"),
        (["--corrector", "RUN", "x.txt", "--beam", "0"], "--beam must be 1 or more, got 0"),
        (["--corrector", "RUN", "x.txt", "--nbest", "0"], "--nbest must be 1 or more, got 0"),
        (["--corrector", "RUN", "--pairs", "p", "--nbest", "2"], "--nbest shows alternatives of files of text"),
        (["--corrector", "RUN", "x.txt", "--nbest", "2", "--gate", "open"], "leave --gate and --json out"),
        (["--corrector", "RUN", "-", "-"], "standard input (-) can be read only once"),
        (["--corrector", "RUN", "x.txt", "--out", "."], "--out . is a folder; name a file"),
        (["--corrector", "RUN", "x.txt", "--out", "no/such"], "--out no/such: there is no folder no; make it first"),
        (["--corrector", "RUN", "x.txt", "--json", "./x.txt"], "--json ./x.txt would be written over what is read"),
        (["--corrector", "RUN", "x.txt", "--protect", "p", "--out", "p"], "--out p would be written over what is read"),
        (["--corrector", "RUN", "--pairs", ".", "--out", "test.pred"], "--out test.pred would be written over"),
        (["--corrector", "RUN", "x.txt", "--json", "y", "--out", "./y"], "--out and --json are the same file ./y"),
        (["--corrector", "RUN", "x.txt", "--beam", "1000000000"], "beam can be at most 1000, got 1000000000"),
        (["--corrector", "RUN", "no.txt"], "there is no file of texts no.txt"),
        (["--corrector", "RUN", "x.txt", "--gate", "no.yaml"], "there is no gate no.yaml"),
        (["--corrector", "RUN", "x.txt", "--protect", "no.txt"], "there is no file of protected words no.txt"),
        (["--corrector", "no-run", "x.txt"], "no-run"),
        (["--corrector", "RUN", "x.txt", "--nbset", "2"], "unknown option --nbset; did you mean --nbest"),
    ],
)
def test_bad_input_is_one_line(
    run: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("a b\n", "utf-8")
    assert main([run if argument == "RUN" else argument for argument in arguments]) == 2
    printed, told = capsys.readouterr()
    assert printed == "" and told.startswith("error: ") and message in told and len(told.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_known_at_once(
    run: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command.os, "access", lambda *_: False)  # root may write everywhere
    assert main(["--corrector", run, str(texts), "--out", str(tmp_path / "out.txt")]) == 2
    assert f"out.txt: nothing can be written to {tmp_path}" in capsys.readouterr().err


def test_half_letters_of_a_result_stay_as_they_are(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Names of clips that are no UTF-8 come so, and whatever a stranger's JSON holds."""
    rows = [{"name": "\udce9.wav", "reference": "a b", "hypothesis": "a \ud800"}]
    (tmp_path / "r.json").write_text(json.dumps({"transcripts": rows}), "utf-8")
    report = tmp_path / "out.json"
    assert main(["--corrector", run, "--result", str(tmp_path / "r.json"), "--json", str(report)]) == 0
    [told] = json.loads(report.read_text("utf-8"))["transcripts"]
    assert (told["name"], told["hypothesis"], told["reason"]) == ("\udce9.wav", "a \ud800", "letters")
