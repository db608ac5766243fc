"""Any lines of text corrected: one out for each one in, however long, whatever letters it has.

    lines = correct(setup, ["the contry", "", "¿qué?"])            # [Line("the contry", "the country", ...), ...]

A line that has no more tokens than the network has positions is corrected as a whole, as in training. A longer one is
cut between words into pieces of about equal length, at most ``PIECE`` words each: as long as sentences that correctors
learn from, since positions that no sentence reached were never trained. Nothing is repaired across a cut. A line with
letters that the tokenizer cannot repeat stays as it is; of a long line only the piece that has them.

The surprise: a line in which nothing is changed comes back as it was, its tabs and double spaces too; one that is
corrected has single spaces.
"""

import heapq
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain, pairwise

from postcorrect.gate import REASONS, GateSettings
from postcorrect.model import Corrector
from postcorrect.protect import Protected
from postcorrect.repair import Repair, propose, repair
from postcorrect.search import SearchSettings
from quartznet.audit import visible

PIECE = 40  # words of a piece of a line that is too long
NAMED = 30  # characters that cannot be written
OBSTACLES = {
    "empty": "empty",
    "letters": "letters that the vocabulary cannot write",
    "long": "a word that is too long for the network",
}
OUTCOMES = REASONS | OBSTACLES


@dataclass(frozen=True)
class Setup:
    """What corrects."""

    corrector: Corrector
    gate: GateSettings
    search: SearchSettings
    protected: Protected


@dataclass(frozen=True)
class Line:
    """What became of one line."""

    source: str  # as it was read
    text: str  # as it is written
    pieces: tuple[Repair, ...]  # of a line that fits the network one
    obstacles: tuple[str, ...] = ()  # names of ``OBSTACLES``, one for each piece that could not be corrected
    strange: str = ""  # characters that the vocabulary cannot write, as often as they stand there

    @property
    def outcome(self) -> str:
        """A key of ``OUTCOMES``: of several pieces that of the one that was changed, or came closest to it."""
        if self.text != self.source:
            return "accepted"
        if len(self.obstacles) == len(self.pieces):
            return self.obstacles[0] if self.obstacles else "empty"
        tried = [piece for piece in self.pieces if piece.reason != "left alone"] or self.pieces
        return max(tried, key=lambda piece: piece.gain).reason


@dataclass(frozen=True)
class Alternative:
    """A text that could stand instead of a line."""

    text: str
    gain: float  # ln P(text | line) - ln P(line | line), nats; 0 for the line itself


# ---------------------------------------------------------------------------------------------------------------------
# Pieces


def _fits(corrector: Corrector, text: str) -> bool:
    [ids] = corrector.tokenizer.ids([text])
    return len(ids) <= corrector.config.positions


