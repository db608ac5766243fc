"""Perplexity by hand."""

import math
from pathlib import Path

import pytest

from quartznet.arpa import read_arpa
from quartznet.perplexity import Perplexity, perplexity

ARPA = "\\data\\\nngram 1=5\n\n\\1-grams:\n-2\t<unk>\n0\t<s>\n-0.5\t</s>\n-0.25\ta\n-1\tb\n\n\\end\\\n"


@pytest.fixture
def model(tmp_path: Path) -> object:
    (tmp_path / "a.arpa").write_text(ARPA)
    return read_arpa(tmp_path / "a.arpa")


def test_by_hand(model: object) -> None:
    result = perplexity(model, ["a b", "x a", ""])
    log10 = [-0.25, -1, -0.5, -2, -0.25, -0.5, -0.5]
    assert (result.sentences, result.words, result.unknown, result.unknown_share) == (3, 4, 1, 0.25)
    assert result.of_all == pytest.approx(10 ** (-sum(log10) / 7))
    assert result.of_known == pytest.approx(10 ** (3 / 6))


def test_table() -> None:
    lines = Perplexity(1000, 12345, 123, -13345 * math.log(200), -123 * math.log(9000)).table().split("\n")
    assert lines == [
        "1,000 sentences, 12,345 words, 1.00% of them not in the model",
        "perplexity 200.0, of known words 193.0",
    ]


def test_a_model_that_gives_nothing_a_chance() -> None:
    assert Perplexity(1, 1, 0, -3000.0, 0.0).of_all == math.inf == Perplexity(1, 1, 0, -3000.0, 0.0).of_known


def test_nothing_to_measure(model: object) -> None:
    with pytest.raises(ValueError, match="no sentence to measure perplexity on"):
        perplexity(model, [])
