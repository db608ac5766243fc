"""Transcripts -> the letters that a model can write: the rules of each language.

``Language.normalize`` brings any text to NFC, lower case, the language's letters and single spaces. Numbers and signs
become the words that are said for them (``quartznet.spelling``), in languages that have data for it. A letter that is
not the language's own becomes its base letter (à -> a in Spanish) or is lost; hyphens and punctuation part words.
``quartznet.audit`` counts all of it, so that nothing is lost in silence; on a file of texts:

    python -m quartznet.text audit FILE --lang es

The languages are data: quartznet/languages/*.yaml; a file that begins with ``_`` has rules and no alphabet.

The surprise: the apostrophe and the Catalan middle dot are letters only in some places (l'home, col·legi) and quotation
marks or bullets in others, and removing one may turn another from a letter into a quotation mark. Normalisation is
therefore repeated until nothing changes; quotations in quotations in quotations lose all their marks at once.
"""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from typing import Literal

import yaml

from quartznet.spelling import MARK, Spelling, read_spelling

APOSTROPHES = "'’‘ʼʻ‛′`´ʹˈ＇"  # all typed for the apostrophe
MIDDLE_DOTS = "·•∙‧⋅・"
LOST_SIGNS = "%‰&@#§°€$£¥₴₽+=×÷№ªº\ufffd"  # read aloud as words; the last one is what a wrong encoding leaves behind
REMOVED_LETTERS = "\u0640"  # Arabic tatweel stretches a word and has no sound
QUOTE = '"'  # what an apostrophe that quotes is turned into
DOTLESS = ("tr", "az")  # I is the capital of ı here, and İ that of i
RARE = 1e-4  # letters below this share get no label of their own in an alphabet taken from text
ROUNDS = 8  # of normalisation at most; the texts of people need two
MOST_MARKS = 30  # on one letter; composing takes quadratic time in their number, and no script needs more than four

Kind = Literal["kept", "mapped", "spelled", "dropped", "punctuation", "space"]

_SIGN = f"[{re.escape(APOSTROPHES)}]"
_QUOTED = re.compile(rf"(?<!\w){_SIGN}((?:[^{re.escape(APOSTROPHES)}]|(?<=\w){_SIGN}(?=\w))+){_SIGN}(?!\w)")
_NO_APOSTROPHE = re.compile(rf"{_SIGN}{{2,}}|(?<!\w){_SIGN}(?!\w)")
_AT_AN_EDGE = re.compile(rf"(?<!\w){_SIGN}|{_SIGN}(?!\w)")
_NO_MIDDLE_DOT = re.compile(rf"(?<!l)[{MIDDLE_DOTS}]|[{MIDDLE_DOTS}](?!l)")
_PIECES = re.compile(r"[^\W\d_]+|[\W\d_]")  # runs of letters; anything else one by one
_PERHAPS_MARKS = re.compile(rf"[^\w\s\x00-\x7f]{{{MOST_MARKS + 1},}}")


# ---------------------------------------------------------------------------------------------------------------------
# Characters


def limit_marks(text: str) -> tuple[str, str]:
    """The text with at most ``MOST_MARKS`` combining marks in a row, and the marks that were cut off."""
    if text.isascii() or not _PERHAPS_MARKS.search(text):
        return text, ""
    kept, cut, run = [], [], 0
    for character in text:
        run = run + 1 if unicodedata.category(character)[0] == "M" else 0
        (kept if run <= MOST_MARKS else cut).append(character)
    return "".join(kept), "".join(cut)


def lower_case(text: str, code: str) -> str:
    """NFC and lower case; in Turkish and Azerbaijani I becomes ı and İ becomes i; Σ at the end of a word becomes ς."""
    text = unicodedata.normalize("NFC", limit_marks(text)[0])
    if code in DOTLESS:
        text = text.replace("I", "ı").replace("İ", "i")
    return unicodedata.normalize("NFC", text.lower())


def _is_accent(character: str) -> bool:
    """A mark above or below a letter (combining class 200 and up), not a vowel sign that is written as a mark."""
    return unicodedata.combining(character) >= 200


def is_letter(character: str) -> bool:
    """Letters, and the marks that scripts such as Devanagari or Arabic write vowels with; no variation selectors."""
    if unicodedata.category(character) in ("Mn", "Mc"):
        return not unicodedata.name(character, "").startswith(("VARIATION SELECTOR", "COMBINING GRAPHEME"))
    return character.isalpha() and character not in APOSTROPHES + LOST_SIGNS + REMOVED_LETTERS


# ---------------------------------------------------------------------------------------------------------------------
# One language


