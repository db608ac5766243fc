"""The lines of metrics.jsonl; the rest of the log is tested with the loop."""

import json
import logging
import math
import time
from pathlib import Path

import pytest

from quartznet.runlog import RunLog, truncate_metrics


def test_records_by_hand(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10) as log:
        log.add(6.0, 2, 5.0, left_out=False)
        log.add(math.nan, 2, 5.0, left_out=True)
        log.train(2, 0, 0.1, math.inf, seconds=3.0, audio_seconds=7200.0)
        log.dev({"step": 2, "epoch": 0, "loss": 1.0, "wer": 0.5, "cer": 0.25, "seconds": 4.0}, [("a", "b")])
    train, dev = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert (train["loss"], train["grad_norm"], train["audio_hours"]) == (3.0, None, 2.0)  # JSON has no infinity
    assert (dev["kind"], dev["wer"]) == ("dev", 0.5)


def test_text_is_told_in_tokens_and_rates_bear_their_own_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), RunLog(tmp_path, 0, 10, unit="tokens", measures=("wrong", "unlisted")) as log:
        log.add(6.0, 2, 500.0, left_out=False)
        log.train(2, 0, 0.1, 1.0, seconds=3.0, audio_seconds=700.0)
        log.dev({"step": 2, "epoch": 0, "loss": 1.0, "wer": 0.5, "cer": 0.25, "seconds": 4.0}, [("a", "b")])
    train, dev = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert train["tokens"] == 700.0 and train["tokens_per_second"] > 0 and "audio_hours" not in train
    assert (dev["wrong"], dev["unlisted"]) == (0.5, 0.25) and "wer" not in dev
    assert "tokens/s" in caplog.text and "wrong 50.00 %  unlisted 25.00 %" in caplog.text


def test_clips_are_listed_once(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10) as log:
        log.clips_left_out(["a: broken", "b: broken", "a: broken"])
        log.clips_left_out(["b: broken"])
    assert (tmp_path / "skipped.txt").read_text(encoding="utf-8") == "a: broken\nb: broken\n"


def test_speed_leaves_evaluations_out(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10) as log:
        log.add(1.0, 1, 100.0, left_out=False)
        began = log.window.started
        with log.not_training():
            time.sleep(0.05)
        assert log.window.started - began >= 0.05
        log.dev({"step": 1, "epoch": 0, "loss": 1.0, "wer": 0.5, "cer": 0.25, "seconds": 4.0}, [])
        assert log.window.audio_seconds == 100.0 and log.window.started - began < 5


def test_only_whole_records_up_to_the_checkpoint_stay(tmp_path: Path) -> None:
    path, dev = tmp_path / "metrics.jsonl", '{"kind": "dev", "step": 4}\n'
    good = '{"kind": "train", "step": 4, "clip": "\u2028ñ"}\n'
    rest = b'[4]\n{"step": "4", "kind": ""}\n\x00\n{"kind": "train", "step": 5}\n{"kind": "skipped", "clips": ["\xc3'
    path.write_bytes((good + dev).encode() + rest)
    truncate_metrics(path, 4)
    assert path.read_text(encoding="utf-8") == good + dev
    truncate_metrics(path, 4, evaluation_due=True)
    assert path.read_text(encoding="utf-8") == good


def test_a_step_without_clips_names_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RunLog(tmp_path, 0, 10) as log:
        log.skipped_step(3, "no clip could be loaded", [])
        log.skipped_step(4, "the loss is nan", list("abcdefg"))
    assert [record.message for record in caplog.records] == [
        "step 3 skipped: no clip could be loaded",
        "step 4 skipped: the loss is nan; clips: a, b, c, d, e and 2 more",
    ]


def test_long_messages_are_cut_into_lines_of_80_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with RunLog(tmp_path, 0, 10) as log:
        log.watched(0, {f"en-librispeech-test-{part}, old layer": (0.5, 0.25) for part in ("clean", "other")})
    assert len(caplog.messages) == 2 and max(map(len, caplog.messages)) <= 80
    assert " ".join(caplog.messages).count("50.00 %") == 2
