"""The choice of a gate: by hand, against the gate itself, and that luck does not pass for help."""

import random
from dataclasses import replace

import pytest

from postcorrect.gate import GateSettings, Proposal, decide
from postcorrect.gate_grid import errors_of, grid, held_out_gates, sentences, tune_gate, verdict

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def corpus(count: int, is_right: float, seed: int = 0, has_sound: bool = False) -> list:
    """Sentences with one wrong word of four, and a proposal that is right in a share of them; gains say nothing."""
    draw = random.Random(seed)
    references, sources, proposals = [], [], []
    for _ in range(count):
        words = ["".join(draw.choices(LETTERS, k=4)) for _ in range(4)]
        said, wrong, other = (" ".join([*words[:3], word]) for word in (words[3], "wrong", "other"))
        is_mended = draw.random() < is_right
        references.append(said)
        sources.append(wrong if draw.random() < 0.5 else said)
        text = said if is_mended and sources[-1] != said else other
        heard = draw.uniform(-3, 0) if text == said else draw.uniform(-25, -10)
        proposals.append([Proposal(text, draw.uniform(0, 9), 0.2, heard if has_sound else None)])
    return sentences(references, sources, proposals)


def test_a_gate_by_hand() -> None:
    """Two repairs above 2 nats and a harm below: of the margins that keep both, the strictest."""
    found = sentences(
        ["a b", "c d", "e f", "g h"],
        ["a x", "c x", "e f", "g h"],
        [
            [Proposal("a b", 3.5, 0.3)],
            [Proposal("c d", 5.0, 0.3)],
            [Proposal("e x", 2.0, 0.3)],
            [Proposal("x x", 9.0, 0.7)],
        ],
    )
    tuning = tune_gate(found, has_sound=False)
    assert (tuning.settings.margin, tuning.settings.most_edits, tuning.settings.sound) == (3.0, 0.3, 0.0)
    assert tuning.settings.veto is None
    assert (tuning.before.errors, tuning.after.errors, tuning.oracle.errors, tuning.sentences) == (2, 0, 0, 4)


def test_the_strictest_comes_first() -> None:
    first, *_, last = grid(True)
    assert (first.margin, first.most_edits, first.sound, first.veto) == (12.0, 0.05, 0.0, 0.0)
    assert (last.margin, last.most_edits, last.sound, last.veto) == (0.0, 0.5, 2.0, None)
    assert len(grid(False)) == 45 and {(gate.sound, gate.veto) for gate in grid(False)} == {(0.0, None)}
    nothing = sentences(["a b"], ["a c"], [[]])
    assert replace(tune_gate(nothing, True).settings, is_on=True) == first


@pytest.mark.parametrize("has_sound", [False, True])
def test_counts_are_those_that_the_gate_makes(has_sound: bool) -> None:
    found = corpus(12, 0.5, has_sound=has_sound)
    gates = grid(has_sound)[::7]
    errors = errors_of(found, gates)
    for gate, row in zip(gates, errors.tolist(), strict=True):
        for sentence, count in zip(found, row, strict=True):
            chosen, reason = decide(sentence.proposals, gate)
            counts = sentence.after[sentence.proposals.index(chosen)] if reason == "accepted" else sentence.before
            assert counts.errors == count


def test_help_is_seen_and_luck_is_not() -> None:
    helped = tune_gate(corpus(80, 1.0, has_sound=True), has_sound=True)
    assert helped.settings.is_on and helped.held_out.errors < 0.3 * helped.before.errors
    assert helped.changed >= helped.helped > 10 * helped.harmed
    useless = [tune_gate(corpus(60, 0.5, seed), has_sound=False).settings.is_on for seed in range(12)]
    assert sum(useless) <= 1


def test_the_sound_tells_good_from_bad() -> None:
    """Gains say nothing here, the sound all: only a gate that asks it helps."""
    found = corpus(80, 0.6, has_sound=True)
    deaf = [replace(s, proposals=tuple(replace(p, sound=None) for p in s.proposals)) for s in found]
    assert tune_gate(found, True).held_out.errors < tune_gate(deaf, False).held_out.errors
    assert tune_gate(found, True).settings.is_on


def test_no_sentence_helps_to_choose_its_own_gate() -> None:
    found = corpus(30, 0.7)
    gates = grid(False)
    chosen = held_out_gates(found, gates, errors_of(found, gates))
    for place in (0, 11, 29):
        spoiled = [*found]
        spoiled[place] = replace(found[place], after=tuple(replace(a, insertions=99) for a in found[place].after))
        again = held_out_gates(spoiled, gates, errors_of(spoiled, gates))
        assert again[place] == chosen[place]


def test_texts_of_one_sentence_are_one_witness() -> None:
    """The same sentence fifty times is no more sure than once."""
    [one] = sentences(["a b"], ["a c"], [[Proposal("a b", 9.0, 0.3)]])
    several = tune_gate([one] * 50, has_sound=False)
    assert several.settings.is_on == tune_gate([one], has_sound=False).settings.is_on is False
    assert several.before.errors == 50 and several.after.errors == 0 and several.held_out.errors == 50


def test_the_verdict_fits_the_screen() -> None:
    on, off = tune_gate(corpus(80, 1.0, has_sound=True), True), tune_gate(corpus(20, 0.0), has_sound=True)
    shown = verdict(on)
    assert "80 sentences, 320 words" in shown and shown.endswith("draws: the gate is on")
    assert "the gate is off, all texts stay as they are" in verdict(off)
    assert max(map(len, f"{shown}\n{verdict(off)}".splitlines())) <= 80


def test_nothing_to_tune_on() -> None:
    with pytest.raises(ValueError, match="there is no sentence to tune the gate on"):
        tune_gate([], has_sound=False)
    with pytest.raises(ValueError, match="nothing was said"):
        tune_gate(sentences([""], ["a"], [[]]), has_sound=False)
    assert GateSettings().is_on
