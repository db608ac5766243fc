"""Evaluation sentences are found in a text, whole or within a line, and nothing else is."""

import pytest

from quartznet.leaks import LeakFinder

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