def pieces(corrector: Corrector, line: str, most: int = PIECE) -> list[str]:
    """A line in parts that fit the network, none for an empty one; a single word may be too long all the same."""
    words, text = line.split(), " ".join(line.split())
    if len(words) <= 1 or _fits(corrector, text):
        return [text] if text else []
    count = max(2, -(-len(words) // most))
    ends = [place * len(words) // count for place in range(count + 1)]
    parts = (" ".join(words[begin:end]) for begin, end in pairwise(ends))
    return [piece for part in parts for piece in pieces(corrector, part, most)]


def obstacle(corrector: Corrector, piece: str) -> str | None:
    """Why a piece cannot be corrected, a name of ``OBSTACLES``; None: it can."""
    if not _fits(corrector, piece):
        return "long"
    return None if corrector.tokenizer.repeats(piece) else "letters"


@dataclass(frozen=True)
class _Cut:
    """Lines in pieces."""

    pieces: list[list[str]]
    obstacles: dict[str, str]  # of the pieces that have one
    strange: dict[str, str]  # of those with such letters: the characters that cannot be written

    @property
    def open(self) -> list[str]:
        """The different pieces that can be corrected."""
        return [piece for piece in dict.fromkeys(chain.from_iterable(self.pieces)) if piece not in self.obstacles]


def _cut(setup: Setup, lines: Sequence[str]) -> _Cut:
    if setup.corrector.tokenizer is None:
        raise ValueError("this corrector has no tokenizer, so it reads no texts; make it with postcorrect.from_bert")
    cut = [pieces(setup.corrector, line) for line in lines]
    found = {piece: obstacle(setup.corrector, piece) for line in cut for piece in line}
    strange = {p: setup.corrector.tokenizer.unwritten(p) for p, name in found.items() if name == "letters"}
    return _Cut(cut, {piece: name for piece, name in found.items() if name}, strange)


# ---------------------------------------------------------------------------------------------------------------------
# Corrected, or its alternatives


def correct(setup: Setup, lines: Sequence[str]) -> list[Line]:
    """What becomes of each line; none depends on the others.

    Raises:
        ValueError: the corrector has no tokenizer, or the network gives NaN.
    """
    cut = _cut(setup, lines)
    texts = cut.open
    made = repair(setup.corrector, texts, setup.gate, setup.search, setup.protected)
    found = dict(zip(texts, made, strict=True))
    found |= {piece: Repair(piece, piece, piece, "left alone", 0.0) for piece in cut.obstacles}
    return [_line(line, [found[p] for p in parts], cut) for line, parts in zip(lines, cut.pieces, strict=True)]


def _line(source: str, repairs: Sequence[Repair], cut: _Cut) -> Line:
    changed = any(one.text != one.source for one in repairs)
    text = " ".join(one.text for one in repairs if one.text) if changed else source
    obstacles = (cut.obstacles[one.source] for one in repairs if one.source in cut.obstacles)
    strange = "".join(cut.strange.get(one.source, "") for one in repairs)
    return Line(source, text, tuple(repairs), tuple(obstacles), strange)


def alternatives(setup: Setup, lines: Sequence[str], count: int) -> list[list[Alternative]]:
    """For each line up to ``count`` texts, itself among them if it is good enough; the best first, without a gate.

    They are those that the gate chooses from: texts of the beam, and the line with one of their changes alone; all with
    single spaces. Of a line in pieces the best combinations. One that cannot be corrected has itself alone.

    Raises:
        ValueError: the corrector has no tokenizer, or the network gives NaN.
    """
    cut = _cut(setup, lines)
    texts = cut.open
    made = propose(setup.corrector, texts, setup.search, setup.protected)
    found = {piece: [Alternative(piece, 0.0)] for piece in cut.obstacles}
    for piece, proposals in zip(texts, made, strict=True):
        others = [Alternative(one.text, one.model) for one in proposals.found]
        found[piece] = _best([Alternative(piece, 0.0), *others], count)
    nothing = [Alternative("", 0.0)]
    return [
        reduce(lambda *both: _joined(*both, count), (found[part] for part in parts), nothing) for parts in cut.pieces
    ]


def _best(found: Iterable[Alternative], count: int) -> list[Alternative]:
    return heapq.nlargest(count, found, key=lambda one: one.gain)


def _joined(left: list[Alternative], right: list[Alternative], count: int) -> list[Alternative]:
    """The best of all pairs, their gains summed."""
    pairs = (Alternative(f"{one.text} {other.text}".strip(), one.gain + other.gain) for one in left for other in right)
    return _best(pairs, count)


# ---------------------------------------------------------------------------------------------------------------------
# Counted


@dataclass
class Tally:
    """How many lines were corrected, and why the others were not; ``first`` says where the first of each is."""

    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    cut: int = 0  # lines in several pieces
    pieces: int = 0  # of these
    left: int = 0  # pieces of these that could not be corrected
    strange: Counter[str] = field(default_factory=Counter)  # characters that the vocabulary cannot write

    def add(self, line: Line, where: str) -> None:
        self.lines += 1
        self.outcomes[line.outcome] += 1
        self.first.setdefault(line.outcome, where)
        self.strange.update(line.strange)
        if len(line.pieces) > 1:
            self.cut += 1
            self.pieces += len(line.pieces)
            self.left += len(line.obstacles)

    def table(self) -> str:
        """For a terminal of 80 columns."""
        return "\n".join(self._rows())

    def _rows(self) -> Iterator[str]:
        yield f"{'lines':<44}{self.lines:>10,}"
        for name, meaning in OUTCOMES.items():
            if self.outcomes[name]:
                yield f"  {meaning:<42}{self.outcomes[name]:>10,}"
                if name in ("letters", "long"):
                    yield f"    the first: {self.first[name]}"
        if self.strange:
            named = [f"{visible(one)}\N{NO-BREAK SPACE}{count:,}" for one, count in self.strange.most_common(NAMED)]
            named += [f"{len(self.strange) - NAMED} others"] if len(self.strange) > NAMED else []
            told = f"the vocabulary cannot write: {', '.join(named)}"
            rows = textwrap.wrap(told, 64, subsequent_indent="  ")  # some letters take two columns
            yield from (row.replace("\N{NO-BREAK SPACE}", " ") for row in rows)
        if self.cut:
            left = f", {self.left:,} of these cannot be corrected" if self.left else ""
            yield f"{self.cut:,} too long for the network, cut into {self.pieces:,} pieces{left}"
