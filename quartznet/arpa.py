"""Language models: what a search asks of one, and back-off n-grams read from ARPA text, without any package.

An ARPA file lists n-grams with log10 P(last word | words before) and, but for the longest, a back-off weight. A word
that does not follow its context there is scored in the context without its first word, after paying the weight:

    P(w | c) = p(c w) if c w is listed, else backoff(c) P(w | c without its first word)

``ArpaModel`` is that rule as an automaton. A state is a listed context, one dictionary leads from (state, word) to an
n-gram, and every n-gram knows the state that it leaves; most words cost one or two look-ups.

The surprise: a context that nothing longer begins with, and whose weight is 1, is never a state: its suffix scores all
words alike. Two beginnings of a sentence that differ in words the model forgot share a state, so a search can merge
them (KenLM does the same, Heafield 2011).
"""

import gzip
import logging
import math
import re
import zlib
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

State = Hashable  # of a model: what it remembers of the words so far
START, END, UNKNOWN = "<s>", "</s>", "<unk>"
LOG_10 = math.log(10.0)
NEVER = -100.0  # log10 of a probability or weight of 0, and of P(<unk>) where it is not listed, as in KenLM
LARGEST = 100.0  # log10 of a back-off weight; one that is above 10 already says that the model is no estimate
BINARY = b"mmap lm http://kheafield.com/code"  # how a KenLM binary begins
ROOT = 0  # the state without context


class LanguageModel(ABC):
    """P(word | words before), for a search that goes from word to word. All scores are natural logarithms."""

    order: int  # words of the longest n-gram

    @abstractmethod
    def start(self) -> State:
        """The state at the beginning of a sentence, after ``<s>``."""

    @abstractmethod
    def score(self, state: State, word: str) -> tuple[float, State]:
        """ln P(word | state) and the state after it; a word that the model does not know is ``<unk>``."""

    @abstractmethod
    def end(self, state: State) -> float:
        """ln P(</s> | state): the sentence ends here."""

    @abstractmethod
    def knows(self, word: str) -> bool:
        """Whether the word is in the vocabulary; ``<s>``, ``</s>`` and ``<unk>`` are no words."""

    @abstractmethod
    def vocabulary(self) -> Iterable[str] | None:
        """All words, without ``<s>``, ``</s>`` and ``<unk>``; None: this model cannot list them."""

    def matched(self, words: Sequence[str]) -> list[int] | None:
        """Of each word of a sentence, and of its end: how long the n-gram is that scores it; None: it cannot tell."""
        return None


