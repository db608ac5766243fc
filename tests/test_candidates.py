"""Texts in, texts out: what is left as it is, what equal texts are, how probable a given text is."""

import logging
from pathlib import Path

import pytest
import torch
from tiny_bert import learnt_corrector, tiny_config, tiny_corrector, tiny_tokenizer

from postcorrect.candidates import candidates, log_probs
from postcorrect.model import Corrector
from postcorrect.search import SearchSettings

TEXTS = ["don't", "the country's", "", "a b c", "Don't", "the " * 100, "the country's", "señor"]


@pytest.fixture
def corrector(tmp_path: Path) -> Corrector:
    return tiny_corrector(tiny_config(positions=40), tiny_tokenizer(tmp_path))


def test_what_cannot_be_corrected_comes_back_and_is_counted(
    corrector: Corrector, caplog: pytest.LogCaptureFixture
) -> None:
    found = corrector.correct(TEXTS)
    assert [text == TEXTS[place] for place, text in enumerate(found) if place in (2, 4, 5, 7)] == [True] * 4
    assert all(found[place] != TEXTS[place] for place in (0, 1, 3)) and found[1] == found[6]
    [message] = [record.getMessage() for record in caplog.records]
    expected = "4 of 7 texts stay as they are: 1 empty, 1 of more than 40 tokens, 2 that the vocabulary cannot write"
    assert message == expected


def test_nothing_is_said_where_all_can_be_corrected(corrector: Corrector, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert len(corrector.correct(["a", "b"])) == 2 and corrector.correct([]) == []
        assert candidates(corrector, ["", "Don't"], tell=False) == [[], []]
    assert not caplog.records


@pytest.mark.parametrize("tokens", [1, 9, 4096])
def test_batches_change_nothing(corrector: Corrector, tokens: int) -> None:
    options = SearchSettings(3, extra_tokens=4, count=3)
    together = candidates(corrector, TEXTS, options, tokens)
    for text, found in zip(TEXTS, together, strict=True):
        alone = candidates(corrector, [text], options)[0]
        assert [one.text for one in found] == [one.text for one in alone]
        assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in alone], abs=1e-3)
        assert len({one.text for one in found}) == len(found)


def test_a_probability_by_hand(corrector: Corrector) -> None:
    tokenizer = corrector.tokenizer
    sources, texts = ["don't", "the country's a", "b"], ["a", "the don't", ""]
    found = log_probs(corrector.train(), sources, texts, batch=2)
    assert corrector.training
    corrector.eval()
    for source, text, value in zip(sources, texts, found, strict=True):
        [ids], [target] = tokenizer.ids([source]), tokenizer.ids([text])
        with torch.no_grad():
            mask = torch.ones(1, len(ids), dtype=torch.bool)
            logits = corrector(torch.tensor([ids]), mask, torch.tensor([target]))[0]
        expected = sum(float(logits[place].log_softmax(-1)[token]) for place, token in enumerate(target[1:]))
        assert value == pytest.approx(expected, abs=1e-3)


def test_it_learns_four_corrections_by_heart(tmp_path: Path) -> None:
    """End to end: a random network, ordinary cross-entropy, then texts through the search."""
    pairs = {"the contry": "the country's", "dont worry": "don't worry", "a b": "a b", "mother in low": "mother-in-law"}
    corrector = learnt_corrector(pairs, tiny_tokenizer(tmp_path), steps=60, positions=40)
    assert corrector.correct(list(pairs)) == list(pairs.values())


def test_bad_input_is_named(corrector: Corrector) -> None:
    with pytest.raises(TypeError, match=r"got one text; put it into brackets: \['the contry'\]"):
        corrector.correct("the contry")
    with pytest.raises(ValueError, match="there must be a text for each source, got 1 for 2"):
        log_probs(corrector, ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="text 1 of 1 has 102 tokens, more than 40"):
        log_probs(corrector, ["the " * 100], ["a"])
    for reads_texts in (lambda: candidates(tiny_corrector(), ["a"]), lambda: log_probs(tiny_corrector(), ["a"], ["a"])):
        with pytest.raises(ValueError, match=r"this corrector has no tokenizer, so it reads no texts"):
            reads_texts()
