"""quartznet.decoding: options become the texts that they ask for, with custom words and second looks."""

import argparse
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from quartznet.beam import BeamSettings
from quartznet.config import BlockConfig, ModelConfig
from quartznet.decoding import (
    Heard,
    add_options,
    check_options,
    choose_decode,
    described,
    in_time,
    shown_words,
)
from quartznet.letter_lm import LetterLm
from quartznet.model import QuartzNet
from quartznet.ngram import build_model
from quartznet.rescore import Weights
from quartznet.subtitles import srt
from quartznet.text import find_language
from quartznet.transformer_xl import TransformerConfig
from quartznet.tuned import Tuned, TunedNeural, file_hash, network_hash, save_tuned
from quartznet.words import Word


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    parsed = parser.parse_args(words)
    check_options(parsed)
    return parsed


def small_model() -> QuartzNet:
    torch.manual_seed(0)
    config = ModelConfig(tuple(" abcd"), (BlockConfig(8, 5, stride=2), BlockConfig(8, 1, separable=False)))
    return QuartzNet(config).eval()


def heard(text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """log_probs (1, time, 6) of a text, a blank behind each letter."""
    rows = torch.full((2 * len(text), 6), 0.002)
    for place, letter in enumerate(text):
        rows[2 * place, " abcd".index(letter)] = rows[2 * place + 1, 5] = 0.99
    return rows.log()[None], torch.tensor([len(rows)])


def test_what_was_asked_for_is_told() -> None:
    assert described(options()) == "greedy"
    assert described(options("--lm", "x.arpa", "--beta", "0", "--closed")) == "--lm x.arpa --beta 0.0 --closed"


def test_without_options_it_is_greedy() -> None:
    assert choose_decode(options(), small_model(), None) == (None, [])


@pytest.mark.parametrize("more", [[], ["--beam", "8"]])
def test_custom_words_with_and_without_a_beam(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "words.txt").write_text("A&B\t8\tab\n", encoding="utf-8")
    decode, entries = choose_decode(options("--hotwords", str(tmp_path / "words.txt"), *more), small_model(), None)
    assert [entry.phrase for entry in entries] == ["A&B"]
    assert decode(*heard("ab cd")) == [Heard("ab cd", "A&B cd")]
    [words] = in_time(decode, small_model())(*heard("ab cd"))
    assert [word.text for word in words] == ["A&B", "cd"]
    assert words[0].start < words[0].end < words[1].start


def test_phrases_of_more_and_of_fewer_words_than_were_heard() -> None:
    words = [Word("a", 0.0, 0.1, 0.9), Word("t", 0.2, 0.3, 0.5), Word("b", 0.4, 0.5, 0.8)]
    assert shown_words(words, "AT b") == [Word("AT", 0.0, 0.3, 0.5), words[2]]
    assert shown_words(words, "a t b") == words and shown_words([], "") == []
    shares = [Word("A", 0.0, 0.125, 0.9), Word("BC", 0.125, 0.375, 0.9), Word("D", 0.375, 0.5, 0.9)]
    assert shown_words([Word("abc", 0.0, 0.5, 0.9)], "A BC D") == shares
    for shown in ("a t x b", "x a t b", "a t b x y", "x", "x a", "b x", "a a a a"):
        found = shown_words(words, shown)
        assert " ".join(word.text for word in found) == shown
        assert all(left.start <= left.end <= right.start + 1e-9 for left, right in pairwise(found))
        assert found[0].start >= 0.0 and found[-1].end <= 0.5 + 1e-9


@pytest.mark.parametrize("more", [[], ["--beam", "8"]])
def test_custom_words_of_several_words_in_subtitles(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "words.txt").write_text("A B\t8\tab\ncd x\t8\tcd\n", encoding="utf-8")
    decode, _ = choose_decode(options("--hotwords", str(tmp_path / "words.txt"), *more), small_model(), None)
    [words] = in_time(decode, small_model())(*heard("ab cd"))
    assert [word.text for word in words] == ["A", "B", "cd", "x"]
    assert "A B cd x" in srt(words)


def test_options_without_effect() -> None:
    with pytest.raises(ValueError, match=r"--alpha is about a language model; give one with --lm FILE"):
        options("--alpha", "0.5")
    with pytest.raises(ValueError, match=r"--beta is about a language model"):
        options("--beta", "0")
    with pytest.raises(ValueError, match="--closed is about a language model"):
        options("--closed")


# ---------------------------------------------------------------------------------------------------------------------
# A neural model


def neural_file(path: Path, favourite: str = "b", lang: str = "es", labels: str = " abcd") -> Path:
    """Knows no text, but expects one letter everywhere, the others e^8 times less."""
    torch.manual_seed(0)
    model = LetterLm.new(tuple(labels), TransformerConfig(layers=1, channels=8, heads=2, memory=4), lang)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        model.network.output.bias[labels.index(favourite)] = 8.0
    model.save(path)
    return path


def unsure() -> tuple[torch.Tensor, torch.Tensor]:
    """log_probs of "ab", in which the first letter may nearly as well be a c."""
    log_probs, lengths = heard("ab")
    log_probs[0, 0, [1, 3]] = torch.tensor([0.5, 0.48]).log()
    return log_probs, lengths


SEARCH = ("--beam", "8")
TEXT = ["ab cd", "ab", "cb", "cd"]


def decoded(*words: str, model: QuartzNet | None = None) -> list[Heard]:
    decode, _ = choose_decode(options(*words), model or small_model(), find_language("es"))
    return decode(*unsure())


def test_a_neural_model_without_an_n_gram(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = neural_file(tmp_path / "lm.pt", favourite="c")
    assert decoded(*SEARCH) == [Heard("ab", "ab")]
    assert decoded(*SEARCH, "--neural", str(path), "--gamma", "0.25", "--beta", "0") == [Heard("cb", "cb")]
    assert caplog.text == ""
    assert decoded(*SEARCH, "--neural", str(path), "--gamma", "0", "--beta", "0") == [
        Heard("ab", "ab")
    ]  # it is not asked
    assert decoded("--beam", "8", "--neural", str(path)) == [Heard("cb", "cb")]
    assert "was not tuned for this network, beta 0, gamma 0.5 is a guess; lm tune finds better ones" in caplog.text


def test_without_a_gamma_the_order_of_the_search_stays(tmp_path: Path) -> None:
    build_model(TEXT, tmp_path / "x.arpa", 2)
    words = ("--lm", str(tmp_path / "x.arpa"), "--alpha", "0.01", "--beta", "0", "--beam", "8")
    neural = ("--neural", str(neural_file(tmp_path / "lm.pt", favourite="c")))
    assert decoded(*words, *neural, "--gamma", "1e-9") == decoded(*words) == [Heard("ab", "ab")]
    assert decoded(*words, *neural, "--gamma", "2") == [Heard("cb", "cb")]


def test_custom_words_are_shown_as_they_are_written_after_a_second_look(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("C&B\t0.5\tcb\n", encoding="utf-8")
    neural = ("--neural", str(neural_file(tmp_path / "lm.pt", favourite="c")), "--gamma", "0.25", "--beta", "0")
    words = ("--hotwords", str(tmp_path / "words.txt"))
    assert decoded(*SEARCH, *words, *neural) == [Heard("cb", "C&B")]
    model = small_model()
    decode, entries = choose_decode(options(*SEARCH, *words, *neural), model, None)
    assert [entry.phrase for entry in entries] == ["C&B"]
    assert [[word.text for word in row] for row in in_time(decode, model)(*unsure())] == [["C&B"]]


@pytest.mark.parametrize(
    ("helps", "more", "expected", "said"),
    [
        (True, (), "cb", ""),
        (False, (), "ab", "lm.pt was no sure help on corpora/es, dev (41.00 % without, 40.00 % with it), so it is not"),
        (False, ("--gamma", "1"), "cb", ""),
        (True, ("--gamma", "0"), "ab", ""),
    ],
)
def test_what_was_tuned_is_obeyed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, helps: bool, more: tuple[str, ...], expected: str, said: str
) -> None:
    build_model(TEXT, tmp_path / "x.arpa", 2)
    path, arpa, model = neural_file(tmp_path / "lm.pt", favourite="c"), tmp_path / "x.arpa", small_model()
    neural = TunedNeural(file_hash(path), helps, Weights(0.0, 0.0, 0.5), 0.41, 0.4)
    settings = BeamSettings(alpha=0.1, beta=0.0, beam=8)
    save_tuned(arpa, network_hash(model), Tuned(file_hash(arpa), True, settings, "corpora/es, dev", 0.5, 0.41, neural))
    found = decoded("--lm", str(arpa), "--neural", str(path), *more, model=model)
    assert found == [Heard(expected, expected)]
    assert (said in caplog.text) if said else not caplog.text


def test_a_neural_model_helps_where_the_n_gram_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_model(TEXT, tmp_path / "x.arpa", 2)
    path, arpa, model = neural_file(tmp_path / "lm.pt", favourite="c"), tmp_path / "x.arpa", small_model()
    neural = TunedNeural(file_hash(path), True, Weights(0.0, 0.0, 0.5), 0.41, 0.4)
    tuned = Tuned(file_hash(arpa), False, BeamSettings(alpha=0.1, beam=8), "corpora/es, dev", 0.5, 0.5, neural)
    save_tuned(arpa, network_hash(model), tuned)
    assert decoded("--lm", str(arpa), "--neural", str(path), model=model) == [Heard("cb", "cb")]
    assert not caplog.text


def test_greedy_where_neither_was_found_to_help(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_model(TEXT, tmp_path / "x.arpa", 2)
    path, arpa, model = neural_file(tmp_path / "lm.pt"), tmp_path / "x.arpa", small_model()
    save_tuned(arpa, network_hash(model), Tuned(file_hash(arpa), False, BeamSettings(), "dev", 0.5, 0.5))
    assert choose_decode(options("--lm", str(arpa), "--neural", str(path)), model, None) == (None, [])
    assert "lm.pt has no texts to choose among without a search; --gamma 0.25 insists" in caplog.text
    assert "decoding is greedy" in caplog.text


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"lang": "fr"}, r"lm\.pt is a model of language fr, the network writes es; train one with .* --lang es"),
        ({"labels": " abc"}, r"lm\.pt \(language es\) has no 'd', which the network writes"),
    ],
)
def test_a_neural_model_of_another_language_or_alphabet(tmp_path: Path, made: dict, message: str) -> None:
    path = neural_file(tmp_path / "lm.pt", **made)
    with pytest.raises(ValueError, match=message):
        decoded(*SEARCH, "--neural", str(path))


def test_a_file_that_is_no_neural_model(tmp_path: Path) -> None:
    (tmp_path / "x.arpa").write_text("\\data\\\n")
    with pytest.raises(ValueError, match=r"x\.arpa cannot be read as a language model"):
        decoded(*SEARCH, "--neural", str(tmp_path / "x.arpa"))
    with pytest.raises(FileNotFoundError, match=r"no language model nothing\.pt; make one with"):
        decoded(*SEARCH, "--neural", "nothing.pt")


def test_neural_options_without_effect() -> None:
    with pytest.raises(
        ValueError, match=r"--neural chooses among the texts that a search found; add --lm FILE or --be"
    ):
        options("--neural", "lm.pt")
    with pytest.raises(ValueError, match=r"--gamma is about a neural language model; give one with --neural FILE"):
        options("--lm", "x.arpa", "--gamma", "0")
    with pytest.raises(ValueError, match="--alpha is about a language model"):
        options("--beam", "8", "--neural", "lm.pt", "--alpha", "0.5")
    assert described(options(*SEARCH, "--beta", "0", "--neural", "lm.pt", "--gamma", "0")) == (
        "--beam 8 --beta 0.0 --neural lm.pt --gamma 0.0"
    )
