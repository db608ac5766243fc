"""Protected words: what is put back, what stays changed, and that nothing protected is ever lost."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postcorrect.protect import Protected, read_protected

NAMES = Protected.of(["Anna", "new york", "c", "", " "])
words = st.sampled_from(["anna", "Anna", "new", "york", "a", "b", "c", "2", "b4"])
texts = st.lists(words, max_size=7).map(" ".join)


@pytest.mark.parametrize(
    ("source", "text", "kept"),
    [
        ("anna has a cat", "hanna has a cat", "anna has a cat"),
        ("anna has a kat", "hanna has a cat", "anna has a cat"),  # the other change stays
        ("ANNA as", "hanna has", "ANNA as"),  # one run: all of it
        ("hanna has", "anna has", "anna has"),  # protected is the source
        ("in new york now", "in newark now", "in new york now"),
        ("in new york now", "in new old york now", "in new york now"),  # within the phrase
        ("in new york now", "in a new york now", "in a new york now"),  # beside it
        ("new hat", "old hat", "old hat"),  # half a phrase
        ("route 66 west", "route sixty six west", "route 66 west"),
        ("a b2b deal", "a bob deal", "a b2b deal"),
        ("anna  x", "hanna x", "anna  x"),  # spaces too
        ("c", "", "c"),
        ("", "c", "c"),
    ],
)
def test_by_hand(source: str, text: str, kept: str) -> None:
    assert NAMES.keep(source, text) == kept


def test_only_digits_without_a_list() -> None:
    assert Protected().keep("anna 3 x", "hanna 3 y") == "hanna 3 y"
    assert Protected().keep("anna 3 x", "anna three x") == "anna 3 x"
    assert Protected().spans("a 1 b 2c ٣") == [(1, 2), (3, 4), (4, 5)]


def test_spans_of_phrases_that_overlap() -> None:
    assert Protected.of(["a b", "b a", "b"]).spans("a b a c") == [(0, 2), (1, 2), (1, 3)]


def occurrences(text: str, phrase: tuple[str, ...]) -> int:
    parts = tuple(text.casefold().split())
    return sum(parts[place : place + len(phrase)] == phrase for place in range(len(parts)))


@given(texts, texts)
def test_nothing_protected_is_lost(source: str, text: str) -> None:
    kept = NAMES.keep(source, text)
    numbers = {(word,) for word in source.split() if any(letter.isdigit() for letter in word)}
    for phrase in NAMES.phrases | numbers:
        assert occurrences(kept, phrase) >= occurrences(source, phrase)
    spelled = [word for word in source.split() if word.casefold() == "anna"]
    assert all(kept.split().count(word) >= spelled.count(word) for word in spelled)  # capitals too


@given(texts, texts)
def test_what_is_kept_stays_kept(source: str, text: str) -> None:
    assert NAMES.keep(source, source) == source
    kept = NAMES.keep(source, text)
    assert set(kept.split()) <= set(source.split()) | set(text.split())
    if not NAMES.spans(source):
        assert kept == text


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_a_list_and_a_file_of_custom_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# phrase\tweight\nkubernetes\n\n New  York \t6\nAT&T\t8\ta t and t\nuh\t-3\n", "utf-8")
    assert read_protected(path) == Protected.of(["kubernetes", "new york", "at&t"])


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file of protected words .*x\.txt"):
        read_protected(tmp_path / "x.txt")
    path = tmp_path / "y.txt"
    path.write_bytes(b"a\nse\xf1or\n")
    with pytest.raises(ValueError, match=r"y\.txt:2: not UTF-8"):
        read_protected(path)
    path.write_text("# nothing\n", "utf-8")
    with pytest.raises(ValueError, match=r"y\.txt has no words to protect"):
        read_protected(path)
