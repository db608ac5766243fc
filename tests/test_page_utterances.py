"""The utterances of the page: what is marked as wrong is wrong, times stand under the words they belong to."""

import re

import pytest
from test_markup import read

from quartznet import page_utterances
from quartznet.breakdown import Clip
from quartznet.exhibits import Exhibit
from quartznet.metrics import ErrorCounts
from quartznet.page_figures import Texts
from quartznet.page_utterances import aligned_list, articles, difference, utterances_table, worst, worst_first
from quartznet.report import Evaluation, evaluate_texts
from quartznet.significance import Result, compare
from quartznet.words import Word

ENGLISH = Texts("en", "ltr")


def evaluation() -> Evaluation:
    names = ["c/1.wav", "c/<2>.wav", "c/3.wav", "c/4.wav"]
    return evaluate_texts(names, ["a b", "a b c", "a", ""], ["a b", "x b", "ab", ""])


def clips(count: int = 4) -> list[Clip]:
    return [Clip({}, 1.0 + n, ErrorCounts(), ErrorCounts()) for n in range(count)]


def test_the_worst_come_first_and_faultless_ones_never() -> None:
    assert worst_first(evaluation().utterances) == [1, 2, 0, 3]
    assert worst(evaluation()) == [1, 2]
    assert worst(evaluation(), 1) == [1]


def test_one_line_of_differences() -> None:
    made = difference("a b c", "x b c d", ENGLISH)
    assert made == ('<span lang="en" dir="ltr"><del>a</del> <ins>x</ins> b c <ins>d</ins> </span>')
    assert "nothing said, nothing heard" in difference("", " ", ENGLISH)
    assert '<span lang="he" dir="rtl">' in difference("שלום", "שלום", Texts("he", "rtl"))


def test_every_word_has_its_own_time() -> None:
    times = [Word("x", 0.1, 0.2, 0.5), Word("b", 0.3, 0.45, 1.0)]
    made = aligned_list("a b c", "x b", times, ENGLISH)
    assert re.findall(r'<li class="([a-z]+)-word"', made) == ["substitution", "right", "deletion"]
    assert re.findall(r'data-start="([\d.]+)" data-end="([\d.]+)">(\w)', made) == [
        ("0.100", "0.200", "x"),
        ("0.300", "0.450", "b"),
    ]
    assert "0.30–0.45 · 100 %" in made
    other = aligned_list("a b c", "x b", [Word("y", 0.1, 0.2, 0.5)], ENGLISH)  # times of another text
    assert "data-start" not in other and ">x</span>" in other


def test_an_article_with_and_without_sound() -> None:
    words = (Word("x", 0.0, 0.5, 0.9), Word("b", 0.5, 1.0, 0.9))
    with_sound = Exhibit(2.0, "data:audio/mpeg;base64,AA==", "data:image/png;base64,AA==", (), words)
    found = articles(evaluation(), {1: with_sound, 2: Exhibit(99.0, problem="too <long>")}, None, ENGLISH)
    page = read(found)
    assert [name for name, _ in page.tags].count("article") == 2
    [sound] = [attributes for name, attributes in page.tags if name == "audio"]
    assert sound["src"] == with_sound.audio and "controls" in sound
    assert (
        found.count('class="track"') == 1
        and "left:25.00%;width:75.00%" in found
        and "width:33.3%" in found
        and 'class="wrong"' in found
    )
    assert "1. <2>.wav" in page.text and "No sound here: too <long>." in page.text and "The other" not in page.text
    other = Result("o", tuple((u.name, u.reference, "a b") for u in evaluation().utterances))
    this = Result("t", tuple((u.name, u.reference, u.hypothesis) for u in evaluation().utterances))
    assert "The other system: " in articles(evaluation(), {1: with_sound}, compare(other, this), ENGLISH)


def rows_of(markup: str) -> list[list[str]]:
    rows = re.findall(r"<tr data-wrong.*?</tr>", markup)
    return [re.findall(r'class="number"[^>]*>([^<]*)<', row) for row in rows]


def test_the_table_by_hand() -> None:
    made = utterances_table(evaluation(), clips(), None, ENGLISH)
    assert rows_of(made) == [
        ["2", "2", "3", "66.67 %", "60.00 %", "2.0"],
        ["3", "1", "1", "100.00 %", "100.00 %", "3.0"],
        ["1", "0", "2", "0.00 %", "0.00 %", "1.0"],
        ["4", "0", "0", "0.00 %", "0.00 %", "4.0"],
    ]
    assert re.findall(r'data-wrong="(\d)"', made) == ["1", "1", "0", "0"] and "&lt;2&gt;.wav" in made


def test_a_second_system_is_a_column_more() -> None:
    this = Result("t", tuple((u.name, u.reference, u.hypothesis) for u in evaluation().utterances))
    other = Result("o", tuple((name, reference, "a b") for name, reference, _ in this.rows[:2]))
    made = utterances_table(evaluation(), clips(), compare(other, this), ENGLISH)
    assert [row[5] for row in rows_of(made)] == ["+1", "–", "+0", "–"] and ">change</th>" in made


def test_a_long_table_says_that_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_utterances, "MOST_ROWS", 2)
    made = utterances_table(evaluation(), clips(), None, ENGLISH)
    assert len(rows_of(made)) == 2 and "The 2 with most errors of 4 are listed." in made


def test_silence_where_something_was_heard_has_no_rate() -> None:
    result = evaluate_texts(["a", "b"], ["", "a"], ["uh uh", "a"])
    made = utterances_table(result, clips(2), None, ENGLISH)
    assert rows_of(made)[0] == ["1", "2", "0", "–", "–", "1.0"] and "inf" not in made
