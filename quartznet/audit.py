"""What a language's rules do to a corpus: how much of its text is kept, mapped, spelled out, or lost.

``audit(texts, language)`` counts every character; ``Audit.check`` stops a training that would lose more than 0.5 % of
the letters.

The surprise: the counts follow ``Language.convert`` once, while ``Language.normalize`` repeats it where an apostrophe
changed its meaning; what later rounds remove is punctuation and therefore no loss.
"""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from quartznet.text import Language, lower_case


@dataclass
class Audit:
    """How many characters of some texts were kept, mapped to others, spelled out, lost, or removed as punctuation."""

    language: Language
    texts: int = 0
    empty: int = 0  # texts of which nothing is left
    kept: Counter[str] = field(default_factory=Counter)
    mapped: Counter[str] = field(default_factory=Counter)
    spelled: Counter[str] = field(default_factory=Counter)  # numbers and signs, in lower case, written as words
    dropped: Counter[str] = field(default_factory=Counter)  # letters, digits and signs that are heard but not written
    punctuation: Counter[str] = field(default_factory=Counter)
    written: dict[str, str] = field(default_factory=dict)  # mapped or spelled -> what stands for it
    examples: dict[str, str] = field(default_factory=dict)  # mapped, spelled or lost -> the first text that has it
    lines: dict[str, int] = field(default_factory=dict)  # the same -> the line of that text, where lines were given

    @property
    def letters(self) -> int:
        """All that should be written: kept, mapped, spelled and lost."""
        return self.kept.total() + self.mapped.total() + self.characters_spelled + self.dropped.total()

    @property
    def characters_spelled(self) -> int:
        return sum(len(number) * count for number, count in self.spelled.items())

    @property
    def letters_lost(self) -> float:
        """Share of the letters that is lost; 0 where there are none."""
        return self.dropped.total() / max(1, self.letters)

    @property
    def unused(self) -> str:
        """Letters of the alphabet that no text holds, so that the model cannot learn them."""
        used = set(self.kept).union(*self.written.values())
        return "".join(letter for letter in self.language.letters if letter not in used)

    def add(self, text: str, line: int = 0) -> str:
        """Counts one text, which stands in that line of its file, if not 0; returns it normalised."""
        self.texts += 1
        normalized = self.language.normalize(text)
        self.empty += not normalized
        for kind, characters, written in self.language.convert(text):
            if kind == "kept":
                self.kept.update(characters)
            elif kind == "punctuation":
                self.punctuation[characters] += 1
            elif kind != "space":
                counts = {"mapped": self.mapped, "spelled": self.spelled, "dropped": self.dropped}[kind]
                counts[characters] += 1
                if characters not in self.examples:
                    self.examples[characters] = text
                    self.lines |= {characters: line} if line else {}
                if kind != "dropped":
                    self.written[characters] = written
        return normalized

    def check(self, limit: float = 0.005) -> None:
        """Raises ValueError where no letter is kept, or where more than ``limit`` of them are lost."""
        name = f"{self.language.name} (--lang {self.language.code})"
        if not self.kept and (self.dropped or not self.spelled):
            raise ValueError(f"none of {self.texts} texts holds a letter of {name}; choose another --lang")
        if self.letters_lost > limit:
            worst = ", ".join(f"{visible(character)} {count:,}x" for character, count in self.dropped.most_common(10))
            more = f" and {len(self.dropped) - 10} other characters" if len(self.dropped) > 10 else ""
            raise ValueError(
                f"{self.letters_lost:.2%} of the letters are not in the alphabet of {name} and would be lost, more "
                f"than {limit:.2%}: {worst}{more}. Spell numbers and signs out as they are spoken, choose another "
                "--lang, or accept the loss with --allow-char-loss"
            )

    def table(self) -> str:
        """What was kept, mapped and lost, for a terminal of 80 columns."""
        total = max(1, self.letters)
        counts = (self.kept.total(), self.mapped.total(), self.characters_spelled, self.dropped.total())
        kept, mapped, spelled, lost = (f"{count / total:.2%}" for count in counts)
        lines = [
            f"{self.language.name} ({self.language.code}): {len(self.language.letters)} letters and the space",
            f"{self.texts:,} texts, {self.letters:,} letters",
            f"{kept} kept, {mapped} mapped, {spelled} spelled, {lost} lost",
            *_counts_line("kept", self.kept.most_common()),
            *_counts_line("unused", [(letter, 0) for letter in self.unused]),
            *self._rows("mapped", self.mapped),
            *self._rows("spelled", self.spelled),
            *self._rows("lost", self.dropped),
            *_counts_line("removed", self.punctuation.most_common()),
            *_counts_line("rare", list(self.language.rare)),
        ]
        if self.empty:
            lines.append(f"{self.empty:,} of the texts are empty after this")
        return "\n".join(lines)

    def _rows(self, title: str, counts: Counter[str], most: int = 15) -> Iterator[str]:
        """One line for each character or number: what stands for it, how often, and where it was first seen."""
        for number, (found, count) in enumerate(counts.most_common(most)):
            yield f"{'' if number else title:<9}{self._row(title, found, count)}"
        if len(counts) > most:
            rest = sum(count for _, count in counts.most_common()[most:])
            yield f"{'':<9}and {len(counts) - most} others, {rest:,} times"

    def _row(self, title: str, found: str, count: int) -> str:
        shown = "".join(map(visible, cut(found, 20)))
        line = f"line {self.lines[found]:,}: " if found in self.lines else ""
        if title == "spelled":
            shown = padded(cut(f"{shown} -> {self.written[found]}", 45), 45)
            return f"{shown}{count:>9,}  {line.rstrip(': ')}".rstrip()
        if title == "mapped":
            shown = f"{shown} -> {self.written[found] or 'nothing'}"
        text = lower_case(self.examples[found], self.language.code)
        return f"{padded(shown, 14)}{count:>9,}  {line}{_excerpt(text, found, 44 - len(line))}"


