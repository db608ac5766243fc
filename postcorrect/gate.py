"""Which corrections are let through: by how probable they are, how far they go, and what was heard.

    gain(text) = ln P(text | source) - ln P(source | source)                           the corrector, in nats
               + sound (ln P_ctc(text | audio) - ln P_ctc(source | audio))             where the audio is at hand

    a text may pass   edit distance <= most_edits x letters of the source
                      ln P_ctc(text | audio) >= ln P_ctc(source | audio) - veto        where the audio is at hand
    it is taken       if its gain is the most of those that may, and above margin

``python -m postcorrect.tune_gate`` finds the numbers, ``postcorrect.gate_file`` keeps them. Where the audio is at hand,
a text that no path can write never passes: it is too long, or has letters that the recogniser lacks.

The surprise: the recogniser finds a right correction less probable than its own mistake, or it would have written it.
On English clips the truth costs 3 to 5 nats, and in one of ten wrong sentences more than 20; a veto forbids what costs
more, and a weight of sound takes what it costs off the gain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal["accepted", "same", "margin", "edits", "sound", "protected", "left alone"]
REASONS: dict[Reason, str] = {
    "accepted": "corrected",
    "same": "the corrector would write the same",
    "margin": "not probable enough",
    "edits": "too much would change",
    "sound": "it was not heard so",
    "protected": "only protected words would change",
    "left alone": "cannot be corrected, or the gate is off",
}


@dataclass(frozen=True)
class GateSettings:
    """How much a correction must have in its favour; the defaults are strict, for a corrector that nobody tuned."""

    margin: float = 3.0  # nats of gain that a correction must exceed; infinite: none does
    most_edits: float = 0.2  # letters that may change, of those of the source, spaces counted
    sound: float = 0.0  # weight of the recogniser's word in the gain
    veto: float | None = 10.0  # nats that a correction may be less probable by its sound; None: any number
    is_on: bool = True  # False: tuning found no help beyond luck, so every text stays as it is

    def __post_init__(self) -> None:
        if not self.margin >= 0.0:
            raise ValueError(f"margin must be 0 or more, got {self.margin}: a less probable text is no correction")
        for name in ("most_edits", "sound"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.sound == math.inf:
            raise ValueError("sound must be finite; veto 0 forbids all that is less probable by its sound")
        if self.veto is not None and not self.veto >= 0.0:
            raise ValueError(f"veto must be 0 or more, or null for none, got {self.veto}")

    def __str__(self) -> str:
        parts = [f"margin {self.margin:g}", f"most edits {self.most_edits:g}", f"sound {self.sound:g}"]
        return ", ".join([*parts, "no veto" if self.veto is None else f"veto {self.veto:g}"])


OPEN = GateSettings(margin=0.0, most_edits=math.inf, sound=0.0, veto=None)  # all that the corrector finds better


@dataclass(frozen=True)
class Proposal:
    """A text that the corrector would rather see."""

    text: str
    model: float  # ln P(text | source) - ln P(source | source)
    edits: float  # edit distance / letters of the source
    sound: float | None = None  # ln P_ctc(text | audio) - ln P_ctc(source | audio); None: no audio at hand


def gain(proposal: Proposal, gate: GateSettings) -> float:
    """What speaks for a text, in nats. Of one that cannot have been heard, what the corrector says alone."""
    heard = proposal.sound
    return proposal.model + (gate.sound * heard if heard is not None and math.isfinite(heard) else 0.0)


def objection(proposal: Proposal, gate: GateSettings) -> Reason | None:
    """What speaks against a text however large its gain is: "edits", "sound" or nothing."""
    if proposal.edits > gate.most_edits:
        return "edits"
    lowest = -math.inf if gate.veto is None else -gate.veto
    if proposal.sound is not None and (proposal.sound < lowest or proposal.sound == -math.inf):
        return "sound"
    return None


def best(proposals: Sequence[Proposal], gate: GateSettings) -> Proposal | None:
    """The one with the most gain among those that nothing speaks against, whatever the margin; the first of equals."""
    allowed = [proposal for proposal in proposals if objection(proposal, gate) is None]
    return max(allowed, key=lambda proposal: gain(proposal, gate), default=None)


def decide(proposals: Sequence[Proposal], gate: GateSettings) -> tuple[Proposal | None, Reason]:
    """The correction that is taken and "accepted"; or the best that is not, if there is one, and why."""
    if not gate.is_on:
        return None, "left alone"
    found = best(proposals, gate)
    if found is not None and gain(found, gate) > gate.margin:
        return found, "accepted"
    better = [proposal for proposal in proposals if gain(proposal, gate) > 0.0]
    if not better:
        return None, "same"
    refused = max(better, key=lambda proposal: gain(proposal, gate))
    return refused, objection(refused, gate) or "margin"
