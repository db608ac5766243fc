"""The training of a language model learns, repeats itself, goes on to the bit, and says what is wrong."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quartznet.letter_lm import LetterLm
from quartznet.letter_stream import LetterStream, Segment
from quartznet.neural_lm import LmSettings, LmTraining, fit, last_path, main, start, train_step
from quartznet.transformer_xl import TransformerConfig

LABELS = tuple(" abcdefghilmnoprstu")
TEXT = ("el gato bebe agua", "la perra come pan", "al tren no le hace sol")
NETWORK = TransformerConfig(layers=1, channels=16, heads=2, memory=8, dropout=0.1)
SETTINGS = LmSettings(steps=6, batch=2, segment=6, evaluate_every=3, log_every=2, device="cpu", network=NETWORK)


def stream_of(settings: LmSettings, training: LmTraining) -> LetterStream:
    encoded = [training.model.encode(text) for text in TEXT]
    return LetterStream(encoded, training.model.network.boundary, settings.batch, settings.segment, settings.seed)


def run(out: Path, settings: LmSettings = SETTINGS) -> LmTraining:
    training = start(LABELS, "es", settings)
    assert not fit(training, stream_of(settings, training), TEXT, settings, out)
    return training


def weights(training: LmTraining) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in training.model.network.parameters()])


def test_it_learns_a_few_sentences_by_heart(tmp_path: Path) -> None:
    network = replace(NETWORK, channels=32, memory=32, dropout=0.0)
    settings = replace(SETTINGS, steps=150, lr=0.01, segment=16, evaluate_every=150, network=network)
    training = run(tmp_path / "lm.pt", settings)
    assert training.best < 0.3  # bits a letter; what no order could tell, the first letter of three, costs 0.1
    model = LetterLm.load(tmp_path / "lm.pt")
    known, shuffled = model.score(["el gato bebe agua", "agua gato el bebe"])
    assert known > shuffled + 5
    assert model.surprise(TEXT).bits_per_letter == pytest.approx(training.best)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, again = run(tmp_path / "a.pt"), run(tmp_path / "b.pt")
    other = run(tmp_path / "c.pt", replace(SETTINGS, seed=1))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


class PowerCut(LetterStream):
    """Fails at step 4, one step after the last save."""

    def segment_at(self, step: int) -> Segment:
        if step == 4:
            raise RuntimeError("no power")
        return super().segment_at(step)


def test_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole.pt")
    training = start(LABELS, "es", SETTINGS)
    cut = stream_of(SETTINGS, training)
    cut.__class__ = PowerCut
    with pytest.raises(RuntimeError, match="no power"):
        fit(training, cut, TEXT, SETTINGS, tmp_path / "lm.pt")
    torch.rand(5)  # whatever happened in between
    resumed = run(tmp_path / "lm.pt")
    assert (resumed.step, resumed.best) == (whole.step, whole.best)
    assert torch.equal(weights(resumed), weights(whole))
    assert (tmp_path / "lm.pt").read_bytes()[:4] == b"PK\3\4"
    ready, expected = LetterLm.load(tmp_path / "lm.pt"), LetterLm.load(tmp_path / "whole.pt")
    assert ready.score(TEXT) == expected.score(TEXT)


def test_a_finished_training_is_left_as_it_is_and_more_steps_go_on(tmp_path: Path) -> None:
    run(tmp_path / "lm.pt")
    before = (tmp_path / "lm.pt").stat().st_mtime_ns
    assert run(tmp_path / "lm.pt").step == 6
    assert (tmp_path / "lm.pt").stat().st_mtime_ns == before
    assert run(tmp_path / "lm.pt", replace(SETTINGS, steps=8)).step == 8


class Stopped(LetterStream):
    """Sends itself SIGTERM during step 1."""

    def segment_at(self, step: int) -> Segment:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().segment_at(step)


def test_a_signal_saves_and_stops(tmp_path: Path) -> None:
    training = start(LABELS, "es", SETTINGS)
    stream = stream_of(SETTINGS, training)
    stream.__class__ = Stopped
    assert fit(training, stream, TEXT, SETTINGS, tmp_path / "lm.pt")
    assert training.step == 2 and [path.name for path in tmp_path.iterdir()] == ["lm.last.pt"]
    assert torch.equal(weights(run(tmp_path / "lm.pt")), weights(run(tmp_path / "whole.pt")))


def test_another_training_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path / "lm.pt")
    with pytest.raises(ValueError, match=r"lm\.last\.pt is a training with another lr, seed; give what"):
        run(tmp_path / "lm.pt", replace(SETTINGS, lr=0.5, seed=4))
    start(LABELS, "es", SETTINGS).model.save(last_path(tmp_path / "lm.pt"))
    with pytest.raises(ValueError, match="holds no training that could go on"):
        run(tmp_path / "lm.pt")


def test_divergence_is_an_error_before_the_weights_are_spoilt() -> None:
    training = start(LABELS, "es", SETTINGS)
    with torch.no_grad():
        training.model.network.norm.bias[0] = torch.nan
    before = weights(training)
    with pytest.raises(ValueError, match="diverged at step 0, loss nan; try a lower --lr"):
        train_step(training, stream_of(SETTINGS, training).segment_at(0), "fp32")
    assert torch.equal(weights(training)[:100], before[:100])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps, batch, segment, evaluate_every and log_every must be 1 or more"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"precision": "fp16"}, "precision must be auto, fp32 or bf16, got 'fp16'"),
    ],
)
def test_impossible_settings(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LmSettings(**wrong)


# ---------------------------------------------------------------------------------------------------------------------
# The command

FAST = "--layers 1 --channels 16 --heads 2 --memory 8 --steps 4 --batch 2 --segment 8 --log-every 2 --device cpu"


def test_from_text_to_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("¡El gato!\nBebe agua 3 veces.\n\nla perra\n", encoding="utf-8")
    out = tmp_path / "made" / "lm.pt"
    assert main(["train", str(tmp_path / "a.txt"), "--lang", "es", "--out", str(out), *FAST.split()]) == 0
    shown = capsys.readouterr().out
    assert (
        "text: 3 sentences, 35 letters\nSpanish (es)" in shown and "3 -> tres" in shown and "step 4 of 4: dev" in shown
    )
    assert all(len(line) <= 80 for line in shown.splitlines() if str(tmp_path) not in line)
    model = LetterLm.load(out)
    assert model.lang == "es" and "ñ" in model.alphabet.labels and model.score(["bebe agua tres veces"])[0] < 0
    assert main(["score", str(out), str(tmp_path / "a.txt"), "--device", "cpu"]) == 0
    assert " bits a letter, " in capsys.readouterr().out


def test_a_dev_text_of_its_own_and_a_language_without_rules(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("baca abba\ncaba\n", encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("path\tsentence\nx\tabba\n", encoding="utf-8")
    words = ["train", str(tmp_path / "a.txt"), "--lang", "xx", "--dev", str(tmp_path / "dev.tsv")]
    assert main([*words, "--out", str(tmp_path / "lm.pt"), *FAST.split()]) == 0
    assert "dev: 1 sentences" in capsys.readouterr().out
    assert LetterLm.load(tmp_path / "lm.pt").alphabet.labels == (" ", "a", "b", "c")
    assert main(["score", str(tmp_path / "lm.pt"), str(tmp_path / "dev.tsv"), "--device", "cpu"]) == 0


@pytest.mark.parametrize("more", [[], ["--leave-out"]])
def test_evaluation_sentences_in_the_text(tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str]) -> None:
    (tmp_path / "a.txt").write_text("¡El gato bebe agua!\nla perra come pan\notra cosa\n", encoding="utf-8")
    (tmp_path / "a.wav").touch()
    clip = {"audio_filepath": "a.wav", "text": "el gato bebe agua"}
    (tmp_path / "test.jsonl").write_text(json.dumps(clip), encoding="utf-8")
    (tmp_path / "dev.txt").write_text("La perra come pan.\n", encoding="utf-8")
    words = ["--against", str(tmp_path / "test.jsonl"), "--dev", str(tmp_path / "dev.txt"), *more]
    out = str(tmp_path / "lm.pt")
    assert main(["train", str(tmp_path / "a.txt"), "--lang", "es", "--out", out, *words, *FAST.split()]) == 0
    shown = capsys.readouterr().out
    letters = len("otra cosa") + 1 if more else 46
    assert f"an epoch is {-(-(letters // 2) // 8)} steps" in shown  # two rows, eight letters of each in a step
    for name in ("test.jsonl", "dev.txt"):
        left_out = f"1 lines with sentences of {tmp_path / name} were left out"
        assert (left_out if more else f"WARNING: 1 of 1 sentences of {tmp_path / name}") in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train no.txt --lang es --out lm.pt", "there is no text no.txt"),
        ("train empty.txt --lang es --out lm.pt", "nothing is left of the 0 lines of empty.txt"),
        ("train one.txt --lang ru --out lm.pt", "nothing is left of the 1 lines of one.txt; is --lang right?"),
        ("train one.txt --lang es --out lm.pt --against no", "there is no no"),
        ("train one.txt --lang es --out lm.pt", "at least two different sentences"),
        ("train one.txt --lang english --out lm.pt", "no language code"),
        ("train one.txt --dev one.txt --lang es --out lm.pt --batch 99", "has 5 letters for 99 rows"),
        ("train one.txt --lang es --out lm.pt --channels 7", "multiple of twice the heads"),
        ("train one.txt --lang es --out lm.pt --step 7", "unknown option --step"),
        ("train one.txt --lang es --out lm.pt --steps many", "steps must be a whole number, got 'many'"),
        ("score one.txt one.txt", "one.txt cannot be read as a language model"),
        ("score no.pt one.txt", "no language model no.pt"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "one.txt").write_text("hola\n", encoding="utf-8")
    assert main(words.split()) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.startswith("error: ") and shown.count("\n") == 1
    assert not (tmp_path / "lm.pt").exists()
