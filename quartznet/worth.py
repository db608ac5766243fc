"""What a text is worth beyond its sound: a language model, a bonus by word, unknown words, a vocabulary, hot words.

    worth = alpha ln P(words) + beta (number of words) + unknown (number of unknown words) + hot words

The search (``quartznet.prefix_search``) builds texts letter by letter and wants to know with each one by which factor
the worth changes. A word is scored when the space after it is written, and the last one at the end of the utterance. A
closed vocabulary is a tree of letters in which a text may only go where a word is. What hot words earn is known to
``quartznet.hotwords``.

The surprise: a language written without spaces has no words here. If the alphabet has no space, each letter is a word
of its own, so its language model is one over letters, and beta counts letters.
"""

import logging
import math
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel
from quartznet.hotwords import HotWords
from quartznet.prefix_search import Prefix, Worth

LOG = logging.getLogger(__name__)

WORD = -1  # marks the end of a word in the tree of a vocabulary
LOWEST = -230.0  # ln P of a word, at least; KenLM gives log10 P = -100 where a model has no <unk>
MOST_CACHED = 1_000_000  # scores of (context, word); then all are forgotten

Tree = dict[int, "Tree"]


class Note(NamedTuple):
    """What is known of a text while it is written."""

    weight: float  # the logarithm of all factors so far
    language: float = 0.0  # ln P of the words that are complete
    words: int = 0
    bonus: float = 0.0  # of unknown words and of hot words that are complete
    context: Hashable = None  # of the language model
    hot: int = 0  # state of the hot words
    tree: Tree | None = None  # of the vocabulary, where the word that is being written has got to


class Values(NamedTuple):
    """The worth of a complete text."""

    language: float  # ln P including the end of the sentence
    words: int
    bonus: float
    is_allowed: bool  # by a closed vocabulary

    def weight(self, alpha: float, beta: float) -> float:
        return alpha * self.language + beta * self.words + self.bonus


def vocabulary_tree(words: Iterable[str], alphabet: Alphabet) -> Tree:
    """The words as a tree of label numbers; those that the alphabet cannot write are left out and counted in the log.

    Raises:
        ValueError: if no word is left.
    """
    numbers = {label: number for number, label in enumerate(alphabet.labels) if label != " "}
    tree: Tree = {}
    lost: list[str] = []
    for word in words:
        if not numbers.keys() >= set(word):
            lost.append(word)
            continue
        node = tree
        for character in word:
            node = node.setdefault(numbers[character], {})
        node[WORD] = {}
    if lost:
        LOG.warning("%d words of the vocabulary have letters that the network lacks, such as %r", len(lost), lost[0])
    if not tree:
        raise ValueError(
            "no word of the vocabulary can be written with the letters of the network; was the language model made "
            "from texts in lower case and in this language?"
        )
    return tree


