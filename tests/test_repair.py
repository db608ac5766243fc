"""Repairs: single changes, the gate's word, protection, sound; by hand with a table for a network, then with one."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bert import learnt_corrector, tiny_config, tiny_corrector, tiny_tokenizer

from postcorrect import repair as module
from postcorrect.candidates import Correction, log_probs
from postcorrect.gate import OPEN, GateSettings
from postcorrect.model import Corrector
from postcorrect.protect import Protected
from postcorrect.repair import Repair, one_by_one, propose, reasons_table, repair

PAIRS = {"the contry": "the country", "dont wory": "don't worry", "a b": "a b", "wor the": "wor the"}
LOOSE = GateSettings(margin=0.5, most_edits=0.5, veto=None)


@pytest.fixture(scope="module")
def corrector(tmp_path_factory: pytest.TempPathFactory) -> Corrector:
    return learnt_corrector(PAIRS, tiny_tokenizer(tmp_path_factory.mktemp("bert")))


Table = Callable[[dict[str, list[str]], dict[str, float]], Corrector]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Table:
    """A network whose texts and ln P stand in tables; the source has -10."""

    def make(written: dict[str, list[str]], values: dict[str, float]) -> Corrector:
        def found(corrector: Corrector, texts: Sequence[str], *_: object, **more: object) -> list[list[Correction]]:
            return [[Correction(text, 0.0, 0.0) for text in written.get(source, [])] for source in texts]

        def scores(corrector: Corrector, sources: Sequence[str], texts: Sequence[str], batch: int) -> list[float]:
            return [-10.0 if a == b else values[b] for a, b in zip(sources, texts, strict=True)]

        monkeypatch.setattr(module, "candidates", found)
        monkeypatch.setattr(module, "log_probs", scores)
        return tiny_corrector(tiny_config(positions=24), tiny_tokenizer(tmp_path))

    return make


@pytest.mark.parametrize(
    ("source", "text", "parts"),
    [
        ("a b c", "x b z", ["x b z", "x b c", "a b z"]),
        ("a b", "a b", ["a b"]),
        ("every day", "everyday we", ["everyday we", "everyday we"]),  # neighbours are one change
        ("", "a", ["a", "a"]),
        ("a b c d", "b c", ["b c", "b c d", "a b c"]),
    ],
)
def test_changes_one_by_one(source: str, text: str, parts: list[str]) -> None:
    assert one_by_one(source, text) == parts


words = st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=6).map(" ".join)


@given(words, words)
def test_each_change_alone_is_a_step_on_the_way(source: str, text: str) -> None:
    from postcorrect.errors import find_runs

    whole, *alone = one_by_one(source, text)
    assert whole == text and len(alone) == len(find_runs(source, text))
    assert alone == [text] if len(alone) == 1 else all(len(find_runs(source, one)) >= 1 for one in alone)


def test_the_good_one_of_two_changes_is_taken(table: Table) -> None:
    network = table(
        {"the cat sad down": ["a cat sat down"]}, {"a cat sat down": -8, "the cat sat down": -4, "a cat sad down": -14}
    )
    gate = GateSettings(margin=2.0, most_edits=0.1)
    assert repair(network, ["the cat sad down"], gate) == [
        Repair("the cat sad down", "the cat sat down", "the cat sat down", "accepted", 6.0)
    ]
    [refused] = repair(network, ["the cat sad down"], GateSettings(margin=6.0))
    assert refused == Repair("the cat sad down", "the cat sad down", "the cat sat down", "margin", 6.0)


def test_every_reason(table: Table) -> None:
    network = table(
        {"a b": ["a b"], "c d": ["c e"], "e": ["abcdef"], "7 e": ["8 e"], "g": ["h"], "i": ["j"]},
        {"c e": -9.0, "abcdef": -1.0, "8 e": -1.0, "h": -2.0, "j": -12.0},
    )
    texts = ["a b", "c d", "e", "7 e", "g", "i", "none"]
    sounds = {"h": -30.0}
    found = repair(
        network,
        texts,
        GateSettings(margin=2.0, most_edits=1.0, veto=5.0),
        protected=Protected(),
        sound=lambda place, some: [sounds.get(text, -3.0) for text in some],
    )
    assert [one.reason for one in found] == ["same", "margin", "edits", "protected", "sound", "same", "left alone"]
    assert [one.text for one in found] == texts
    assert [one.proposed for one in found] == ["a b", "c e", "abcdef", "7 e", "h", "i", "none"]
    assert [one.gain for one in found] == [0.0, 1.0, 9.0, 0.0, 8.0, 0.0, 0.0]
    shown = reasons_table(found)
    assert "the corrector would write the same                 2" in shown and max(map(len, shown.splitlines())) <= 80


def test_what_is_protected_stays_and_the_rest_goes(table: Table) -> None:
    network = table({"anna had katz": ["hanna had cats"]}, {"anna had cats": -1.0})
    [found] = repair(network, ["anna had katz"], OPEN, protected=Protected.of(["anna"]))
    assert (found.text, found.reason) == ("anna had cats", "accepted")


def test_the_sound_is_asked_once_of_each_place_and_decides(table: Table) -> None:
    network = table({"a c": ["a d", "a e"], "b": ["b"]}, {"a d": -5.0, "a e": -6.0})
    asked: list[tuple[int, list[str]]] = []

    def sound(place: int, texts: list[str]) -> list[float]:
        asked.append((place, texts))
        return [{"a c": -2.0, "a d": -9.0, "a e": -3.0}[text] for text in texts]

    gate = GateSettings(margin=1.0, most_edits=1.0, sound=0.5, veto=None)
    found = repair(network, ["b", "a c"], gate, sound=sound)
    assert asked == [(1, ["a c", "a d", "a e"])]
    assert found[1] == Repair("a c", "a e", "a e", "accepted", 4.0 - 0.5)


def test_a_source_that_no_path_can_write_is_no_measure(table: Table) -> None:
    network = table({"a": ["b", "c"]}, {"b": -9.0, "c": -1.0})
    scores = {"a": -math.inf, "b": -3.0, "c": -math.inf}
    [found] = propose(network, ["a"], sound=lambda place, texts: [scores[text] for text in texts])
    assert [(one.text, one.sound) for one in found.found] == [("b", 0.0), ("c", -math.inf)]


def test_texts_are_normalised_before_they_are_scored(table: Table) -> None:
    network = table({"a b": ["A  C", "a c", "A B"]}, {"a c": -1.0})
    [found] = propose(network, ["a  b"], normalise=str.lower) + propose(network, [], normalise=str.lower)
    assert not found.found and found.obstacle == "left alone"  # the table knows single spaces only
    [found] = propose(network, ["a b"], normalise=str.lower)
    assert [one.text for one in found.found] == ["a c"] and found.found[0].edits == 1 / 3


def test_what_has_no_place_in_the_network_is_not_proposed(table: Table) -> None:
    long = "a " * 30 + "a"
    network = table({"a": [long, "b"]}, {"b": -1.0})
    [found] = propose(network, ["a"])
    assert [one.text for one in found.found] == ["b"]


# ---------------------------------------------------------------------------------------------------------------------
# With a network


def test_a_network_that_has_learnt_repairs(corrector: Corrector) -> None:
    found = repair(corrector, list(PAIRS), LOOSE)
    assert [one.text for one in found] == list(PAIRS.values())
    assert [one.reason for one in found] == ["accepted", "accepted", "same", "same"]
    values = log_probs(corrector, ["the contry"] * 2, ["the country", "the contry"])
    assert found[0].gain == pytest.approx(values[0] - values[1], abs=1e-3)


def test_what_is_right_stays(corrector: Corrector) -> None:
    right = ["a b", "wor the"]
    assert [one.text for one in repair(corrector, right, OPEN)] == right


@pytest.mark.parametrize("gate", [GateSettings(is_on=False), GateSettings(margin=math.inf)])
def test_a_closed_gate_changes_nothing(corrector: Corrector, gate: GateSettings) -> None:
    texts = [*PAIRS, "", "the  contry", "Ünknown"]
    found = repair(corrector, texts, gate)
    assert [one.text for one in found] == [one.source for one in found] == texts
    assert gate.is_on or {one.reason for one in found} == {"left alone"}


def test_the_batch_does_not_matter(corrector: Corrector) -> None:
    texts = [*PAIRS, "", "the the contry", "señor", "the contry", "b " * 70, "don't a contry"]
    together = repair(corrector, texts, LOOSE)
    for text, one in zip(texts, together, strict=True):
        [alone] = repair(corrector, [text], LOOSE)
        assert (alone.text, alone.proposed, alone.reason) == (one.text, one.proposed, one.reason)
        assert alone.gain == pytest.approx(one.gain, abs=1e-3)
    assert [texts[place] for place, one in enumerate(together) if one.reason == "left alone"] == [
        "",
        "señor",
        "b " * 70,
    ]


def test_without_a_tokenizer_there_are_no_texts() -> None:
    with pytest.raises(ValueError, match="this corrector has no tokenizer"):
        repair(tiny_corrector(), ["a"], OPEN)
