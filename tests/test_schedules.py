"""Learning rates at named points, by hand."""

import math
from itertools import pairwise

import pytest

from quartznet.config import ScheduleSettings
from quartznet.schedules import learning_rate, warmup_steps

NAMES = ["cosine", "polynomial", "square", "constant"]


@pytest.mark.parametrize("name", NAMES)
def test_warm_up(name: str) -> None:
    settings = ScheduleSettings(name=name, warmup_steps=4)
    rates = [learning_rate(step, 100, settings, 1.0) for step in range(5)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])  # (s + 1) / (W + 1): never 0, full at s = W


@pytest.mark.parametrize("name", NAMES)
def test_without_warm_up_starts_at_the_base_rate(name: str) -> None:
    settings = ScheduleSettings(name=name, warmup_ratio=0.0)
    assert learning_rate(0, 100, settings, 0.03) == pytest.approx(0.03)


def test_ratio_is_rounded_down_and_steps_take_its_place() -> None:
    assert warmup_steps(99, ScheduleSettings(warmup_ratio=0.12)) == 11
    assert warmup_steps(99, ScheduleSettings(warmup_ratio=0.12, warmup_steps=3)) == 3
    assert warmup_steps(99, ScheduleSettings(warmup_ratio=0.12, warmup_steps=0)) == 0


def test_cosine() -> None:
    settings = ScheduleSettings(warmup_steps=20, min_lr=0.1)
    points = [(20, 1.0), (40, 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2), (60, 0.55), (100, 0.1), (101, 0.1)]
    for step, rate in points:
        assert learning_rate(step, 100, settings, 1.0) == pytest.approx(rate)


def test_polynomial() -> None:
    straight = ScheduleSettings(name="polynomial", warmup_steps=20, min_lr=0.1)
    for step, rate in [(20, 1.0), (40, 0.775), (60, 0.55), (100, 0.1), (500, 0.1)]:
        assert learning_rate(step, 100, straight, 1.0) == pytest.approx(rate)
    squared = ScheduleSettings(name="polynomial", warmup_steps=20, min_lr=0.1, power=2.0)
    assert learning_rate(60, 100, squared, 1.0) == pytest.approx(0.1 + 0.9 / 4)


def test_square() -> None:
    settings = ScheduleSettings(name="square", warmup_steps=20, min_lr=0.01)
    for step, rate in [(20, 1.0), (40, 0.5625), (60, 0.25), (99, 0.01), (100, 0.01), (101, 0.01)]:
        assert learning_rate(step, 100, settings, 1.0) == pytest.approx(rate)


def test_constant_has_no_end() -> None:
    settings = ScheduleSettings(name="constant", warmup_steps=20, min_lr=0.01)
    assert [learning_rate(step, 100, settings, 1.0) for step in (20, 60, 100, 1000)] == [1.0] * 4


@pytest.mark.parametrize("name", ["cosine", "polynomial", "square"])
def test_never_rises_after_warm_up(name: str) -> None:
    rates = [learning_rate(step, 50, ScheduleSettings(name=name), 1.0) for step in range(6, 60)]
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert rates[-1] == 0.0


@pytest.mark.parametrize("warmup", [10, 25])
def test_warm_up_as_long_as_the_run(warmup: int) -> None:
    settings = ScheduleSettings(warmup_steps=warmup)
    assert learning_rate(9, 10, settings, 1.0) == pytest.approx(10 / (warmup + 1))


def test_one_step() -> None:
    assert learning_rate(0, 1, ScheduleSettings(), 1.0) == 1.0


def test_impossible_settings() -> None:
    with pytest.raises(ValueError, match="total_steps >= 1"):
        learning_rate(0, 0, ScheduleSettings(), 1.0)
    with pytest.raises(ValueError, match="step >= 0"):
        learning_rate(-1, 10, ScheduleSettings(), 1.0)
    with pytest.raises(ValueError, match=r"warmup_steps >= 0, got 10, 0 and -3"):
        learning_rate(0, 10, ScheduleSettings(warmup_steps=-3), 1.0)
    with pytest.raises(ValueError, match=r"min_lr 0.1 is above the base rate optim.lr 0.01"):
        learning_rate(0, 10, ScheduleSettings(min_lr=0.1), 0.01)
