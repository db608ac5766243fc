"""quartznet.confidence: both ends of every measure, values by hand, and the calibration table of words known."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quartznet.confidence import are_right, calibrate, gibbs, lowest, mean, probability, product, tsallis
from quartznet.words import Measure

ENTROPIES = [
    partial(kind, alpha=alpha, exponential=exponential)
    for kind in (gibbs, tsallis)
    for alpha in (1 / 3, 0.5, 0.9)
    for exponential in (False, True)
]


@pytest.mark.parametrize("measure", ENTROPIES)
def test_entropy_is_sure_of_one_label_and_not_of_all(measure: Measure) -> None:
    certain = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).log()  # holds -inf
    label = torch.tensor([0])
    assert measure(certain, label).item() == pytest.approx(1.0)
    assert measure(torch.full((1, 4), 0.25).log(), label).item() == pytest.approx(0.0, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(ENTROPIES), st.floats(0.1, 8.0))
def test_entropy_stays_between_0_and_1_and_sharper_is_surer(seed: int, measure: Measure, scale: float) -> None:
    logits = scale * torch.randn(20, 29, generator=torch.Generator().manual_seed(seed))
    values = [measure(x.log_softmax(1), x.argmax(1)) for x in (logits, 2 * logits)]
    assert all(((value >= 0) & (value <= 1)).all() for value in values)
    if measure.func is tsallis:  # Gibbs' is no true entropy below alpha 1: a sharper distribution may have more of it
        assert (values[1] >= values[0] - 1e-5).all()


def test_entropies_by_hand() -> None:
    log_probs, best = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([0])
    shannon = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert gibbs(log_probs, best, 1.0, exponential=False).item() == pytest.approx(1 - shannon / math.log(3))
    expected = (math.exp(-shannon) - 1 / 3) / (1 - 1 / 3)
    assert gibbs(log_probs, best, 1.0).item() == pytest.approx(expected)
    entropy, uniform = (0.5**0.5 + 1.0 - 1) / 0.5, (3**0.5 - 1) / 0.5
    assert tsallis(log_probs, best, 0.5, exponential=False).item() == pytest.approx(1 - entropy / uniform, rel=1e-4)


@pytest.mark.parametrize("measure", [probability, gibbs, tsallis])
def test_another_label_than_the_best_is_less_sure(measure: Measure) -> None:
    log_probs = torch.tensor([[0.9, 0.09, 0.01]]).log()
    sure = [measure(log_probs, torch.tensor([label])).item() for label in range(3)]
    assert sure[1] == pytest.approx(sure[0] / 10) and sure[2] == pytest.approx(sure[0] / 90)


def test_letters_become_a_word() -> None:
    assert (lowest([0.5, 0.8]), mean([0.5, 0.8]), product([0.5, 0.8])) == pytest.approx((0.5, 0.65, 0.4))


def test_which_words_are_right() -> None:
    assert are_right("the cat sat", ["the", "hat", "sat"]) == [True, False, True]
    assert are_right("the cat", ["cat"]) == [True]  # a missed word is not among the recognised ones
    assert are_right("", ["um"]) == [False] and are_right("cat", []) == []
    assert are_right("a b", ["a", "x", "b"]) == [True, False, True]


def test_calibration_by_hand() -> None:
    table = calibrate([1.0, 0.96, 0.95, 0.3, 0.3], [True, True, False, False, True], bins=10)
    assert [(row.low, row.high, row.words) for row in table.bins] == [(0.3, 0.4, 2), (0.9, 1.0, 3)]
    assert table.bins[0].right == 0.5 and table.bins[1].confidence == pytest.approx(0.97)
    assert table.error == pytest.approx((2 * 0.2 + 3 * (0.97 - 2 / 3)) / 5)
    assert table.separation == pytest.approx((2 + 1 + 1 + 0.5) / 6)  # of 3 right x 2 wrong words
    assert "0.30 to 0.40        2   0.30    0.50" in str(table) and "5 words, 3 of them right" in str(table)
    assert max(map(len, str(table).splitlines())) <= 80


def test_words_as_right_as_sure_have_no_error_and_one_kind_has_no_separation() -> None:
    assert calibrate([0.5] * 4, [True, False, True, False]).error == 0.0
    one = calibrate([0.5], [True])
    assert math.isnan(one.separation) and "surer" not in str(one)
    assert one.for_json()["separation"] is None and one.for_json()["bins"][0]["words"] == 1


@pytest.mark.parametrize(
    ("confidences", "right", "message"),
    [
        ([], [], "one or more words; got 0 words, 0"),
        ([0.5], [], "got 1 words, 0"),
        ([1.5], [True], "between 0 and 1, got 1.5"),
        ([math.nan], [True], "between 0 and 1"),
    ],
)
def test_what_cannot_be_calibrated(confidences: list[float], right: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(confidences, right)


def test_measures_take_the_shapes_that_words_give() -> None:
    measured: list[Tensor] = [kind(torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64)) for kind in (gibbs, tsallis)]
    assert all(value.shape == (5,) for value in measured)
