"""What is taken for what: by hand, against the error rates, and with every kind of text."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartznet.confusions import Confusion, aligned_units, letter_confusions, word_confusions, wrong_spaces
from quartznet.metrics import aligned_words, error_counts, total

SAID = ["the cat sat", "the hat", "", "every day now", "so"]
HEARD = ["a cat sat", "a hat uh", "uh", "everyday now", "so"]
TEXTS = st.lists(st.tuples(*[st.text("ab ßé", max_size=12)] * 2), max_size=6)


def test_words_by_hand() -> None:
    found = word_confusions(SAID, HEARD)
    wrong = found.most()
    assert wrong[:2] == [Confusion("", "uh", 2), Confusion("the", "a", 2)]
    assert sorted((w.said, w.heard, w.count) for w in wrong[2:]) in (
        [("day", "everyday", 1), ("every", "", 1)],
        [("day", "", 1), ("every", "everyday", 1)],
    )
    assert found.most(1) == wrong[:1] and found.spaces == 1
    assert found.said() == Counter(["the", "cat", "sat", "the", "hat", "every", "day", "now", "so"])
    assert found.missed() == {"the": 2, "every": 1, "day": 1}


def test_letters_by_hand() -> None:
    found = letter_confusions(["ab  ba", "b"], ["ab ca", "ba"])
    assert found.most() == [Confusion("", "a", 1), Confusion("b", "c", 1)]
    assert found.said() == {"a": 2, "b": 3, " ": 1} and found.missed() == {"b": 1}


@pytest.mark.parametrize(
    ("said", "heard", "runs"),
    [
        ("every day", "everyday", 1),
        ("everyday", "every day", 1),
        ("a b x c d", "ab x cd", 2),
        ("a b", "a c", 0),
        ("", "", 0),
    ],
)
def test_wrong_spaces(said: str, heard: str, runs: int) -> None:
    assert wrong_spaces(aligned_units(said.split(), heard.split())) == runs


@given(TEXTS)
def test_sums_are_those_of_the_error_rates(texts: list[tuple[str, str]]) -> None:
    said, heard = [a for a, _ in texts], [b for _, b in texts]
    for found, unit in ((word_confusions(said, heard), "word"), (letter_confusions(said, heard), "character")):
        counts = total(error_counts(said, heard, unit))
        wrong = found.most()
        assert sum(w.count for w in wrong if w.said and w.heard) == counts.substitutions
        assert sum(w.count for w in wrong if not w.heard) == counts.deletions
        assert sum(w.count for w in wrong if not w.said) == counts.insertions
        assert sum(found.said().values()) == counts.reference_length
        assert sum(found.missed().values()) == counts.substitutions + counts.deletions


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_an_alignment_holds_both_sides_and_is_that_of_jiwer(said: list[str], heard: list[str]) -> None:
    pairs = aligned_units(said, heard)
    assert [word for word, _ in pairs if word] == said and [word for _, word in pairs if word] == heard
    assert pairs == aligned_words(" ".join(said), " ".join(heard))


def test_lists_of_different_lengths_are_refused() -> None:
    for count in (letter_confusions, word_confusions):
        with pytest.raises(ValueError, match="2 references but 1 hypotheses; give one for each"):
            count(["a", "b"], ["a"])
