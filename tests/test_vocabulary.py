"""The tree that grows where it is asked, against looking through all words."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet.vocabulary import Vocabulary

LABELS = " aäb"
WORDS = st.dictionaries(st.text("aäb", min_size=1, max_size=4), st.floats(-20, 0), min_size=1, max_size=12)


@settings(deadline=None)
@given(WORDS, st.floats(-20, 5) | st.none(), st.text("aäb", max_size=5))
def test_a_branch_knows_the_best_word_in_it(scores: dict[str, float], unknown: float | None, text: str) -> None:
    vocabulary = Vocabulary(scores, unknown, -0.5, LABELS)
    branch, product, low = vocabulary.root, 1.0, 0.0
    for count, letter in enumerate(text, 1):
        before = branch
        factor, branch = vocabulary.below(branch, LABELS.index(letter))
        assert (factor, branch) == vocabulary.below(before, LABELS.index(letter))
        product *= factor
        low = max(low, math.log(factor)) if factor else low
        inside = [score for word, score in scores.items() if word.startswith(text[:count])]
        if not inside and unknown is None:
            assert product == 0.0
            return
        best = max(inside) if inside else unknown - 0.5 * count
        assert branch.best == best and product == pytest.approx(math.exp(best - vocabulary.root.best))
    assert low <= vocabulary.largest_step + 1e-12


def test_outside_there_is_no_way_back() -> None:
    vocabulary = Vocabulary({"ab": -1.0, "b": -3.0}, -7.0, -0.5, LABELS)
    factor, outside = vocabulary.below(vocabulary.root, LABELS.index("ä"))
    assert factor == pytest.approx(math.exp(-6.5))
    for label in range(len(LABELS)):
        factor, further = vocabulary.below(outside, label)
        assert (factor, further.best) == (pytest.approx(math.exp(-0.5)), -8.0)
