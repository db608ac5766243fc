"""The gate with the fewest word errors on a dev set, and whether it helps by more than luck.

All texts have been proposed and scored, so trying a gate costs nothing: a small grid is tried in full, and of equally
good gates the strictest is taken. Whatever is chosen on some sentences looks better on them than it is. So the verdict
asks what happens to sentences that had no part in the choice: they are divided into five parts, each is corrected by
the gate that is best on the four others, and the sum must beat the uncorrected texts in 95 % of the draws of a paired
bootstrap (``quartznet.significance``). Texts of the same sentence stay in the same part, and are drawn together.

The surprise: the held-out figure belongs to no single gate; the five may differ. It says what choosing in this way is
worth, and the gate that is kept was chosen in this way on all parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from data.hashing import stable_hash
from data.splits import sentence_key
from postcorrect.gate import GateSettings, Proposal, best, gain
from quartznet.metrics import ErrorCounts, error_counts, total
from quartznet.significance import paired_bootstrap
from quartznet.tune_lm import SURE

MARGINS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
EDITS = (0.05, 0.1, 0.2, 0.3, 0.5)
SOUNDS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
VETOES = (0.0, 2.0, 5.0, 10.0, 20.0, None)
PARTS = 5


@dataclass(frozen=True)
class Sentence:
    """A text of the dev set, what could stand instead, and how wrong each of these is."""

    reference: str
    before: ErrorCounts  # words
    proposals: tuple[Proposal, ...]
    after: tuple[ErrorCounts, ...]  # of each proposal


def sentences(
    references: Sequence[str], sources: Sequence[str], proposals: Sequence[Sequence[Proposal]]
) -> list[Sentence]:
    """Counts the word errors of all texts."""
    before = error_counts(references, sources)
    pairs = [(said, one.text) for said, some in zip(references, proposals, strict=True) for one in some]
    counts = iter(error_counts([said for said, _ in pairs], [text for _, text in pairs]))
    rows = zip(references, before, proposals, strict=True)
    return [Sentence(said, errors, tuple(some), tuple(next(counts) for _ in some)) for said, errors, some in rows]


def grid(has_sound: bool) -> list[GateSettings]:
    """All gates that are tried, the strictest first: by margin, letters changed, veto, weight of the sound."""
    sounds, vetoes = (SOUNDS, VETOES) if has_sound else ((0.0,), (None,))
    places = product(sorted(MARGINS, reverse=True), EDITS, vetoes, sounds)
    return [GateSettings(margin, edits, sound, veto) for margin, edits, veto, sound in places]


def _chosen(sentence: Sentence, gate: GateSettings) -> tuple[float, ErrorCounts]:
    """The gain of the text that a gate without margin takes, and its errors; minus infinity where there is none."""
    found = best(sentence.proposals, gate)
    if found is None:
        return -math.inf, sentence.before
    return gain(found, gate), sentence.after[sentence.proposals.index(found)]


def errors_of(found: Sequence[Sentence], gates: Sequence[GateSettings]) -> np.ndarray:
    """Word errors (gates, sentences)."""
    before = np.array([sentence.before.errors for sentence in found])
    known: dict[GateSettings, tuple[np.ndarray, np.ndarray]] = {}
    rows = []
    for gate in gates:
        plain = replace(gate, margin=0.0)
        if plain not in known:
            chosen = [_chosen(sentence, plain) for sentence in found]
            gains, errors = (np.array(column) for column in zip(*((g, c.errors) for g, c in chosen), strict=True))
            known[plain] = gains, errors
        gains, errors = known[plain]
        rows.append(np.where(gains > gate.margin, errors, before))
    return np.array(rows)


def _parts(found: Sequence[Sentence]) -> np.ndarray:
    """The part of each sentence, 0 to 4; the same for the same letters."""
    return np.array([stable_hash("gate", sentence_key(sentence.reference)) % PARTS for sentence in found])


def held_out_gates(found: Sequence[Sentence], gates: Sequence[GateSettings], errors: np.ndarray) -> list[GateSettings]:
    """For each sentence the gate that is best on the parts that it is not in."""
    parts = _parts(found)
    chosen = {part: gates[int(errors[:, parts != part].sum(1).argmin())] for part in range(PARTS)}
    return [chosen[part] for part in parts.tolist()]


def _grouped(found: Sequence[Sentence], counts: Sequence[ErrorCounts]) -> list[ErrorCounts]:
    """Counts of each different sentence: several texts of one are no independent witnesses."""
    groups: dict[str, list[ErrorCounts]] = {}
    for sentence, one in zip(found, counts, strict=True):
        groups.setdefault(sentence_key(sentence.reference), []).append(one)
    return [total(some) for some in groups.values()]


@dataclass(frozen=True)
class GateTuning:
    """What was found."""

    settings: GateSettings  # the best of the grid; ``is_on`` is the verdict
    sentences: int
    before: ErrorCounts  # words
    after: ErrorCounts  # with ``settings``
    held_out: ErrorCounts  # each sentence by the gate that is best on others; so the counts below
    oracle: ErrorCounts  # the best of all texts, whatever a gate says
    changed: int  # sentences
    helped: int
    harmed: int
    sureness: float  # share of the bootstrap's draws in which there are fewer errors


def tune_gate(found: Sequence[Sentence], has_sound: bool, seed: int = 0) -> GateTuning:
    """The gate for a dev set; see the top of the file.

    Args:
        has_sound: weight and veto of the sound are looked for as well.
        seed: of the bootstrap.

    Raises:
        ValueError: there is no sentence, or nothing was said in any.
    """
    gates = grid(has_sound)
    if not found:
        raise ValueError("there is no sentence to tune the gate on; give pairs or clips")
    errors = errors_of(found, gates)
    settings = gates[int(errors.sum(1).argmin())]
    held_out, changed = [], 0
    for sentence, gate in zip(found, held_out_gates(found, gates, errors), strict=True):
        value, counts = _chosen(sentence, gate)
        is_accepted = value > gate.margin
        changed += is_accepted
        held_out.append(counts if is_accepted else sentence.before)
    before = [sentence.before for sentence in found]
    difference = paired_bootstrap(_grouped(found, before), _grouped(found, held_out), seed)
    accepted = [_chosen(sentence, settings) for sentence in found]
    after = [c if value > settings.margin else s.before for s, (value, c) in zip(found, accepted, strict=True)]
    pairs = [(one.errors, other.errors) for one, other in zip(before, held_out, strict=True)]
    return GateTuning(
        settings=replace(settings, is_on=difference.improvement >= SURE),
        sentences=len(found),
        before=total(before),
        after=total(after),
        held_out=total(held_out),
        oracle=total(min((s.before, *s.after), key=lambda counts: counts.errors) for s in found),
        changed=changed,
        helped=sum(one > other for one, other in pairs),
        harmed=sum(one < other for one, other in pairs),
        sureness=difference.improvement,
    )


def verdict(tuning: GateTuning) -> str:
    """What was found and decided, for a terminal of 80 columns."""
    rows = (
        ("as recognised", tuning.before),
        ("corrected, the gate chosen on the same sentences", tuning.after),
        ("corrected, the gate chosen on other sentences", tuning.held_out),
        ("the best of all proposals, by an oracle", tuning.oracle),
    )
    lines = [f"{tuning.sentences:,} sentences, {tuning.before.reference_length:,} words"]
    lines.append(f"{'':<50}{'errors':>10}{'WER':>12}")
    lines += [f"{name:<50}{counts.errors:>10,}{100 * counts.rate:>10.2f} %" for name, counts in rows]
    lines.append(f"gate: {tuning.settings}")
    lines.append(f"on other sentences: {tuning.changed:,} changed, {tuning.helped:,} helped, {tuning.harmed:,} harmed")
    sure = f"better in {100 * tuning.sureness:.1f} % of the bootstrap's draws"
    off = f"{sure}, {100 * SURE:.0f} are needed:\nthe gate is off, all texts stay as they are"
    return "\n".join([*lines, f"{sure}: the gate is on" if tuning.settings.is_on else off])
