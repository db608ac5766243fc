"""Any text as a recogniser would have written it, by counts of how it errs (``postcorrect.error_model`` counts them).

    sampler = ErrorSampler(read_errors("errors.json"), sentences, rate=0.2)
    sampler.mishear("the cat sat", random.Random(0))

Errors come together: at 3 letters in 100, 15 words in 100 would be wrong if chance chose the letters one by one, and 8
are. So chance first chooses the words that go wrong, a share ``together`` of them, and within these each letter errs
with its rate / ``together``: rates of letters stay those that were counted whatever ``together`` is, which is fitted
so that the share of wrong words is right too. And hard sentences are hard throughout: that share is drawn for each
sentence from a beta distribution of variance ``spread`` mean^2.

Rare words go wrong more often than others (their odds are ``rarity`` times as high), since a network knows words, too.
Rare is a word that comes once, or less than once in 50,000 words of a text. A letter's rate is its errors by its
*exposure*: the number of times that it was said, each weighed by how often such words go wrong, compared with the mean.

The surprise: nothing is smoothed. A letter that was always heard right stays right, and what was heard once in a
hundred sentences comes back in one of a hundred; the more decodes, the more there is to learn.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from quartznet.metrics import error_counts, total

LONG = 5  # letters; longer words are dropped alike
RARE = 1 / 50_000  # of the words of a text
TRIED, ROUNDS = 4000, 6  # sentences, and times that they are tried, to meet a rate
LEAST_CONCENTRATION = 0.1  # of the beta distribution: sentences are either right or wrong throughout

Counts = dict[str, int]
Exposures = dict[str, float]


def length_of(word: str) -> str:
    """The class of a word by its letters: "1" to "5"."""
    return str(min(LONG, len(word)))


def common_words(sentences: Iterable[str]) -> frozenset[str]:
    """The words that come at least twice, and at least once in 50,000."""
    counts = Counter(word for sentence in sentences for word in sentence.split())
    least = max(2.0, RARE * counts.total())
    return frozenset(word for word, count in counts.items() if count >= least)


def chances(share: float, rarity: float, rare: float) -> tuple[float, float]:
    """That a common and that a rare word go wrong, where a ``share`` of all words does and a share ``rare`` is rare.

    With odds o of common words and k o of rare ones, (1 - rare) o / (1 + o) + rare k o / (1 + k o) = share, that is

        k (1 - share) o^2 + (1 - rare + rare k - share (1 + k)) o - share = 0
    """
    if share >= 1.0 or share <= 0.0:
        return max(0.0, min(1.0, share)), max(0.0, min(1.0, share))
    square, linear = rarity * (1 - share), 1 - rare + rare * rarity - share * (1 + rarity)
    odds = (math.sqrt(linear**2 + 4 * square * share) - linear) / (2 * square)
    return odds / (1 + odds), rarity * odds / (1 + rarity * odds)


@dataclass(frozen=True)
class ErrorModel:
    """Counts; letters are of the recogniser's alphabet and " " is a space between words.

    Raises:
        ValueError: for counts that contradict each other.
    """

    lang: str  # code of the language; "" where nobody said
    sentences: int
    words: int  # that were said
    word_errors: int  # substitutions, deletions and insertions
    together: float  # share of the words in which letters go wrong, whether one does or not
    spread: float  # variance of that share among sentences / its square
    rarity: float  # odds that a rare word goes wrong / odds of a common one
    starts: float  # exposure of the starts of words
    letters: Exposures  # of each letter, in words that were not dropped
    changed: dict[str, Counts]  # letter -> what was heard ("": nothing) -> how often
    inserted: dict[str, Counts]  # letter (" ": the start of a word) -> what was heard after it -> how often
    lengths: Counts  # letters of a word, "5" being 5 and more -> how often such a word was said
    dropped: Counts  # the same, dropped
    added: Counts  # words that nobody said

    def __post_init__(self) -> None:
        if not 0.0 < self.together <= 1.0 or not 0.0 <= self.spread < 1e6 or not 1e-6 < self.rarity < 1e6:
            raise ValueError(
                "together must be in (0, 1], spread 0 or more and rarity above 0, "
                f"got {self.together}, {self.spread} and {self.rarity}"
            )
        if min(self.words, self.word_errors, self.sentences) < 1:
            raise ValueError("an error model needs sentences, words and errors")
        unsaid = [said for said in self.changed if not self.letters.get(said, 0) > 0]
        if unsaid:
            raise ValueError(f"{unsaid[0]!r} was heard as something else and never said")
        if any(count > self.lengths.get(length, 0) for length, count in self.dropped.items()):
            raise ValueError("more words were dropped than said")

    @property
    def rate(self) -> float:
        """The word error rate of what it was estimated from."""
        return self.word_errors / self.words

    def change_rate(self, letter: str) -> float:
        """How often a letter becomes another one or none."""
        exposure = self.letters.get(letter, 0.0)
        return sum(self.changed.get(letter, {}).values()) / exposure if exposure else 0.0

    def insert_rate(self, letter: str) -> float:
        """How often something is inserted after ``letter``; " ": at the start of a word."""
        exposure = self.starts if letter == " " else self.letters.get(letter, 0.0)
        return sum(self.inserted.get(letter, {}).values()) / exposure if exposure else 0.0

    def __str__(self) -> str:
        changed, inserted = (sum(sum(c.values()) for c in part.values()) for part in (self.changed, self.inserted))
        return (
            f"{self.word_errors:,} errors in {self.words:,} words of {self.sentences:,} sentences "
            f"({100 * self.rate:.1f} %)\n{changed:,} letters changed or lost, {inserted:,} insertions, "
            f"{sum(self.dropped.values()):,} words dropped, {sum(self.added.values()):,} added\n"
            f"words affected {100 * self.together:.1f} %, spread over sentences {self.spread:.2f}, "
            f"odds of rare words {self.rarity:.1f} x"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Sampling


class _Choice:
    """One of several texts, each as often as it was counted."""

    def __init__(self, counts: Counts) -> None:
        self.texts, self.sums = list(counts), list(accumulate(counts.values()))

    def draw(self, generator: random.Random) -> str:
        return generator.choices(self.texts, cum_weights=self.sums)[0]


class ErrorSampler:
    """Writes sentences as a recogniser would.

    Args:
        sentences: the text, which tells common words from rare ones; without it all are alike.
        rate: the word error rate that is wanted, a fraction; None: that of the model. It is met on the sentences, by
            trying. More means more wrong words, and more wrong letters in each only where all words are wrong already.
        together: in place of the model's.

    Raises:
        ValueError: for a rate outside (0, 1].
    """

    def __init__(
        self,
        model: ErrorModel,
        sentences: Sequence[str] = (),
        rate: float | None = None,
        together: float | None = None,
    ) -> None:
        if rate is not None and not 0.0 < rate <= 1.0:
            raise ValueError(f"the word error rate must be above 0 and at most 1, got {rate}")
        rate = model.rate if rate is None else rate
        self.model, self.common = model, common_words(sentences)
        self.together = model.together if together is None else together
        words = [word in self.common for sentence in sentences for word in sentence.split()]
        self.rare = 1 - sum(words) / len(words) if words else 1.0  # share of the words
        self._set_rates(rate / model.rate)
        if sentences:
            self._calibrate(sentences[:: max(1, len(sentences) // TRIED)], rate)

    def _calibrate(self, sentences: Sequence[str], rate: float) -> None:
        """Finds how much more, or less, must be tried for ``rate``: this text is not the one that was counted."""
        factor = rate / self.model.rate
        for _ in range(ROUNDS):
            generator = random.Random(0)
            heard = [self.mishear(sentence, generator) for sentence in sentences]
            measured = total(error_counts(sentences, heard)).rate
            factor *= min(2.0, max(0.5, rate / max(measured, 1e-9)))
            self._set_rates(factor)

    def _set_rates(self, factor: float) -> None:
        """Rates of letters within a word that goes wrong, and of words, ``factor`` times those of the model."""
        self.share = min(1.0, factor * self.together)  # of the words that go wrong
        model, inside = self.model, factor / self.share
        self.change = {letter: min(1.0, inside * model.change_rate(letter)) for letter in model.letters}
        self.insert = {
            letter: min(1.0, inside * model.insert_rate(letter)) for letter in model.letters if letter != " "
        }
        self.insert_start = min(1.0, inside * model.insert_rate(" "))
        self.heard = {letter: _Choice(counts) for letter, counts in model.changed.items()}
        self.more = {letter: _Choice(counts) for letter, counts in model.inserted.items()}
        self.added = _Choice(model.added)
        self.add_rate = factor * sum(model.added.values()) / (model.words + model.sentences)
        self.drop_rate = {
            length: factor * model.dropped.get(length, 0) / count for length, count in model.lengths.items() if count
        }

    def chance_right(self, word: str) -> float:
        """That nothing goes wrong in a word, with the space behind it, although it is one that goes wrong."""
        chance = 1 - self.insert_start
        for letter in word:
            chance *= (1 - self.change.get(letter, 0.0)) * (1 - self.insert.get(letter, 0.0))
        return chance

    def _draw_share(self, generator: random.Random) -> float:
        """Of the words of a sentence that go wrong."""
        if self.model.spread == 0 or self.share == 1:
            return self.share
        concentration = (1 - self.share) / (self.model.spread * self.share) - 1
        concentration = max(LEAST_CONCENTRATION, concentration)
        return generator.betavariate(self.share * concentration, (1 - self.share) * concentration)

    def _wrong(self, word: str, generator: random.Random) -> str:
        """A word, and the space behind it if there is one, with its letters as chance wants them."""
        heard = self.more[" "].draw(generator) if generator.random() < self.insert_start else ""
        for letter in word:
            changes = generator.random() < self.change.get(letter, 0.0)
            heard += self.heard[letter].draw(generator) if changes else letter
            if generator.random() < self.insert.get(letter, 0.0):
                heard += self.more[letter].draw(generator)
        return heard

    def mishear(self, sentence: str, generator: random.Random) -> str:
        """``sentence`` as it would be recognised; "" where nothing is left of it."""
        words, heard = sentence.split(), ""
        share = self._draw_share(generator)
        usual, often = chances(share, self.model.rarity, self.rare)
        difficulty = share / self.share
        add_rate = difficulty * self.add_rate
        for place, word in enumerate(words):
            while generator.random() < min(0.5, add_rate):
                heard += f"{self.added.draw(generator)} "
            if generator.random() < difficulty * self.drop_rate.get(length_of(word), 0.0):
                continue
            chance = usual if word in self.common else often
            word += " " if place + 1 < len(words) else ""
            heard += self._wrong(word, generator) if generator.random() < chance else word
        if generator.random() < add_rate:
            heard += f" {self.added.draw(generator)}"
        return " ".join(heard.split())
