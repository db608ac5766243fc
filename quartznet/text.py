"""Transcripts -> the letters that a model can write: alphabets, the rules of each language, and what they cost.

``Language.normalize`` brings any text to NFC, lower case, the language's letters and single spaces. A letter that is
not the language's own becomes its base letter (à -> a in Spanish) or is lost; hyphens and punctuation part words;
digits and signs such as % are lost, because the audio says a word that the text then lacks. ``quartznet.audit``
counts all of it, so that nothing is lost in silence. The languages are data: quartznet/languages/*.yaml.

The surprise: the apostrophe and the Catalan middle dot are letters only in some places (l'home, col·legi) and quotation
marks or bullets in others, and removing one may turn another from a letter into a quotation mark. Normalisation is
therefore repeated until nothing changes; quotations in quotations in quotations lose all their marks at once.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from typing import Literal

import yaml

APOSTROPHES = "'’‘ʼʻ‛′`´ʹˈ＇"  # all typed for the apostrophe
MIDDLE_DOTS = "·•∙‧⋅・"
LOST_SIGNS = "%‰&@#§°€$£¥₴₽+=×÷№ªº\ufffd"  # read aloud as words; the last one is what a wrong encoding leaves behind
REMOVED_LETTERS = "\u0640"  # Arabic tatweel stretches a word and has no sound
QUOTE = '"'  # what an apostrophe that quotes is turned into
DOTLESS = ("tr", "az")  # I is the capital of ı here, and İ that of i
RARE = 1e-4  # letters below this share get no label of their own in an alphabet taken from text
ROUNDS = 8  # of normalisation at most; the texts of people need two

Kind = Literal["kept", "mapped", "dropped", "punctuation", "space"]

_SIGN = f"[{re.escape(APOSTROPHES)}]"
_QUOTED = re.compile(rf"(?<!\w){_SIGN}((?:[^{re.escape(APOSTROPHES)}]|(?<=\w){_SIGN}(?=\w))+){_SIGN}(?!\w)")
_NO_APOSTROPHE = re.compile(rf"{_SIGN}{{2,}}|(?<!\w){_SIGN}(?!\w)")
_AT_AN_EDGE = re.compile(rf"(?<!\w){_SIGN}|{_SIGN}(?!\w)")
_NO_MIDDLE_DOT = re.compile(rf"(?<!l)[{MIDDLE_DOTS}]|[{MIDDLE_DOTS}](?!l)")
_PIECES = re.compile(r"[^\W\d_]+|[\W\d_]")  # runs of letters; anything else one by one


@dataclass(frozen=True)
class Alphabet:
    """The output labels of a model, one character each; the CTC blank is the number after the last."""

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        repeated = sorted(label for label, count in Counter(self.labels).items() if count > 1)
        if repeated or not self.labels:
            raise ValueError(
                f"an alphabet needs labels without repeats; {len(self.labels)} given, repeated: {repeated}"
            )

    @property
    def blank(self) -> int:
        return len(self.labels)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}

    def encode(self, text: str) -> list[int]:
        """The labels' numbers, one for each character; raises ValueError that names the characters it lacks."""
        unknown = sorted(set(text) - self._numbers.keys())
        if unknown:
            raise ValueError(
                f"the alphabet has no {', '.join(map(repr, unknown))}, in {text!r}; normalise the text first"
            )
        return [self._numbers[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of label numbers, repeats as they are; raises ValueError for the blank and beyond."""
        ids = list(ids)
        if any(not 0 <= number < self.blank for number in ids):
            raise ValueError(f"label numbers go from 0 to {self.blank - 1}, got {ids}; remove blanks before decoding")
        return "".join(self.labels[number] for number in ids)


# ---------------------------------------------------------------------------------------------------------------------
# One language


def lower_case(text: str, code: str) -> str:
    """NFC and lower case; in Turkish and Azerbaijani I becomes ı and İ becomes i."""
    text = unicodedata.normalize("NFC", text)
    if code in DOTLESS:
        text = text.replace("I", "ı").replace("İ", "i")
    return unicodedata.normalize("NFC", text.lower())


def _is_accent(character: str) -> bool:
    """A mark above or below a letter (combining class 200 and up), not a vowel sign that is written as a mark."""
    return unicodedata.combining(character) >= 200


def _is_letter(character: str) -> bool:
    """Letters, and the marks that scripts such as Devanagari or Arabic write vowels with; no variation selectors."""
    if unicodedata.category(character) in ("Mn", "Mc"):
        return not unicodedata.name(character, "").startswith(("VARIATION SELECTOR", "COMBINING GRAPHEME"))
    return character.isalpha() and character not in APOSTROPHES + LOST_SIGNS + REMOVED_LETTERS


@dataclass(frozen=True)
class Language:
    """How a language is written: its letters and what becomes of every other character."""

    code: str  # ISO 639, lower case
    name: str
    letters: str  # in order, without the space
    mapping: dict[str, str] = field(default_factory=dict)  # foreign letter -> own letters
    look_alikes: dict[str, str] = field(default_factory=dict)  # letter of another script -> own, inside own words
    rare: tuple[tuple[str, int], ...] = ()  # left out of an alphabet taken from text, with their counts
    order: tuple[str, ...] = ()  # a checkpoint's labels, which may hold the space anywhere; (): space first

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
        return replace(self, letters="".join(label for label in labels if label != " "), order=tuple(labels))

    @cached_property
    def _own(self) -> frozenset[str]:
        return frozenset(self.letters)

    def _may_change(self, result: str) -> bool:
        return "'" in result or "·" in result or not unicodedata.is_normalized("NFC", result)

    def _once(self, text: str) -> str:
        return " ".join("".join(written for _, _, written in self.convert(text)).split())

    def convert(self, text: str) -> Iterator[tuple[Kind, str, str]]:
        """Goes through a text in order: what happens, to which characters, and what is written in their place.

        Words of own letters come as one piece, everything else character by character.
        """
        for word in self._prepare(text).split():
            if self._own.issuperset(word):
                yield "kept", word, word
            else:
                for piece in _PIECES.findall(word):
                    own_word = not self._own.isdisjoint(piece)
                    for character in piece:
                        kind, written = self._rule(character, own_word)
                        yield kind, character, written
            yield "space", " ", " "

    def _prepare(self, text: str) -> str:
        """Lower case, and a quotation mark for each apostrophe or middle dot that is no letter where it stands."""
        text = _QUOTED.sub(rf"{QUOTE}\1{QUOTE}", _NO_APOSTROPHE.sub(QUOTE, lower_case(text, self.code)))
        return _NO_MIDDLE_DOT.sub(QUOTE, text) if "·" in self._own else text

    def _rule(self, character: str, own_word: bool) -> tuple[Kind, str]:
        """What one character becomes; ``own_word``: a letter of this language stands beside it."""
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
        if _is_letter(character):
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


def _read(name: str) -> dict:
    return yaml.safe_load((resources.files("quartznet") / "languages" / f"{name}.yaml").read_text(encoding="utf-8"))


def _base_code(code: str) -> str:
    """``es`` of ``ES``, ``es-MX`` and ``es_ES``; raises ValueError for what cannot be a language's code."""
    base = re.split("[-_]", code.strip().lower())[0]
    if not re.fullmatch("[a-z]{2,3}", base):
        raise ValueError(f"{code!r} is no language code; use two or three letters of ISO 639, such as es or pt-BR")
    return base


def known_languages() -> tuple[str, ...]:
    """Codes of the languages whose rules are written down here, in order."""
    files = (entry.name for entry in (resources.files("quartznet") / "languages").iterdir())
    return tuple(sorted(name[:-5] for name in files if name.endswith(".yaml") and not name.startswith("_")))


def find_language(code: str) -> Language | None:
    """The rules of a language; None where there are none (take ``language_from_texts``). Region codes are ignored."""
    code = _base_code(code)
    if code not in known_languages():
        return None
    rules, common = _read(code), _read("_common")
    mapping = {**common["letters"], **rules["map"]}
    return Language(code, rules["name"], rules["letters"], mapping, common["look_alikes"][rules["script"]])


def language_from_texts(code: str, texts: Iterable[str]) -> Language:
    """A language that has no rules here, its alphabet taken from training text.

    Letters and vowel marks that make up at least 0.01 % of all become labels, in the order of Unicode, and so does the
    apostrophe where words hold it; the others are listed in ``rare``.

    Raises:
        ValueError: the texts hold no letter at all.
    """
    code, counts = _base_code(code), Counter()
    for text in texts:
        text = lower_case(text, code)
        counts.update(character for character in text if _is_letter(character))
        counts["'"] += len(re.findall(rf"(?<=\w){_SIGN}(?=\w)", text))
    total = counts.total()
    if total == 0:
        raise ValueError(f"no letters in the texts to take an alphabet for {code!r} from; give other transcripts")
    letters = "".join(sorted(character for character, count in counts.items() if count and count / total >= RARE))
    rare = tuple((character, count) for character, count in counts.most_common() if 0 < count / total < RARE)
    return Language(code, code, letters, _read("_common")["letters"], rare=rare)
