"""Second thoughts: the texts that a beam search found are weighed again, with a neural language model among the judges.

    total = acoustic + alpha language + gamma neural + beta words + bonus                    in nats

    lm, start = LetterLm.load("es_lm.pt"), Weights(settings.alpha, settings.beta)      # those of the beam search
    weights = tune(dev, neural_scores(dev, alphabet, lm), references, alphabet, start).weights
    best = rescore(test, neural_scores(test, alphabet, lm), weights, alphabet)         # dev, test: of beam_search

Each term is known for each text, so a set of weights costs an addition and ``tune`` tries hundreds: a coarse grid over
alpha, beta and gamma, then finer ones around the best, by word errors on dev. Where no gamma above 0 makes fewer errors
than the best weights without the network, the search's own weights stay and gamma is 0: it was no help.

The network only chooses among the texts it is shown. ``Tuning.oracle`` is what a perfect judge would make of them; with
that close to where one started, a larger beam helps more than a better model.

The surprise: alpha falls when gamma rises. Both models say much the same of a sentence, and whoever adds the second at
the weights of the first counts that twice.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from quartznet.alphabet import Alphabet
from quartznet.beam import Hypothesis
from quartznet.metrics import ErrorCounts, error_counts, total

TEXTS = 64  # of each utterance that are weighed again, where nobody says otherwise
ROUNDS = 4  # of the grid; each halves the distances of the one before
ALPHAS = GAMMAS = tuple(np.arange(0.0, 1.51, 0.25))  # of the first
BETA_STEPS = tuple(np.arange(-3.0, 3.1, 1.0))  # of the first, around the search's own

logger = logging.getLogger(__name__)


class TextScorer(Protocol):
    """A language model over whole texts; ``quartznet.letter_lm.LetterLm`` is one."""

    def score(self, texts: Sequence[str]) -> list[float]:
        """ln P of each text, its end included."""
        ...


@dataclass(frozen=True)
class Weights:
    """How much each judge's word counts; alpha and beta are those of the beam search unless tuned again."""

    alpha: float  # of the n-gram
    beta: float  # nats for each word
    gamma: float = 0.0  # of the network; 0: it is not asked

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.gamma >= 0 and np.isfinite([self.alpha, self.beta, self.gamma]).all()):
            raise ValueError(f"alpha and gamma must be 0 or more and beta finite, got {self}")


NBest = Sequence[Sequence[Hypothesis]]


def heard(hypothesis: Hypothesis, alphabet: Alphabet) -> str:
    """Its text in the recogniser's letters; the beam search's own ``text`` may write hot words in another way."""
    return alphabet.decode(hypothesis.ids)


def count_words(text: str, alphabet: Alphabet) -> int:
    """As the beam search counts them: where the alphabet has no space, each letter is a word."""
    return len(text.split()) if " " in alphabet.labels else len(text)


def neural_scores(nbest: NBest, alphabet: Alphabet, model: TextScorer) -> list[list[float]]:
    """ln P of every text of every utterance, shaped as ``nbest``; equal texts are asked for once.

    Raises:
        ValueError: from the model, where it does not know a letter of the recogniser's.
    """
    texts = [[heard(hypothesis, alphabet) for hypothesis in row] for row in nbest]
    different = list(dict.fromkeys(itertools.chain.from_iterable(texts)))
    known = dict(zip(different, model.score(different), strict=True))
    return [[known[text] for text in row] for row in texts]


def rescore(
    nbest: NBest, neural: Sequence[Sequence[float]], weights: Weights, alphabet: Alphabet
) -> list[list[Hypothesis]]:
    """The same texts with their new totals, best first; equal totals stay in the order they came in.

    Args:
        neural: of ``neural_scores``.

    Raises:
        ValueError: ``neural`` has another shape.
    """
    _check_shapes(nbest, neural)
    results = []
    for row, scores in zip(nbest, neural, strict=True):
        weighed = [replace(h, total=_total(h, score, weights, alphabet)) for h, score in zip(row, scores, strict=True)]
        results.append(sorted(weighed, key=lambda hypothesis: -hypothesis.total))
    return results


def _total(hypothesis: Hypothesis, neural: float, weights: Weights, alphabet: Alphabet) -> float:
    words = count_words(heard(hypothesis, alphabet), alphabet)
    by_models = weights.alpha * hypothesis.language + weights.gamma * neural
    return hypothesis.acoustic + by_models + weights.beta * words + hypothesis.bonus


def _check_shapes(nbest: NBest, neural: Sequence[Sequence[float]]) -> None:
    if [len(row) for row in nbest] != [len(row) for row in neural]:
        raise ValueError("there must be one neural score for each text of each utterance; take those of neural_scores")


# ---------------------------------------------------------------------------------------------------------------------
# Tuning


@dataclass(frozen=True)
class Tuning:
    """What tuning on dev found."""

    weights: Weights
    before: ErrorCounts  # in words, of the order in which the texts came
    after: ErrorCounts  # with ``weights``
    oracle: ErrorCounts  # of the best text of each utterance
    surface: tuple[tuple[Weights, int], ...]  # everything that was tried, with its word errors

    def __str__(self) -> str:
        """Three lines for a terminal."""
        weights, rates = self.weights, [f"{100 * counts.rate:.2f} %" for counts in (self.before, self.after)]
        best = {gamma: min(e for w, e in self.surface if w.gamma == gamma) for gamma in GAMMAS}
        line = ", ".join(f"{gamma:g}: {errors}" for gamma, errors in best.items())
        return (
            f"alpha {weights.alpha:.3g}, beta {weights.beta:.3g}, gamma {weights.gamma:.3g}: "
            f"WER {rates[0]} -> {rates[1]} on dev\n"
            f"word errors by gamma, {line}\nthe best text of each utterance: {100 * self.oracle.rate:.2f} %"
        )


