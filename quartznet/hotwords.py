"""Custom words: phrases that a recogniser should prefer, or avoid, read from a file and found while a text is written.

    # phrase <tab> weight <tab> sounds like, and like
    kubernetes
    new york	6
    AT&T	8	a t and t, a t t
    uh	-3

A weight w makes a text that has the phrase e^w times as likely for each time it occurs, as whole words; overlapping
phrases all count. What is heard as one of the ``sounds like`` spellings is written as the phrase. Google, AWS and
Speechmatics take the same three columns.

While a phrase is being spelled it gets credit in advance, its weight times the part that is written, or else the search
would drop it before it is complete; where the spelling goes another way the credit is taken back (WeNet's prefix graph
does the same). For that the phrases are an Aho-Corasick automaton over letters (Commun. ACM 18, 1975): a tree with, at
each node, a link to the longest other beginning of a phrase that the text now ends with. Credit and earnings belong to
the states, so a text's bonus does not depend on how it was found.

The surprise: unspelled parts decide. With a weight of 10 every word that begins like a phrase is pulled towards it, and
a thousand phrases begin like everything; docs/speed.md has what that costs.
"""

import logging
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quartznet.alphabet import Alphabet
from quartznet.text import Language

logger = logging.getLogger(__name__)

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NUMBER = re.compile(r" [-+]?[0-9]+([.,][0-9]+)?$")
WEIGHT = 6.0  # of a phrase without one
MOST = 100.0  # a larger weight would win against any sound


@dataclass(frozen=True)
class HotWord:
    """One entry."""

    phrase: str  # as it is written
    weight: float  # nats for each time it occurs; below 0 to avoid it
    spellings: tuple[str, ...]  # in the letters of the alphabet, single spaces; the phrase itself where it can be one
    shown: bool  # spellings are written as ``phrase``; False: as they are


def _spelling(text: str, alphabet: Alphabet, language: Language | None) -> str | None:
    """The text in the letters of the alphabet, by the language's rules or in lower case; None if it has others."""
    plain = " ".join(text.split())
    for candidate in (plain, language.normalize(plain) if language else plain.lower()):
        if " " not in alphabet.labels:
            candidate = candidate.replace(" ", "")
        if candidate and set(candidate) <= set(alphabet.labels):
            return candidate
    return None


def _entry(line: str, alphabet: Alphabet, language: Language | None) -> HotWord:
    """One line of the file; raises ValueError without the place."""
    columns = [" ".join(column.split()) for column in line.rstrip().split("\t")]
    if len(columns) > 3 or not columns[0]:
        raise ValueError("expected a phrase, a weight and spellings, with tabs between")
    phrase, weight_text, sounds = [*columns, "", ""][:3]
    if CONTROL.search(phrase):
        raise ValueError(f"{phrase!r} has control characters, which a terminal would obey")
    try:
        weight = float(weight_text) if weight_text else WEIGHT
    except ValueError:
        raise ValueError(f"the weight {weight_text!r} is not a number") from None
    if not -MOST <= weight <= MOST:
        raise ValueError(f"the weight must be from {-MOST:g} to {MOST:g}, got {weight_text}")
    spoken = [sound for sound in sounds.split(",") if sound.strip()]
    spellings = {sound: _spelling(sound, alphabet, language) for sound in spoken}
    wrong = [text.strip() for text, spelling in spellings.items() if spelling is None]
    own = _spelling(phrase, alphabet, language)
    if wrong or (own is None and not spoken):
        raise ValueError(
            f"{(wrong or [phrase])[0]!r} has letters that the network cannot write; "
            f"give a third column with what it sounds like, in {''.join(sorted(alphabet.labels)).strip()}"
        )
    found = dict.fromkeys(spelling for spelling in (own, *spellings.values()) if spelling)
    return HotWord(phrase, weight, tuple(found), bool(spoken))


