"""Whole-number arithmetic of lengths against exact fractions, and few lengths for many clips."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartznet.lengths import changed_length, rounded_length, speed_ratio


@given(st.integers(0, 10**7), st.integers(50, 200))
def test_a_changed_length_is_the_exact_ceiling(samples: int, percent: int) -> None:
    assert changed_length(samples, percent / 100) == math.ceil(Fraction(samples * 100, percent))
    faster, slower = speed_ratio(percent / 100)
    assert Fraction(faster, slower) == Fraction(percent, 100) and math.gcd(faster, slower) == 1


def test_by_hand() -> None:
    assert [speed_ratio(speed) for speed in (0.9, 1.0, 1.1, 0.97, 2.0)] == [
        (9, 10),
        (1, 1),
        (11, 10),
        (97, 100),
        (2, 1),
    ]
    assert [changed_length(16000, speed) for speed in (0.9, 1.0, 1.1)] == [17778, 16000, 14546]
    assert changed_length(262062, 0.97) == 270168  # 270167.01: fp32 arithmetic would say 270167


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), 50.0])
def test_impossible_speeds(speed: float) -> None:
    for function in (speed_ratio, lambda speed: changed_length(10, speed)):
        with pytest.raises(ValueError, match=r"speed must be between 0\.1 and 10, got"):
            function(speed)


def test_lengths_are_few_and_little_longer() -> None:
    assert [rounded_length(n) for n in (0, 1, 31, 32, 33, 34, 63, 64, 65)] == [0, 1, 31, 32, 34, 34, 64, 64, 68]
    lengths = {n: rounded_length(n) for n in range(8_000, 256_001, 7)}
    assert all(n <= padded <= n * 17 / 16 for n, padded in lengths.items())
    assert len(set(lengths.values())) == 5 * 16 + 1  # 8192 to 262144
