"""The file of custom words, and what a text earns by them, against counting."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet.alphabet import Alphabet
from quartznet.hotwords import WEIGHT, HotWord, HotWords, read_hotwords
from quartznet.text import find_language

ENGLISH = Alphabet((" ", *"abcdefghijklmnopqrstuvwxyz", "'"))
SMALL = Alphabet((" ", "a", "b"))


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "words.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_phrase_weight_and_spellings(tmp_path: Path) -> None:
    content = "\ufeff# names\r\n\r\nKubernetes\r\nnew  york\t7.5\r\n  uh\t-3\r\nAT&T\t\ta t and t, A T T\r\n"
    assert read_hotwords(write(tmp_path, content), ENGLISH) == [
        HotWord("Kubernetes", WEIGHT, ("kubernetes",), False),
        HotWord("new york", 7.5, ("new york",), False),
        HotWord("uh", -3.0, ("uh",), False),
        HotWord("AT&T", WEIGHT, ("a t and t", "a t t"), True),
    ]


def test_a_language_brings_phrases_to_its_letters(tmp_path: Path) -> None:
    path = write(tmp_path, "Café 12\t4\n")
    assert read_hotwords(path, ENGLISH, find_language("en"))[0].spellings == ("cafe twelve",)


def test_a_weight_behind_blanks_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "cafe\nroute 66\t4\nparis  6.5\nroute 6\n")
    assert [entry.weight for entry in read_hotwords(path, ENGLISH, find_language("en"))] == [6.0, 4.0, 6.0, 6.0]
    [said] = caplog.messages
    assert "words.txt: 2 phrases end in a number and no tab stands before it, the first 'paris 6.5'" in said


def test_letters_of_any_alphabet(tmp_path: Path) -> None:
    [entry] = read_hotwords(write(tmp_path, "a_b c'\n"), Alphabet(("_", "'", "a", "b", "c")))
    assert entry.spellings == ("a_bc'",)  # there is no space to write


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("good\nbad\tmuch\n", r"words\.txt:2: the weight 'much' is not a number"),
        ("bad\tnan\n", r"words\.txt:1: the weight must be from -100 to 100, got nan"),
        ("bad\t1e6\n", r"words\.txt:1: the weight must be from -100 to 100, got 1e6"),
        ("# no\nC++\n", r"words\.txt:2: 'C\+\+' has letters that the network cannot write; give a third column"),
        ("C++\t5\tsee plus, ц\n", r"words\.txt:1: 'ц' has letters that the network cannot write"),
        ("a\t1\tb\tc\n", r"words\.txt:1: expected a phrase, a weight and spellings, with tabs between"),
        ("\t5\n", r"words\.txt:1: expected a phrase, a weight and spellings, with tabs between"),
        ("up\ndown\nup\t3\n", r"words\.txt:3: 'up' is there already"),
        ("a\x1b[31mb\t5\tab\n", r"words\.txt:1: 'a\\x1b\[31mb' has control characters"),
        ("", r"words\.txt: no hot words in it; one phrase a line is expected"),
        ("\n # nothing\n", r"words\.txt: no hot words in it"),
        (b"caf\xe9\n", r"words\.txt: is not UTF-8 text"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_hotwords(write(tmp_path, content), ENGLISH)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file of hot words"):
        read_hotwords(tmp_path / "none.txt", ENGLISH)


def entries(weights: dict[str, float]) -> list[HotWord]:
    return [HotWord(text, weight, (text,), False) for text, weight in weights.items()]


TEXTS = st.lists(st.text("ab", min_size=1, max_size=3), max_size=7).map(" ".join)


@settings(deadline=None)
@given(TEXTS, st.dictionaries(TEXTS.filter(bool), st.integers(-5, 9).map(float), min_size=1, max_size=6))
def test_a_text_earns_each_phrase_as_often_as_it_has_it(text: str, weights: dict[str, float]) -> None:
    padded = f" {text} "
    expected = sum(
        weight * sum(padded.startswith(f" {phrase} ", place) for place in range(len(padded)))
        for phrase, weight in weights.items()
    )
    words = HotWords(entries(weights), SMALL)
    assert words.bonus(text) == expected
    state, most = words.start, 0.0
    for label in SMALL.encode(" ".join(text.split()) + " "):
        following = words.step(state, label)
        most = max(most, words.earned[following] + words.credit[following] - words.credit[state])
        state = following
    assert most <= words.largest_step


def test_credit_grows_while_a_phrase_is_spelled_and_is_lost_where_it_fails() -> None:
    words, state, credits = HotWords(entries({"ab b": 8.0, "bb": -4.0}), SMALL), 0, []
    state = words.start
    for label in SMALL.encode("ab a"):
        state = words.step(state, label)
        credits.append(words.credit[state])
    assert credits == [2.0, 4.0, 6.0, 2.0]  # "a" begins the phrase again
    assert words.credit[words.step(words.step(words.start, 2), 2)] == 0.0  # nothing is taken in advance


def test_spellings_are_shown_as_their_phrase() -> None:
    shown = [
        HotWord("A&B", 1.0, ("a b", "a a b"), True),
        HotWord("a B", 1.0, ("a", "aa"), True),
        HotWord("bb", 1.0, ("bb",), False),
    ]
    words = HotWords(shown, SMALL)
    assert words.show("a a b a b a aaa bb") == "A&B A&B a B aaa bb"
    assert HotWords(entries({"a": 1.0}), SMALL).show("a b") == "a b"
    alone = HotWords([HotWord("X", 1.0, ("aba",), True)], Alphabet(("a", "b")))
    assert alone.show("babab") == "bXb"


def test_a_spelling_of_two_phrases_counts_once() -> None:
    words = HotWords([HotWord("A", 3.0, ("a",), True), HotWord("Ah", 5.0, ("a", "ab"), True)], SMALL)
    assert words.bonus("a ab") == 3.0 + 5.0 and words.show("a ab") == "A Ah"
