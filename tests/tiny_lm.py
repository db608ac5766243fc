"""A word model small enough to check by hand: what tests of searches score with."""

import math
from collections.abc import Iterable, Mapping

from quartznet.arpa import LanguageModel


def arpa(words: Mapping[str, float], pairs: Mapping[str, float]) -> str:
    """A bigram model as ARPA text; log10 P of single words and of "two words", every back-off weight is 10^-0.2."""
    single = {"<unk>": -1.5, "<s>": -99.0, "</s>": -1.0, **words}
    lines = ["\\data\\", f"ngram 1={len(single)}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines += [f"{log_prob}\t{word}\t-0.2" for word, log_prob in single.items()]
    lines += ["", "\\2-grams:", *(f"{log_prob}\t{pair}" for pair, log_prob in pairs.items()), "", "\\end\\"]
    return "\n".join(lines) + "\n"


class TinyBigram(LanguageModel):
    """ln P(word | word before) out of a table; pairs that are not in it get the word's own, unknown words ``unknown``.

    Its probabilities need not sum to one: no search asks for that.
    """

    order = 2

    def __init__(
        self,
        words: Mapping[str, float],
        pairs: Mapping[tuple[str, str], float] | None = None,
        unknown: float = -5.0,
        can_list: bool = True,
    ) -> None:
        self.words, self.pairs, self.unknown, self.can_list = words, pairs or {}, unknown, can_list
        self.asked = 0

    def start(self) -> str:
        return "<s>"

    def score(self, state: str, word: str) -> tuple[float, str]:
        self.asked += 1
        known = word if word in self.words else "<unk>"
        return self.pairs.get((state, known), self.words.get(known, self.unknown)), known

    def end(self, state: str) -> float:
        return self.pairs.get((state, "</s>"), math.log(0.3))

    def knows(self, word: str) -> bool:
        return word in self.words

    def vocabulary(self) -> Iterable[str] | None:
        return list(self.words) if self.can_list else None

    def sentence(self, words: Iterable[str]) -> float:
        """ln P of a whole text, for expected values."""
        state, total = self.start(), 0.0
        for word in words:
            score, state = self.score(state, word)
            total += score
        return total + self.end(state)
