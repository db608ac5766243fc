"""Text -> tables of its n-grams with their adjusted counts, in bounded memory: what Kneser-Ney smoothing needs.

The words of the text become numbers in one file. Its n-grams are then taken in ranges of the last word, so that all
n-grams that end alike are in memory at once: sorted from the last word to the first, equal ones and those that share
an ending are neighbours. Every order follows from the sorted longest n-grams (Heafield et al., 2013):

    a(w1 ... wk) = how often it occurs, for the highest order and where w1 is <s>
                 = how many different words come before it, for all others           (the adjusted count)

An n-gram is stored as one integer, the number of its ending in the table of the order below times the size of the
vocabulary plus its first word. Each table is sorted by it, so a search in the table finds any n-gram.

The surprise: memory is bounded by the most frequent word, whose n-grams cannot be parted further (1 of 20 in any
language), and by the vocabulary; tables are files that are mapped into memory.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quartznet.arpa import END, START, UNKNOWN

START_NUMBER, END_NUMBER = 1, 2  # numbers of <s> and </s>; <unk> is 0, others follow as they appear in the text
LONGEST = 2**31 - 1  # n-grams of one order that an int32 can number
AT_ONCE = 1 << 20  # n-grams sorted, and table rows handled, at once
FLUSH = 1 << 20  # words held before they are written


@dataclass
class Corpus:
    """A text as word numbers on disk; every sentence ends with ``</s>``."""

    path: Path
    words: list[str]  # by number
    frequencies: np.ndarray  # (words,) how often each occurs, ``</s>`` included
    sentences: int

    @property
    def tokens(self) -> int:
        """Words, without the ends of sentences."""
        return int(self.frequencies.sum()) - self.sentences


class Column:
    """Numbers in a file: appended first, then mapped into memory."""

    def __init__(self, path: Path, kind: type[np.generic]) -> None:
        self.path, self.kind, self.length = path, kind, 0
        path.touch()

    def append(self, values: np.ndarray) -> None:
        with open(self.path, "ab") as file:
            values.astype(self.kind, copy=False).tofile(file)
        self.length += len(values)

    def mapped(self) -> np.ndarray:
        """(length,) the numbers, which can be changed."""
        return np.memmap(self.path, self.kind, "r+") if self.length else np.empty(0, self.kind)


@dataclass
class Table:
    """The n-grams of one order, sorted from their last word to their first."""

    order: int
    keys: Column  # number of the ending in the table below * words + first word; of a unigram the word
    counts: Column  # adjusted counts
    pruned: Column  # 1 for an n-gram that is left out of the model
    counts_of_counts: list[int] = field(default_factory=lambda: [0] * 5)  # [n]: how many n-grams have adjusted count n

    @property
    def length(self) -> int:
        return self.keys.length


def number_words(sentences: Iterable[str], path: Path) -> Corpus:
    """Writes a text as int32 word numbers.

    Raises:
        ValueError: there is no sentence, or one holds ``<s>``, ``</s>`` or ``<unk>``.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    special = [numbers[word] for word in (UNKNOWN, START, END)]
    assert special == [0, START_NUMBER, END_NUMBER]
    held, count, frequencies = array("i"), 0, np.zeros(0, np.int64)
    with open(path, "wb") as file:
        for count, sentence in enumerate(sentences, 1):
            begin = len(held)
            held.extend(map(numbers.__getitem__, sentence.split()))
            if (least := min(held[begin:], default=END_NUMBER + 1)) <= END_NUMBER:
                word = (UNKNOWN, START, END)[least]
                raise ValueError(f"sentence {count:,} holds {word}, which is no word; take it out of the text")
            held.append(END_NUMBER)
            if len(held) >= FLUSH:
                frequencies = _flushed(held, frequencies, len(numbers), file)
        frequencies = _flushed(held, frequencies, len(numbers), file)
    if not count:
        raise ValueError("there is no sentence to count n-grams in; give a text that holds some")
    return Corpus(path, list(numbers), frequencies, count)


def _flushed(held: array, frequencies: np.ndarray, words: int, file: object) -> np.ndarray:
    """Writes the numbers that are held and adds them to ``frequencies``."""
    block = np.array(held, np.int32)
    block.tofile(file)
    del held[:]
    counts = np.bincount(block, minlength=words)
    counts[: len(frequencies)] += frequencies
    return counts


# ---------------------------------------------------------------------------------------------------------------------
# Ranges of the last word