class _Table:
    """Terms and errors of all texts, (utterances, texts), filled up with texts that are never chosen."""

    def __init__(
        self, nbest: NBest, neural: Sequence[Sequence[float]], references: Sequence[str], alphabet: Alphabet
    ) -> None:
        texts = [[heard(hypothesis, alphabet) for hypothesis in row] for row in nbest]
        shape = (len(nbest), max(map(len, nbest)))
        self.fixed = np.full(shape, -np.inf)  # acoustic + bonus
        self.language, self.neural, self.words = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.letter_errors = np.zeros(shape, dtype=int)
        pairs = [(reference, text) for reference, row in zip(references, texts, strict=True) for text in row]
        self.counts = self._by_row(error_counts(*zip(*pairs, strict=True)), texts)
        letters = self._by_row(error_counts(*zip(*pairs, strict=True), "character"), texts)
        for number, row in enumerate(nbest):
            here = (number, slice(0, len(row)))
            self.fixed[here] = [hypothesis.acoustic + hypothesis.bonus for hypothesis in row]
            self.language[here] = [hypothesis.language for hypothesis in row]
            self.neural[here] = neural[number]
            self.words[here] = [count_words(text, alphabet) for text in texts[number]]
            self.letter_errors[here] = [count.errors for count in letters[number]]
        self.word_errors = np.zeros(shape, dtype=int)
        for number, row in enumerate(self.counts):
            self.word_errors[number, : len(row)] = [count.errors for count in row]

    @staticmethod
    def _by_row(counts: Sequence[ErrorCounts], texts: Sequence[Sequence[str]]) -> list[list[ErrorCounts]]:
        remaining = iter(counts)
        return [list(itertools.islice(remaining, len(row))) for row in texts]

    def choice(self, weights: Weights) -> np.ndarray:
        """Number of the best text of each utterance; the first of equal ones."""
        by_models = weights.alpha * self.language + weights.gamma * self.neural
        return (self.fixed + by_models + weights.beta * self.words).argmax(axis=1)

    def errors(self, weights: Weights) -> tuple[int, int]:
        """In words and in letters."""
        rows, chosen = np.arange(len(self.fixed)), self.choice(weights)
        return int(self.word_errors[rows, chosen].sum()), int(self.letter_errors[rows, chosen].sum())

    def chosen_counts(self, chosen: Sequence[int]) -> ErrorCounts:
        return total(row[number] for row, number in zip(self.counts, chosen, strict=True))


def _grid(around: Weights, number: int, has_language: bool) -> Iterator[Weights]:
    """The points of a round: the first covers everything, later ones the neighbours of the best so far."""
    if number == 0:
        axes = (ALPHAS if has_language else (around.alpha,), [around.beta + step for step in BETA_STEPS], GAMMAS)
    else:
        step = 0.5**number
        steps = (-step, 0.0, step)
        near = [[max(0.0, value + step * 0.25) for step in steps] for value in (around.alpha, around.gamma)]
        axes = (near[0] if has_language else (around.alpha,), [around.beta + step for step in steps], near[1])
    for alpha, beta, gamma in itertools.product(*axes):
        yield Weights(float(alpha), float(beta), float(gamma))


def tune(
    nbest: NBest, neural: Sequence[Sequence[float]], references: Sequence[str], alphabet: Alphabet, start: Weights
) -> Tuning:
    """The weights that make the fewest word errors on dev; of equal ones those with fewer letter errors, less gamma.

    Args:
        references: normalised texts, one for each utterance.
        start: what the beam search was given. Kept, with gamma 0, where the network is no help.

    Raises:
        ValueError: there is nothing to tune on, an utterance has no text, or the lists differ in length.
    """
    _check_shapes(nbest, neural)
    if not nbest or len(nbest) != len(references) or not all(nbest):
        raise ValueError(
            f"tuning needs texts and a reference for each utterance, got {len(nbest)} lists "
            f"({sum(not row for row in nbest)} of them empty) and {len(references)} references"
        )
    table, start = _Table(nbest, neural, references, alphabet), replace(start, gamma=0.0)
    has_language = bool(np.any(table.language))
    tried: dict[Weights, tuple[int, int]] = {start: table.errors(start)}

    def cost(weights: Weights) -> tuple[int, int, float, float]:
        return (*tried[weights], weights.gamma, abs(weights.alpha - start.alpha) + abs(weights.beta - start.beta))

    best = start
    for number in range(ROUNDS):
        tried |= {weights: table.errors(weights) for weights in _grid(best, number, has_language)}
        best = min(tried, key=cost)
    without = min(errors for weights, (errors, _) in tried.items() if weights.gamma == 0.0)
    if tried[best][0] >= without:
        logger.info("the neural language model makes no fewer errors on dev; its weight is 0")
        best = start
    return Tuning(
        best,
        before=table.chosen_counts([0] * len(nbest)),
        after=table.chosen_counts(table.choice(best)),
        oracle=total(min(row, key=lambda count: count.errors) for row in table.counts),
        surface=tuple((weights, errors) for weights, (errors, _) in tried.items()),
    )
