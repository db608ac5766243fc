"""train.py with --replay, --watch, --keep.* and --sequence.*, from the command line to the table at the end."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch
from test_train import english, refused

import train
from quartznet import watch
from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.initial import Base, read_base
from quartznet.recognition import recognise

LETTERS = " abcdefghijklmnopqrstuvwxyz'"


def command(folder: Path, *options: str) -> list[str]:
    """A fine-tuning to a language of the letters a, b and d; the base has all English letters."""
    init = english(folder / "en.pt", LETTERS)
    new, dev = (tones.write_corpus(folder, ("abba", "da", "bad dab", "add"), name) for name in ("new", "dev"))
    tones.write_corpus(folder, ("cab dada", "abba cab", "bad cab", "dad", "cad"), "old")
    arguments = ["--init", str(init), "--lang", "xx", "--train", str(new), "--dev", str(dev), "--epochs", "2"]
    arguments += ["--out", str(folder / "run"), "--device", "cpu", "--data.workers", "0", "--optim.lr", "0.01"]
    return [*arguments, "--allow-char-loss", *options]


def records(folder: Path, kind: str) -> list[dict]:
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_replay_and_watch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = tmp_path / "old.jsonl"
    assert train.main(command(tmp_path, "--replay", f"{old}:0.4", "--watch", f"en={old}")) == 0
    printed = capsys.readouterr().out
    assert "h replayed (" in printed and "WER before" in printed
    assert "".join(load_checkpoint(tmp_path / "run")["model_config"]["labels"]) == " abdcefghijklmnopqrstuvwxyz'"
    watched = records(tmp_path, "watch")
    assert [(r["step"], r["name"]) for r in watched[:2]] == [(0, "en"), (0, "en, old layer")]
    steps = sorted({record["step"] for record in watched})
    assert steps[0] == 0 and steps == [record["step"] for record in records(tmp_path, "dev")]
    assert all(len(line) <= 80 for line in printed.split("watched")[-1].splitlines()[:3])
    assert watched[0]["cer"] == watched[1]["cer"]  # at first both layers have the same rows


def test_without_the_old_letters_only_the_old_layer_is_watched(tmp_path: Path) -> None:
    assert train.main(command(tmp_path, "--watch", f"en={tmp_path / 'old.jsonl'}")) == 0
    assert {record["name"] for record in records(tmp_path, "watch")} == {"en, old layer"}


def test_a_resumed_run_watches_the_start_once(tmp_path: Path) -> None:
    watch = ("--watch", f"en={tmp_path / 'old.jsonl'}")
    assert train.main(command(tmp_path, *watch)) == 0
    assert train.main(command(tmp_path, *watch, "--epochs", "3")) == 0
    steps = [record["step"] for record in records(tmp_path, "watch")]
    assert steps == sorted(set(steps)) and steps[0] == 0


@pytest.mark.parametrize(
    "options",
    [("--keep.l2sp", "0.1"), ("--keep.lwf", "1"), ("--sequence.method", "mwer"), ("--sequence.method", "policy")],
)
def test_every_loss_trains_and_differs_from_plain_ctc(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert train.main(command(tmp_path)) == 0
    plain = load_checkpoint(tmp_path / "run" / "last.pt")["weights"]
    (tmp_path / "run" / "last.pt").unlink()
    assert train.main(command(tmp_path, *options)) == 0
    other = load_checkpoint(tmp_path / "run" / "last.pt")["weights"]
    assert not torch.equal(plain["encoder.blocks.1.layers.0.pointwise.weight"],
                           other["encoder.blocks.1.layers.0.pointwise.weight"])  # fmt: skip
    assert all(record["loss"] is not None for record in records(tmp_path, "train"))


def test_a_strong_pull_holds_the_encoder(tmp_path: Path) -> None:
    def moved(*options: str) -> float:
        folder = tmp_path / str(len(options))
        assert train.main(command(folder, "--epochs", "8", "--optim.name", "adamw", *options)) == 0
        old, new = load_checkpoint(folder / "en.pt")["weights"], load_checkpoint(folder / "run" / "last.pt")["weights"]
        name = "encoder.blocks.1.layers.0.pointwise.weight"
        return (old[name] - new[name]).norm().item()

    assert moved("--keep.l2sp", "100000") < 0.7 * moved()


def test_what_cannot_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = tmp_path / "old.jsonl"
    scratch = [word for word in command(tmp_path) if word != "--init"][1:]
    for options, message in (
        (["--replay", f"{old}:0.4"], "from scratch there is nothing to keep"),
        (["--keep.lwf", "1"], "keep.l2sp holds on to a network of --init"),
    ):
        assert message in refused(capsys, ["--from-scratch", *scratch, *options])
    assert "no clip of" in refused(capsys, command(tmp_path, "--replay", f"{old}:0.4", "--keep.lang", "ru"))
    assert "there are no text rules for 'qq'" in refused(
        capsys, command(tmp_path, "--watch", f"old={old}", "--keep.lang", "qq")
    )
    assert "no output layer has the letters of" in refused(capsys, ["--from-scratch", *scratch, "--watch", f"ru={old}"])
    assert "there is no" in refused(capsys, command(tmp_path, "--watch", "en=nowhere.jsonl"))


def test_watching_changes_nothing(tmp_path: Path) -> None:
    """Sets are scored before the first step and in between; the training draws the same numbers all the same."""
    found = []
    for name, options in (("with", ("--watch", f"en={tmp_path / 'with' / 'old.jsonl'}")), ("without", ())):
        arguments = ["--dropout", "0.3", "--train", "lora", "--tune.lora_dropout", "0.3", "--ema", "0.5"]
        assert train.main(command(tmp_path / name, *arguments, *options)) == 0
        found.append(load_checkpoint(tmp_path / name / "run" / "last.pt"))
    for watched, plain in zip(*(checkpoint["weights"].items() for checkpoint in found), strict=True):
        assert watched[0] == plain[0] and torch.equal(watched[1], plain[1])


def test_an_encoder_alone_brings_no_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encoder_alone(path: str) -> Base:
        base = read_base(path)
        weights = {name: value for name, value in base.weights.items() if not name.startswith("decoder.")}
        return replace(base, config=replace(base.config, labels=("",)), weights=weights)

    monkeypatch.setattr(train, "read_base", encoder_alone)
    assert train.main(command(tmp_path, "--replay", f"{tmp_path / 'old.jsonl'}:0.4", "--steps", "1")) == 0
    assert load_checkpoint(tmp_path / "run")["model_config"]["labels"] == [" ", "a", "b", "d"]


def test_stopped_while_the_start_is_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object) -> tuple:
        os.kill(os.getpid(), signal.SIGTERM)
        return recognise(*arguments)

    monkeypatch.setattr(watch, "recognise", stopped)
    assert train.main(command(tmp_path, "--watch", f"en={tmp_path / 'old.jsonl'}")) == 128 + signal.SIGTERM
    assert "last.pt is saved: the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert train.main(command(tmp_path, "--watch", f"en={tmp_path / 'old.jsonl'}")) == 0
    for kind in ("dev", "watch"):
        steps = [record["step"] for record in records(tmp_path, kind)]
        assert steps == sorted(set(steps)) and steps[0] == 0


def test_a_dev_clip_shorter_than_said_does_not_stop_the_look_at_the_features(tmp_path: Path) -> None:
    arguments = command(tmp_path, "--steps", "1")
    soundfile.write(tmp_path / "dev0.wav", np.zeros(100), 16000)
    assert train.main(arguments) == 0


def test_the_new_language_is_watched_by_its_own_rules(tmp_path: Path) -> None:
    """A language without rules takes its alphabet from its texts; a set of its name must be read the same way."""
    assert train.main(command(tmp_path, "--watch", f"xx-more={tmp_path / 'dev.jsonl'}")) == 0
    assert {record["name"] for record in records(tmp_path, "watch")} == {"xx-more"}


def test_a_base_that_says_no_language_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = command(tmp_path, "--replay", f"{tmp_path / 'old.jsonl'}:0.3")
    payload = load_checkpoint(tmp_path / "en.pt")
    save_checkpoint(tmp_path / "en.pt", {key: value for key, value in payload.items() if key not in ("lang", "format")})
    assert "does not say its language; name that of the old speech with --keep.lang" in refused(capsys, arguments)
    assert train.main([*arguments, "--keep.lang", "en"]) == 0


def test_another_start_cannot_continue_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main(command(tmp_path)) == 0
    payload = load_checkpoint(tmp_path / "en.pt")
    weights = {
        name: value + 1 if name.endswith("pointwise.weight") else value for name, value in payload["weights"].items()
    }
    arguments = command(tmp_path, "--epochs", "3")
    save_checkpoint(tmp_path / "en.pt", payload | {"weights": weights})
    assert "began with another checkpoint than today's --init" in refused(capsys, arguments)
