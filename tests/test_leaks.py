"""Evaluation sentences are found in a text, whole or within a line, and in a model; and nothing else is."""

from pathlib import Path

import pytest
from tiny_lm import TinyBigram

from quartznet.arpa import read_arpa
from quartznet.leaks import LeakFinder, in_full, in_full_warning
from quartznet.ngram import build_model

LONG = "esta frase tiene cinco palabras"


@pytest.mark.parametrize(
    ("line", "is_leak"),
    [
        (LONG, True),
        (f"y {LONG} y más", True),
        (f"{LONG} {LONG}", True),
        ("esta frase tiene cinco letras", False),
        ("esta frase tiene cinco", False),
        ("siesta frase tiene cinco palabras", False),
        ("una frase corta", True),
        ("una frase corta más", False),  # three words within another line prove nothing
        ("buenos días", False),
        ("", False),
    ],
)
def test_what_is_a_leak(line: str, is_leak: bool) -> None:
    finder = LeakFinder([LONG, "una frase corta", "buenos días", "sí", "esta frase tiene otras cinco palabras"])
    assert finder.look(line) == is_leak and finder.lines == is_leak and len(finder.found) == is_leak
    assert (finder.warning("test") is None) != is_leak


def test_the_warning_counts_sentences_and_lines() -> None:
    finder = LeakFinder([LONG, LONG, "una frase corta", "otra frase más"])
    for line in (LONG, f"y {LONG}", "una frase corta", "nada de eso"):
        finder.look(line)
    text = finder.warning("test.jsonl")
    assert text.startswith("WARNING: 2 of 3 sentences of test.jsonl\nstand in 3 lines of the text")
    assert text.endswith(f"Examples:\n  {LONG}\n  una frase corta") and max(map(len, text.split("\n"))) <= 80


def test_two_sentences_in_one_line() -> None:
    finder = LeakFinder(["uno dos tres cuatro cinco", "uno dos tres seis siete", "tres seis siete uno dos"])
    assert finder.look("uno dos tres seis siete uno dos tres cuatro cinco")
    assert len(finder.found) == 3 and finder.lines == 1


# ---------------------------------------------------------------------------------------------------------------------
# In a model

LEARNT = ["el gato bebe agua en la casa", "la perra come pan en la plaza", "el gato come pan", "la perra bebe agua"]
MIXED = "el gato bebe agua en la plaza"  # every word pair is known, but not every four words


def test_a_sentence_of_the_text_stands_in_the_model_in_full(tmp_path: Path) -> None:
    build_model(LEARNT, tmp_path / "x.arpa", 4)
    model = read_arpa(tmp_path / "x.arpa")
    assert in_full(model, [*LEARNT, LEARNT[0], MIXED, "", "gato"]) == LEARNT[:2]  # the others are too short to tell


@pytest.mark.parametrize(("order", "prune"), [(3, ()), (4, (0, 0, 1))])
def test_models_that_tell_nothing(tmp_path: Path, order: int, prune: tuple[int, ...]) -> None:
    build_model(LEARNT, tmp_path / "x.arpa", order, prune)
    assert in_full(read_arpa(tmp_path / "x.arpa"), LEARNT) == []


def test_a_model_that_cannot_say_how_it_scores() -> None:
    model = TinyBigram({"el": -1.0})
    model.order = 4
    assert model.matched(["el"]) is None and in_full(model, LEARNT) == []


def test_the_warning_of_a_model() -> None:
    assert in_full_warning([], "es.arpa") is None
    text = in_full_warning(["a b", "a long one"], "es.arpa")
    assert text.startswith("WARNING: es.arpa\nholds all word sequences of 2 of these sentences")
    assert text.endswith("Examples:\n  a long one\n  a b") and max(map(len, text.split("\n"))) <= 80