class TextWorth:
    """``grow`` for the search and ``values`` of its results; holds the scores of words met before.

    Args:
        unknown: added for each word that the scorer does not know, unless it is part of a hot phrase.
        closed: only words of the scorer's vocabulary and of hot phrases may be written.

    Raises:
        ValueError: for a closed vocabulary without a scorer that can list its words.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        alpha: float,
        beta: float,
        unknown: float,
        closed: bool,
        scorer: LanguageModel | None,
        hotwords: HotWords | None,
    ) -> None:
        self.alphabet, self.alpha, self.beta, self.unknown = alphabet, alpha, beta, unknown
        self.scorer, self.hotwords = scorer, hotwords
        self.space = alphabet.labels.index(" ") if " " in alphabet.labels else -1
        self.hot_words = hotwords.words if hotwords else frozenset()
        self.tree = self._closed_tree() if closed else None
        self._scores: dict[tuple[Hashable, str], tuple[float, float, Hashable]] = {}

    def _closed_tree(self) -> Tree:
        words = self.scorer.vocabulary() if self.scorer else None
        if words is None:
            raise ValueError(
                "a closed vocabulary needs a language model that can list its words; give an ARPA file, or use the "
                "open vocabulary"
            )
        return vocabulary_tree({*words, *self.hot_words}, self.alphabet)

    def for_search(self) -> Worth | None:
        """What the search takes; None if texts are worth nothing beyond their sound."""
        if self.scorer is None and self.hotwords is None:
            return None
        context = self.scorer.start() if self.scorer else None
        root = Note(0.0, context=context, hot=self.hotwords.start if self.hotwords else 0, tree=self.tree)
        most = max(0.0, self.beta + max(0.0, self.unknown)) if self.scorer else 0.0
        most += self.hotwords.largest_step if self.hotwords else 0.0
        all_labels = self.hotwords is not None or self.tree is not None or self.space < 0
        return Worth(self.grow, root, math.exp(most), None if all_labels else frozenset([self.space]))

    def _word_before(self, prefix: Prefix) -> str:
        """The letters after the last space."""
        letters, labels, space = [], self.alphabet.labels, self.space
        while prefix.parent is not None and prefix.label != space:
            letters.append(labels[prefix.label])
            prefix = prefix.parent
        return "".join(reversed(letters))

    def _score(self, context: Hashable, word: str) -> tuple[float, float, Hashable]:
        """ln P(word), what is added for an unknown one, and the context after it."""
        found = self._scores.get((context, word))
        if found is None:
            if len(self._scores) >= MOST_CACHED:
                self._scores.clear()
            score, following = self.scorer.score(context, word)
            extra = 0.0 if word in self.hot_words or self.scorer.knows(word) else self.unknown
            found = self._scores[context, word] = (max(score, LOWEST), extra, following)
        return found

    def _add_word(self, note: Note, word: str) -> Note:
        """The note after a complete word."""
        if self.scorer is None:
            return note._replace(words=note.words + 1)
        score, extra, context = self._score(note.context, word)
        weight = note.weight + self.alpha * score + self.beta + extra
        return note._replace(
            weight=weight,
            language=note.language + score,
            words=note.words + 1,
            bonus=note.bonus + extra,
            context=context,
            tree=self.tree,
        )

    def _add_hot(self, note: Note, label: int) -> Note:
        """The note after a letter, or a space, is shown to the hot words."""
        state = self.hotwords.step(note.hot, label)
        if state == note.hot and not self.hotwords.earned[state]:
            return note
        earned = self.hotwords.earned[state]
        change = earned + self.hotwords.credit[state] - self.hotwords.credit[note.hot]
        return note._replace(weight=note.weight + change, bonus=note.bonus + earned, hot=state)

    def grow(self, prefix: Prefix, label: int) -> tuple[float, Note]:
        """The factor that a text's worth changes by with one letter more, and the note of the longer text."""
        before: Note = prefix.note
        note = before
        if self.tree is not None:
            tree = note.tree.get(WORD if label == self.space else label)
            if tree is None or (self.space < 0 and WORD not in tree):
                return 0.0, note
            note = note._replace(tree=tree)
        if label == self.space:
            note = self._add_word(note, self._word_before(prefix))
        elif self.space < 0:
            note = self._add_word(note, self.alphabet.labels[label])
        if self.hotwords is not None:
            note = self._add_hot(note, label)
        return (1.0 if note.weight == before.weight else math.exp(note.weight - before.weight)), note

    def values(self, prefix: Prefix) -> Values:
        """The worth of a text that ends here: its last word and the end of the sentence are scored too."""
        note: Note | None = prefix.note
        if note is None:
            return Values(0.0, 0, 0.0, True)
        is_allowed = True
        if self.space >= 0 and prefix.label != self.space:
            is_allowed = self.tree is None or WORD in note.tree
            note = self._add_word(note, self._word_before(prefix))
            if self.hotwords is not None:
                note = self._add_hot(note, self.space)
        language = note.language + max(self.scorer.end(note.context), LOWEST) if self.scorer else 0.0
        return Values(language, note.words, note.bonus, is_allowed)
