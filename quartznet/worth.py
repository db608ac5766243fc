"""What a text is worth beyond its sound: a language model, a bonus by word, unknown words, a vocabulary, hot words.

    worth = alpha ln P(words) + beta (number of words) + cost of unknown words + hot words

The search (``quartznet.prefix_search``) builds texts letter by letter and wants to know with each one by which factor
the worth changes. A word is scored when the space after it is written, and the last one at the end of the utterance.
What may come of a word that is being written is lent to it: part of the best score among the words that begin like it
(``quartznet.vocabulary``), and the credit of hot words (``quartznet.hotwords``). It is settled at the end of the word,
so what is lent guides the search and is no part of a result.

The surprise: a language written without spaces has no words here. If the alphabet has no space, each letter is a word
of its own, so its language model is one over letters, and beta counts letters.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel
from quartznet.hotwords import HotWords
from quartznet.prefix_search import Prefix, Worth
from quartznet.vocabulary import Branch, Vocabulary

LOWEST = -230.0  # ln P of a word, at least; KenLM gives log10 P = -100 where a model has no <unk>
UNKNOWN = "<unk>"
WIDEST = 10_000  # texts of a beam; time and memory grow with them, and far fewer find the same
MOST_CACHED = 1_000_000  # scores of (context, word); then all are forgotten


@dataclass(frozen=True)
class BeamSettings:
    """How the beam search weighs and what it leaves out."""

    beam: int = 64  # texts kept after each frame
    count: int = 10  # best texts given back, at most
    alpha: float = 0.5  # weight of the language model
    beta: float = 1.0  # nats for each word; without a language model it does not count
    unknown: float = -1.0  # nats for each word that the language model does not know, on top of its <unk>
    unknown_letter: float = -1.0  # nats for each letter of such a word, 0 or less
    look_ahead: float = 1.0  # part of the best score among words that begin like the one being written, lent to it
    closed: bool = False  # only words of the language model's vocabulary, and hot words, may be written
    label_threshold: float = -5.0  # ln; a label less probable is left out of a frame, unless it is its best
    beam_threshold: float = -10.0  # ln; a text this much worse than the best leaves the beam

    def __post_init__(self) -> None:
        if self.beam < 1 or self.count < 1:
            raise ValueError(f"beam and count must be at least 1, got {self.beam} and {self.count}")
        if self.beam > WIDEST:
            raise ValueError(
                f"a beam holds {WIDEST:,} texts at most, got {self.beam:,}; lower it, hundreds find as much"
            )
        weights = (self.alpha, self.beta, self.unknown, self.unknown_letter)
        if not (self.alpha >= 0 and self.unknown_letter <= 0 and all(map(math.isfinite, weights))):
            raise ValueError(
                "alpha must be 0 or more, unknown_letter 0 or less, beta and unknown finite, "
                "got alpha {:g}, beta {:g}, unknown {:g}, unknown_letter {:g}".format(*weights)
            )
        if not 0 <= self.look_ahead <= 1:
            raise ValueError(f"look_ahead is a part, from 0 to 1, got {self.look_ahead:g}")
        if not (self.label_threshold <= 0 and self.beam_threshold <= 0):
            raise ValueError(
                "thresholds are logarithms, at most 0, -inf to leave nothing out; got "
                f"{self.label_threshold:g} and {self.beam_threshold:g}"
            )


class Words(NamedTuple):
    """The complete words of a text."""

    weight: float  # alpha ln P + beta count + extra
    language: float  # ln P
    count: int
    extra: float  # of unknown words
    context: Hashable  # of the language model


# What is known of a text while it is written: its complete words; the branch of the vocabulary that the word being
# written has got to, None where there is none; the state of the hot words; and what complete ones of them have earned.
Note = tuple[Words, Branch | None, int, float]


class Values(NamedTuple):
    """The worth of a complete text."""

    language: float  # ln P including the end of the sentence
    words: int
    bonus: float
    is_allowed: bool  # by a closed vocabulary

    def weight(self, alpha: float, beta: float) -> float:
        return alpha * self.language + beta * self.words + self.bonus


class TextWorth:
    """``grow`` for the search and ``values`` of its results; holds the scores of words met before.

    Raises:
        ValueError: for a closed vocabulary without a scorer that can list its words, or of other letters.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        settings: BeamSettings,
        scorer: LanguageModel | None,
        hotwords: HotWords | None,
    ) -> None:
        self.labels, self.settings, self.alpha, self.beta = alphabet.labels, settings, settings.alpha, settings.beta
        self.scorer, self.hotwords = scorer, hotwords
        self.space = alphabet.labels.index(" ") if " " in alphabet.labels else -1
        self.hot_words = hotwords.words if hotwords else frozenset()
        self.closed, self.vocabulary = settings.closed, self._read_vocabulary(settings.closed)
        self.only_looks_ahead = self.vocabulary is not None and self.space >= 0 and hotwords is None
        self._scores: dict[tuple[Hashable, str], tuple[float, float, Hashable]] = {}

    def _read_vocabulary(self, closed: bool) -> Vocabulary | None:
        """The words that can be looked ahead to, with the weighed scores that they have without a context.

        Words with letters that the network lacks are none of them; ``quartznet.lm.check_alphabet`` counts those.
        """
        listed = self.scorer.vocabulary() if self.scorer else None
        if listed is None and closed:
            raise ValueError(
                "a closed vocabulary needs a language model that can list its words; give an ARPA file, or use the "
                "open vocabulary"
            )
        if listed is None:
            return None
        words, letters = {*listed, *self.hot_words}, set(self.labels)
        written = {word for word in words if word and letters.issuperset(word)}
        if not written:
            raise ValueError(
                "no word of the language model can be written with the letters of the network; was it built from texts "
                "in lower case and in this language?"
            )
        _, context = self.scorer.score(self.scorer.start(), UNKNOWN)  # after which nothing is expected
        ahead = self.alpha * self.settings.look_ahead
        scores = {word: ahead * max(self.scorer.score(context, word)[0], LOWEST) for word in written}
        outside = ahead * max(self.scorer.score(context, UNKNOWN)[0], LOWEST) + self.settings.unknown
        return Vocabulary(scores, None if closed else outside, self.settings.unknown_letter, self.labels)

    def for_search(self) -> Worth | None:
        """What the search takes; None if texts are worth nothing beyond their sound."""
        if self.scorer is None and self.hotwords is None:
            return None
        words = Words(0.0, 0.0, 0, 0.0, self.scorer.start() if self.scorer else None)
        branch = self.vocabulary.root if self.vocabulary and self.space >= 0 else None
        root = (words, branch, self.hotwords.start if self.hotwords else 0, 0.0)
        hot = self.hotwords.largest_step if self.hotwords else 0.0
        word = max(0.0, self.beta + max(0.0, self.settings.unknown)) if self.scorer else 0.0
        letter = self.vocabulary.largest_step if branch else 0.0
        if branch:
            word += self.vocabulary.depth
        if self.space < 0:
            letter = word
        most = [math.exp(hot + (word if label == self.space else letter)) for label in range(len(self.labels))]
        all_labels = self.hotwords is not None or branch is not None or self.space < 0
        return Worth(self.grow, root, most, None if all_labels else frozenset([self.space]))

    def lent(self, note: Note | None) -> float:
        """What the search has counted so far, all of it, lent or settled."""
        if note is None:
            return 0.0
        words, branch, hot, earned = note
        ahead = branch.best - self.vocabulary.root.best if branch else 0.0
        return words.weight + ahead + earned + (self.hotwords.credit[hot] if self.hotwords else 0.0)

    def _word_before(self, prefix: Prefix) -> str:
        """The letters after the last space."""
        letters, labels, space = [], self.labels, self.space
        while prefix.parent is not None and prefix.label != space:
            letters.append(labels[prefix.label])
            prefix = prefix.parent
        return "".join(reversed(letters))

    def _score(self, context: Hashable, word: str) -> tuple[float, float, Hashable]:
        """ln P(word), what is added for an unknown one, and the context after it."""
        if len(self._scores) >= MOST_CACHED:
            self._scores.clear()
        score, following = self.scorer.score(context, word)
        is_known = word in self.hot_words or self.scorer.knows(word)
        extra = 0.0 if is_known else self.settings.unknown + self.settings.unknown_letter * len(word)
        found = self._scores[context, word] = (max(score, LOWEST), extra, following)
        return found

    def _add_word(self, words: Words, word: str) -> Words:
        """With one complete word more."""
        if self.scorer is None:
            return Words(0.0, 0.0, words.count + 1, 0.0, None)
        score, extra, context = self._scores.get((words.context, word)) or self._score(words.context, word)
        weight = words.weight + self.alpha * score + self.beta + extra
        return Words(weight, words.language + score, words.count + 1, words.extra + extra, context)

    def _is_allowed(self, word: str) -> bool:
        """By a closed vocabulary."""
        return not self.closed or word in self.hot_words or self.scorer.knows(word)

    def grow(self, prefix: Prefix, label: int) -> tuple[float, Note]:
        """The factor that a text's worth changes by with one letter more, and the note of the longer text."""
        words, branch, hot, earned = note = prefix.note
        if self.only_looks_ahead and label != self.space:
            gain, branch = branch.children.get(label) or self.vocabulary.below(branch, label)
            return gain, (words, branch, hot, earned)
        if label == self.space or self.space < 0:
            word = self.labels[label] if self.space < 0 else self._word_before(prefix)
            if not self._is_allowed(word):
                return 0.0, note
            words, branch = self._add_word(words, word), branch and self.vocabulary.root
        elif branch is not None:
            gain, branch = self.vocabulary.below(branch, label)
            if gain == 0.0:
                return 0.0, note
        if self.hotwords is not None:
            hot = self.hotwords.step(hot, label)
            earned += self.hotwords.earned[hot]
        longer = (words, branch, hot, earned)
        change = self.lent(longer) - self.lent(note)
        return (math.exp(change) if change else 1.0), longer

    def values(self, prefix: Prefix) -> Values:
        """The worth of a text that ends here: its last word and the end of the sentence are scored too."""
        if prefix.note is None:
            return Values(0.0, 0, 0.0, True)
        words, _, hot, earned = prefix.note
        is_allowed = True
        if self.space >= 0 and prefix.label != self.space:
            word = self._word_before(prefix)
            is_allowed, words = self._is_allowed(word), self._add_word(words, word)
            earned += self.hotwords.earned[self.hotwords.step(hot, self.space)] if self.hotwords else 0.0
        language = words.language + max(self.scorer.end(words.context), LOWEST) if self.scorer else 0.0
        return Values(language, words.count, words.extra + earned, is_allowed)
