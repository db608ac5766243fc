"""The hash that must never change, or every split and every epoch does."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from data.hashing import stable_hash


def test_golden_values_in_another_process() -> None:
    code = "from data.hashing import stable_hash; print(stable_hash('ñ'), stable_hash('speed', 0, 1, 2))"
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert answer.stdout.split() == [str(stable_hash("ñ")), str(stable_hash("speed", 0, 1, 2))]
    assert stable_hash("ñ") == 1160762523654362811


def test_parts_and_their_order_count() -> None:
    values = {
        stable_hash("a", "b"),
        stable_hash("b", "a"),
        stable_hash("ab"),
        stable_hash("a", 1),
        stable_hash("a", "1"),
    }
    assert len(values) == 5
    assert stable_hash("\udce9") >= 0  # a file name that is not UTF-8


def test_it_is_spread_evenly() -> None:
    counts = Counter(stable_hash(index) * 4 >> 63 for index in range(2000))
    assert all(400 < counts[quarter] < 600 for quarter in range(4))
