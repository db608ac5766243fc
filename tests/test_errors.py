"""Runs of wrong words: by hand, kind by kind, and against the error rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postcorrect.errors import KINDS, Run, error_table, find_runs
from postcorrect.pairs import Pair
from quartznet.metrics import word_errors


def test_the_example_of_the_file() -> None:
    assert find_runs("the cat sat every day", "a cat sad everyday") == [
        Run(0, ("the",), ("a",)),
        Run(2, ("sat", "every", "day"), ("sad", "everyday")),
    ]


@pytest.mark.parametrize(
    ("said", "heard", "kind"),
    [
        ("a cat", "a cad", "misheard"),
        ("every day", "everyday", "joined"),
        ("everyday", "every day", "split"),
        ("a bee", "ab ee", "spaces"),
        ("a big cat", "a cat", "dropped"),
        ("a cat", "a big cat", "added"),
        ("some cats", "son cat s", "several"),
    ],
)
def test_kinds(said: str, heard: str, kind: str) -> None:
    [run] = find_runs(said, heard)
    assert run.kind == kind in KINDS


def test_letters_of_a_run() -> None:
    doubled = Run(0, ("ead",), ("eaadd",)).letters()
    assert doubled == [("e", "e"), ("a", "a"), ("", "a"), ("d", "d"), ("", "d")]
    assert Run(0, ("ab", "c"), ("ab", "xc")).letters() == [("a", "a"), ("b", "b"), (" ", " "), ("", "x"), ("c", "c")]


words = st.text("ab ", max_size=12)


@given(words, words)
def test_runs_hold_all_errors(said: str, heard: str) -> None:
    runs = find_runs(said, heard)
    assert bool(runs) == (said.split() != heard.split())
    assert sum(max(len(run.said), len(run.heard)) for run in runs) == word_errors(said, heard).errors
    rebuilt, place = [], 0
    for run in runs:
        assert said.split()[run.place : run.place + len(run.said)] == list(run.said)
        rebuilt += [*said.split()[place : run.place], *run.heard]
        place = run.place + len(run.said)
    assert rebuilt + said.split()[place:] == heard.split()


def test_the_table() -> None:
    pairs = [Pair("a cad", "a cat"), Pair("the cad", "the cat"), Pair("everyday", "every day"), Pair("a", "a")]
    lines = error_table(pairs).splitlines()
    assert lines[1].split() == ["one", "word", "for", "another", "2", "66.7%", "1"]
    assert lines[2] == "    cat > cad (2x)" and "    every day > everyday" in lines
    assert any("t > d 2x" in line and "space > - 1x" in line for line in lines)
    assert error_table([]).count("0.0%") == len(KINDS)
    long = Pair("x" * 100, "y" * 100)
    assert max(map(len, error_table([long, *pairs]).splitlines())) <= 80
