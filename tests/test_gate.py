"""The gate: its three conditions by hand, and that a looser one lets no less through."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postcorrect.gate import OPEN, REASONS, GateSettings, Proposal, best, decide, gain

GATE = GateSettings(margin=2.0, most_edits=0.3, sound=0.5, veto=4.0)
GOOD = Proposal("good", 5.0, 0.2, -3.0)  # gain 3.5


def test_a_gain_by_hand() -> None:
    assert gain(GOOD, GATE) == 5.0 - 0.5 * 3.0
    assert gain(Proposal("deaf", 5.0, 0.2), GATE) == 5.0
    assert gain(Proposal("unheard", 5.0, 0.2, -math.inf), GATE) == 5.0
    assert gain(GOOD, replace(GATE, sound=0.0)) == 5.0


@pytest.mark.parametrize(
    ("proposals", "text", "reason"),
    [
        ([GOOD], "good", "accepted"),
        ([], None, "same"),
        ([replace(GOOD, model=1.5)], None, "same"),  # the sound takes it all off
        ([replace(GOOD, model=3.5)], "good", "margin"),  # 2.0 is not above 2.0
        ([replace(GOOD, edits=0.31)], "good", "edits"),
        ([replace(GOOD, model=9.0, sound=-4.1)], "good", "sound"),
        ([replace(GOOD, sound=-math.inf)], "good", "sound"),
        ([Proposal("too far", 9.0, 0.9, 0.0), GOOD], "good", "accepted"),  # the best of those that may pass
        ([Proposal("too far", 9.0, 0.9, 0.0), replace(GOOD, model=3.0)], "too far", "edits"),
        ([GOOD, Proposal("better", 6.0, 0.3, -3.0), Proposal("equal", 6.0, 0.1, -3.0)], "better", "accepted"),
    ],
)
def test_decisions(proposals: list[Proposal], text: str | None, reason: str) -> None:
    found, why = decide(proposals, GATE)
    assert (found and found.text, why) == (text, reason) and why in REASONS


def test_a_gate_that_is_off_or_has_no_end_lets_nothing_through() -> None:
    assert decide([GOOD], replace(GATE, is_on=False)) == (None, "left alone")
    assert decide([replace(GOOD, model=1e9)], replace(GATE, margin=math.inf))[1] == "margin"


def test_what_nobody_could_have_heard_passes_no_gate() -> None:
    assert decide([replace(GOOD, sound=-math.inf, model=99.0)], OPEN)[1] == "sound"
    assert decide([Proposal("far", 0.1, 5.0, -99.0)], OPEN)[1] == "accepted"


numbers = st.floats(0, 30, allow_nan=False)
proposals = st.lists(
    st.builds(
        Proposal,
        st.text("ab", max_size=3),
        st.floats(-30, 30),
        st.floats(0, 1),
        st.none() | st.floats(-30, 30) | st.just(-math.inf),
    ),
    max_size=5,
)
gates = st.builds(GateSettings, numbers, st.floats(0, 1), st.floats(0, 2), st.none() | numbers)


@given(proposals, gates, numbers, st.floats(0, 1), numbers)
def test_a_looser_gate_lets_no_less_through(
    some: list[Proposal], gate: GateSettings, margin: float, edits: float, veto: float
) -> None:
    looser = replace(
        gate,
        margin=max(0.0, gate.margin - margin),
        most_edits=gate.most_edits + edits,
        veto=None if gate.veto is None else gate.veto + veto,
    )
    strict, loose = decide(some, gate), decide(some, looser)
    if strict[1] == "accepted":
        assert loose[1] == "accepted" and gain(loose[0], gate) >= gain(strict[0], gate)


@given(proposals, gates)
def test_what_is_taken_is_the_best_that_may_pass(some: list[Proposal], gate: GateSettings) -> None:
    found, reason = decide(some, gate)
    assert (found is None) == (reason == "same")
    if reason == "accepted":
        assert found == best(some, gate) and gain(found, gate) > gate.margin and found.edits <= gate.most_edits
        assert found.sound is None or gate.veto is None or found.sound >= -gate.veto


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": -0.1}, "margin must be 0 or more, got -0.1: a less probable text is no correction"),
        ({"margin": math.nan}, "margin must be 0 or more"),
        ({"most_edits": -1.0}, "most_edits must be 0 or more, got -1.0"),
        ({"sound": math.nan}, "sound must be 0 or more"),
        ({"sound": math.inf}, "sound must be finite"),
        ({"veto": -1.0}, "veto must be 0 or more, or null for none, got -1.0"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateSettings(**settings)


def test_settings_in_a_line() -> None:
    assert str(GATE) == "margin 2, most edits 0.3, sound 0.5, veto 4"
    assert str(OPEN) == "margin 0, most edits inf, sound 0, no veto"
