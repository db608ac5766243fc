"""How well a language model knows a text: perplexity, and the share of words that it has never seen.

    perplexity = exp(- ln P(text) / (words + sentences))        the end of a sentence is predicted like a word

The surprise: perplexities of models with different vocabularies cannot be compared. A model that knows few words finds
``<unk>`` easy to predict; so the share of unknown words stands beside it, and the perplexity of the known words alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from quartznet.arpa import LanguageModel


@dataclass(frozen=True)
class Perplexity:
    """Sums over a text; logarithms are natural."""

    sentences: int
    words: int
    unknown: int  # words that the model does not know
    log_prob: float  # of all words and ends of sentences
    log_prob_unknown: float  # of the unknown words among them

    @property
    def unknown_share(self) -> float:
        return self.unknown / max(1, self.words)

    @property
    def of_all(self) -> float:
        """Unknown words are predicted as ``<unk>``."""
        return _exp(-self.log_prob / max(1, self.words + self.sentences))

    @property
    def of_known(self) -> float:
        """Unknown words are left out, though known ones may follow them."""
        count = self.words + self.sentences - self.unknown
        return _exp(-(self.log_prob - self.log_prob_unknown) / max(1, count))

    def table(self) -> str:
        """For a terminal of 80 columns."""
        return (
            f"{self.sentences:,} sentences, {self.words:,} words, {self.unknown_share:.2%} of them not in the model\n"
            f"perplexity {self.of_all:.1f}, of known words {self.of_known:.1f}"
        )


def _exp(value: float) -> float:
    """e to that power; inf for what is no number any more, with a model whose weights are zero, say."""
    return math.exp(value) if value < 700 else math.inf


def perplexity(model: LanguageModel, sentences: Iterable[str]) -> Perplexity:
    """Scores sentences whose words are parted by spaces.

    Raises:
        ValueError: there is no sentence.
    """
    count = words = unknown = 0
    total = of_unknown = 0.0
    for count, sentence in enumerate(sentences, 1):  # noqa: B007
        state = model.start()
        for word in sentence.split():
            score, state = model.score(state, word)
            words, total = words + 1, total + score
            if not model.knows(word):
                unknown, of_unknown = unknown + 1, of_unknown + score
        total += model.end(state)
    if not count:
        raise ValueError("there is no sentence to measure perplexity on; give a text that holds some")
    return Perplexity(count, words, unknown, total, of_unknown)