def _ranges(frequencies: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Ranges (first, behind the last) of words that occur ``most`` times together, or that are a single word."""
    first = total = 0
    for word, frequency in enumerate(frequencies.tolist()):
        if total and total + frequency > most:
            yield first, word
            first, total = word, 0
        total += frequency
    yield first, len(frequencies)


def _ngrams_ending_in(numbers: np.ndarray, first: int, behind: int, order: int) -> list[np.ndarray]:
    """Columns, from the last word to the first, of all n-grams whose last word is in a range; padded with ``<s>``."""
    found = []
    for start in range(0, len(numbers), 4 * AT_ONCE):
        block = numbers[start : start + 4 * AT_ONCE]
        found.append(np.flatnonzero((block >= first) & (block < behind)) + start)
    places = np.concatenate(found)
    columns, outside = [numbers[places]], np.zeros(len(places), bool)
    for back in range(1, order):
        word = numbers[np.maximum(places - back, 0)]
        outside |= (places < back) | (word == END_NUMBER)
        columns.append(np.where(outside, np.int32(START_NUMBER), word))
    return columns


def _sorted(columns: list[np.ndarray], words: int) -> list[np.ndarray]:
    """The same rows, sorted by the first column, then by the second and so on."""
    bits = max(1, (words - 1).bit_length())
    at_once = max(1, 63 // bits)
    keys = []
    for start in range(0, len(columns), at_once):
        key = np.zeros(len(columns[0]), np.int64)
        for column in columns[start : start + at_once]:
            key = (key << bits) | column
        keys.append(key)
    places = np.lexsort(keys[::-1])
    return [column[places] for column in columns]


# ---------------------------------------------------------------------------------------------------------------------
# Tables of all orders


class _Tables:
    """Fills the tables of all orders, range by range."""

    def __init__(self, corpus: Corpus, order: int, thresholds: tuple[int, ...], folder: Path) -> None:
        self.words, self.order, self.thresholds = len(corpus.words), order, thresholds
        self.tables = [
            Table(
                number,
                Column(folder / f"keys{number}", np.int64),
                Column(folder / f"counts{number}", np.int32),
                Column(folder / f"pruned{number}", np.bool_),
            )
            for number in range(1, order + 1)
        ]
        for word in (0, START_NUMBER):
            self._append(self.tables[0], np.array([word]), np.array([0]), np.array([False]))

    def _append(self, table: Table, keys: np.ndarray, counts: np.ndarray, pruned: np.ndarray) -> None:
        table.keys.append(keys)
        table.counts.append(counts)
        table.pruned.append(pruned)
        for number, count in enumerate(np.bincount(np.minimum(counts, 5), minlength=5)[:5].tolist()):
            table.counts_of_counts[number] += count
        if table.length > LONGEST:
            raise ValueError(f"more than {LONGEST:,} {table.order}-grams; install lmplz for a text of this size")

    def add(self, columns: list[np.ndarray], is_last: bool) -> None:
        """Adds sorted n-grams; ``is_last``: there are no more."""
        differs = [np.concatenate(([True], column[1:] != column[:-1])) for column in columns]
        begins = np.logical_or.accumulate(
            differs
        )  # (order, rows): the ending of that length is not that of the row above
        rows = np.flatnonzero(begins[-1])
        occurs = np.diff(rows, append=len(columns[0]))
        columns, begins = [column[rows] for column in columns], begins[:, rows]
        valid = np.ones(len(rows), bool)  # no <s> behind the first word
        ending = np.zeros(len(rows), np.int64)
        for table, column in zip(self.tables, columns, strict=True):
            k = table.order
            first_rows = np.flatnonzero(begins[k - 1])
            real = np.add.reduceat(occurs, first_rows)
            counts = real
            if k < self.order:
                before = np.add.reduceat(begins[k].astype(np.int64), first_rows)
                counts = np.where(column[first_rows] == START_NUMBER, real, before)
            kept = valid[first_rows]
            first_rows, real, counts = first_rows[kept], real[kept], counts[kept]
            keys = column[first_rows] + (ending[first_rows] * self.words if k > 1 else 0)
            length = table.length
            self._append(table, keys, counts, real <= self.thresholds[k - 1])
            if is_last and k < self.order and valid[-1]:
                _count_as_lmplz(table, int(counts[-1]), int(real[-1]))
            is_first = np.zeros(len(rows), np.int64)
            is_first[first_rows] = 1
            ending = length - 1 + np.cumsum(is_first)
            valid &= column != START_NUMBER


def _count_as_lmplz(table: Table, adjusted: int, real: int) -> None:
    """lmplz counts the very last n-gram of an order by its real count; seen in texts of a few sentences only."""
    for count, change in ((adjusted, -1), (real, 1)):
        if count < 5:
            table.counts_of_counts[count] += change


def count_ngrams(corpus: Corpus, order: int, thresholds: tuple[int, ...], folder: Path) -> list[Table]:
    """The tables of orders 1 to ``order``; those of one word hold every word of the corpus at its number.

    Args:
        thresholds: (order,) n-grams that occur at most so often are marked as pruned; none does with 0.
        folder: for the tables.
    """
    tables, numbers = _Tables(corpus, order, thresholds, folder), np.memmap(corpus.path, np.int32, "r")
    for first, behind in _ranges(corpus.frequencies, AT_ONCE):
        columns = _ngrams_ending_in(numbers, first, behind, order)
        tables.add(_sorted(columns, len(corpus.words)), behind == len(corpus.frequencies))
    return tables.tables
