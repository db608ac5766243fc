"""Rescoring by hand, weights that are found, and a network that is no help and therefore gets no weight."""

import math

import pytest
import torch

from quartznet.alphabet import Alphabet
from quartznet.beam import BeamSettings, Hypothesis, beam_search
from quartznet.rescore import Weights, count_words, heard, neural_scores, rescore, tune

ALPHABET = Alphabet(tuple(" abcdehimnost"))
START = Weights(alpha=0.5, beta=1.0)


def hypothesis(text: str, acoustic: float, language: float = 0.0, bonus: float = 0.0) -> Hypothesis:
    """As the beam search makes them with ``START``."""
    total = acoustic + 0.5 * language + len(text.split()) + bonus
    return Hypothesis(text, tuple(ALPHABET.encode(text)), acoustic, language, bonus, total)


class Dictionary:
    """Knows some texts; counts how many it is asked for."""

    def __init__(self, known: dict[str, float]) -> None:
        self.known, self.asked = known, []

    def score(self, texts: list[str]) -> list[float]:
        self.asked += texts
        return [self.known.get(text, -20.0) for text in texts]


NEAR_TIE = [hypothesis("the cat sat", -4.0, -9.0), hypothesis("the cat sad", -4.1, -9.0)]


def test_a_near_tie_is_turned_over() -> None:
    model = Dictionary({"the cat sat": -12.0, "the cat sad": -8.0})
    scores = neural_scores([NEAR_TIE], ALPHABET, model)
    [kept] = rescore([NEAR_TIE], scores, Weights(0.5, 1.0, gamma=0.0), ALPHABET)
    [turned] = rescore([NEAR_TIE], scores, Weights(0.5, 1.0, gamma=0.1), ALPHABET)
    assert [h.text for h in kept] == ["the cat sat", "the cat sad"]
    assert [h.text for h in turned] == ["the cat sad", "the cat sat"]
    assert turned[0].total == pytest.approx(-4.1 - 0.5 * 9 - 0.1 * 8 + 3)
    assert turned[0].acoustic == -4.1 and NEAR_TIE[0].total == kept[0].total


def test_every_term_by_hand() -> None:
    one = hypothesis("to be", -3.0, -5.0, bonus=2.0)
    [[found]] = rescore([[one]], [[-7.0]], Weights(alpha=0.3, beta=-1.5, gamma=0.25), ALPHABET)
    assert found.total == pytest.approx(-3.0 - 1.5 - 1.75 - 3.0 + 2.0)


def test_with_the_search_s_own_weights_and_no_network_its_order_stays() -> None:
    class Letters:
        """Every word costs its letters."""

        def start(self) -> int:
            return 0

        def score(self, state: int, word: str) -> tuple[float, int]:
            return -float(len(word)), state

        def end(self, state: int) -> float:
            return -1.0

        def knows(self, word: str) -> bool:
            return "a" not in word

        def vocabulary(self) -> None:
            return None

    log_probs = torch.randn(2, 6, ALPHABET.blank + 1).log_softmax(-1)
    nbest = beam_search(log_probs, torch.tensor([6, 5]), ALPHABET, BeamSettings(alpha=0.5, beta=1.0), Letters())
    again = rescore(nbest, [[-1.0] * len(row) for row in nbest], START, ALPHABET)
    for row, before in zip(again, nbest, strict=True):
        assert [h.text for h in row] == [h.text for h in before] and len(row) > 3
        assert [h.total for h in row] == pytest.approx([h.total for h in before])


def test_equal_totals_stay_in_order() -> None:
    row = [hypothesis("a", -1.0), hypothesis("b", -1.0), hypothesis("c", -1.0)]
    assert rescore([row], [[0.0] * 3], Weights(0.0, 0.0, 1.0), ALPHABET)[0][1].text == "b"


def test_equal_texts_are_asked_for_once_and_hot_words_as_they_were_heard() -> None:
    shown = Hypothesis("Tim's Cat", tuple(ALPHABET.encode("the cat")), -1.0, 0.0, 3.0, 3.0)
    model = Dictionary({"the cat": -2.0, "a": -1.0})
    nbest = [[shown, hypothesis("a", -3.0)], [hypothesis("a", -1.0)]]
    assert neural_scores(nbest, ALPHABET, model) == [[-2.0, -1.0], [-1.0]]
    assert model.asked == ["the cat", "a"]
    assert heard(shown, ALPHABET) == "the cat"
    assert rescore(nbest, [[-2.0, -1.0], [-1.0]], START, ALPHABET)[0][0].text == "Tim's Cat"


