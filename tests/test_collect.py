"""``python -m postcorrect.collect``: clips, folds and text from end to end; what goes on, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch

from data.splits import sentence_key
from postcorrect import collect, folds, hearing
from postcorrect.pairs import PARTS, Pair, read_part, write_jsonl
from quartznet.checkpoint import save_checkpoint
from quartznet.config import BlockConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.settings import to_dict

TEXTS = ("abba", "cab dada", "da", "bad cab", "dab", "abba cab", "bad dada", "cab", "a bad cab", "da da da")
ALL = ["--most-wer", "99", "--identical", "1", "--device", "cpu"]


HEARD = [
    Pair("el gato negr", "el gato negro"),
    Pair("un pero y un gato", "un perro y un gato"),
    Pair("lacasa ni come sopa", "la casa ni come sopa"),
    Pair("y otra canta", "y otra canta"),
]


def checkpoint(path: Path, labels: str = " abcd") -> Path:
    """A network that writes something, most of it wrong."""
    torch.manual_seed(3)
    model = QuartzNet(ModelConfig(tuple(labels), (BlockConfig(16, 11, stride=2), BlockConfig(16, 1, separable=False))))
    with torch.no_grad():
        model.decoder.weight *= 4
    save_checkpoint(path, {"model_config": to_dict(model.config), "weights": model.state_dict(), "lang": "es"})
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a corpus, a checkpoint, errors of another recogniser and a text."""
    monkeypatch.chdir(tmp_path)
    tones.write_corpus(tmp_path, TEXTS)
    checkpoint(tmp_path / "net.pt")
    write_jsonl("heard.jsonl", HEARD * 9)
    lines = [
        f"{one} {two}" for one in ("El gato", "Un perro", "La casa") for two in ("negro.", "y otra", "come 3", "canta")
    ]
    Path("text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def run(*options: str, out: str = "pairs") -> int:
    return collect.main([*options, "--out", out])


CLIPS = ["--checkpoint", "net.pt", "--data", "train.jsonl", *ALL]
TEXT = ["--text", "text.txt", "--errors", "heard.jsonl"]


def test_clips_in_all_ways(place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = 0.2 * np.random.default_rng(0).standard_normal(30000)
    soundfile.write("noise.wav", noise.astype(np.float32), 16000)
    ways = ["--nbest", "3", "--dropout-seeds", "2", "--dropout", "0.1", "--speeds", "0.9,1", "--noise", "noise.wav"]
    assert run(*CLIPS, *ways, "--snr", "5") == 0
    printed = capsys.readouterr().out
    parts = {part: read_part("pairs", part) for part in PARTS}
    sources = {pair.source for pair in parts["train"]}
    assert {"greedy", "beam 2", "dropout 0.1 seed 1", "dropout 0.1 seed 2 beam 2", "speed 0.9", "noise 5 dB"} <= sources
    assert {pair.source for part in ("dev", "test") for pair in parts[part]} == {"greedy"}
    keys = [{sentence_key(pair.said) for pair in parts[part]} for part in PARTS]
    assert keys[0] | keys[1] | keys[2] == {sentence_key(text) for text in TEXTS}
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    report = Path("pairs/report.txt").read_text(encoding="utf-8")
    assert report in printed and "train, noise 5 dB beam 3" in report and "one word for another" in report
    assert max(map(len, report.splitlines())) <= 80
    before = {path: path.read_bytes() for path in sorted(Path("pairs").glob("train.*"))}
    monkeypatch.setattr(hearing, "hear", None)  # nothing is left to decode
    assert run(*CLIPS, *ways, "--snr", "5") == 0
    assert "hearings were decoded by an earlier command" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in sorted(Path("pairs").glob("train.*"))}


def test_folds(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    script = (
        "import shutil, sys, pathlib\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "out.mkdir()\n"
        f"shutil.copy({str(place / 'net.pt')!r}, out / 'best.pt')\n"
        "sys.exit(2 if 'fold-2' in str(out) and not pathlib.Path('again').exists() else 0)\n"
    )
    (place / "train.py").write_text(script, encoding="utf-8")
    monkeypatch.setattr(folds, "TRAIN", place / "train.py")
    command = [*CLIPS, "--folds", "3", "--out", "pairs", "--", "--lang", "es", "--from-scratch"]
    assert collect.main(command) == 2
    assert "the training of fold 2 ended with status 2" in capsys.readouterr().err
    assert len(list(Path("pairs/parts").glob("fold-1-greedy-*.jsonl"))) == 1  # it stays
    (place / "again").touch()
    for run_folder in Path("pairs/folds").glob("fold-2*/run"):
        run_folder.rename(place / "gone")
    assert collect.main(command) == 0
    train = read_part("pairs", "train")
    assert len(train) == len(TEXTS) - len(read_part("pairs", "dev")) - len(read_part("pairs", "test"))
    assert len(list(Path("pairs/parts").glob("fold-*.jsonl"))) == 3


def test_text_alone(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(*TEXT, "--lang", "es", "--copies", "3", "--error-rate", "0.3", *ALL) == 0
    printed = capsys.readouterr().out
    assert "errors for the text: 36 errors in 144 words" in printed
    parts = {part: read_part("pairs", part) for part in PARTS}
    assert [len(parts[part]) for part in ("dev", "test")] == [1, 1]
    assert {pair.said for pairs in parts.values() for pair in pairs} >= {"el gato come tres", "la casa y otra"}
    assert all(pair.source == "text" and pair.utterance.startswith("text:") for pair in parts["train"])
    assert any(not pair.is_identical for pair in parts["train"])
    before = Path("pairs/train.pred").read_text(encoding="utf-8")
    assert (
        run("--text", "text.txt", "--errors", "pairs/errors.json", "--lang", "es", "--copies", "3", *ALL, out="b") == 0
    )
    assert run(*TEXT, "--lang", "es", "--copies", "3", "--error-rate", "0.3", *ALL) == 0
    assert Path("pairs/train.pred").read_text(encoding="utf-8") == before


def test_text_beside_clips(place: Path, capsys: pytest.CaptureFixture) -> None:
    Path("more.txt").write_text("".join(f"{text}\n" for text in (*TEXTS, "dada bad", "cab a cab")), encoding="utf-8")
    write_jsonl("own.jsonl", [Pair("a bad cb", "a bad cab"), Pair("bba dad", "abba dad")] * 5)
    assert run(*CLIPS, "--text", "more.txt", "--errors", "own.jsonl", "--speeds", "1.1") == 0
    parts = {part: read_part("pairs", part) for part in PARTS}
    assert {pair.source for pair in parts["train"]} == {"greedy", "speed 1.1", "text"}
    assert {pair.source for part in ("dev", "test") for pair in parts[part]} == {"greedy"}
    held = {pair.said for part in ("dev", "test") for pair in parts[part]}
    assert len(held) == 2 and not held & {pair.said for pair in parts["train"]}
    printed = capsys.readouterr().out
    assert re.search(r"- the sentence is in dev or test +2\n", printed), printed


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "nothing to collect from: give --checkpoint C --data PATH, or --text"),
        (["--checkpoint", "net.pt"], "--data is missing"),
        (["--data", "train.jsonl"], "--checkpoint is missing"),
        (["--text", "text.txt"], "--text needs errors to make"),
        ([*TEXT], "--lang is missing: by the rules of which language"),
        ([*TEXT, "--lang", "es", "--speeds", "0.9"], "--speeds does nothing without --checkpoint and --data"),
        ([*TEXT, "--lang", "es", "--identical", "2"], "share of right pairs must be in"),
        ([*TEXT, "--lang", "es", "--error-rate", "2"], "--error-rate must be above 0"),
        ([*TEXT, "--lang", "es", "--copies", "0"], "--copies must be at least 1"),
        (["--text", "none.txt", "--errors", "heard.jsonl", "--lang", "es"], "there is no text none.txt"),
        (["--text", "text.txt", "--errors", "none.json", "--lang", "es"], "there are no errors none.json"),
        (["--text", "text.txt", "--errors", "text.txt", "--lang", "es"], "text.txt:1: not a JSON object"),
        ([*CLIPS, "--snr", "5"], "--snr does nothing without --noise PATH"),
        ([*CLIPS, "--error-rate", "0.2"], "--error-rate does nothing without --text FILE"),
        ([*CLIPS, "--folds", "3"], "give the options of train.py after --"),
        ([*CLIPS, "--", "--lang", "es"], "options after -- does nothing without --folds"),
        ([*CLIPS, "--nbest", "0"], "nbest must be from 1 to the beam"),
        ([*CLIPS, "--noise", "none"], "--noise none: there is no such folder"),
        ([*CLIPS, "--nbset", "2"], "unknown option --nbset; did you mean --nbest"),
        (["--checkpoint", "none.pt", "--data", "train.jsonl"], "there is no checkpoint at none.pt"),
        (["--checkpoint", "net.pt", "--data", "none"], "there is no none; correct the path of the corpus"),
    ],
)
def test_what_it_refuses(place: Path, capsys: pytest.CaptureFixture, options: list[str], problem: str) -> None:
    assert collect.main(["--out", "pairs", *options]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: ") and problem in errors[-1]


def test_the_folder_must_be_named(capsys: pytest.CaptureFixture) -> None:
    assert collect.main(["--text", "x"]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_another_alphabet(place: Path, capsys: pytest.CaptureFixture) -> None:
    Path("russian.txt").write_text("кошка\nчёрная собака\nдом и сад\n", encoding="utf-8")
    assert run("--text", "russian.txt", "--errors", "heard.jsonl", "--lang", "ru") == 2
    assert "100.0% of the letters of --text were never said where the errors come from" in capsys.readouterr().err
    assert run("--text", "russian.txt", "--errors", "heard.jsonl", "--lang", "es") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_empty_lines_and_letters_without_errors(place: Path, capsys: pytest.CaptureFixture) -> None:
    with open("text.txt", "a", encoding="utf-8") as file:
        file.write("\n   \n¡!\n" + "".join(f"la casa come sopa {n * 'a'}\n" for n in range(9)) + "el kilo\n")
    assert run(*TEXT, "--lang", "es", *ALL) == 0
    printed = capsys.readouterr().out
    assert (
        "letters that stay right, the errors have none of them: " in printed
        and "1 lines are left out, nothing is left of them" in printed
    )


def test_clips_that_fail_are_counted(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "train3.wav").write_bytes(b"no sound")
    assert run(*CLIPS) == 0
    assert "1 clips left out, see skipped.txt" in capsys.readouterr().out
    assert "train.jsonl:4" in Path("pairs/skipped.txt").read_text(encoding="utf-8")


def test_nothing_to_learn_from(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("--checkpoint", "net.pt", "--data", "train.jsonl", "--most-wer", "0", "--identical", "0") == 2
    assert "no pair is left to learn from" in capsys.readouterr().err


def test_a_stop_leaves_what_is_decoded(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hearing, "hear", stop)
    assert run(*CLIPS) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_fold_of_other_letters(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(collect, "train_fold", lambda fold, *_: checkpoint(fold.run / "best.pt", " abcde"))
    assert collect.main([*CLIPS, "--folds", "2", "--out", "pairs", "--", "--lang", "es"]) == 2
    assert "writes other letters than net.pt" in capsys.readouterr().err


def test_results_of_evaluate_say_their_language(place: Path) -> None:
    rows = [{"name": str(n), "reference": p.said, "hypothesis": p.recognised} for n, p in enumerate(HEARD * 2)]
    Path("result.json").write_text(json.dumps({"lang": "es", "transcripts": rows}), encoding="utf-8")
    assert run("--text", "text.txt", "--errors", "result.json", *ALL) == 0