def audit(texts: Iterable[str], language: Language, lines: Iterable[int] | None = None) -> Audit:
    """Counts what ``language.normalize`` does to each character of the texts; ``lines``: where each of them stands."""
    result = Audit(language)
    for text, line in zip(texts, lines or itertools.repeat(0), strict=False):
        result.add(text, line)
    return result


def visible(character: str) -> str:
    """A character as it can be seen: a mark on a dotted circle, anything invisible by its number."""
    if unicodedata.category(character)[0] == "M":
        return f"◌{character}"
    return character if character.isprintable() else f"U+{ord(character):04X}"


def columns_of(text: str) -> int:
    """Terminal columns: marks take none, East Asian letters two."""
    widths = {"W": 2, "F": 2}
    return sum(widths.get(unicodedata.east_asian_width(c), 1) for c in text if unicodedata.category(c)[0] != "M")


def cut(text: str, columns: int) -> str:
    """The text in at most so many columns, with three points where something is missing."""
    if columns_of(text) <= columns:
        return text
    text = text[:columns]
    while columns_of(text) > columns - 3:
        text = text[:-1]
    return f"{text}..."


def padded(text: str, columns: int) -> str:
    return text + " " * max(0, columns - columns_of(text))


def _excerpt(text: str, character: str, columns: int = 44) -> str:
    """The part of a text around the first such character, on one line, in at most so many columns."""
    found = max(0, text.find(character))
    start = max(0, found - columns // 4)
    start = start if start == 0 else text.find(" ", start, found) + 1 or start
    words = "".join(letter if letter.isprintable() else " " for letter in text[start : start + 8 * columns])
    while columns_of(words) > columns:
        words = words[:-1]
    return words.strip()


def _counts_line(title: str, counts: Sequence[tuple[str, int]], lines: int = 3) -> Iterator[str]:
    """``title  a 12  b 7 ...`` folded to 80 columns, cut after so many lines."""
    line, written = f"{title:<9}", 0
    for number, (character, count) in enumerate(counts):
        entry = f"{visible(character)} {count:,}  " if count else f"{visible(character)} "
        if columns_of(line + entry.rstrip()) > 80:
            yield line.rstrip()
            line, written = " " * 9, written + 1
            if written == lines:
                yield f"{line}and {len(counts) - number} more"
                return
        line += entry
    if counts:
        yield line.rstrip()
