"""How much a language model shall count: alpha, beta and the beam, searched on a dev set (``quartznet.lm tune``).

    python -m quartznet.lm tune --checkpoint runs/es --data corpora/es --lm es.arpa

    total = ln P(text | sound) + alpha ln P(text) + beta words

The network runs once; the searches then share its log_probs. alpha and beta are first taken from a coarse grid, then
from a finer one around the best place, then the beam is widened while that helps. The result is written beside the
language model, as ``es.arpa.tuned.yaml``, and ``evaluate.py --lm es.arpa`` finds it there.

The surprise: the best of sixty weights looks better on the dev set than it is, because it was chosen there. So it must
beat the greedy text by more than chance (a paired bootstrap, 95 %), or the result says "greedy", and evaluate.py obeys.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel
from quartznet.beam import BeamSettings, beam_search
from quartznet.ctc import greedy_decode
from quartznet.metrics import ErrorCounts, error_counts, total
from quartznet.significance import paired_bootstrap
from quartznet.worth import WIDEST

ALPHAS = (0.2, 0.4, 0.6, 0.9, 1.3, 1.8, 2.5)
BETAS = (-1.0, 0.0, 1.0, 2.0, 3.5)
WIDER = (2, 4)  # times the beam of the grid, as far as a beam may be wide
SURE = 0.95  # share of the bootstrap's draws in which the search must beat greedy decoding

Point = tuple[float, float]  # alpha, beta


@dataclass(frozen=True)
class Clips:
    """A data set that the network has heard."""

    references: tuple[str, ...]
    log_probs: tuple[Tensor, ...]  # of each clip: (time, labels + 1)

    def padded(self) -> tuple[Tensor, Tensor]:
        """(batch, time, labels + 1), zero behind each clip's end, and the lengths (batch,)."""
        lengths = torch.tensor([len(row) for row in self.log_probs])
        return torch.nn.utils.rnn.pad_sequence(list(self.log_probs), batch_first=True), lengths


@dataclass(frozen=True)
class Tuning:
    """What was found."""

    settings: BeamSettings  # the best place
    greedy: tuple[ErrorCounts, ...]  # words of each clip
    searched: tuple[ErrorCounts, ...]  # the same clips with ``settings``
    surface: dict[Point, float]  # word error rate at the beam of the grid, a fraction
    beams: dict[int, float]  # the same at the best place, by beam
    sureness: float  # share of the bootstrap's draws in which the search is better

    @property
    def helps(self) -> bool:
        return self.sureness >= SURE


def between(values: Sequence[float], center: float) -> list[float]:
    """The centre and the midpoints to its two neighbours in ``values``; at an edge one step as wide as the last."""
    ordered = sorted(values)
    place = ordered.index(center)
    below = ordered[place - 1] if place else 2 * center - ordered[place + 1]
    above = ordered[place + 1] if place + 1 < len(ordered) else 2 * center - ordered[place - 1]
    return [(below + center) / 2, center, (center + above) / 2]


def search(
    clips: Clips, alphabet: Alphabet, settings: BeamSettings, language_model: LanguageModel
) -> list[ErrorCounts]:
    """Word errors of every clip's best text."""
    found = beam_search(*clips.padded(), alphabet, settings, language_model)
    return error_counts(clips.references, [texts[0].text for texts in found], "word")


def tune(
    clips: Clips,
    alphabet: Alphabet,
    language_model: LanguageModel,
    start: BeamSettings,
    tell: Callable[[int, int], None] = lambda done, of: None,
    seed: int = 0,
) -> Tuning:
    """The weights with the least word error rate on ``clips``; among equals the smallest alpha, then beta nearest 0.

    Args:
        start: everything but alpha and beta; its beam is that of the grids.
        tell: is called after every search with how many are done, of how many.

    Raises:
        ValueError: no clip, or nothing is said in any of them.
    """
    if not total(greedy := greedy_errors(clips, alphabet)).reference_length:
        raise ValueError("the dev set holds no words, so there is nothing to tune the language model on")
    searches = len(ALPHAS) * len(BETAS) + 8 + len(WIDER)
    done: dict[BeamSettings, list[ErrorCounts]] = {}

    def tried(settings: BeamSettings) -> float:
        if settings not in done:
            done[settings] = search(clips, alphabet, settings, language_model)
            tell(len(done), searches)
        return total(done[settings]).rate

    def best(points: Sequence[Point]) -> Point:
        surface.update({(a, b): tried(replace(start, alpha=a, beta=b)) for a, b in points})
        return min(surface, key=lambda point: (surface[point], point[0], abs(point[1])))

    surface: dict[Point, float] = {}
    alpha, beta = best([(alpha, beta) for alpha in ALPHAS for beta in BETAS])
    alpha, beta = best([(a, b) for a in between(ALPHAS, alpha) if a > 0 for b in between(BETAS, beta)])
    settings = replace(start, alpha=alpha, beta=beta)
    widths = (min(start.beam * times, WIDEST) for times in (1, *WIDER))
    beams = {beam: tried(replace(settings, beam=beam)) for beam in widths}
    settings = replace(settings, beam=min(beams, key=lambda beam: (beams[beam], beam)))
    difference = paired_bootstrap(greedy, done[settings], seed)
    return Tuning(settings, tuple(greedy), tuple(done[settings]), surface, beams, difference.improvement)


def greedy_errors(clips: Clips, alphabet: Alphabet) -> list[ErrorCounts]:
    """Word errors of every clip's greedy text; raises ValueError without clips."""
    if not clips.references:
        raise ValueError("the dev set holds no clips; give --data with at least one")
    return error_counts(clips.references, greedy_decode(*clips.padded(), alphabet), "word")


def surface_table(tuning: Tuning) -> str:
    """Word error rates in per cent, a line for each alpha, a column for each beta; at most 80 columns."""
    alphas, betas = (sorted({point[axis] for point in tuning.surface}) for axis in (0, 1))
    best = min(tuning.surface.values())

    def cell(alpha: float, beta: float) -> str:
        rate = tuning.surface.get((alpha, beta))
        return f"{'':8}" if rate is None else f"{100 * rate:6.2f}{'*' if rate == best else ' '} "

    lines = [f"{'alpha':>6}  beta " + "".join(f"{beta:<8g}" for beta in betas)]
    lines += [f"{alpha:6.2f}     " + "".join(cell(alpha, beta) for beta in betas).rstrip() for alpha in alphas]
    return "\n".join(lines)


def verdict(tuning: Tuning) -> str:
    """What was decided and why, in two or three lines."""
    greedy, found = 100 * total(tuning.greedy).rate, 100 * total(tuning.searched).rate
    settings = tuning.settings
    beams = ", ".join(f"{beam}: {100 * rate:.2f} %" for beam, rate in tuning.beams.items())
    lines = [
        f"word error rate by beam  {beams}",
        f"greedy {greedy:.2f} %, with the language model {found:.2f} % "
        f"(alpha {settings.alpha:g}, beta {settings.beta:g}, beam {settings.beam})",
    ]
    if tuning.helps:
        lines.append(f"better in {100 * tuning.sureness:.1f} % of the bootstrap's draws: it is used")
    else:
        lines.append(
            f"better in {100 * tuning.sureness:.1f} % of the bootstrap's draws, {100 * SURE:.0f} are needed: "
            "decoding\nstays greedy"
        )
    return "\n".join(lines)
