"""quartznet.subtitles: layouts by hand, every format read back, and times that never run backwards."""

import html
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet.subtitles import as_json, ctm, make_cues, srt, txt, vtt, wrap
from quartznet.words import Word


def said(*timed: tuple[str, float, float]) -> list[Word]:
    return [Word(text, start, end, 0.5) for text, start, end in timed]


def evenly(text: str, gap: float = 0.1) -> list[Word]:
    """A word every ``0.3 + gap`` seconds."""
    return said(*((word, index * (0.3 + gap), index * (0.3 + gap) + 0.3) for index, word in enumerate(text.split())))


def read_back(text: str, mark: str) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds and the text of each subtitle."""
    found = []
    for block in text.strip("\n").split("\n\n"):
        lines = block.split("\n")
        [place] = [index for index, line in enumerate(lines[:2]) if " --> " in line]
        times = re.fullmatch(rf"(\d+):(\d\d):(\d\d){mark}(\d\d\d) --> (\d+):(\d\d):(\d\d){mark}(\d\d\d)", lines[place])
        numbers = [int(group) for group in times.groups()]
        start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))
        assert 1 <= len(lines[place + 1 :]) <= 2 and all(line.strip() for line in lines[place + 1 :])
        found.append((start, end, "\n".join(lines[place + 1 :])))
    return found


def test_srt_by_hand() -> None:
    words = said(("hello", 0.51, 0.9), ("there", 1.0, 1.25), ("you", 3661.0, 3661.2))
    assert srt(words) == ("1\n00:00:00,510 --> 00:00:01,650\nhello there\n\n2\n01:01:01,000 --> 01:01:02,000\nyou\n")


def test_vtt_by_hand_with_letters_that_mean_something_there() -> None:
    words = said(("a<b", 0.0, 2.0), ("&", 2.0, 2.5), ("-->", 2.5, 3.0))
    assert vtt(words) == "WEBVTT\n\n00:00:00.000 --> 00:00:03.400\na&lt;b &amp; --&gt;\n"


def test_nothing_said() -> None:
    assert (srt([]), vtt([]), ctm([], "a"), txt([])) == ("", "WEBVTT\n", "", "\n")
    assert json.loads(as_json([], "a.wav", 2.0)) == {"file": "a.wav", "duration": 2.0, "text": "", "words": []}


def test_lines_are_few_and_even() -> None:
    assert wrap("a short one") == ["a short one"]
    assert wrap("this sentence is a little longer than one line can be") == [
        "this sentence is a little",
        "longer than one line can be",
    ]
    assert wrap("x" * 50) == ["x" * 42, "x" * 8]


def test_a_subtitle_ends_at_a_pause() -> None:
    words = said(("one", 0.0, 0.3), ("two", 0.9, 1.2), ("three", 1.79, 2.0))
    assert [cue.lines for cue in make_cues(words)] == [("one",), ("two three",)]
    assert make_cues(words)[0].end == 900  # it would have stayed for a second


def test_where_words_run_on_the_longest_gap_cuts() -> None:
    words = evenly(" ".join(["seven"] * 20))
    moved = words[:10] + [Word(word.text, word.start + 0.2, word.end + 0.2, 0.5) for word in words[10:]]
    assert [sum(len(line.split()) for line in cue.lines) for cue in make_cues(moved)] == [10, 10]
    assert make_cues(evenly("word " * 18))[0].lines == ("word word word word word word word word",) * 2


def test_seven_seconds_are_enough() -> None:
    words = said(*(("a", 2.0 * index, 2.0 * index + 1.9) for index in range(6)))
    assert all(cue.end - cue.start <= 7400 for cue in make_cues(words))


def test_a_word_longer_than_two_lines_is_cut() -> None:
    cues = make_cues(said(("x" * 100, 0.0, 10.0)))
    assert "".join("".join(cue.lines) for cue in cues) == "x" * 100
    assert all(len(line) <= 42 for cue in cues for line in cue.lines)
    assert cues[0].start == 0 and cues[-1].end == 10400


WORDS = st.lists(
    st.tuples(st.text("ab<>&-é:", min_size=1, max_size=60), st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=50)
@given(WORDS, st.sampled_from([1.0, 1e-4]))
def test_all_formats_read_back(rows: list[tuple[str, float, float]], scale: float) -> None:
    words, now = [], 0.0
    for text, gap, length in rows:
        start = now + gap * scale
        now = start + length * scale
        words.append(Word(text, start, now, 0.5))
    text = " ".join(word.text for word in words)
    for found, unescape in ((read_back(srt(words), ","), str), (read_back(vtt(words)[8:], r"\."), html.unescape)):
        edges = [edge for start, end, _ in found for edge in (start, end)]
        assert edges == sorted(edges) and all(end > start for start, end, _ in found)
        assert all(len(unescape(line)) <= 42 for _, _, lines in found for line in lines.split("\n"))
        joined = "".join(unescape(lines) for _, _, lines in found)
        assert re.sub(r"\s", "", joined) == text.replace(" ", "")
    rows_back = [line.split(" ") for line in ctm(words, "a b.wav").splitlines()]
    assert [row[4] for row in rows_back] == [word.text for word in words] and {row[0] for row in rows_back} == {
        "a_b.wav"
    }
    assert [row[2] for row in rows_back] == sorted([row[2] for row in rows_back], key=float)
    assert json.loads(as_json(words, "a", now))["text"] == text == " ".join(txt(words).split())


def test_ctm_and_json_by_hand() -> None:
    words = [Word("señor", 1.234, 1.5, 0.98765)]
    assert ctm(words, "a.wav") == "a.wav 1 1.23 0.27 señor 0.988\n"
    assert json.loads(as_json(words, "a.wav", 2.0))["words"] == [
        {"text": "señor", "start": 1.234, "end": 1.5, "confidence": 0.9877}
    ]


def test_text_has_a_line_for_each_pause() -> None:
    assert txt(said(("a", 0, 1), ("b", 1.5, 2), ("c", 2.6, 3))) == "a b\nc\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (said(("a", 1.0, 2.0), ("b", 0.5, 3.0)), "backwards; 'b': 0.5 to 3.0 s"),
        (said(("a", 1.0, 0.5)), "must not run backwards"),
        (said(("a", float("nan"), 1.0)), "must not run backwards"),
        (said(("a b", 1.0, 2.0)), "no blanks or line breaks"),
        (said(("", 1.0, 2.0)), "is not empty"),
    ],
)
def test_words_that_are_none(words: list[Word], message: str) -> None:
    for write in (srt, vtt, lambda words: ctm(words, "a")):
        with pytest.raises(ValueError, match=message):
            write(words)
