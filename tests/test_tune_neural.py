"""quartznet.tune_neural: a judge that knows the words is used, one that does not, or was lucky once, is not."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from test_tune_lm import ALPHABET, SETTINGS, Unigram, clips

from quartznet.metrics import total
from quartznet.rescore import Weights
from quartznet.tune_lm import Clips, greedy_errors, search
from quartznet.tune_neural import NeuralTuning, neural_verdict, tune_neural

EVEN = Unigram({"ab": -1.0, "ac": -1.0, "c": -1.0})  # cannot tell "ab c" from "ac c"


class Judge:
    """Knows one text; all others are e^-9."""

    def __init__(self, text: str) -> None:
        self.text = text

    def score(self, texts: Sequence[str]) -> list[float]:
        return [0.0 if text == self.text else -9.0 for text in texts]


def tuned(judge: Judge, dev: Clips) -> NeuralTuning:
    without = search(dev, ALPHABET, SETTINGS, EVEN)
    return tune_neural(dev, ALPHABET, SETTINGS, EVEN, judge, without)


def test_a_judge_that_knows_the_words_is_used() -> None:
    told: list[tuple[int, int]] = []
    dev = clips("ac c")
    without = search(dev, ALPHABET, SETTINGS, EVEN)
    found = tune_neural(dev, ALPHABET, SETTINGS, EVEN, Judge("ac c"), without, lambda *done: told.append(done))
    assert total(found.without).rate == 0.5 and total(found.chosen).rate == 0.0
    assert found.helps and found.sureness == 1.0 and found.found.weights.gamma > 0
    assert told == [(8, 12), (12, 12)]
    shown = neural_verdict(found)
    assert "50.00 %, with it 0.00 %" in shown and shown.endswith("it is used")
    assert max(map(len, shown.splitlines())) <= 80


def test_without_an_n_gram_there_is_no_alpha() -> None:
    dev = clips("ac c")
    found = tune_neural(dev, ALPHABET, SETTINGS, None, Judge("ac c"), greedy_errors(dev, ALPHABET))
    assert found.helps and found.found.weights.alpha == 0.0


def test_a_judge_of_other_words_is_not_asked() -> None:
    found = tuned(Judge("b b"), clips("ab c"))
    assert not found.helps and found.found.weights == Weights(SETTINGS.alpha, SETTINGS.beta, 0.0)
    assert neural_verdict(found).endswith("it is not asked") and "fewer errors" in neural_verdict(found)


def test_one_lucky_clip_is_not_enough() -> None:
    mixed = Clips(("ac c", *("ab c",) * 5), clips("ab c", 6).log_probs)
    found = tuned(Judge("ac c"), mixed)
    assert not found.helps
    unsure = replace(tuned(Judge("ac c"), clips("ac c")), sureness=0.9)
    assert not unsure.helps and "95 are needed" in neural_verdict(unsure)
    assert max(map(len, neural_verdict(unsure).splitlines())) <= 80


def test_a_judge_without_a_letter() -> None:
    class Foreign(Judge):
        def score(self, texts: Sequence[str]) -> list[float]:
            raise ValueError("this language model (ru) has no 'a'")

    with pytest.raises(ValueError, match="has no 'a'"):
        tuned(Foreign(""), clips("ac c"))
