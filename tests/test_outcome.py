"""What correcting did: counts by hand, sums that must agree, the table as it is printed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postcorrect.errors import KINDS, Run
from postcorrect.outcome import BUCKETS, FATES, Errors, Outcome, find_errors, outcome, repaired_and_new
from quartznet.audit import columns_of

# reference, before, after
ROWS = [
    ("the cat sat", "the cat sat", "the bat sat"),  # right, made wrong
    ("a red dog", "a rad dog", "a red dog"),  # wrong, made right
    ("every day now", "everyday now", "every day no"),  # 2 wrong words (one for another, one left out), then 1
    ("one two", "one too", "one tow"),  # changed without effect
    ("yes", "yes", "yes"),
    ("go on", "go", "go"),
]
TABLE = """\
14 words                              before            after             change
WER                                  35.71 %          28.57 %              -7.14
  95 % interval               14.29 .. 55.57   11.75 .. 42.86   -26.67 .. +16.67
CER                                  12.50 %          14.58 %              +2.08
  95 % interval                3.85 .. 27.28    4.76 .. 30.56     -5.00 .. +8.93
WER: undecided, the interval of its change holds zero; P(lower) 71.8 %
CER: undecided, the interval of its change holds zero; P(lower) 28.3 %

sentences                        number     share   wrong words before     after
helped: fewer wrong words             2    33.3 %                    3         1
harmed: more wrong words              1    16.7 %                    0         1
changed, as many wrong words          1    16.7 %                    1         1
not changed                           2    33.3 %                    1         1
all                                   6   100.0 %                    5         4
made right: 1 of 4 wrong; made wrong: 1 of 2 right

by WER of the input    sentences    WER before       after     helped     harmed
right                          2        0.00 %     25.00 %          0          1
above 30 %                     4       50.00 %     30.00 %          2          0

errors                                before    repaired        left         new
one word for another                       2           1           1           2
right letters, a space missing             1           1           0           0
words left out                             1           0           1           0
all                                        4           2           2           2

typical repairs (recognised > corrected)
  rad > red, everyday > every day