@dataclass(frozen=True)
class Language:
    """How a language is written: its letters and what becomes of every other character."""

    code: str  # ISO 639, lower case
    name: str
    letters: str  # in order, without the space
    mapping: Mapping[str, str] = field(default_factory=dict)  # foreign letter -> own letters
    look_alikes: Mapping[str, str] = field(default_factory=dict)  # letter of another script -> own, inside own words
    rare: tuple[tuple[str, int], ...] = ()  # left out of an alphabet taken from text, with their counts
    order: tuple[str, ...] = ()  # a checkpoint's labels, which may hold the space anywhere; (): space first
    spelling: Spelling | None = None  # of numbers and signs; None: they are lost

    @property
    def labels(self) -> tuple[str, ...]:
        return self.order or (" ", *self.letters)

    def normalize(self, text: str) -> str:
        """The text in this language's labels only: NFC, lower case, single spaces; applied twice changes nothing."""
        result, rounds = self._once(text), 0
        while self._may_change(result) and (again := self._once(result)) != result:
            result, rounds = again, rounds + 1
            if rounds == ROUNDS:
                result = self._once(_AT_AN_EDGE.sub(QUOTE, result))
        return result if " " in self.labels else result.replace(" ", "")

    def restricted_to(self, labels: Sequence[str]) -> "Language":
        """The same rules for a checkpoint's own labels: other letters become their base letter or are lost.

        Raises:
            ValueError: for labels of several characters (word pieces) or capitals, which no text here would match.
        """
        wrong = [label for label in labels if len(label) != 1 or lower_case(label, self.code) != label]
        if wrong or not labels:
            raise ValueError(
                f"labels must be single lower-case characters, got {wrong[:5] or 'none'}; word pieces and capitals are "
                "not supported, use a checkpoint trained on characters"
            )
        letters = "".join(label for label in labels if label != " ")
        spelling = self.spelling and self.spelling.without(labels)
        return replace(self, letters=letters, order=tuple(labels), spelling=spelling, rare=())

    def rare_losses(self, text: str) -> str:
        """The letters of a text that are too rare for a label and have no base letter, so that they would be lost."""
        found = self._rare_letters.intersection(lower_case(text, self.code)) if self.rare else ()
        return "".join(sorted(letter for letter in found if self._rule(letter, True)[0] == "dropped"))

    @cached_property
    def _own(self) -> frozenset[str]:
        return frozenset(self.letters)

    @cached_property
    def _rare_letters(self) -> frozenset[str]:
        return frozenset(letter for letter, _ in self.rare)

    def _may_change(self, result: str) -> bool:
        return "'" in result or "·" in result or not unicodedata.is_normalized("NFC", result)

    def _once(self, text: str) -> str:
        return " ".join("".join(written for _, _, written in self.convert(text)).split())

    def convert(self, text: str) -> Iterator[tuple[Kind, str, str]]:
        """Goes through a text in order: what happens, to which characters, and what is written in their place.

        Words of own letters and what is spelled come as one piece, everything else character by character.
        """
        text, cut = limit_marks(text)
        for mark in cut:
            yield "dropped", mark, ""
        text = lower_case(text, self.code)
        text, spoken = self.spelling.spell(text) if self.spelling else (text, [])
        if not spoken:
            yield from self._letter_by_letter(text)
            return
        marks = iter(spoken)
        for piece in self._letter_by_letter(text):
            if piece[1] == MARK:
                yield from self._spelled(*next(marks))
            else:
                yield piece

    def _spelled(self, original: str, words: str | None) -> Iterator[tuple[Kind, str, str]]:
        """Words in place of a number or sign, all of it lost where the alphabet lacks a letter of them."""
        pieces = list(self._letter_by_letter(lower_case(words or "", self.code)))
        if pieces and all(kind != "dropped" for kind, _, _ in pieces):
            yield "spelled", original, " ".join("".join(written for _, _, written in pieces).split())
        else:
            yield from (("dropped", character, " ") for character in original if not character.isspace())

    def _letter_by_letter(self, text: str) -> Iterator[tuple[Kind, str, str]]:
        """``convert`` of a lower-case text without numbers."""
        for word in self._quotes(text).split():
            if self._own.issuperset(word):
                yield "kept", word, word
            else:
                for piece in _PIECES.findall(word):
                    own_word = 2 * sum(character in self._own for character in piece) >= len(piece)
                    for character in piece:
                        kind, written = self._rule(character, own_word)
                        yield kind, character, written
            yield "space", " ", " "

    def _quotes(self, text: str) -> str:
        """A quotation mark for each apostrophe or middle dot that is no letter where it stands."""
        text = _QUOTED.sub(rf"{QUOTE}\1{QUOTE}", _NO_APOSTROPHE.sub(QUOTE, text))
        return _NO_MIDDLE_DOT.sub(QUOTE, text) if "·" in self._own else text

    def _rule(self, character: str, own_word: bool) -> tuple[Kind, str]:
        """What one character becomes; ``own_word``: at least half of the letters beside it are of this language."""
        if character in self._own:
            return "kept", character
        if own_word and self.look_alikes.get(character) in self._own:
            return "mapped", self.look_alikes[character]
        if character in APOSTROPHES:
            return ("mapped", "'") if "'" in self._own else ("punctuation", "")
        if character in MIDDLE_DOTS and "·" in self._own:
            return "mapped", "·"
        if character in LOST_SIGNS or unicodedata.category(character)[0] == "N":
            return "dropped", " "
        if is_letter(character):
            return self._letter_rule(character)
        nothing = unicodedata.category(character) in ("Cf", "Mn", "Me") or character in REMOVED_LETTERS
        return "punctuation", "" if nothing else " "

    def _letter_rule(self, character: str) -> tuple[Kind, str]:
        if _is_accent(character):
            return "mapped", ""
        substitute = self._substitute(character)
        return ("dropped", "") if substitute is None else ("mapped", substitute)

    def _substitute(self, character: str) -> str | None:
        """Own letters for a foreign one, from the mapping or by taking its accents off; None: there are none."""
        mapped = self.mapping.get(character)
        if mapped is not None and self._own.issuperset(mapped):
            return mapped
        pieces = [piece for piece in unicodedata.normalize("NFKD", character).lower() if not _is_accent(piece)]
        if pieces in ([character], []):
            return None
        parts = [piece if piece in self._own else self._substitute(piece) for piece in pieces]
        return None if None in parts else "".join(part for part in parts if part)


