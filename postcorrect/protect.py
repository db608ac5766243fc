"""Words that a corrector must not change: names, custom words, and whatever has a digit.

    protected = read_protected("names.txt")                        # a word or phrase a line, or a file of custom words
    protected.keep("anna has 2 katz", "hanna has two cats")        # "anna has 2 cats", if the file has anna

Every run of changed words (``postcorrect.errors.find_runs``) that touches such a word or phrase of the source is put
back as it was in the source; the other changes stay. So all that is protected in the source is in the result.

The surprise: a phrase is protected as a whole only. With "new york" in the file "new" alone may be changed; and as
text is compared by its words without capitals, "New York" in the file protects what a recogniser writes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.lines import numbered_lines
from postcorrect.errors import Run, find_runs


def has_digit(word: str) -> bool:
    return any(letter.isdigit() for letter in word)


def _folded(text: str) -> tuple[str, ...]:
    """Its words as they are compared."""
    return tuple(text.casefold().split())


@dataclass(frozen=True)
class Protected:
    """Phrases, each as its words in lower case; words with digits are protected without being named."""

    phrases: frozenset[tuple[str, ...]] = frozenset()

    @classmethod
    def of(cls, phrases: Iterable[str]) -> "Protected":
        """Out of words and phrases; empty ones do not count."""
        return cls(frozenset(words for phrase in phrases if (words := _folded(phrase))))

    def spans(self, source: str) -> list[tuple[int, int]]:
        """Where protected words and phrases stand: numbers of the first word and of the one after the last."""
        words = source.split()
        folded = [word.casefold() for word in words]
        sizes = sorted({len(phrase) for phrase in self.phrases})
        found = [(place, place + 1) for place, word in enumerate(words) if has_digit(word)]
        for size in sizes:
            starts = range(len(words) - size + 1)
            found += [(place, place + size) for place in starts if tuple(folded[place : place + size]) in self.phrases]
        return sorted(set(found))

    def keep(self, source: str, text: str) -> str:
        """``text`` with the runs of changes that touch something protected as in ``source``.

        A word that is put in beside a protected one does not touch it, one within a phrase does.
        """
        spans = self.spans(source)
        runs = find_runs(source, text) if spans else []
        allowed = [run for run in runs if not any(_touches(run, span) for span in spans)]
        if len(allowed) == len(runs):
            return text
        return " ".join(_changed(source.split(), allowed)) if allowed else source


def _touches(run: Run, span: tuple[int, int]) -> bool:
    """Whether a run changes a word of the span, or puts one between its words."""
    end = run.place + len(run.said)
    return run.place < span[1] and span[0] < end


def _changed(words: list[str], runs: Iterable[Run]) -> Iterator[str]:
    """The words with these changes."""
    place = 0
    for run in runs:
        yield from (*words[place : run.place], *run.heard)
        place = run.place + len(run.said)
    yield from words[place:]


def _phrase(line: str) -> str:
    """The phrase of a line of a file of custom words; "" where there is none, or one to be avoided."""
    phrase, _, rest = line.partition("\t")
    weight = rest.partition("\t")[0].strip()
    return "" if phrase.lstrip().startswith("#") or weight.startswith("-") else phrase.strip()


def read_protected(path: str | Path) -> Protected:
    """A word or phrase a line (UTF-8); a file of ``quartznet.hotwords`` is one: what stands before the first tab.

    Empty lines, those that begin with # and custom words with a weight below 0, which are to be avoided, do not count.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not UTF-8 (the message names it), or the file has no words.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of protected words {path}; it has a word or phrase a line")
    found = Protected.of(_phrase(line) for _, line in numbered_lines(path))
    if not found.phrases:
        raise ValueError(f"{path} has no words to protect; it has a word or phrase a line")
    return found
