"""N-gram language models out of text: interpolated modified Kneser-Ney smoothing, as KenLM's lmplz computes it.

Chen and Goodman (1998) in the form of Heafield et al. (2013). With adjusted counts a (``quartznet.ngram_counts``):

    P(w | c) = (a(c w) - D(a(c w))) / sum_v a(c v)  +  gamma(c) P(w | c without its first word)
    gamma(c) = (D(1) N1(c) + D(2) N2(c) + D(3) N3+(c) + counts of pruned c v) / sum_v a(c v)
    D(j) = j - (j + 1) y t(j + 1) / t(j),   y = t(1) / (t(1) + 2 t(2)),   for j = 1, 2, 3 and more

t(j) is how many n-grams of the order have the adjusted count j, Nj(c) how many of them begin with c. Below the unigrams
is the uniform distribution over all words, ``</s>`` and ``<unk>``; ``<unk>`` has nothing else. gamma(c) is c's back-off
weight. Numbers are those of lmplz to the sixth digit.

The surprise: in small texts D is undefined (no word occurs twice) or out of its range 0 to j. Then D = (0.5, 1, 1.5) is
taken for that order, which lmplz does with ``--discount_fallback`` only, and which is reported.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from quartznet.arpa import NEVER, entry, write_arpa
from quartznet.ngram_counts import AT_ONCE, START_NUMBER, Column, Corpus, Table, count_ngrams, number_words

FALLBACK = (0.0, 0.5, 1.0, 1.5)  # discounts of the adjusted counts 0, 1, 2, 3 and more
HIGHEST = 6  # order; KenLM is built for at most six


@dataclass(frozen=True)
class OrderSummary:
    """What became of the n-grams of one order."""

    order: int
    found: int
    written: int  # those that were not pruned
    discounts: tuple[float, ...]  # of the adjusted counts 0, 1, 2, 3 and more
    is_fallback: bool


@dataclass(frozen=True)
class ModelSummary:
    """What a model was estimated from, and its size."""

    sentences: int
    tokens: int  # words, without the ends of sentences
    types: int  # different words
    orders: tuple[OrderSummary, ...]


def check_settings(order: int, prune: Sequence[int]) -> tuple[int, ...]:
    """The threshold of each order; the last one of ``prune`` stands for all higher orders.

    Raises:
        ValueError: the order is not within 1 to 6, or the thresholds are too many, fall, or prune single words.
    """
    if not 1 <= order <= HIGHEST:
        raise ValueError(f"the order must be from 1 to {HIGHEST}, got {order}")
    prune = tuple(prune) or (0,)
    wanted = f"one for each of the {order} orders at most, such as 0 0 1"
    if len(prune) > order or prune[0] != 0 or any(low > high for low, high in pairwise(prune)):
        raise ValueError(
            f"pruning thresholds begin with 0, never fall, and are {wanted}; got {' '.join(map(str, prune))}"
        )
    return prune + prune[-1:] * (order - len(prune))


def discounts(counts_of_counts: Sequence[int]) -> tuple[tuple[float, ...], bool]:
    """D of adjusted counts 0, 1, 2, 3 and more, and whether they are the fallback; in fp32, as in lmplz.

    Args:
        counts_of_counts: [j]: how many n-grams have the adjusted count j, from 0 to 4.
    """
    if 0 in counts_of_counts[1:4]:
        return FALLBACK, True
    t = [np.float32(count) for count in counts_of_counts]
    y = t[1] / np.float32(counts_of_counts[1] + 2.0 * counts_of_counts[2])
    found = [np.float32(j) - np.float32(j + 1) * y * t[j + 1] / t[j] for j in (1, 2, 3)]
    if any(not 0 <= amount <= j for j, amount in enumerate(found, 1)):
        return FALLBACK, True
    return (0.0, *map(float, found)), False


def _blocks(length: int) -> Iterator[slice]:
    for start in range(0, length, AT_ONCE):
        yield slice(start, min(start + AT_ONCE, length))


def _log10(values: np.ndarray) -> list[float]:
    """At most 0. A discount of exactly 0 makes a weight of 0, for which lmplz writes -inf and KenLM refuses to read."""
    return np.clip(np.log10(np.maximum(values, 1e-300)), NEVER, 0.0).tolist()


class _Estimate:
    """The probabilities of one order after the other, from the unigrams up; all of it in mapped files."""

    def __init__(self, corpus: Corpus, tables: list[Table], folder: Path) -> None:
        self.corpus, self.tables, self.folder = corpus, tables, folder
        self.discounts = [discounts(table.counts_of_counts) for table in tables]
        self.keys = [table.keys.mapped() for table in tables]
        self.pruned = [table.pruned.mapped() for table in tables]
        self.prefixes: list[np.ndarray] = []  # of each order: the number of the n-gram without its last word
        self.probabilities: list[np.ndarray] = []
        self.backoffs: list[np.ndarray] = []  # of each order but the highest
        for table in tables:
            self._unigrams(table) if table.order == 1 else self._order(table)

    def _new(self, name: str, table: Table, kind: type[np.generic], value: float = 0) -> np.ndarray:
        """A mapped file of one number for each n-gram of the table."""
        column = Column(self.folder / f"{name}{table.order}", kind)
        for block in _blocks(table.length):
            column.append(np.full(block.stop - block.start, value, kind))
        return column.mapped()

    def _unigrams(self, table: Table) -> None:
        counts = np.array(table.counts.mapped(), np.float64)
        taken = np.array(self.discounts[0][0])[np.minimum(counts, 3).astype(int)]
        uniform = taken.sum() / counts.sum() / (len(counts) - 1)  # for all but <s>
        probabilities = (counts - taken) / counts.sum() + uniform
        probabilities[START_NUMBER] = 1.0  # it is never predicted
        self.probabilities.append(probabilities)
        self.prefixes.append(np.zeros(len(counts), np.int32))

    def _suffixes(self, order: int, block: slice) -> np.ndarray:
        """The numbers of n-grams without their first words, in the table below."""
        return self.keys[order - 1][block] // len(self.corpus.words)

    def _find_prefixes(self, table: Table) -> np.ndarray:
        """c of every n-gram c w: its ending's own prefix, with the first word put before it again."""
        k, found = table.order, self._new("prefixes", table, np.int32)
        for block in _blocks(table.length):
            first = self.keys[k - 1][block] % len(self.corpus.words)
            if k > 2:
                inner = self.prefixes[k - 2][self._suffixes(k, block)].astype(np.int64)
                first = np.searchsorted(self.keys[k - 2], inner * len(self.corpus.words) + first)
            found[block] = first
        return found

    def _order(self, table: Table) -> None:
        k, counts = table.order, table.counts.mapped()
        amounts = np.array(self.discounts[k - 1][0])
        prefixes = self._find_prefixes(table)
        total, free = (self._new(name, self.tables[k - 2], np.float64) for name in ("totals", "free"))
        for block in _blocks(table.length):
            count = counts[block]
            np.add.at(total, prefixes[block], count)
            np.add.at(free, prefixes[block], np.where(self.pruned[k - 1][block], count, amounts[np.minimum(count, 3)]))
        backoffs, probabilities = self._new("backoffs", self.tables[k - 2], np.float64), None
        for block in _blocks(len(total)):
            is_context = total[block] > 0
            backoffs[block] = np.where(is_context, free[block] / np.where(is_context, total[block], 1.0), 1.0)
        probabilities = self._new("probabilities", table, np.float64)
        for block in _blocks(table.length):
            count, context = counts[block], prefixes[block]
            own = (count - amounts[np.minimum(count, 3)]) / total[context]
            probabilities[block] = own + backoffs[context] * self.probabilities[k - 2][self._suffixes(k, block)]
        self.prefixes.append(prefixes)
        self.backoffs.append(backoffs)
        self.probabilities.append(probabilities)

    def lines(self, table: Table) -> Iterator[str]:
        """The lines of an ARPA section."""
        k, words = table.order, np.array(self.corpus.words, dtype=object)
        is_highest = k == len(self.tables)
        for block in _blocks(table.length):
            kept = np.flatnonzero(~self.pruned[k - 1][block]) + block.start
            columns, number = [], kept
            for keys in reversed(self.keys[:k]):
                number, first = np.divmod(keys[number], len(words))
                columns.append(words[first])
            log_probs = _log10(self.probabilities[k - 1][kept])
            log_backoffs = [None] * len(kept) if is_highest else _log10(self.backoffs[k - 1][kept])
            yield from map(entry, log_probs, map(" ".join, zip(*columns, strict=True)), log_backoffs)

    def written(self, table: Table) -> int:
        """How many n-grams of an order are not pruned."""
        return table.length - sum(int(self.pruned[table.order - 1][block].sum()) for block in _blocks(table.length))


