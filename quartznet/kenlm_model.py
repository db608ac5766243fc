"""A KenLM model, ARPA or binary, behind the interface of ``quartznet.arpa``; needs the package kenlm.

KenLM keeps a model in compact tables in C++ and scores a word faster than our reader does; a binary is
mapped into memory and loads at once. The surprise: the package cannot list the words of a model, so they are read from
the ARPA file, and a binary has none to show.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from quartznet.arpa import END, LOG_10, LanguageModel, State, is_binary, read_words


def has_kenlm() -> bool:
    """Whether the package kenlm is installed."""
    return find_spec("kenlm") is not None


class KenlmModel(LanguageModel):
    """Raises OSError in KenLM's words where KenLM cannot read the file."""

    def __init__(self, path: str | Path) -> None:
        import kenlm

        config = kenlm.Config()
        config.show_progress, config.arpa_complain = False, kenlm.ARPALoadComplain.NONE
        self.path, self._model, self._state = Path(path), kenlm.Model(str(path), config), kenlm.State
        self.order = self._model.order

    def start(self) -> State:
        state = self._state()
        self._model.BeginSentenceWrite(state)
        return state

    def score(self, state: State, word: str) -> tuple[float, State]:
        after = self._state()
        return self._model.BaseScore(state, word, after) * LOG_10, after

    def end(self, state: State) -> float:
        return self.score(state, END)[0]

    def knows(self, word: str) -> bool:
        return word in self._model and word not in ("<s>", END)

    @cached_property
    def _words(self) -> list[str] | None:
        return None if is_binary(self.path) else list(read_words(self.path))

    def vocabulary(self) -> Iterable[str] | None:
        return self._words

    def matched(self, words: Sequence[str]) -> list[int]:
        return [length for _, length, _ in self._model.full_scores(" ".join(words))]
