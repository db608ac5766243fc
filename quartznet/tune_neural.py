"""Whether a neural model shall choose among the texts of the search, and at which weights (``lm tune --neural``).

    python -m quartznet.lm tune --checkpoint runs/es --data corpora/es --lm es.arpa --neural es_lm.pt

The search runs once more with what was found for it and keeps its best texts; the network scores them, and
``quartznet.rescore.tune`` tries hundreds of weights of all judges. What decodes without the network (the search, or
greedy decoding where that is as good) must then be beaten by more than chance, as in ``quartznet.tune_lm``.

The surprise: the network may help where the n-gram did not. It reads the same texts, but nothing it says keeps a text
out of the beam.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel
from quartznet.beam import BeamSettings, beam_search
from quartznet.metrics import ErrorCounts, error_counts, total
from quartznet.rescore import TEXTS, TextScorer, Weights, heard, neural_scores, rescore
from quartznet.rescore import Tuning as Found
from quartznet.rescore import tune as tune_weights
from quartznet.significance import paired_bootstrap
from quartznet.tune_lm import SURE, Clips

SCORED_AT_ONCE = 8  # clips


@dataclass(frozen=True)
class NeuralTuning:
    """What was found."""

    found: Found
    without: tuple[ErrorCounts, ...]  # words of each clip, decoded without the network
    chosen: tuple[ErrorCounts, ...]  # the same clips with the weights found
    sureness: float  # share of the bootstrap's draws in which the network makes it better

    @property
    def helps(self) -> bool:
        return self.found.weights.gamma > 0 and self.sureness >= SURE


def tune_neural(
    clips: Clips,
    alphabet: Alphabet,
    settings: BeamSettings,
    language_model: LanguageModel | None,
    neural: TextScorer,
    without: Sequence[ErrorCounts],
    tell: Callable[[int, int], None] = lambda done, of: None,
    seed: int = 0,
) -> NeuralTuning:
    """The weights with the fewest word errors on ``clips``, and whether they beat ``without`` surely enough.

    Args:
        settings: of the search; more texts are kept.
        without: word errors of what decodes without the network.
        tell: is called with how many clips the network has read, of how many.

    Raises:
        ValueError: there is no clip, or from the network, where it lacks a letter.
    """
    nbest = beam_search(*clips.padded(), alphabet, replace(settings, count=TEXTS), language_model)
    scores: list[list[float]] = []
    for start in range(0, len(nbest), SCORED_AT_ONCE):
        scores += neural_scores(nbest[start : start + SCORED_AT_ONCE], alphabet, neural)
        tell(len(scores), len(nbest))
    alpha = settings.alpha if language_model else 0.0
    beta = settings.beta if language_model else 0.0
    found = tune_weights(nbest, scores, clips.references, alphabet, Weights(alpha, beta))
    best = [heard(texts[0], alphabet) for texts in rescore(nbest, scores, found.weights, alphabet)]
    chosen = error_counts(clips.references, best, "word")
    sureness = paired_bootstrap(without, chosen, seed).improvement
    return NeuralTuning(found, tuple(without), tuple(chosen), sureness)


def neural_verdict(tuning: NeuralTuning) -> str:
    """What was decided and why, in three or four lines."""
    before, after = (100 * total(counts).rate for counts in (tuning.without, tuning.chosen))
    weights, oracle = tuning.found.weights, 100 * tuning.found.oracle.rate
    best_there_is = f"the best of the {TEXTS} texts of each clip: {oracle:.2f} %"
    if weights.gamma == 0:
        return (
            f"{best_there_is}\nno weight of the neural model makes fewer errors than weights without it:\n"
            "it is not asked"
        )
    sure = f"better in {100 * tuning.sureness:.1f} % of the bootstrap's draws"
    return (
        f"{best_there_is}\nwithout the neural model {before:.2f} %, with it {after:.2f} % (alpha {weights.alpha:.3g}, "
        f"beta {weights.beta:.3g},\ngamma {weights.gamma:.3g})\n"
        + (f"{sure}: it is used" if tuning.helps else f"{sure}, {100 * SURE:.0f} are needed:\nit is not asked")
    )
