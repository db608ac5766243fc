"""What is wrong with lines of text, by name: decomposed accents, letters of another script, a wrong encoding, ...

``FaultFinder`` looks at line after line and says of each kind of fault how many lines have it, where the first one is
and what it looks like. Nothing is repaired here; ``quartznet.text`` mends most of it and counts the rest as lost.

The surprise: most faults cannot be seen. A Latin ``c`` in a Russian word, a zero-width space or ``e`` with a separate
accent look right in every editor, and give a network letters that it meets nowhere else.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from quartznet.text import Language, is_letter, limit_marks, lower_case

BYTE_ORDER_MARK = "\ufeff"
ZERO_WIDTH = "\u200b\u2060\u200e\u200f\u202a\u202b\u202c\u00ad"  # and the joiners, where no script needs them
JOINERS = "\u200c\u200d"
FIXED_SPACES = "\u00a0\u202f\u2007\u2009\u3000"
LONG = 500  # characters; nobody says more in a clip of 30 seconds
OWN_SCRIPT = 0.1  # of the alphabet's letters; what has fewer is no script of the language
PLAIN_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")  # words of one alphabet only, and without joiners

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]{2,}")
_SCRIPTS = tuple(map(re.compile, ("[A-Za-zÀ-ɏ]", "[\u0400-\u052f]", "[\u0370-\u03ff]")))  # those of PLAIN_SCRIPTS
_WORDS = re.compile(r"[^\W\d_]+")
_HTML = re.compile(r"&(?:[a-z]{2,6}|#\d{1,5});|</?[a-z]{1,6}/?>", re.IGNORECASE)


@dataclass
class Fault:
    """One kind of fault."""

    name: str
    line: int  # the first that has it
    example: str  # what it looks like there
    count: int = 1  # lines that have it


def script(character: str) -> str:
    """``LATIN``, ``CYRILLIC``, ``CJK``...: the first word of a letter's name in Unicode."""
    return unicodedata.name(character, "UNKNOWN").split(" ")[0]


def mojibake(text: str) -> tuple[str, str] | None:
    """The first letters that are UTF-8 read as an 8-bit encoding, and what they should be: Ã¡ for á, РїРѕ for по."""
    for run in _BEYOND_ASCII.findall(text):
        for encoding in ("cp1252", "latin-1", "cp1251"):
            try:
                return run, run.encode(encoding).decode("utf-8")
            except UnicodeError:
                continue
    return None


def mixture(word: str) -> str:
    """``Latin letter in a Cyrillic word`` for a word that has both, else nothing."""
    counts = Counter(name for name in map(script, word) if name in PLAIN_SCRIPTS)
    if len(counts) < 2:
        return ""
    most, *others = (name.title() for name, _ in counts.most_common())
    return f"{others[0]} letter in a {most} word"


class FaultFinder:
    """Looks at line after line and collects what is wrong."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.faults: dict[str, Fault] = {}
        counts = Counter(map(script, filter(str.isalpha, language.letters)))
        self.scripts = {name for name, count in counts.items() if count >= OWN_SCRIPT * counts.total()}
        self._own = frozenset(language.letters)
        self._characters: dict[str, str] = {}  # character -> name of its fault, or nothing
        self._seen: dict[int, int] = {}  # hash of a text -> its line

    def most_frequent_first(self) -> list[Fault]:
        return sorted(self.faults.values(), key=lambda fault: -fault.count)

    def add(self, name: str, line: int, example: str = "") -> None:
        """Counts one line that has a fault."""
        if name in self.faults:
            self.faults[name].count += 1
        else:
            self.faults[name] = Fault(name, line, example)

    def look(self, line: int, text: str) -> None:
        """Names everything that is wrong with one text."""
        for name, example in self._of_text(line, text):
            self.add(name, line, example)

    def _of_text(self, line: int, text: str) -> Iterator[tuple[str, str]]:
        if not text.strip():
            yield "empty line", ""
            return
        if len(text) > LONG:
            yield f"longer than {LONG} characters", f"{len(text):,}"
        first = self._seen.setdefault(hash(text.strip().lower()), line)
        if first != line:
            yield "the same text again", f"as in line {first:,}"
        text, cut = limit_marks(text)
        if cut:
            yield "too many accents on one letter", f"{len(cut):,} cut off"
        yield from self._of_characters(text)
        yield from self._of_words(text)
        spelled = self.language.spelling is not None and re.search(r"\d", text)
        lower = lower_case(text, self.language.code)
        if not spelled and self._own.isdisjoint(lower) and self._own.isdisjoint(unicodedata.normalize("NFKD", lower)):
            yield f"no letter of {self.language.name}", text

    def _of_characters(self, text: str) -> Iterator[tuple[str, str]]:
        found: dict[str, str] = {}
        for character in set(text):
            name = self._characters.get(character)
            if name is None:
                name = self._characters[character] = self._name(character)
            if name:
                found[name] = max(found.get(name, ""), character)
        for name, character in sorted(found.items()):
            yield name, character if name != "digits" else re.search(r"\d+", text).group()

    def _name(self, character: str) -> str:
        """What is wrong with a character wherever it stands, or nothing."""
        category = unicodedata.category(character)
        if character == BYTE_ORDER_MARK:
            return "byte-order mark inside the text"
        if character == "\ufffd":
            return "replacement character of a wrong encoding"
        if character in ZERO_WIDTH or (character in JOINERS and self.scripts.issubset(PLAIN_SCRIPTS)):
            return "zero-width character"
        if character in FIXED_SPACES:
            return "non-breaking space"
        if category in ("Cc", "Co", "Cn", "Cs"):
            return "control character" if category == "Cc" else "unassigned character"
        if category == "Nd":
            return "digits"
        foreign = character.isalpha() and is_letter(character) and category != "Lm" and character not in "ªº"
        name = script(unicodedata.normalize("NFKC", character)[0]) if foreign else ""
        return f"letter of another script, {name}" if foreign and name not in self.scripts else ""

    def _of_words(self, text: str) -> Iterator[tuple[str, str]]:
        if text.isascii():
            if (html := _HTML.search(text)) is not None:
                yield "HTML", html.group()
            return
        wrong = mojibake(text)
        if wrong:
            yield "wrong encoding", f"{wrong[0]} is {wrong[1]}"
        if (html := _HTML.search(text)) is not None:
            yield "HTML", html.group()
        composed = unicodedata.normalize("NFC", text)
        if composed != text:
            place = next((n for n, (a, b) in enumerate(zip(text, composed, strict=False)) if a != b), len(composed))
            yield "decomposed accent", f"{text[place : place + 2]} for {composed[place : place + 1]}"
        if sum(letters.search(composed) is not None for letters in _SCRIPTS) > 1:
            mixtures = ((mixture(word), word) for word in _WORDS.findall(composed))
            yield from [(name, word) for name, word in mixtures if name][:1]
