"""Beam search against the sum over every path of every text, by hand, and at its edges."""

import math
from collections.abc import Iterable

import pytest
import torch
from enumeration import text_probabilities
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import TinyBigram
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.beam import BeamDecoder, BeamSettings, Hypothesis, beam_search
from quartznet.ctc import greedy_decode
from quartznet.hotwords import HotWord, HotWords
from quartznet.nbest import nbest

ALPHABET = Alphabet((" ", "a", "b"))
BIGRAM = TinyBigram(
    {"a": -1.0, "ab": -2.0, "b": -1.5},
    {("<s>", "ab"): -0.2, ("a", "b"): -0.1, ("b", "<unk>"): -3.0, ("ab", "</s>"): -4.0},
)
EVERYTHING = BeamSettings(
    beam=10_000,
    count=100_000,
    alpha=0.7,
    beta=0.4,
    unknown=-0.9,
    unknown_letter=-0.2,
    label_threshold=-math.inf,
    beam_threshold=-math.inf,
)


def one(
    log_probs: Tensor,
    alphabet: Alphabet = ALPHABET,
    chosen: BeamSettings = EVERYTHING,
    scorer: TinyBigram | None = None,
    hotwords: HotWords | None = None,
) -> list[Hypothesis]:
    """The texts of one utterance (time, labels + 1)."""
    return beam_search(log_probs.unsqueeze(0), torch.tensor([len(log_probs)]), alphabet, chosen, scorer, hotwords)[0]


def hot(*entries: tuple[str, float], alphabet: Alphabet = ALPHABET) -> HotWords:
    return HotWords([HotWord(text, weight, (text,), False) for text, weight in entries], alphabet)


def spoken(text: str, alphabet: Alphabet = ALPHABET, sure: float = 5.0) -> Tensor:
    """log_probs (2 len(text), labels + 1) in which each letter and a blank after it are probable."""
    logits = torch.zeros(2 * len(text), alphabet.blank + 1)
    for place, label in enumerate(alphabet.encode(text)):
        logits[2 * place, label] = logits[2 * place + 1, alphabet.blank] = sure
    return logits.log_softmax(-1)


def occurrences(text: str, phrase: str, has_space: bool) -> int:
    """How often, as whole words where there are spaces; overlapping ones too."""
    where, what = (f" {text} ", f" {phrase} ") if has_space else (text, phrase)
    return sum(where.startswith(what, place) for place in range(len(where)))


def exhaustive(
    logits: Tensor,
    alphabet: Alphabet,
    scorer: TinyBigram | None,
    phrases: Iterable[tuple[str, float]],
    chosen: BeamSettings = EVERYTHING,
) -> dict[str, tuple[float, float, float, float]]:
    """Text -> acoustic, language, bonus, total: the definition, without any search."""
    has_space = " " in alphabet.labels
    sums: dict[str, float] = {}
    for ids, probability in text_probabilities(logits, alphabet.blank).items():
        text = alphabet.decode(ids)
        text = " ".join(text.split()) if has_space else text
        sums[text] = sums.get(text, 0.0) + probability
    hot_words = {word for phrase, _ in phrases for word in (phrase.split() if has_space else phrase)}
    found = {}
    for text, probability in sums.items():
        words = text.split() if has_space else list(text)
        if chosen.closed and not all(scorer.knows(word) or word in hot_words for word in words):
            continue
        language = scorer.sentence(words) if scorer else 0.0
        bonus = sum(weight * occurrences(text, phrase, has_space) for phrase, weight in phrases)
        if scorer:
            unknown = [word for word in words if not scorer.knows(word) and word not in hot_words]
            bonus += chosen.unknown * len(unknown) + chosen.unknown_letter * len("".join(unknown))
        weighed = chosen.alpha * language + chosen.beta * len(words) if scorer else 0.0
        found[text] = (math.log(probability), language, bonus, math.log(probability) + weighed + bonus)
    return found


def assert_equal(found: list[Hypothesis], expected: dict[str, tuple[float, float, float, float]]) -> None:
    assert {each.text for each in found} == set(expected) and len(found) == len(expected)
    for each in found:
        scores = (each.acoustic, each.language, each.bonus, each.total)
        assert scores == pytest.approx(expected[each.text], rel=1e-9, abs=1e-9)
    assert [each.total for each in found] == sorted((each.total for each in found), reverse=True)


# ---------------------------------------------------------------------------------------------------------------------
# Against enumeration