class ArpaModel(LanguageModel):
    """A back-off model in memory: about 250 bytes for each n-gram. ``read_arpa`` makes one.

    N-grams are numbered in the order of the file. N-gram i, unless it is of the highest order, is state i + 1.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.words: dict[str, int] = {}  # unigram -> its number
        self.places: dict[int, int] = {}  # state * number of unigrams + last word -> n-gram
        self.log_probs = array("d")  # natural, of each n-gram
        self.after = array("q")  # the state that each n-gram leaves
        self.ends: list[int] = []  # n-grams up to and with each order
        self.backoffs = array("d", [0.0])  # natural, of each state
        self.shorter = array("q", [ROOT])  # each state's suffix

    def add(self, log_prob: float, suffix: int) -> None:
        """Appends an n-gram: its log10 probability, and the state without its first word."""
        self.log_probs.append(log_prob * LOG_10)
        self.after.append(suffix)

    def add_state(self, backoff: float) -> None:
        """Makes the last n-gram a state with that log10 back-off weight."""
        self.backoffs.append(backoff * LOG_10)
        self.shorter.append(self.after[-1])

    def start(self) -> State:
        return self.after[self.places[self.words[START]]]

    def score(self, state: State, word: str) -> tuple[float, State]:
        words = self.words
        number = words.get(word)
        if number is None:
            number = words[UNKNOWN]
        count, find, total = len(words), self.places.get, 0.0
        while (place := find(state * count + number)) is None:
            total += self.backoffs[state]
            state = self.shorter[state]
        return total + self.log_probs[place], self.after[place]

    def end(self, state: State) -> float:
        return self.score(state, END)[0]

    def knows(self, word: str) -> bool:
        return word in self.words and word not in (START, END, UNKNOWN)

    def vocabulary(self) -> Iterable[str]:
        return [word for word in self.words if word not in (START, END, UNKNOWN)]

    def matched(self, words: Sequence[str]) -> list[int]:
        state, count, lengths = self.start(), len(self.words), []
        for word in (*words, END):
            number = self.words.get(word, self.words[UNKNOWN])
            while (place := self.places.get(state * count + number)) is None:
                state = self.shorter[state]
            lengths.append(1 + bisect_right(self.ends, place))
            state = self.after[place]
        return lengths


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _wrong(path: Path, line: int, problem: str) -> ValueError:
    return ValueError(f"{path}:{line}: {problem}; is the file truncated or damaged? build or copy it again")


def is_binary(path: str | Path) -> bool:
    """Whether a file is KenLM's own binary format."""
    with open(path, "rb") as file:
        return file.read(len(BINARY)) == BINARY


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line, plain or gzip; only a line feed ends a line."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    number = 0
    try:
        with gzip.open(path) if compressed else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _wrong(path, number, f"bytes that are no UTF-8 ({error.reason})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _wrong(path, number + 1, f"the gzip stream breaks off ({error})") from error


class _Reader:
    """One pass over the lines of a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.number, self.lines = path, 0, _lines(path)

    def wrong(self, problem: str) -> ValueError:
        return _wrong(self.path, self.number, problem)

    def next(self) -> str:
        """The next line."""
        self.number, line = next(self.lines, (self.number + 1, None))
        if line is None:
            raise self.wrong("the file ends before \\end\\")
        if "\0" in line:
            raise self.wrong("a NUL byte")
        return line

    def next_filled(self) -> str:
        """The next line that is not blank."""
        while not (line := self.next().strip()):
            pass
        return line

    def header(self) -> list[int]:
        """The number of n-grams of each order, from ``\\data\\`` on; comments may come before."""
        while (line := self.next_filled()).startswith("#"):
            pass
        if line.removeprefix("\ufeff") != "\\data\\":
            raise self.wrong(f"{line[:40]!r} where \\data\\ should be, so this is no ARPA file")
        counts: list[int] = []
        while match := re.fullmatch(r"ngram ([0-9]+)\s*=\s*([0-9]{1,18})", line := self.next().strip()):
            if int(match[1]) != len(counts) + 1:
                raise self.wrong(f"{line!r} where the count of {len(counts) + 1}-grams should be")
            counts.append(int(match[2]))
        if line or not counts:
            raise self.wrong(f"{line[:40]!r} is no count such as 'ngram 1=1000'")
        return counts

    def section(self, order: int, count: int) -> Iterator[tuple[float, str, float]]:
        """log10 probability, words and log10 back-off of each of the n-grams of one order."""
        if (line := self.next_filled()) != f"\\{order}-grams:":
            raise self.wrong(f"{line[:40]!r} where \\{order}-grams: should be")
        for done in range(count):
            line = self.next()
            if not line or line.startswith("\\"):
                raise self.wrong(f"{count:,} {order}-grams were promised at the top, and there are {done:,}")
            yield self.entry(line, order)
        if line := self.next().strip():
            raise self.wrong(f"{count:,} {order}-grams were promised at the top, and here is one more ({line[:40]!r})")

    def entry(self, line: str, order: int) -> tuple[float, str, float]:
        """``-1.2<tab>two words<tab>-0.3``; spaces may stand for the tabs."""
        parts = line.split("\t")
        if len(parts) == 1:
            words = line.split()
            parts = [*words[:1], " ".join(words[1 : order + 1]), *words[order + 1 :]]
        try:
            log_prob, words = float(parts[0]), parts[1]
            backoff = float(parts[2]) if len(parts) > 2 and parts[2] else 0.0
        except (ValueError, IndexError):
            raise self.wrong(f"{line[:60]!r} is no {order}-gram with its probability") from None
        if len(parts) > 3 or words.count(" ") != order - 1 or not words:
            raise self.wrong(f"{line[:60]!r} is no {order}-gram with its probability")
        if not (-math.inf <= log_prob <= 0.0 and -math.inf <= backoff <= LARGEST):
            raise self.wrong(
                f"{line[:60]!r}: a log10 probability is at most 0, that of a back-off weight at most {LARGEST:g}"
            )
        return max(log_prob, NEVER), words, max(backoff, NEVER)


def _add_order(model: ArpaModel, reader: _Reader, order: int, count: int, states: dict[str, int]) -> dict[str, int]:
    """Adds the n-grams of one order; ``states``: of the order before, by their words. Returns those of this one."""
    own, first = {}, order == 1
    for log_prob, text, backoff in reader.section(order, count):
        context, _, word = text.rpartition(" ")
        if first:
            model.words.setdefault(text, len(model.words))
        state, number = (ROOT if first else states.get(context)), model.words.get(word)
        if state is None or number is None:
            raise reader.wrong(f"{text!r} needs {(context if state is None else word)!r}, which is not listed above it")
        key, place = (number if first else state * len(model.words) + number), len(model.log_probs)
        if model.places.setdefault(key, place) != place:
            raise reader.wrong(f"{text!r} is listed twice")
        suffix = ROOT if first else states.get(text.partition(" ")[2])
        model.add(log_prob, _suffix_by_walking(model, state, number) if suffix is None else suffix)
        if order < model.order:
            own[text] = place + 1
            model.add_state(backoff)
    return own


def _suffix_by_walking(model: ArpaModel, state: int, number: int) -> int:
    """The longest listed suffix of context + word, where the next shorter one is not listed (some pruned models)."""
    while state != ROOT:
        state = model.shorter[state]
        place = model.places.get(state * len(model.words) + number)
        if place is not None:
            return place + 1
    return ROOT


def _share_states(model: ArpaModel) -> None:
    """Replaces every state that scores all words as its suffix does by that suffix."""
    keys = np.fromiter(model.places, np.int64, len(model.places))
    shorter, says_more = np.array(model.shorter), np.array(model.backoffs) != 0.0
    says_more[keys // len(model.words)] = True  # something longer begins with it
    said_by = np.arange(len(shorter))
    while (silent := ~says_more[said_by] & (said_by != ROOT)).any():
        said_by[silent] = shorter[said_by[silent]]
    model.shorter = array("q", said_by[shorter].tobytes())
    after = np.array(model.after)
    after[: len(shorter) - 1] = np.arange(1, len(shorter))  # an n-gram that is a state leaves that one
    model.after = array("q", said_by[after].tobytes())


def _arpa_file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no language model {path}; build one with python -m quartznet.lm build")
    if is_binary(path):
        raise ValueError(
            f"{path} is a KenLM binary; to read it, pip install kenlm (the extra [lm] does), or give the ARPA file"
        )
    return path


def read_counts(path: str | Path) -> list[int]:
    """How many n-grams of each order an ARPA file says it holds; raises what ``read_arpa`` does."""
    return _Reader(_arpa_file(path)).header()


def read_words(path: str | Path) -> list[str]:
    """The vocabulary of an ARPA file without its other n-grams; raises what ``read_arpa`` does."""
    reader = _Reader(_arpa_file(path))
    words = (words for _, words, _ in reader.section(1, reader.header()[0]))
    return [word for word in words if word not in (START, END, UNKNOWN)]


def read_arpa(path: str | Path) -> ArpaModel:
    """An ARPA file, plain or gzip.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a KenLM binary, lacks ``<s>`` or ``</s>``, or is no whole ARPA file; with file and line.
    """
    reader = _Reader(_arpa_file(path))
    counts = reader.header()
    model = ArpaModel(len(counts))
    states: dict[str, int] = {}
    for order, count in enumerate(counts, 1):
        states = _add_order(model, reader, order, count, states)
        if order == 1:
            _add_unknown(model, states, reader.path)
        model.ends.append(len(model.log_probs))
    if (line := reader.next_filled()) != "\\end\\":
        raise reader.wrong(f"{line[:40]!r} where \\end\\ should be")
    _share_states(model)
    return model


def _add_unknown(model: ArpaModel, states: dict[str, int], path: Path) -> None:
    """Adds ``<unk>`` where it is not listed, and sees to ``<s>`` and ``</s>``."""
    missing = [word for word in (START, END) if word not in model.words]
    if missing:
        raise ValueError(f"{path} lists no {' and no '.join(missing)}, so it knows no sentences; build it again")
    if UNKNOWN not in model.words:
        logger.warning("%s lists no <unk>: unknown words get log10 probability %g", path, NEVER)
        number = model.words[UNKNOWN] = len(model.words)
        model.places[number] = len(model.log_probs)
        model.add(NEVER, ROOT)
        if model.order > 1:
            states[UNKNOWN] = len(model.log_probs)
            model.add_state(0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def entry(log_prob: float, words: str, backoff: float | None) -> str:
    """One line of a section, both numbers log10; ``backoff`` None: of the highest order."""
    return f"{log_prob:.7g}\t{words}\n" if backoff is None else f"{log_prob:.7g}\t{words}\t{backoff:.7g}\n"


def write_arpa(path: str | Path, counts: Sequence[int], sections: Iterable[Iterable[str]]) -> None:
    """Writes a model, gzip where the name ends in .gz; ``sections``: for each order, its lines from ``entry``.

    The file appears when it is whole; where that fails, nothing is left of it.

    Raises:
        ValueError: a section has not as many lines as ``counts`` says.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with (
            gzip.open(part, "wt", encoding="utf-8", newline="\n")
            if path.suffix == ".gz"
            else open(part, "w", encoding="utf-8", newline="\n") as file
        ):
            file.write("\\data\\\n" + "".join(f"ngram {order}={count}\n" for order, count in enumerate(counts, 1)))
            for order, (count, lines) in enumerate(zip(counts, sections, strict=True), 1):
                file.write(f"\n\\{order}-grams:\n")
                written = 0
                for written, line in enumerate(lines, 1):  # noqa: B007
                    file.write(line)
                if written != count:
                    raise ValueError(f"{written:,} {order}-grams were given for {path}, and {count:,} announced")
            file.write("\n\\end\\\n")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
