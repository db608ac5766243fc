"""pyctcdecode with our alphabet, where it is installed; and what is said where it is not."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny_lm import arpa
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.beam import BeamSettings, beam_search
from quartznet.hotwords import HotWord, HotWords
from quartznet.pyctc import PyctcDecoder

ARPA = arpa({"a": -0.8, "ab": -0.9, "b": -0.7}, {"<s> ab": -0.2, "ab b": -0.1, "b </s>": -0.3})


@pytest.fixture
def installed() -> None:
    for name in ("pyctcdecode", "kenlm"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; pip install 'quartznet[lm]' to run this test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyctcdecode  # noqa: F401


def spoken(text: str, alphabet: Alphabet) -> Tensor:
    logits = torch.zeros(1, 2 * len(text), alphabet.blank + 1)
    for place, label in enumerate(alphabet.encode(text)):
        logits[0, 2 * place, label] = logits[0, 2 * place + 1, alphabet.blank] = 6.0
    return logits.log_softmax(-1)


@pytest.mark.parametrize("labels", [(" ", "a", "_"), ("_", "|", "a"), ("▁", " ", "a"), ("a", "'", " ")])
def test_labels_are_letters_and_nothing_else(installed: None, labels: tuple[str, ...]) -> None:
    alphabet = Alphabet(labels)
    text = "".join(label for label in labels if label != " ") + "a"
    text = f"{text} {text}" if " " in labels else text
    log_probs = spoken(text, alphabet)
    found = PyctcDecoder(alphabet, BeamSettings(beam=8, count=2))(log_probs, torch.tensor([log_probs.shape[1]]))
    assert found[0][0][0] == text
    assert PyctcDecoder(alphabet, BeamSettings())(log_probs, torch.tensor([0])) == [[("", 0.0)]]


def test_totals_equal_ours(installed: None, tmp_path: Path) -> None:
    from quartznet.arpa import read_arpa

    path, alphabet = tmp_path / "tiny.arpa", Alphabet((" ", "a", "b"))
    path.write_text(ARPA)
    log_probs = spoken("ab b", alphabet)
    chosen = BeamSettings(beam=100)  # a space at the end, less probable here, it takes for one word more
    lengths = torch.tensor([log_probs.shape[1]])
    theirs = PyctcDecoder(alphabet, chosen, path)(log_probs, lengths)[0]
    ours = beam_search(log_probs, lengths, alphabet, chosen, read_arpa(path))[0]
    assert theirs[0][0] == ours[0].text == "ab b"
    assert theirs[0][1] == pytest.approx(ours[0].total, abs=1e-4)


def test_hot_words(installed: None) -> None:
    alphabet = Alphabet((" ", "a", "b"))
    log_probs = spoken("ab", alphabet)
    log_probs[0, 2] = torch.tensor([1e-3, 0.5, 0.45, 0.049]).log()
    words = HotWords([HotWord("ab", 8.0, ("ab",), False)], alphabet)
    lengths = torch.tensor([4])
    assert PyctcDecoder(alphabet, BeamSettings())(log_probs, lengths)[0][0][0] == "aa"
    assert PyctcDecoder(alphabet, BeamSettings(), hotwords=words)(log_probs, lengths)[0][0][0] == "ab"


def test_no_file(installed: None, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no language model"):
        PyctcDecoder(Alphabet(("a",)), BeamSettings(), tmp_path / "none.arpa")


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ImportError, match=r"kenlm is not installed; run pip install 'quartznet\[lm\]'"):
        PyctcDecoder(Alphabet(("a",)), BeamSettings())


def test_what_it_does_not_have() -> None:
    alphabet = Alphabet(("a", "b"))
    with pytest.raises(ValueError, match="pyctcdecode has no closed vocabulary"):
        PyctcDecoder(alphabet, BeamSettings(closed=True))
    words = HotWords([HotWord("a", 1.0, ("a",), False), HotWord("b", 2.0, ("b",), False)], alphabet)
    with pytest.raises(ValueError, match="pyctcdecode has one weight for all hot words, got 2"):
        PyctcDecoder(alphabet, BeamSettings(), hotwords=words)