typical harms (recognised > corrected)
  cat > bat, now > no"""

words = st.sampled_from(["a", "ab", "b", "ba", "c"])
texts = st.lists(words, max_size=5).map(" ".join)
corpora = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=6).filter(lambda rows: any(r[0] for r in rows))


def compare(rows: list[tuple[str, str, str]]) -> Outcome:
    return outcome(*zip(*rows, strict=True), resamples=100)


# ---------------------------------------------------------------------------------------------------------------------
# By hand


def test_counts_by_hand() -> None:
    found = compare(ROWS)
    assert [s.fate for s in found.sentences] == ["harmed", "helped", "helped", "no effect", "same", "same"]
    assert found.fates == {"helped": 2, "harmed": 1, "no effect": 1, "same": 2}
    assert (found.words.first.errors, found.words.second.errors, found.words.first.reference_length) == (5, 4, 14)
    assert (found.made_right, found.made_wrong) == (1, 1)
    assert {kind: one for kind, one in found.kinds.items() if one.before or one.new} == {
        "misheard": Errors(before=2, repaired=1, new=2),
        "joined": Errors(before=1, repaired=1, new=0),
        "dropped": Errors(before=1, repaired=0, new=0),
    }
    assert [part.sentences for part in found.buckets.values()] == [2, 0, 0, 4]
    assert dict(found.repairs) == {"rad > red": 1, "everyday > every day": 1}
    assert dict(found.harms) == {"cat > bat": 1, "now > no": 1}


@pytest.mark.parametrize(
    ("reference", "text", "errors"),
    [
        ("por el tal de", "porel ta l de", [Run(0, ("por", "el"), ("porel",)), Run(2, ("tal",), ("ta", "l"))]),
        ("the cat sat", "the sat", [Run(1, ("cat",), ())]),
        ("the cat", "the big cat", [Run(1, (), ("big",))]),
        ("a red dog", "a rad fog", [Run(1, ("red",), ("rad",)), Run(2, ("dog",), ("fog",))]),
        ("", "uh", [Run(0, (), ("uh",))]),
        ("a b", "a b", []),
    ],
)  # fmt: skip
def test_errors_are_parted_where_both_sides_have_a_space(reference: str, text: str, errors: list[Run]) -> None:
    assert find_errors(reference, text) == errors


@pytest.mark.parametrize(
    ("before", "after", "repaired", "new"),
    [
        ("a x c d", "a b c d", ["b > x"], []),
        ("a x c d", "a y c d", [], []),  # still wrong: left
        ("a x c d", "a x c z", [], ["d > z"]),
        ("a c d", "a x c d", [], []),  # a missing word became a wrong one
        ("a b uh c d", "a b oh c d", [], []),  # a word too many became another
        ("a b uh c d", "a b c d", ["- > uh"], []),
        ("a b c d", "a b uh c d", [], ["- > uh"]),
        ("a b uh c d", "a b x d", [], []),  # beside the word that is wrong now
        ("a b uh c d", "x b c d", ["- > uh"], ["a > x"]),
    ],
)
def test_repaired_left_and_new_by_hand(before: str, after: str, repaired: list[str], new: list[str]) -> None:
    found = repaired_and_new("a b c d", before, after)
    assert [[str(run) for run in runs] for runs in found] == [repaired, new]


def test_input_is_sorted_by_its_error_rate() -> None:
    tens = " ".join("abcdefghij")
    wrong = [tens.translate(str.maketrans("abcdefghij"[:count], "x" * count)) for count in (0, 1, 2, 3, 4)]
    found = compare([(tens, text, text) for text in wrong] + [("", "uh", "")])
    assert {name: part.sentences for name, part in found.buckets.items()} == dict(
        zip(BUCKETS, (1, 1, 2, 2), strict=True)
    )
    assert found.fates == {"same": 5, "helped": 1} and found.made_right == 1


def test_nothing_changed_and_something_got_worse() -> None:
    same = compare([("a b", "a  c", "a c ")])
    assert same.verdict == "nothing was changed" and same.fates == {"same": 1}
    worse = compare([("a b c", "a b c", "a b x")] * 9)
    assert worse.verdict.startswith("WER: HIGHER, the interval of its change leaves zero out; P(lower) 0.0 %\nCER: HI")
    better = compare([("a b c", "a b x", "a b c")] * 9)
    assert better.verdict.startswith("WER: lower, the interval of its change leaves zero out; P(lower) 100.0 %")


# ---------------------------------------------------------------------------------------------------------------------
# What must agree


def rebuilt(reference: str, errors: list[Run]) -> str:
    """The text that has these errors."""
    rest = reference.split()
    for run in reversed(errors):
        assert tuple(rest[run.place : run.place + len(run.said)]) == run.said
        rest[run.place : run.place + len(run.said)] = run.heard
    return " ".join(rest)


@given(texts, texts)
def test_errors_are_all_that_makes_the_difference(reference: str, text: str) -> None:
    errors = find_errors(reference, text)
    assert rebuilt(reference, errors) == text
    assert all(run.said != run.heard for run in errors) and {run.kind for run in errors} <= KINDS.keys()


@given(texts, texts, texts)
def test_what_is_repaired_one_way_is_new_the_other_way(reference: str, before: str, after: str) -> None:
    repaired, new = repaired_and_new(reference, before, after)
    assert repaired_and_new(reference, after, before) == (new, repaired)
    assert set(repaired) <= set(find_errors(reference, before)) and set(new) <= set(find_errors(reference, after))
    if after == reference:
        assert repaired == find_errors(reference, before) and not new


@settings(deadline=None, max_examples=30)
@given(corpora)
def test_sums_agree(rows: list[tuple[str, str, str]]) -> None:
    found = compare(rows)
    assert sum(found.fates.values()) == len(rows) and found.fates.keys() <= FATES.keys()
    assert sum(part.sentences for part in found.buckets.values()) == len(rows)
    assert sum(part.before.errors for part in found.buckets.values()) == found.words.first.errors
    assert sum(part.after.errors for part in found.buckets.values()) == found.words.second.errors
    assert sum(one.before for one in found.kinds.values()) == sum(len(find_errors(*row[:2])) for row in rows)
    assert sum(one.repaired for one in found.kinds.values()) == found.repairs.total()
    assert sum(one.new for one in found.kinds.values()) == found.harms.total()
    assert all(one.left >= 0 for one in found.kinds.values())
    changes = found.words.better, found.words.worse, found.words.equal
    assert changes == (found.fates["helped"], found.fates["harmed"], found.fates["no effect"] + found.fates["same"])
    assert max(map(len, found.table().splitlines())) <= 80
    json.dumps(found.for_json(), allow_nan=False)


# ---------------------------------------------------------------------------------------------------------------------
# As it is printed


def test_table() -> None:
    assert outcome(*zip(*ROWS, strict=True)).table() == TABLE


def test_long_and_wide_examples_fit() -> None:
    rows = [(f"{word} b", f"{word[::-1] * 9} b", f"{word} b") for word in ("北京大学", "abc", "długi", "слово")]
    found = compare([*rows, *[("a b", "c b", "a b")] * 3])
    lines = found.table().split("\n\n")[-1].splitlines()
    assert lines[1].startswith("  c > a (3x), 学大京北学大京北学大京北学大京北...")
    assert len(lines) == 4 and max(map(columns_of, lines)) <= 80
    many = compare([(f"word{n} b", f"ward{n} b", f"word{n} b") for n in range(1000, 1030)])
    assert len(many.table().split("\n\n")[-1].splitlines()) == 4  # a title, and three lines of those that fit


def test_odd_corpora_fit_too() -> None:
    noisy = compare([("a", "b", "a " * 1000)]).table()
    assert max(map(len, noisy.splitlines())) <= 80 and "99900 .. 99900" in noisy
    told = compare([("a", "a\x1b[31m", "a")]).table()
    assert "\x1b" not in told and "a\ufffd[31m > a" in told


def test_json() -> None:
    found = compare(ROWS).for_json()
    assert found["wer"]["before"] == pytest.approx(5 / 14) and found["wer"]["after"] == pytest.approx(4 / 14)
    assert found["sentences"] == {"all": 6, "helped": 2, "harmed": 1, "no effect": 1, "same": 2}
    assert found["errors"]["misheard"] == {"before": 2, "repaired": 1, "new": 2, "left": 1}
    assert found["by_wer"]["right"]["after"] == 1 and found["by_wer"]["right"]["words"] == 4
    assert found["harms"] == {"cat > bat": 1, "now > no": 1}


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="2 references, 1 texts before and 2 after; give one of each"):
        outcome(["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no utterances to compare"):
        outcome([], [], [])
    with pytest.raises(ValueError, match="nothing was said in any"):
        outcome([""], ["uh"], [""])
