"""Benchmarks run; what they measure is written down in docs/speed.md, and not asserted on a machine that others use."""

import sys
from pathlib import Path

import pytest
import tones

from benchmarks import loading


def test_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path)
    monkeypatch.setattr(sys, "argv", ["loading.py", str(manifest), "--seconds", "9", "--runs", "1", "--workers", "1"])
    loading.main()
    first, _, *rows = capsys.readouterr().out.splitlines()
    assert first == "10 clips, 9 s, rates [16000] Hz"
    assert len(rows) == 7 and all(float(row.split()[-1]) > 0 for row in rows)
