"""What a text is worth: that what is lent while it is written comes to what it is worth in the end."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import TinyBigram

from quartznet.alphabet import Alphabet
from quartznet.hotwords import HotWord, HotWords
from quartznet.prefix_search import Prefix
from quartznet.worth import LOWEST, BeamSettings, TextWorth

ALPHABET = Alphabet((" ", "a", "b"))
BIGRAM = TinyBigram({"a": -1.0, "ab": -2.0, "b": -9.0}, {("a", "b"): -0.1})


def write(worth: TextWorth, text: str) -> tuple[Prefix, float]:
    """The node of a text, and the logarithm of all its factors."""
    search = worth.for_search()
    prefix, total = Prefix(None, 0, 0, 1.0, search.root), 0.0
    for label in ALPHABET.encode(text):
        gain, note = search.grow(prefix, label)
        assert gain <= search.most[label] * (1 + 1e-9)
        prefix, total = Prefix(prefix, label, 0, gain, note), total + math.log(gain)
    return prefix, total


@settings(deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=5).map(" ".join),
    st.booleans(),
    st.booleans(),
    st.floats(-9, 2),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_factors_come_to_what_is_lent_and_nothing_is_owed_after_a_word(
    text: str, can_list: bool, is_hot: bool, unknown: float, look_ahead: float
) -> None:
    words = HotWords([HotWord("ab a", 3.0, ("ab a",), False)], ALPHABET) if is_hot else None
    scorer = TinyBigram(BIGRAM.words, BIGRAM.pairs, can_list=can_list)
    chosen = BeamSettings(alpha=0.7, beta=0.3, unknown=unknown, unknown_letter=-0.4, look_ahead=look_ahead)
    worth = TextWorth(ALPHABET, chosen, scorer, words)
    prefix, total = write(worth, text)
    assert total == pytest.approx(worth.lent(prefix.note), abs=1e-9)
    values = worth.values(prefix)
    assert values.language == pytest.approx(BIGRAM.sentence(text.split())) and values.words == len(text.split())
    if text and not is_hot:
        after, total = write(worth, f"{text} ")
        assert worth.values(after) == values
        assert total == pytest.approx(0.7 * (values.language - scorer.end("")) + 0.3 * values.words + values.bonus)


def test_a_wrong_letter_costs_at_once() -> None:
    worth = TextWorth(ALPHABET, BeamSettings(alpha=1.0, beta=0.0, unknown=-6.0, look_ahead=1.0), BIGRAM, None)
    assert write(worth, "ab")[1] == pytest.approx(-1.0)  # the best word is "a", then "ab"
    assert write(worth, "aba")[1] == pytest.approx(-5.0 - 6.0 - 3.0 + 1.0)  # <unk>, and what it costs, instead of "a"


def test_minus_infinity_is_a_number() -> None:
    never = TinyBigram({"a": -1.0}, unknown=-math.inf, can_list=False)
    worth = TextWorth(ALPHABET, BeamSettings(alpha=0.0, beta=0.0, unknown=0.0, unknown_letter=0.0), never, None)
    prefix, total = write(worth, "b ")
    assert total == 0.0 and worth.values(prefix).language == pytest.approx(LOWEST + math.log(0.3))


def test_worth_nothing_is_no_worth() -> None:
    assert TextWorth(ALPHABET, BeamSettings(), None, None).for_search() is None