# ---------------------------------------------------------------------------------------------------------------------
# Languages by their codes


def _files() -> frozenset[str]:
    return frozenset(entry.name for entry in (resources.files("quartznet") / "languages").iterdir())


def _read(name: str) -> dict:
    return yaml.safe_load((resources.files("quartznet") / "languages" / f"{name}.yaml").read_text(encoding="utf-8"))


def _parts(code: str) -> tuple[str, str]:
    """``es`` and ``mx`` of ``es-MX`` and ``es_MX``; raises ValueError for what cannot be a language's code."""
    base, *rest = re.split("[-_]", code.strip().lower())
    if not re.fullmatch("[a-z]{2,3}", base):
        raise ValueError(f"{code!r} is no language code; use two or three letters of ISO 639, such as es or pt-BR")
    return base, rest[0] if rest else ""


def _rules(name: str, variant: str) -> dict:
    """A language's file, with what its ``variants`` change for ``name-variant``; an unknown variant changes nothing."""
    rules = _read(name)
    for key, value in rules.get("variants", {}).get(variant, {}).items():
        rules[key] = {**rules.get(key, {}), **value} if isinstance(value, dict) else value
    return rules


def known_languages() -> tuple[str, ...]:
    """Codes of the languages whose alphabets are written down here, in order."""
    return tuple(sorted(name[:-5] for name in _files() if name.endswith(".yaml") and not name.startswith("_")))


def find_language(code: str) -> Language | None:
    """The rules of a language; None where there are none (take ``language_from_texts``).

    ``ru-fold`` and ``pt-BR`` are variants that the file describes; any other region is ignored.
    """
    base, variant = _parts(code)
    return _language(base, _rules(base, variant)) if f"{base}.yaml" in _files() else None


def _language(code: str, rules: dict) -> Language:
    common = _read("_common")
    return Language(
        code,
        rules.get("name", code),
        rules.get("letters", ""),
        {**common["letters"], **rules.get("map", {})},
        common["look_alikes"].get(rules.get("script"), {}),
        spelling=read_spelling(rules.get("numbers"), rules.get("symbols", {})),
    )


def language_from_texts(code: str, texts: Iterable[str]) -> Language:
    """A language that has no alphabet here: it is taken from training text.

    Letters and vowel marks that make up at least 0.01 % of all become labels, in the order of Unicode, and so does the
    apostrophe where words hold it; the others are listed in ``rare``. Letters that the language's file maps (Persian
    has its own yeh and kaf) are counted as what they become.

    Raises:
        ValueError: the texts hold no letter at all.
    """
    (base, variant), counts = _parts(code), Counter()
    rules = _rules(f"_{base}", variant) if f"_{base}.yaml" in _files() else {}
    own = str.maketrans(rules.get("map", {}))
    for text in texts:
        text = lower_case(text, base).translate(own)
        counts.update(character for character in text if is_letter(character))
        counts["'"] += len(re.findall(rf"(?<=\w){_SIGN}(?=\w)", text))
    total = counts.total()
    if total == 0:
        raise ValueError(f"no letters in the texts to take an alphabet for {base!r} from; give other transcripts")
    letters = "".join(sorted(character for character, count in counts.items() if count and count / total >= RARE))
    rare = tuple((character, count) for character, count in counts.most_common() if 0 < count / total < RARE)
    return replace(_language(base, rules), letters=letters, rare=rare)


if __name__ == "__main__":
    from quartznet.audit_file import main

    sys.exit(main())
