"""Error counts by hand and against a plain dynamic program; intervals against the normal approximation."""

import math
import random

import pytest

from quartznet.metrics import (
    ErrorCounts,
    aligned_words,
    bootstrap_interval,
    character_errors,
    error_counts,
    total,
    word_errors,
)


def edit_distance(first: list[str], second: list[str]) -> int:
    """Levenshtein's table, row by row."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        above = row
        row = [i]
        for j, right in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
    return row[-1]


def test_words_by_hand() -> None:
    # the cat sat down -> a cat sat on down: one substitution, one insertion
    assert word_errors("the cat sat down", "a cat sat on down") == ErrorCounts(1, 0, 1, 3, 4)
    assert word_errors("uno dos tres", "uno tres") == ErrorCounts(0, 1, 0, 2, 3)
    assert word_errors("uno dos", "uno dos").rate == 0.0


def test_characters_count_the_space() -> None:
    counts = character_errors("a b", "ab")
    assert counts == ErrorCounts(0, 1, 0, 2, 3)
    assert counts.rate == pytest.approx(1 / 3)
    assert character_errors("niño", "nino") == ErrorCounts(1, 0, 0, 3, 4)


def test_empty_texts() -> None:
    assert word_errors("", "") == ErrorCounts()
    assert word_errors("", "dos palabras") == ErrorCounts(insertions=2)
    assert word_errors("dos palabras", "") == ErrorCounts(deletions=2, reference_length=2)
    assert character_errors("", "abc") == ErrorCounts(insertions=3)
    assert word_errors("", "").rate == 0.0
    assert word_errors("", "x").rate == math.inf
    assert error_counts([], []) == []
    assert error_counts(["", "a", ""], ["b", "", ""]) == [
        ErrorCounts(0, 0, 1),
        ErrorCounts(0, 1, 0, 0, 1),
        ErrorCounts(),
    ]


def test_white_space_makes_no_difference() -> None:
    assert word_errors(" a\tb  c ", "a b c").errors == 0
    assert character_errors(" a\tb  c ", "a b c").errors == 0


@pytest.mark.parametrize("unit", ["word", "character"])
def test_equals_a_plain_dynamic_program(unit: str) -> None:
    choose = random.Random(0)
    texts = [" ".join(choose.choices(["a", "b", "ab", "c"], k=choose.randrange(7))) for _ in range(200)]
    references, hypotheses = texts[:100], texts[100:]
    split = str.split if unit == "word" else list
    for reference, hypothesis, counts in zip(
        references, hypotheses, error_counts(references, hypotheses, unit), strict=True
    ):
        assert counts.errors == edit_distance(split(reference), split(hypothesis))
        assert counts.reference_length == len(split(reference))
        assert counts.hits + counts.substitutions + counts.insertions == len(split(hypothesis))
        assert counts.hits + counts.substitutions + counts.deletions == counts.reference_length


def test_corpus_rate_is_the_rate_of_the_sums() -> None:
    counts = error_counts(["a", "a b c d e f g h i"], ["x", "a b c d e f g h i"])
    assert total(counts).rate == 0.1  # not the mean of 1 and 0
    assert total([]) == ErrorCounts()


def test_aligned_words() -> None:
    assert aligned_words("the cat sat", "a cat sat on") == [("the", "a"), ("cat", "cat"), ("sat", "sat"), ("", "on")]
    assert aligned_words("one two", "two") == [("one", ""), ("two", "two")]
    assert aligned_words("", "a b") == [("", "a"), ("", "b")]
    assert aligned_words("a", "") == [("a", "")]


def test_interval_of_equal_utterances_is_a_point() -> None:
    assert bootstrap_interval([ErrorCounts(1, 0, 0, 3, 4)] * 5) == (0.25, 0.25)


def test_interval_equals_the_normal_approximation() -> None:
    # 1000 words in utterances of one word, a fifth wrong: 0.2 +- 1.96 sqrt(0.2 0.8 / 1000)
    counts = [ErrorCounts(1, 0, 0, 0, 1)] * 200 + [ErrorCounts(0, 0, 0, 1, 1)] * 800
    low, high = bootstrap_interval(counts, resamples=4000)
    half = 1.96 * math.sqrt(0.2 * 0.8 / 1000)
    assert low == pytest.approx(0.2 - half, abs=0.0025)  # the quantiles of 4000 draws are themselves uncertain
    assert high == pytest.approx(0.2 + half, abs=0.0025)


def test_interval_repeats_with_its_seed() -> None:
    counts = error_counts(["a b", "c", "d e f"], ["a", "c", "d e x"])
    assert bootstrap_interval(counts, seed=3) == bootstrap_interval(counts, seed=3)


def test_interval_with_empty_references() -> None:
    assert bootstrap_interval([ErrorCounts()]) == (0.0, 0.0)
    assert bootstrap_interval([ErrorCounts(insertions=1)]) == (math.inf, math.inf)
    low, high = bootstrap_interval([ErrorCounts(insertions=1), ErrorCounts(hits=1, reference_length=1)])
    assert 0.0 <= low <= high < math.inf


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="2 references but 1 hypotheses"):
        error_counts(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="unit must be word or character, got 'syllable'"):
        error_counts(["a"], ["a"], "syllable")
    with pytest.raises(ValueError, match="no utterances"):
        bootstrap_interval([])