WEIGHTS = st.floats(-3, 8).map(lambda value: round(value, 2))
PHRASES = st.dictionaries(st.sampled_from(["a", "b", "ab", "a b", "b a", "aa", "b ab", "a b a"]), WEIGHTS, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), PHRASES, st.booleans(), st.booleans())
def test_every_text_has_its_score(
    seed: int, frames: int, phrases: dict[str, float], has_scorer: bool, closed: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(frames, 4, generator=generator, dtype=torch.float64)
    scorer = BIGRAM if has_scorer else None
    chosen = BeamSettings(**{**vars(EVERYTHING), "closed": closed and has_scorer})
    found = one(logits.log_softmax(-1), ALPHABET, chosen, scorer, hot(*phrases.items()) if phrases else None)
    assert_equal(found, exhaustive(logits, ALPHABET, scorer, list(phrases.items()), chosen))


@pytest.mark.parametrize("labels", [("_", "'"), ("'", "_", " "), ("a", " ", "b"), ("x",)])
@pytest.mark.parametrize("has_scorer", [False, True])
def test_alphabets_of_any_kind(labels: tuple[str, ...], has_scorer: bool) -> None:
    alphabet = Alphabet(labels)
    logits = torch.randn(5, len(labels) + 1, dtype=torch.float64)
    scorer = TinyBigram({"_": -1.0, "a": -2.0, "x": -0.5}, {("_", "_"): -0.3}) if has_scorer else None
    letter = next(label for label in labels if label != " ")
    phrases = [(letter * 2, 1.5), (letter, -0.5)]
    found = one(logits.log_softmax(-1), alphabet, EVERYTHING, scorer, hot(*phrases, alphabet=alphabet))
    assert_equal(found, exhaustive(logits, alphabet, scorer, phrases))


def test_without_spaces_each_letter_is_a_word() -> None:
    alphabet = Alphabet(("北", "京", "背"))
    scorer = TinyBigram({"北": -2.0, "京": -2.0, "背": -1.9}, {("北", "京"): -0.1})
    logits = torch.tensor([[1.0, 0, 1.1, 0], [0, 0, 0, 5.0], [0, 4.0, 0, 0]])
    assert one(logits.log_softmax(-1), alphabet)[0].text == "背京"
    best = one(logits.log_softmax(-1), alphabet, EVERYTHING, scorer)[0]
    assert best.text == "北京" and best.language == pytest.approx(-2.0 - 0.1 + math.log(0.3))


# ---------------------------------------------------------------------------------------------------------------------
# By hand


def test_spaces_at_the_ends_and_double_ones_are_no_text() -> None:
    path = [0, 3, 1, 0, 3, 0, 2, 0]  # space, blank, a, space, blank, space, b, space
    log_probs = torch.full((8, 4), -math.inf)
    log_probs[torch.arange(8), path] = 0.0
    assert one(log_probs) == [Hypothesis("a b", (1, 0, 2), 0.0, 0.0, 0.0, 0.0)]
    assert one(log_probs[:2]) == [Hypothesis("", (), 0.0, 0.0, 0.0, 0.0)]


def test_the_language_model_decides_what_the_sound_leaves_open() -> None:
    log_probs = spoken("a b")
    log_probs[4, 1:3] = torch.tensor([0.51, 0.49]).log()
    assert one(log_probs)[0].text == "a a"
    best = one(log_probs, scorer=BIGRAM)[0]
    assert best.text == "a b" and best.language == pytest.approx(-1.0 - 0.1 + math.log(0.3))
    assert best.total == pytest.approx(best.acoustic + 0.7 * best.language + 0.4 * 2)


def test_a_hot_word_wins_a_near_tie_and_a_negative_one_loses_it() -> None:
    log_probs = spoken("ab ab")
    log_probs[2, 1:3] = torch.tensor([0.7, 0.3]).log()  # a, b
    assert one(log_probs)[0].text == "aa ab"
    assert one(log_probs, hotwords=hot(("ab ab", 2.0)))[0].text == "ab ab"
    assert one(log_probs, hotwords=hot(("aa", -2.0)))[0].text == "ab ab"
    assert one(log_probs, hotwords=hot(("ab ab ab", 9.0)))[0].text == "aa ab"  # begun, not completed


def test_credit_is_given_back_where_the_spelling_fails() -> None:
    log_probs = spoken("ab b", sure=9.0)
    plain, boosted = one(log_probs)[0], one(log_probs, hotwords=hot(("ab ba", 5.0), ("bb", 4.0)))[0]
    assert (boosted.text, boosted.bonus) == ("ab b", 0.0)
    assert boosted.total == pytest.approx(plain.total)


def test_a_spoken_form_is_written_as_the_phrase() -> None:
    words = HotWords([HotWord("A&B", 1.0, ("a b",), True)], ALPHABET)
    best = one(spoken("a a b b"), hotwords=words)[0]
    assert best.text == "a A&B b" and ALPHABET.decode(best.ids) == "a a b b" and best.bonus == 1.0


def test_an_unknown_word_costs_unless_it_is_hot() -> None:
    log_probs = spoken("ba")
    costs = {each.text: each.bonus for each in one(log_probs, scorer=BIGRAM)}
    assert costs["ba"] == pytest.approx(-0.9 - 2 * 0.2) and costs["ab"] == 0.0
    costs = {each.text: each.bonus for each in one(log_probs, scorer=BIGRAM, hotwords=hot(("ba", 3.0)))}
    assert costs["ba"] == 3.0


# ---------------------------------------------------------------------------------------------------------------------
# Closed vocabulary


def closed(**changes: float) -> BeamSettings:
    return BeamSettings(**{"closed": True, "unknown": 0.0, "unknown_letter": 0.0, **changes})


def test_a_closed_vocabulary_writes_its_words_only() -> None:
    assert one(spoken("bb a"), ALPHABET, closed(), BIGRAM)[0].text in ("b a", "ab a")
    assert one(spoken("bb a"), ALPHABET, closed(), BIGRAM, hot(("bb", 1.0)))[0].text == "bb a"


def test_a_closed_vocabulary_finds_a_way_where_nothing_fits() -> None:
    only = TinyBigram({"ab": -1.0})
    certain = torch.full((3, 4), -math.inf)
    certain[:, 2] = 0.0  # "b", for certain
    best = one(certain, ALPHABET, closed(), only)[0]
    assert best.text == "" and math.isfinite(best.total)
    assert one(spoken("ab a"), ALPHABET, closed(beam=1), only)[0].text == "ab"  # breaks off within a word


def test_a_closed_vocabulary_needs_words_that_can_be_listed_and_written() -> None:
    for scorer in (None, TinyBigram({"a": -1.0}, can_list=False)):
        with pytest.raises(ValueError, match="a closed vocabulary needs a language model that can list its words"):
            one(spoken("a"), ALPHABET, closed(), scorer)
    with pytest.raises(ValueError, match="no word of the language model can be written"):
        one(spoken("a"), ALPHABET, closed(), TinyBigram({"ДОМ": -1.0}))
    assert one(spoken("a"), ALPHABET, closed(), TinyBigram({"дом": -1.0, "a": -1.0}))[0].text == "a"


# ---------------------------------------------------------------------------------------------------------------------
# Invariants


def test_without_anything_it_is_the_plain_search() -> None:
    logits = 3 * torch.randn(30, 5)
    alphabet = Alphabet(("a", "b", "c", "d"))
    chosen = BeamSettings(beam=8, count=8, label_threshold=-math.inf, beam_threshold=-math.inf)
    found = one(logits.log_softmax(-1), alphabet, chosen)
    expected = nbest(logits.log_softmax(-1)[None], torch.tensor([30]), 4, 8, 8)[0]
    assert [(list(each.ids), each.total) for each in found] == [(ids, pytest.approx(score)) for ids, score in expected]


def test_batch_equals_alone_and_padding_is_not_read() -> None:
    log_probs = (3 * torch.randn(70, 20, 4)).log_softmax(-1)  # more than are made ready at once
    lengths = torch.arange(70) % 21
    padded = torch.where(torch.arange(20)[None, :, None] < lengths[:, None, None], log_probs, math.nan)
    decoder = BeamDecoder(ALPHABET, BeamSettings(), BIGRAM, hot(("a b", 3.0)))
    together = decoder(padded, lengths)
    assert together == [decoder(row[None], lengths[i : i + 1])[0] for i, row in enumerate(log_probs)]
    assert together[0] == [Hypothesis("", (), 0.0, pytest.approx(math.log(0.3)), 0.0, pytest.approx(math.log(0.3) / 2))]


def test_runs_of_certain_frames_change_nothing() -> None:
    sharp = spoken("ab a bb", sure=12.0)
    stretched = sharp.repeat_interleave(4, dim=0)
    chosen = BeamSettings(label_threshold=-8.0, unknown=0.0, unknown_letter=0.0)
    short, long = one(sharp, ALPHABET, chosen, BIGRAM)[0], one(stretched, ALPHABET, chosen, BIGRAM)[0]
    assert long.ids == short.ids and long.acoustic == pytest.approx(4 * short.acoustic, abs=1e-6)
    exact = BeamSettings(label_threshold=-math.inf, beam_threshold=-math.inf, unknown=0.0, unknown_letter=0.0)
    assert long.total == pytest.approx(one(stretched, ALPHABET, exact, BIGRAM)[0].total, abs=1e-3)


def test_the_best_of_a_sure_network_is_the_greedy_text() -> None:
    log_probs = spoken("ab a bb", sure=9.0)[None].repeat(3, 1, 1)
    lengths = torch.tensor([14, 4, 0])
    found = beam_search(log_probs, lengths, ALPHABET, BeamSettings())
    assert [texts[0].text for texts in found] == greedy_decode(log_probs, lengths, ALPHABET)


def test_count_is_the_head_of_the_list_and_words_are_scored_once() -> None:
    log_probs = (2 * torch.randn(12, 4)).log_softmax(-1)
    assert one(log_probs, chosen=BeamSettings(count=3)) == one(log_probs, chosen=BeamSettings(count=64))[:3]
    scorer = TinyBigram({"a": -1.0})
    decoder = BeamDecoder(ALPHABET, BeamSettings(), scorer)
    decoder(log_probs[None], torch.tensor([12]))
    asked = scorer.asked
    decoder(log_probs[None], torch.tensor([12]))
    assert 0 < asked == scorer.asked


def test_long_words_and_steep_scores() -> None:
    log_probs = spoken("ab" * 300, sure=9.0)
    steep = TinyBigram({"b": -1.0}, unknown=-math.inf)
    assert one(log_probs, ALPHABET, BeamSettings(), steep)[0].text == "ab" * 300
    assert math.isfinite(one(log_probs, ALPHABET, BeamSettings(alpha=0.0), steep)[0].total)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam": 0}, "beam and count must be at least 1, got 0 and 10"),
        ({"count": 0}, "beam and count must be at least 1, got 64 and 0"),
        ({"beam": 10_001}, "a beam holds 10,000 texts at most, got 10,001; lower it, hundreds find as much"),
        ({"alpha": -1.0}, "alpha must be 0 or more, unknown_letter 0 or less, beta .* alpha -1"),
        ({"unknown": -math.inf}, "beta and unknown finite, got .* unknown -inf"),
        ({"unknown_letter": 1.0}, "unknown_letter 0 or less, .* unknown_letter 1"),
        ({"look_ahead": 2.0}, "look_ahead is a part, from 0 to 1, got 2"),
        ({"beam_threshold": 1.0}, "thresholds are logarithms, at most 0"),
        ({"label_threshold": math.nan}, "thresholds are logarithms, at most 0"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSettings(**changes)


def test_weights_beyond_all_numbers() -> None:
    log_probs, nested = torch.zeros(5, 4).log_softmax(-1), [" ".join("a" * count) for count in range(1, 12)]
    hot = HotWords([HotWord(text, 100.0, (text,), False) for text in nested], ALPHABET)
    with pytest.raises(ValueError, match="hot words that end together, are too large to count with; lower them"):
        one(log_probs, ALPHABET, BeamSettings(), None, hot)
    with pytest.raises(ValueError, match=r"alpha 0\.5, beta 1000, back-off weights"):
        one(log_probs, ALPHABET, BeamSettings(beta=1000.0), TinyBigram({"b": -1.0}))


def test_log_probs_of_another_network() -> None:
    with pytest.raises(ValueError, match=r"log_probs must be \(batch, time, 4\): the alphabet has 3 labels"):
        one(torch.zeros(2, 5).log_softmax(-1))
    with pytest.raises(ValueError, match="utterance 0 has no probable label in frame 1"):
        one(torch.tensor([[0.0] * 4, [math.nan] * 4]))
    with pytest.raises(ValueError, match=r"need a length from 0 to 4 each, got \[5\]"):
        beam_search(torch.zeros(1, 4, 4).log_softmax(-1), torch.tensor([5]), ALPHABET, BeamSettings())