def build_model(
    sentences: Iterable[str], path: str | Path, order: int = 5, prune: Sequence[int] = (), folder: Path | None = None
) -> ModelSummary:
    """Estimates a model and writes it as ARPA, gzip where the name ends in .gz.

    Args:
        sentences: texts whose words are parted by spaces, read once; an empty one counts as a sentence, as in lmplz.
        prune: n-grams of order k that occur at most ``prune[k - 1]`` times are left out; the last number stands for
            all higher orders.
        folder: for temporary files, about 60 bytes for each n-gram; None: the folder of ``path``.

    Raises:
        ValueError: as ``check_settings``; the text holds no sentence, or one of ``<s>``, ``</s>`` and ``<unk>``.
    """
    thresholds, path = check_settings(order, prune), Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=folder or path.absolute().parent) as temporary:
        corpus = number_words(sentences, Path(temporary) / "words")
        tables = count_ngrams(corpus, order, thresholds, Path(temporary))
        estimate = _Estimate(corpus, tables, Path(temporary))
        written = [estimate.written(table) for table in tables]
        write_arpa(path, written, map(estimate.lines, tables))
        orders = (
            OrderSummary(table.order, table.length, count, *found)
            for table, count, found in zip(tables, written, estimate.discounts, strict=True)
        )
        return ModelSummary(corpus.sentences, corpus.tokens, len(corpus.words) - 3, tuple(orders))
