"""From sound files to a trained recogniser and back to text, through the two commands that people type."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tones
import torch

import evaluate
import quartznet
import train
from quartznet.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
QUIET = ["--augment.cutout-masks", "0", "--augment.speeds", "1.0", "--data.workers", "0"]
TINY = ["--from-scratch", "--lang", "es", "--preset", "tiny", "--device", "cpu"]


def test_four_utterances_are_learnt_by_heart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path)
    run = tmp_path / "run"
    data = ["--train", str(manifest), "--dev", str(manifest), "--out", str(run)]
    steps = ["--steps", "120", "--optim.name", "adamw", "--optim.lr", "0.003", "--evaluate-steps", "60"]
    assert train.main([*TINY, *QUIET, *data, *steps]) == 0
    assert "best dev       0.00 %" in capsys.readouterr().out
    scores = tmp_path / "scores.json"
    assert evaluate.main(["--checkpoint", str(run), "--data", str(manifest), "--json", str(scores)]) == 0
    result = json.loads(scores.read_text(encoding="utf-8"))
    assert (result["wer"], result["cer"], result["utterances"], result["lang"]) == (0.0, 0.0, 4, "es")
    model = quartznet.load_model(run)
    clips = [tmp_path / f"train{index}.wav" for index in (3, 0, 2, 1)]
    assert model.transcribe(clips, batch_seconds=2.0) == ["bad cab", "abba", "da", "cab dada"]
    assert model.for_inference(torch.bfloat16).transcribe(clips) == ["bad cab", "abba", "da", "cab dada"]


def test_a_resumed_run_is_bit_identical_with_everything_random_switched_on(tmp_path: Path) -> None:
    manifest = tones.write_corpus(tmp_path)
    common = [*TINY, "--data", str(manifest), "--data.workers", "0", "--data.batch-seconds", "2", "--ema", "0.9"]
    common += ["--augment.cutout-time", "20", "--augment.time-masks", "1"]
    for out, steps in (("whole", 4), ("parts", 1), ("parts", 4)):
        schedule = ["--schedule.name", "constant", "--evaluate-steps", "4"]
        assert train.main([*common, *schedule, "--out", str(tmp_path / out), "--steps", str(steps)]) == 0
    whole, parts = (load_checkpoint(tmp_path / name / "last.pt")["weights"] for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_sigterm_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    manifest = tones.write_corpus(tmp_path)
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "--data", str(manifest), "--out", str(run)]
    command += ["--steps", "100000", "--log-every", "1", "--data.workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.stat().st_size:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "the same command continues" in errors
    assert load_checkpoint(run / "last.pt")["train"]["state"]["step"] >= 1
