"""Texts repaired as far as the gate lets them be: what could stand there instead, and which of it is taken.

    repair(corrector, ["the contry wor"], GateSettings())      # [Repair(source, text, proposed, reason, gain)]

Proposed are the best few texts of the beam and, for each of them, the source with one of its changes alone: so of a
good and a bad change in one sentence the good one can be taken. All are scored in the same way, by the corrector and,
where the audio is at hand, by the recogniser.

The surprise: what the beam likes best is often not what is taken. Its text is one reading of the whole sentence; the
gate asks of each change whether it is worth it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from postcorrect.candidates import candidates, log_probs
from postcorrect.errors import find_runs
from postcorrect.gate import REASONS, GateSettings, Proposal, Reason, decide, gain
from postcorrect.model import Corrector
from postcorrect.protect import Protected
from postcorrect.search import SearchSettings

SEARCH = SearchSettings(beam=4, count=4)  # whose texts are proposed
TOKENS = 4096  # that are scored together, padding included
PORTION = 256  # pairs that are sorted by length, so that a long one does not shorten all batches

Sound = Callable[[int, list[str]], list[float]]  # place of a text in the list, texts -> ln P_ctc of each


@dataclass(frozen=True)
class Repair:
    """What became of one text."""

    source: str
    text: str  # what is shown: the correction, or the source where the gate said no
    proposed: str  # the best that the corrector had; the source where it had none
    reason: Reason
    gain: float  # of ``proposed``, nats; 0 where it is the source


@dataclass(frozen=True)
class Proposals:
    """What could stand instead of a source."""

    source: str
    found: tuple[Proposal, ...]  # none of them the source
    obstacle: Reason = "same"  # why there are none: "same", "protected", "left alone"


def repaired(proposals: Proposals, gate: GateSettings) -> Repair:
    """The word of the gate on one source."""
    source = proposals.source
    if not proposals.found:
        return Repair(source, source, source, proposals.obstacle, 0.0)
    chosen, reason = decide(proposals.found, gate)
    if chosen is None:
        return Repair(source, source, source, reason, 0.0)
    text = chosen.text if reason == "accepted" else source
    return Repair(source, text, chosen.text, reason, gain(chosen, gate))


# ---------------------------------------------------------------------------------------------------------------------
# Texts


def one_by_one(source: str, text: str) -> list[str]:
    """The text, and the source with each of its changes alone.

    >>> one_by_one("a b c", "x b z")
    ['x b z', 'x b c', 'a b z']
    """
    words, found = source.split(), [text]
    for run in find_runs(source, text):
        found.append(" ".join([*words[: run.place], *run.heard, *words[run.place + len(run.said) :]]))
    return found


def _texts(
    source: str, written: Sequence[str], protected: Protected | None, normalise: Callable[[str], str] | None
) -> tuple[list[str], bool]:
    """The different texts that can stand instead of a source, and whether protection left none."""
    plain, kept_back = " ".join(source.split()), False
    different: dict[str, None] = {}
    for text in written:
        for part in one_by_one(plain, " ".join((normalise(text) if normalise else text).split())):
            kept = protected.keep(plain, part) if protected else part
            kept_back |= part != plain and kept == plain
            different.setdefault(kept)
    different.pop(plain, None)
    return list(different), kept_back and not different


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def _model_scores(corrector: Corrector, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """ln P(text | source) of each (source, text); without those that have more tokens than the network has places."""
    pairs = sorted(set(pairs))
    different = sorted({text for pair in pairs for text in pair})
    ids = corrector.tokenizer.ids(different) if corrector.tokenizer else []
    size = dict(zip(different, map(len, ids), strict=True))
    length = {pair: max(size[text] for text in pair) for pair in pairs}
    fitting = sorted((pair for pair in pairs if length[pair] <= corrector.config.positions), key=length.__getitem__)
    found: dict[tuple[str, str], float] = {}
    for start in range(0, len(fitting), PORTION):
        part = fitting[start : start + PORTION]
        values = log_probs(corrector, *zip(*part, strict=True), batch=max(1, TOKENS // length[part[-1]]))
        found |= dict(zip(part, values, strict=True))
    return found


def _sound_differences(texts: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """How much more probable each text is than the source, whose score comes first, by its sound.

    Where no path can write the source, it is no measure for texts that can be written: the sound says nothing of them.
    """
    source, *others = scores
    return {
        text: -math.inf if score == -math.inf else score - source if math.isfinite(source) else 0.0
        for text, score in zip(texts, others, strict=True)
    }


def _edits(source: str, text: str) -> float:
    """Letters and spaces that change, of those of the source."""
    return Levenshtein.distance(source, text) / max(1, len(source))


def propose(
    corrector: Corrector,
    texts: Sequence[str],
    search: SearchSettings | None = None,
    protected: Protected | None = None,
    sound: Sound | None = None,
    normalise: Callable[[str], str] | None = None,
) -> list[Proposals]:
    """What could stand instead of each text, with all scores that a gate asks for; arguments as in ``repair``."""
    written = candidates(corrector, texts, search or SEARCH, tell=False)
    found = [
        _texts(text, [one.text for one in some], protected, normalise)
        for text, some in zip(texts, written, strict=True)
    ]
    pairs = {
        (text, other) for text, (others, _) in zip(texts, found, strict=True) if others for other in (text, *others)
    }
    model = _model_scores(corrector, pairs)
    result = []
    for place, (text, some, (others, is_protected)) in enumerate(zip(texts, written, found, strict=True)):
        others = [other for other in others if (text, other) in model]
        heard = _sound_differences(others, sound(place, [text, *others])) if sound and others else {}
        plain = " ".join(text.split())
        proposals = tuple(
            Proposal(other, model[text, other] - model[text, text], _edits(plain, other), heard.get(other))
            for other in others
        )
        obstacle: Reason = "protected" if is_protected else "same" if some else "left alone"
        result.append(Proposals(text, proposals, obstacle))
    return result


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def repair(
    corrector: Corrector,
    texts: Sequence[str],
    gate: GateSettings,
    search: SearchSettings | None = None,
    protected: Protected | None = None,
    sound: Sound | None = None,
    normalise: Callable[[str], str] | None = None,
) -> list[Repair]:
    """What becomes of each text; none depends on the others. What cannot be corrected is "left alone".

    Args:
        gate: with ``is_on`` False nothing is computed, and all is left alone.
        search: how many texts of the beam are proposed; four of four if left out.
        protected: words that stay as they are.
        sound: ``sound(place, texts)`` -> ln P_ctc of each text for the audio of ``texts[place]``, minus infinity where
            no path reads so; None: there is no audio.
        normalise: is applied to what the corrector writes, before anything is scored.

    Raises:
        ValueError: the corrector has no tokenizer, or the network gives NaN.
    """
    if not gate.is_on:
        return [Repair(text, text, text, "left alone", 0.0) for text in texts]
    return [repaired(found, gate) for found in propose(corrector, texts, search, protected, sound, normalise)]


def reasons_table(repairs: Iterable[Repair]) -> str:
    """How many texts were corrected and why the others were not, for the screen."""
    counts = Counter(one.reason for one in repairs)
    return "\n".join(f"{meaning:<44}{counts[reason]:>8,}" for reason, meaning in REASONS.items() if counts[reason])
