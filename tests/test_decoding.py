"""quartznet.decoding: tuned weights lie beside the language model, and are obeyed, or not, in the open."""

import argparse
import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from quartznet.beam import BeamSettings
from quartznet.config import BlockConfig, ModelConfig
from quartznet.decoding import (
    Heard,
    Tuned,
    add_options,
    check_options,
    choose_decode,
    chosen_settings,
    described,
    file_hash,
    in_time,
    network_hash,
    read_tuned,
    save_tuned,
    shown_words,
    tuned_file,
)
from quartznet.model import QuartzNet
from quartznet.subtitles import srt
from quartznet.words import Word

FOUND = BeamSettings(alpha=0.7, beta=2.0, beam=32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file; its content does not matter here."""
    path = tmp_path / "es.arpa"
    path.write_text("\\data\\\n")
    return path


def tuned(model: Path, helps: bool = True) -> Tuned:
    return Tuned(file_hash(model), helps, FOUND, "corpora/es, dev", 0.58, 0.41)


def test_an_entry_for_each_network(model: Path) -> None:
    assert read_tuned(model) == {}
    path = save_tuned(model, "first", tuned(model))
    save_tuned(model, "second", tuned(model, helps=False))
    save_tuned(model, "first", replace(tuned(model), searched_wer=0.4))
    assert path == tuned_file(model) and path.name == "es.arpa.tuned.yaml"
    assert read_tuned(model) == {"first": replace(tuned(model), searched_wer=0.4), "second": tuned(model, helps=False)}


def test_what_was_tuned_is_used(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model))
    assert chosen_settings(model, "net", None, None, None) == FOUND
    assert chosen_settings(model, "net", 200, None, 0.0) == replace(FOUND, beam=200, beta=0.0)
    assert caplog.text == ""


def test_where_it_does_not_help_decoding_is_greedy_unless_asked(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model, helps=False))
    assert chosen_settings(model, "net", 100, None, None) is None
    assert "did not help on corpora/es, dev (58.00 % greedy, 41.00 % with it)" in caplog.text
    assert chosen_settings(model, "net", None, 0.3, None) == replace(FOUND, alpha=0.3)


def test_another_network_or_none(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen_settings(model, "net", None, None, None) == BeamSettings()
    assert "was not tuned; weights are guesses: run python -m quartznet.lm tune" in caplog.text
    save_tuned(model, "former self", tuned(model))
    assert chosen_settings(model, "net", 5, 1.0, 0.5) == replace(BeamSettings(), beam=5, alpha=1.0, beta=0.5)
    assert "was tuned for other networks only; weights are yours" in caplog.text


def test_a_model_that_changed_is_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model))
    model.write_text("another")
    with caplog.at_level(logging.WARNING):
        assert chosen_settings(model, "net", None, None, None) == FOUND
    assert "has changed since it was tuned" in caplog.text


@pytest.mark.parametrize("text", ["a: [1", "a: 5", "- a", "net: {alpha: 1}", "5", "[" * 3000])
def test_a_damaged_file_is_named(model: Path, text: str) -> None:
    tuned_file(model).write_text(text)
    with pytest.raises(ValueError, match=r"es\.arpa\.tuned\.yaml is not what quartznet\.lm tune wrote .* tune again"):
        read_tuned(model)


# ---------------------------------------------------------------------------------------------------------------------
# Options


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


def test_the_hash_knows_encoder_and_output_layer() -> None:
    model, same, head, letters = (small_model() for _ in range(4))
    with torch.no_grad():
        next(head.decoder.parameters()).add_(1e-3)
    letters.config = replace(letters.config, labels=tuple(" abce"))
    hashes = [network_hash(network) for network in (model, same, head, letters)]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


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
