"""The lines of metrics.jsonl; the rest of the log is tested with the loop."""

import json
import math
from pathlib import Path

from quartznet.runlog import RunLog


def test_records_by_hand(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10) as log:
        log.add(6.0, 2, 5.0, left_out=False)
        log.add(math.nan, 2, 5.0, left_out=True)
        log.train(2, 0, 0.1, math.inf, seconds=3.0, audio_seconds=7200.0)
        log.dev({"step": 2, "epoch": 0, "loss": 1.0, "wer": 0.5, "cer": 0.25, "seconds": 4.0}, [("a", "b")])
    train, dev = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert (train["loss"], train["grad_norm"], train["audio_hours"]) == (3.0, None, 2.0)  # JSON has no infinity
    assert (dev["kind"], dev["wer"]) == ("dev", 0.5)


def test_clips_are_listed_once(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 10) as log:
        log.clips_left_out(["a: broken", "b: broken", "a: broken"])
        log.clips_left_out(["b: broken"])
    assert (tmp_path / "skipped.txt").read_text(encoding="utf-8") == "a: broken\nb: broken\n"
