"""What goes wrong in a sentence: runs of wrong words, letter by letter, and the kinds that they are of.

    find_runs("the cat sat every day", "a cat sad everyday")
        [Run(0, ("the",), ("a",)), Run(2, ("sat", "every", "day"), ("sad", "everyday"))]

Words are aligned first (``quartznet.confusions``), then the letters of each run, its spaces among them: a space that is
lost joins two words, one too many splits a word. The surprise: an alignment of all letters at once is shorter and
worse, because it takes letters of right words to explain their wrong neighbours.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from postcorrect.pairs import Pair
from quartznet.confusions import aligned_units

KINDS = {
    "misheard": "one word for another",
    "joined": "right letters, a space missing",
    "split": "right letters, a space too many",
    "spaces": "right letters, spaces elsewhere",
    "dropped": "words left out",
    "added": "words that nobody said",
    "several": "several words for others",
}
SHOWN = 3  # examples of each kind
COLUMNS = 80  # of a terminal


@dataclass(frozen=True)
class Run:
    """Neighbouring words that are wrong."""

    place: int  # number of words of the sentence before it
    said: tuple[str, ...]
    heard: tuple[str, ...]

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if not self.heard:
            return "dropped"
        if not self.said:
            return "added"
        if "".join(self.said) == "".join(self.heard):
            change = len(self.heard) - len(self.said)
            return "joined" if change < 0 else "split" if change > 0 else "spaces"
        return "misheard" if len(self.said) == len(self.heard) == 1 else "several"

    def letters(self) -> list[tuple[str, str]]:
        """Its letters and spaces, said and heard, aligned; "" where one side has none.

        Of a letter that was doubled the second one is the inserted one, so that what comes after a letter is counted
        under one name.
        """
        pairs = aligned_units(" ".join(self.said), " ".join(self.heard))
        for place in range(len(pairs) - 1):
            inserted, right = pairs[place : place + 2]
            if inserted[0] == "" and right == (inserted[1], inserted[1]):
                pairs[place : place + 2] = right, inserted
        return pairs

    def __str__(self) -> str:
        return f"{' '.join(self.said) or '-'} > {' '.join(self.heard) or '-'}"


def find_runs(said: str, heard: str) -> list[Run]:
    """The wrong runs of a sentence, in order."""
    runs, place = [], 0
    pairs = aligned_units(said.split(), heard.split())
    for is_wrong, run in groupby(pairs, key=lambda pair: pair[0] != pair[1]):
        run = list(run)
        left, right = (tuple(pair[side] for pair in run if pair[side]) for side in (0, 1))
        if is_wrong:
            runs.append(Run(place, left, right))
        place += len(left)
    return runs


def _kinds(pairs: Iterable[Pair]) -> dict[str, Counter[str]]:
    """How often each error of each kind occurs."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for pair in pairs:
        for run in find_runs(pair.said, pair.recognised):
            found[run.kind][str(run)] += 1
    return found


def _examples(errors: Counter[str], width: int) -> str:
    """The most frequent ones that fit."""
    shown = ""
    for error, count in sorted(errors.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]:
        text = f"{', ' if shown else ''}{error}" + (f" ({count}x)" if count > 1 else "")
        if len(shown) + len(text) <= width:
            shown += text
    return shown


def _letter_lines(pairs: Sequence[Pair], most: int) -> Iterator[str]:
    """The letters that are confused most."""
    wrong: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        for run in find_runs(pair.said, pair.recognised):
            if run.said and run.heard:
                wrong.update(letters for letters in run.letters() if letters[0] != letters[1])
    names = {"": "-", " ": "space"}
    shown = [
        f"{names.get(said, said)} > {names.get(heard, heard)} {count}x"
        for (said, heard), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:most]
    ]
    for begin in range(0, len(shown), 4):
        yield "  " + "".join(f"{text:<19}" for text in shown[begin : begin + 4]).rstrip()


def error_table(pairs: Sequence[Pair], most: int = 15) -> str:
    """How often each kind of error comes, with the most frequent ones, for a terminal of 80 columns."""
    kinds = _kinds(pairs)
    total = sum(errors.total() for errors in kinds.values())
    lines = [f"{'errors (said > recognised)':<34}{'number':>10}{'share':>9}{'different':>12}"]
    for kind, meaning in KINDS.items():
        errors = kinds[kind]
        share = f"{errors.total() / max(1, total):.1%}"
        lines.append(f"{meaning:<34}{errors.total():>10,}{share:>9}{len(errors):>12,}")
        lines += [f"    {_examples(errors, COLUMNS - 4)}"] if errors else []
    letters = list(_letter_lines(pairs, most))
    return "\n".join([*lines, "letters that are confused most (- is none)", *letters] if letters else lines)
