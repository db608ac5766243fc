"""Figures of the page: tables that add up, bars on one scale, sentences that say what the numbers say."""

import re

import pytest

from quartznet.breakdown import Clip, Group
from quartznet.confidence import calibrate
from quartznet.confusions import letter_confusions, word_confusions
from quartznet.metrics import ErrorCounts, error_counts
from quartznet.page_figures import (
    MOST_FIELDS,
    Texts,
    bar,
    between,
    calibration,
    cards,
    comparison,
    confusions,
    fields,
    fields_worth_showing,
    kinds,
    per_cent,
    plural,
    rates_table,
)
from quartznet.report import evaluate_texts
from quartznet.significance import Comparison, paired_bootstrap

ENGLISH = Texts("en", "ltr")


def clip(errors: int, words: int = 4, **said: str | float) -> Clip:
    counts = ErrorCounts(substitutions=errors, reference_length=words)
    return Clip(said, 2.0, counts, counts)


def text_of(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def test_numbers() -> None:
    assert per_cent(0.03117) == "3.12 %" and per_cent(float("inf")) == "–"
    assert between((0.01, 0.0255)) == "1.00 to 2.55" and between(None) == "–" and between((0, float("inf"))) == "–"
    assert between((-0.01, 0.02), "+.1f") == "-1.0 to +2.0"
    assert plural(1, "word") == "1 word" and plural(1200, "word") == "1,200 words"


def test_cards_and_kinds_by_hand() -> None:
    result = evaluate_texts(["1", "2"], ["a b c d", "e"], ["a x c", "e"], 1.5)
    text = text_of(cards(result, 90.0))
    assert "Word error rate 40.00 %" in text and "50.00 % 1 of 2 utterances" in text
    assert "1.5 min 5 words, loss 1.500" in text
    made = kinds(result.words, result.characters)
    assert "substitutions 1 20.00 % 1 12.50 % deletions 1 20.00 % 2 25.00 % insertions 0 0.00 % 0 0.00 %" in text_of(
        made
    )
    assert re.findall(r"width:([\d.]+)%", made) == ["50.00", "50.00", "0.00"]
    perfect = evaluate_texts(["1"], ["a"], ["a"], float("nan"))
    assert "loss" not in cards(perfect, 1.0) and "100.00 %" in cards(perfect, 1.0)
    assert "0.00 %" in kinds(perfect.words, perfect.characters)


def test_bars_stay_within_their_width() -> None:
    assert re.findall(r"[\d.]+%", bar(7.0, (0.5, 9.0))) == ["100.0%", "50.0%", "50.0%"]
    rows = [Group("many", tuple(clip(n % 2) for n in range(9))), Group("one", (clip(40),))]
    made = rates_table("c", "x", rows, Group("all", tuple(clip(1) for _ in range(9))))
    widths = [float(width) for width in re.findall(r"<b style=\"width:([\d.]+)%", made)]
    assert widths[1] == 100.0 and 0 < widths[0] < 100 and "1000.00 %" in made and "–" in made


@pytest.mark.parametrize(
    ("before", "after", "sentence", "tone"),
    [(2, 0, "makes fewer word errors", "good"), (0, 2, "makes more word errors", "bad"), (1, 1, "may be luck", "")],
)
def test_the_sentence_says_what_the_interval_says(before: int, after: int, sentence: str, tone: str) -> None:
    first, second = ([ErrorCounts(substitutions=n, reference_length=9)] * 30 for n in (before, after))
    one = paired_bootstrap(first, second)
    made = comparison(Comparison("<other>", one, one, {}, 2, 0))
    assert sentence in made and "&lt;other&gt;" in made and "2 only the other" in made
    assert (f"number {tone}" in made) == bool(tone)
    assert f"equal on {30 if before == after else 0}" in made


def test_fields_that_divide_the_clips() -> None:
    clips = [clip(0, id=str(n), accent="ab"[n % 2], same="x", speaker=f"s{n // 4}") for n in range(12)]
    assert fields_worth_showing(clips) == ["speaker", "accent"]
    text = text_of(fields(("accent", "speaker"), clips))
    assert "By accent 2 groups. accent clips minutes" in text and text.count("all 12 0.4 0.00 %") == 2
    partly = [*clips, clip(1)]
    assert "Clips that do not say are a group too." in fields(("accent",), partly)
    many = tuple(f"f{n}" for n in range(MOST_FIELDS + 2))
    assert "Not shown: f12, f13." in fields(many, clips)


def test_confusions_name_what_cannot_be_seen() -> None:
    said, heard = ["every day", "a <b>", "c"], ["everyday", "a <i>", "c d"]
    words, letters = word_confusions(said, heard), letter_confusions(said, heard)
    made = confusions(words, letters, ENGLISH)
    text = text_of(made)
    assert "Right letters, wrong spaces: 1 place where" in text
    assert "nothing" in text and "space" in text and "&lt;b&gt;" in made and "<i>" not in made
    assert text_of(confusions(word_confusions(["a"], ["a"]), letter_confusions(["a"], ["a"]), ENGLISH)) == (
        "Nothing is confused."
    )
    assert error_counts(said, heard)[0].errors == 2


def test_calibration_says_what_was_right() -> None:
    made = calibration(calibrate([1.0, 0.96, 0.95, 0.3], [True, True, False, False]))
    assert "0.9 to 1.0 3 97.00 % 66.67 %" in text_of(made) and 'style="width:66.7%"' in made
    assert "2 of 4 words right; calibration error" in text_of(made) and "in 100.00 % of all pairs" in text_of(made)
    assert "surer" not in text_of(calibration(calibrate([0.5], [True])))