def test_words_of_an_alphabet_without_spaces_are_its_letters() -> None:
    assert count_words("to be", ALPHABET) == 2
    assert count_words("tobe", Alphabet(tuple("tobe"))) == 4


def test_scores_of_other_texts() -> None:
    with pytest.raises(ValueError, match="one neural score for each text"):
        rescore([NEAR_TIE], [[-1.0]], START, ALPHABET)
    with pytest.raises(ValueError, match="one neural score for each text"):
        tune([NEAR_TIE], [], ["the cat sat"], ALPHABET, START)


@pytest.mark.parametrize("wrong", [(-0.1, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, math.inf, 0.0), (math.nan, 0.0, 0.0)])
def test_impossible_weights(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="alpha and gamma must be 0 or more and beta finite"):
        Weights(*wrong)


# ---------------------------------------------------------------------------------------------------------------------
# Tuning

REFERENCES = ["the cat sad", "made it"]
NBEST = [NEAR_TIE, [hypothesis("made it", -2.0, -6.0), hypothesis("mad eit", -2.5, -6.0)]]
HELPFUL = [[-12.0, -8.0], [-5.0, -6.0]]


def test_a_helpful_network_gets_a_weight_that_mends_dev() -> None:
    tuning = tune(NBEST, HELPFUL, REFERENCES, ALPHABET, START)
    assert tuning.weights.gamma > 0
    assert (tuning.before.errors, tuning.after.errors, tuning.oracle.errors) == (1, 0, 0)
    again = rescore(NBEST, HELPFUL, tuning.weights, ALPHABET)
    assert [row[0].text for row in again] == REFERENCES
    assert dict(tuning.surface)[START] == 1 and dict(tuning.surface)[tuning.weights] == 0
    shown = str(tuning)
    assert "WER 20.00 % -> 0.00 % on dev" in shown and "gamma, 0: 1, 0.25: 0" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_of_weights_that_do_as_well_the_least_gamma_is_taken() -> None:
    gamma = tune(NBEST, HELPFUL, REFERENCES, ALPHABET, START).weights.gamma
    assert 0 < gamma < 0.25  # 0.025 would do, the first grid has 0.25


def test_a_network_that_is_no_help_gets_no_weight() -> None:
    misled = [[-8.0, -12.0], [-6.0, -5.0]]
    tuning = tune(NBEST, misled, REFERENCES, ALPHABET, START)
    assert tuning.weights == START and tuning.after == tuning.before


def test_what_other_weights_without_it_mend_too_is_not_its_merit() -> None:
    row = [hypothesis("to be at", -2.0, -6.0), hypothesis("to beat", -2.9, -6.0)]  # beta 0 would mend it
    tuning = tune([row], [[-9.0, -5.0]], ["to beat"], ALPHABET, START)
    assert min(errors for weights, errors in tuning.surface if weights.gamma == 0) == 0
    assert tuning.weights == START and tuning.after.errors == 2


def test_lists_of_different_lengths_and_lists_without_a_language_model() -> None:
    nbest = [[hypothesis("the cat sat", -4.0), hypothesis("the cat sad", -4.1)], [hypothesis("made it", -900.0)]]
    tuning = tune(nbest, [[-12.0, -8.0], [-50.0]], REFERENCES, ALPHABET, START)
    assert tuning.after.errors == 0
    assert {weights.alpha for weights, _ in tuning.surface} == {START.alpha}  # there is nothing to weigh


@pytest.mark.parametrize(
    ("nbest", "references"), [([], []), (NBEST, REFERENCES[:1]), ([NEAR_TIE, []], REFERENCES)], ids=range(3)
)
def test_nothing_to_tune_on(nbest: list, references: list[str]) -> None:
    with pytest.raises(ValueError, match="tuning needs texts and a reference for each utterance"):
        tune(nbest, [[0.0] * len(row) for row in nbest], references, ALPHABET, START)