def read_hotwords(path: str | Path, alphabet: Alphabet, language: Language | None = None) -> list[HotWord]:
    """The entries of a file (UTF-8); empty lines and those that begin with # do not count.

    Args:
        language: whose rules bring phrases to the alphabet's letters; None: lower case.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: ``file:line`` and what is wrong there: a weight that is no number, letters outside of the alphabet,
            control characters, too many columns, an entry for the second time; or a file without entries.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of hot words {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    entries: dict[str, HotWord] = {}
    untabbed: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = _entry(line, alphabet, language)
            if entry.phrase in entries:
                raise ValueError(f"{entry.phrase!r} is there already")
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        entries[entry.phrase] = entry
        untabbed += [] if "\t" in line else [entry.phrase]
    if not entries:
        raise ValueError(f"{path}: no hot words in it; one phrase a line is expected")
    numbers = [phrase for phrase in untabbed if NUMBER.search(phrase)]
    if numbers:
        logger.warning(
            "%s: %d phrases end in a number and no tab stands before it, the first %r; a weight stands behind a tab",
            *(path, len(numbers), numbers[0]),
        )
    return list(entries.values())


class HotWords:
    """The phrases as an automaton over label numbers; states are numbers.

    ``tree[state]``: letter -> state; ``own[state]``: weight of the phrase complete there; ``earned[state]``: with
    that of others that end there too; ``credit[state]``: lent to those being spelled; ``start``: the state before the
    first letter; ``largest_step``: no letter adds more.
    """

    def __init__(self, entries: Sequence[HotWord], alphabet: Alphabet) -> None:
        self.entries, self.alphabet = tuple(entries), alphabet
        self.space = alphabet.labels.index(" ") if " " in alphabet.labels else -1
        spellings = [text for entry in entries for text in entry.spellings]
        self.words = frozenset(" ".join(spellings).split() if self.space >= 0 else "".join(spellings))
        self.tree: list[dict[int, int]] = [{}]
        self.own, self.credit, self.fallback = [0.0], [0.0], [0]
        for text, weight in self._weights(entries).items():
            self._insert(alphabet.encode(text), weight)
        self._link()
        steps = [
            self.earned[child] + self.credit[child] - self.credit[state]
            for state, children in enumerate(self.tree)
            for child in children.values()
        ]
        self.largest_step = max([0.0, *steps])
        self._steps: dict[tuple[int, int], int] = {}
        self._shown = self._spellings_to_show()
        self.start = self.step(0, self.space) if self.space >= 0 else 0

    @staticmethod
    def _weights(entries: Iterable[HotWord]) -> dict[str, float]:
        """Spelling -> weight; a spelling of several entries has the weight of the first."""
        weights: dict[str, float] = {}
        for entry in entries:
            for text in entry.spellings:
                weights.setdefault(text, entry.weight)
        return weights

    def _spellings_to_show(self) -> tuple[dict[str, str], re.Pattern]:
        """Spelling -> phrase, and what finds spellings."""
        shown: dict[str, str] = {}
        for entry in self.entries:
            for text in entry.spellings if entry.shown else ():
                shown.setdefault(text, entry.phrase)
        longest_first = "|".join(re.escape(text) for text in sorted(shown, key=len, reverse=True))
        return shown, re.compile(rf"(?<!\S)(?:{longest_first})(?!\S)" if self.space >= 0 else longest_first)

    def _insert(self, ids: Sequence[int], weight: float) -> None:
        """One spelling, between two spaces where there are any."""
        edge = [self.space] if self.space >= 0 else []
        state, written = 0, -len(edge)
        for label in [*edge, *ids, *edge]:
            if label not in self.tree[state]:
                self.tree[state][label] = len(self.tree)
                self.tree.append({})
                self.own.append(0.0)
                self.credit.append(0.0)
                self.fallback.append(0)
            state, written = self.tree[state][label], written + 1
            if 0 < written <= len(ids) - (not edge):
                self.credit[state] = max(self.credit[state], weight * written / len(ids))
        self.own[state] += weight

    def _link(self) -> None:
        """Links to the longest other beginning, by growing depth; credit and earnings count along them."""
        self.earned = list(self.own)
        queue = deque(self.tree[0].values())
        while queue:
            state = queue.popleft()
            for label, child in self.tree[state].items():
                other = self.fallback[state]
                while label not in self.tree[other] and other:
                    other = self.fallback[other]
                self.fallback[child] = self.tree[other].get(label, 0)
                self.earned[child] += self.earned[self.fallback[child]]
                self.credit[child] = max(self.credit[child], self.credit[self.fallback[child]])
                queue.append(child)

    def step(self, state: int, label: int) -> int:
        """The state after one letter more."""
        found = self._steps.get((state, label))
        if found is None:
            here = state
            while label not in self.tree[here] and here:
                here = self.fallback[here]
            found = self._steps[state, label] = self.tree[here].get(label, 0)
        return found

    def bonus(self, text: str) -> float:
        """What a whole text earns; letters outside of the alphabet raise ValueError."""
        ids = self.alphabet.encode(" ".join(text.split()) if self.space >= 0 else text)
        state, total = self.start, 0.0
        for label in [*ids, self.space] if self.space >= 0 else ids:
            state = self.step(state, label)
            total += self.earned[state]
        return total

    def show(self, text: str) -> str:
        """The text with phrases in place of what they sound like; from the left, the longest spelling first."""
        return self._shown[1].sub(lambda match: self._shown[0][match.group()], text) if self._shown[0] else text
