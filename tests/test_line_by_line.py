"""Any lines: one out for each in, long ones in pieces, what cannot be corrected stays and is counted."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bert import tiny_corrector
from tiny_corrector import POSITIONS, by_heart

from postcorrect.gate import OPEN, GateSettings
from postcorrect.line_by_line import (
    OBSTACLES,
    OUTCOMES,
    PIECE,
    Alternative,
    Line,
    Setup,
    Tally,
    alternatives,
    correct,
    obstacle,
    pieces,
)
from postcorrect.protect import Protected
from postcorrect.repair import Repair
from postcorrect.search import SearchSettings
from quartznet.audit import columns_of

GATE = GateSettings(margin=3.0, most_edits=0.4, veto=None)
words = st.sampled_from(["the", "contry", "a", "b", "q", "ñ", "dont", "worry", "x" * 30])


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(by_heart(tmp_path_factory.mktemp("bert")), GATE, SearchSettings(4, count=4), Protected())


def outcomes(found: list[Line]) -> list[tuple[str, str]]:
    return [(line.text, line.outcome) for line in found]


def test_one_line_out_for_each_line_in(setup: Setup) -> None:
    lines = ["the contry", "", "dont \tworry ", "a\tb", "Señor", " a  q", "mother in low", "x" * 30, "the contry"]
    assert outcomes(correct(setup, lines)) == [
        ("the country's", "accepted"),
        ("", "empty"),
        ("don't worry", "accepted"),
        ("a\tb", "same"),  # as it was
        ("Señor", "letters"),
        (" a  q", "same"),
        ("mother-in-law", "accepted"),
        ("x" * 30, "long"),
        ("the country's", "accepted"),
    ]
    assert correct(setup, []) == []


def test_the_gate_decides(setup: Setup) -> None:
    shut = replace(setup, gate=GateSettings(is_on=False))
    assert outcomes(correct(shut, ["the contry", "", "ñ"])) == [
        ("the contry", "left alone"),
        ("", "empty"),
        ("ñ", "letters"),
    ]
    strict = replace(setup, gate=replace(GATE, most_edits=0.2))
    assert outcomes(correct(strict, ["mother in low", "dont worry"])) == [
        ("mother in low", "edits"),
        ("don't worry", "accepted"),
    ]


def test_protected_words_stay(setup: Setup) -> None:
    found = correct(replace(setup, protected=Protected.of(["dont", "mother in low"])), ["dont worry", "mother in low"])
    assert [line.text for line in found] == ["dont worry", "mother in low"]


# ---------------------------------------------------------------------------------------------------------------------
# Long lines


def test_pieces_by_hand(setup: Setup) -> None:
    fits = " ".join(["a"] * (POSITIONS - 2))
    assert pieces(setup.corrector, fits) == [fits]
    assert pieces(setup.corrector, f"{fits}\ta") == [" ".join(["a"] * count) for count in (9, 10)]
    assert pieces(setup.corrector, "a " * 30, most=8) == [" ".join(["a"] * count) for count in (7, 8, 7, 8)]
    assert pieces(setup.corrector, " ") == [] and pieces(setup.corrector, f"{'x' * 30} a") == ["x" * 30, "a"]


def test_a_line_of_2000_words(setup: Setup) -> None:
    [line] = correct(setup, ["dont worry " * 1000])
    assert len(line.source.split()) == 2000
    sizes = [len(piece.source.split()) for piece in line.pieces]
    assert sum(sizes) == 2000 and max(sizes) <= PIECE and max(sizes) <= 2 * min(sizes)
    assert all(obstacle(setup.corrector, piece.source) is None for piece in line.pieces)
    assert line.text.split() == [word for piece in line.pieces for word in piece.text.split()]


def test_only_the_piece_with_the_letter_stays(setup: Setup) -> None:
    known, strange = ["dont", "worry", *"ab" * 4], ["ñ", *"bq" * 5]
    [line] = correct(replace(setup, gate=OPEN), [" ".join(known + strange)])
    assert [piece.source.split() for piece in line.pieces] == [known, strange]
    assert line.text.endswith(" ".join(strange)) and line.obstacles == ("letters",)
    assert line.outcome == ("accepted" if line.text != line.source else "same")


@settings(deadline=None, max_examples=30)
@given(st.lists(words, max_size=60), st.integers(1, 9))
def test_pieces_are_the_line(setup: Setup, line: list[str], most: int) -> None:
    parts = pieces(setup.corrector, " ".join(line), most)
    assert [word for part in parts for word in part.split()] == line
    assert all(obstacle(setup.corrector, part) != "long" or len(part.split()) == 1 for part in parts)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.lists(words, max_size=12).map(" ".join), max_size=4))
def test_no_line_depends_on_others(setup: Setup, lines: list[str]) -> None:
    together = correct(setup, lines)
    assert [line.source for line in together] == lines
    assert [line.text for line in together] == [correct(setup, [line])[0].text for line in lines]
    assert {line.outcome for line in together} <= OUTCOMES.keys()


# ---------------------------------------------------------------------------------------------------------------------
# Alternatives


def test_alternatives_have_the_line_among_them(setup: Setup) -> None:
    best, *others = alternatives(setup, ["the contry"], 9)[0]
    assert best.text == "the country's" and best.gain > 3.0
    assert [one.gain for one in others] == sorted((one.gain for one in others), reverse=True)
    assert len({one.text for one in (best, *others)}) == 1 + len(others)
    assert alternatives(setup, ["the contry"], 1) == [[best]]
    assert Alternative("a b", 0.0) == alternatives(setup, ["a \t b"], 3)[0][0]
    assert alternatives(setup, ["", "ñ"], 3) == [[Alternative("", 0.0)], [Alternative("ñ", 0.0)]]


def test_alternatives_of_a_long_line_are_the_best_combinations(setup: Setup) -> None:
    line = "the contry " * 4
    parts = pieces(setup.corrector, line)
    assert len(parts) == 2
    [left], [right] = (alternatives(setup, [part], 3) for part in parts)
    sums = sorted(
        ((one.gain + other.gain, f"{one.text} {other.text}") for one in left for other in right), reverse=True
    )
    [found] = alternatives(setup, [line], 3)
    assert [one.gain for one in found] == pytest.approx([gain for gain, _ in sums[:3]])
    assert {one.text for one in found} <= {text for _, text in sums}


# ---------------------------------------------------------------------------------------------------------------------
# Counted


def test_table() -> None:
    same = Repair("a", "a", "a", "same", 0.0)
    tally = Tally()
    for number, line in enumerate(
        [
            Line("a", "b", (Repair("a", "b", "b", "accepted", 9.0),)),
            Line("", "", ()),
            Line("ñ", "ñ", (Repair("ñ", "ñ", "ñ", "left alone", 0.0),), ("letters",), "ñ"),
            Line("a ñÑ", "a ñÑ", (same, Repair("ñÑ", "ñÑ", "ñÑ", "left alone", 0.0)), ("letters",), "ñÑ"),
            Line("a", "a", (same,)),
        ],
        1,
    ):
        tally.add(line, f"x.txt:{number}")
    assert tally.table().splitlines() == [
        "lines                                                5",
        "  corrected                                          1",
        "  the corrector would write the same                 2",
        "  empty                                              1",
        "  letters that the vocabulary cannot write           1",
        "    the first: x.txt:3",
        "the vocabulary cannot write: ñ 2, Ñ 1",
        "1 too long for the network, cut into 2 pieces, 1 of these cannot be corrected",
    ]
    assert max(map(len, tally.table().splitlines())) <= 80 and set(OBSTACLES) <= set(OUTCOMES)
    assert sum(tally.outcomes.values()) == tally.lines


def test_characters_that_cannot_be_written_are_named_once(setup: Setup) -> None:
    tally = Tally()
    for line in correct(setup, ["Señor ñu", "a b", "\ud800 ñ", "x" * 30, "ñ " + "a b " * 45 + "7"]):
        tally.add(line, "x.txt")
    assert tally.strange == {"S": 1, "ñ": 4, "\ud800": 1, "7": 1}
    assert [row for row in tally.table().splitlines() if "write: " in row] == [
        "the vocabulary cannot write: ñ 4, S 1, U+D800 1, 7 1"
    ]
    tally.strange.update(map(chr, range(0x4E00, 0x4F00)))
    rows = tally.table().splitlines()
    assert " 1, 230 others " in " ".join(" ".join(rows).split()) and max(map(columns_of, rows)) <= 80


def test_of_several_pieces_the_closest_counts() -> None:
    refused = Repair("a", "a", "b", "margin", 2.0), Repair("c", "c", "c", "same", 0.0)
    assert Line("a c", "a c", refused).outcome == Line("c a", "c a", refused[::-1]).outcome == "margin"


def test_without_a_tokenizer(setup: Setup) -> None:
    for asks in (lambda one: correct(one, ["a"]), lambda one: alternatives(one, ["a"], 2)):
        with pytest.raises(ValueError, match="this corrector has no tokenizer"):
            asks(replace(setup, corrector=tiny_corrector()))
