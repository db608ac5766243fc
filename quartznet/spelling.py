"""Numbers and signs -> the words that a speaker says for them: ``3`` -> ``tres``, ``50 %`` -> ``cincuenta por ciento``.

The words for integers and ordinals are those of the library num2words; everything else (which mark parts thousands,
what is said for the decimal mark, which endings make an ordinal, the names of signs) is data in
quartznet/languages/*.yaml. How a token of digits is read:

    14:30  14 h 30        hours and minutes; minutes of zero are not said, and a following "Uhr" is said once
    1.234.567  1 234      one number, where the marks are those of the language and part groups of three
    3,5                   a decimal fraction, where the mark is the language's
    12.05.2020  1,2,3     anything else with marks: one number after the other
    007  612345678        digit by digit: leading zeros, 9 digits and more unless the last three are zero, over 15
    1985                  a year from 1100 to 2099, where the language says years in its own way (en, de, nl)
    -5                    ``minus``, only behind a space or an opening bracket

The surprise: there is no right answer. ``21`` is veintiuno, veintiún or veintiuna by its noun, and a reader may say
"double o seven"; the words here are the plain cardinal in its dictionary form. What was spelled is therefore counted
and shown, never hidden.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Literal

from num2words import num2words

NEVER = "(?!)"  # a regular expression that matches nothing
MARK = "0"  # stands in a text for what is spelled; no other digit is left in it
SPACES = "\u00a0\u202f\u2009"  # non-breaking, narrow, thin: thousands in every language
DECIMAL, THOUSANDS = "\u066b", "\u066c"  # the marks of the Arabic script, in every language
MONEY = "€$£¥₴₽"  # said behind the number even where written in front of it
APOSTROPHES = "'’‘ʼ"
COUNTED_BY_LAST_DIGIT = ("ru", "uk")  # 21 counts like 1 here, while it counts like 5 in Polish and Czech
LONGEST = 15  # digits of what is still read as a number
LONGEST_PLAIN = 8  # the same without marks: longer ones are telephone numbers
FIRST_YEAR, LAST_YEAR = 1100, 2099

Form = Literal["cardinal", "ordinal", "year"]


@lru_cache(maxsize=10_000)
def _words(number: int | str, code: str, form: Form) -> str | None:
    """The words of num2words for an integer, or for ``1.5`` as it stands; None where it has none, or stumbles."""
    try:
        return num2words(number, lang=code, to=form)
    except (NotImplementedError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return None


@dataclass(frozen=True)
class Ending:
    """What may stand directly behind a number and changes how it is said: 1st, 1º, 1990s."""

    after: str  # regular expression, lower case
    form: Form = "ordinal"
    rewrite: Mapping[str, str] = field(default_factory=dict)  # regular expression in the words -> its replacement


@dataclass(frozen=True)
class Spelling:
    """How one language says numbers and signs."""

    code: str  # of num2words
    thousands: str  # marks between groups of three digits
    decimal: str  # marks before a decimal fraction
    point: str = ""  # the word for that mark
    fraction: Literal["digits", "number", "parts"] = "digits"  # 3,14: one four, fourteen, or fourteen hundredths
    minus: str = "minus"
    hour: str = ""  # said between hours and minutes
    hour_sign: str = ""  # a letter that is written between them: 10h30
    years: bool = False  # whether years have words of their own: nineteen ninety
    rewrite: Mapping[str, str] = field(default_factory=dict)  # corrects the words of num2words
    endings: Sequence[Ending] = ()
    symbols: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # sign -> [words], [one, many], or [one, few, many, fraction]

    def spell(self, text: str) -> tuple[str, list[tuple[str, str | None]]]:
        """Puts a MARK, between spaces, for each number and sign of a lower-case text.

        Returns:
            The text, and for each mark in order what stood there and the words for it, None where there are none.
        """
        spoken: list[tuple[str, str | None]] = []
        end, value = -2, None  # of the last number

        def put_mark(match: re.Match[str]) -> str:
            nonlocal end, value
            if match["symbol"]:
                words = self._agree(match["symbol"], value if match.start() - end <= 1 else None)
            else:
                words, value = self._amount(match)
                end = match.end()
            spoken.append((match.group(), words))
            before = text[max(0, match.start() - 2) : match.start()]
            return f"{'' if before[:1].isalpha() and before[1:] in tuple(APOSTROPHES) else ' '}{MARK} "  # l'11

        return (self._tokens.sub(put_mark, text), spoken) if self._wanted.search(text) else (text, spoken)

    def without(self, labels: Sequence[str]) -> "Spelling | None":
        """For a network that writes some signs itself; None where it writes digits."""
        if any(label.isdecimal() for label in labels):
            return None
        return replace(self, symbols={sign: forms for sign, forms in self.symbols.items() if sign not in labels})

    @cached_property
    def _wanted(self) -> re.Pattern[str]:
        """Any digit, or any character of a sign that is no small letter: a quick look at the many texts without."""
        rare = {c for sign in self.symbols for c in sign if unicodedata.category(c) != "Ll"}
        return re.compile(rf"[\d{re.escape(''.join(sorted(rare)))}]")

    @cached_property
    def _tokens(self) -> re.Pattern[str]:
        """``minus`` ``money`` ``digits`` ``said_hour`` ``ending0``..., or ``symbol``."""
        signs = sorted(self.symbols, key=len, reverse=True)
        money = "|".join(re.escape(sign) for sign in signs if sign[-1] in MONEY)
        marks = re.escape(f".,:{DECIMAL}{THOUSANDS}{SPACES}{self.thousands}")
        endings = "|".join(f"(?P<ending{number}>{ending.after})" for number, ending in enumerate(self.endings))
        time = rf"|\s?{re.escape(self.hour_sign)}\s?\d\d(?!\d)" if self.hour_sign else ""
        said = rf"(?<=:\d\d)\s{re.escape(self.hour.lower())}" if self.hour else NEVER
        sign = rf"\s?{re.escape(self.hour_sign)}" if self.hour and self.hour_sign else NEVER
        hour = rf"(?P<said_hour>(?:{said}|{sign})(?!\w))?"
        names = (r"(?<![^\W\d])" * sign[0].isalpha() + re.escape(sign) for sign in signs)
        return re.compile(
            rf"(?:(?P<minus>(?<![^\s(\[])[-−])|(?<!\w)[{APOSTROPHES}](?=\d\d(?!\d)))?"
            rf"(?:(?P<money>{money or NEVER})\s?)?(?P<digits>\d+(?:[{marks}]\d+{time})*){hour}"
            rf"(?:(?:{endings or NEVER})(?!\w))?"
            rf"|(?P<symbol>{'|'.join(names) or NEVER})"
        )

    def _amount(self, match: re.Match[str]) -> tuple[str | None, Decimal]:
        """The words for digits with all that belongs to them, and the value that a sign behind them agrees with."""
        ending = next((ending for n, ending in enumerate(self.endings) if match[f"ending{n}"]), None)
        digits = _ascii(match["digits"])
        if self.hour_sign:
            digits = re.sub(rf"\s?{re.escape(self.hour_sign)}\s?", self.hour_sign, digits)  # 10 h 30
        pieces = re.split(r"(\D)", digits)
        words, value = self._one_after_the_other(pieces[::2], pieces[1::2], ending)
        if match["said_hour"] and self.hour not in words:  # 99:99 Uhr is no time
            words.append(self.hour)
        if match["minus"]:
            words.insert(0, self.minus)
        if match["money"]:
            words.append(self._agree(match["money"], value))
        return (None if None in words else " ".join(words)), value

    def _one_after_the_other(
        self, digits: list[str], marks: list[str], ending: Ending | None
    ) -> tuple[list[str | None], Decimal]:
        """Words of every number in ``digits[0] marks[0] digits[1] ...``, and the value of the last."""
        if (
            marks in ([":"], [self.hour_sign])
            and len(digits[1]) == 2
            and int(digits[0][-3:]) <= 24
            and int(digits[1]) < 60
        ):
            return self._time(*digits), Decimal(0)
        words: list[str | None] = []
        start, whole, fraction = 0, "", ""
        while start < len(digits):
            end = self._end_of_groups(digits, marks, start)
            whole, fraction = "".join(digits[start:end]), ""
            if self._is_fraction(marks, start, end):
                fraction = digits[end]
                words.append(self._with_fraction(whole, fraction))
                start = end + 1
            else:
                words.append(self._integer(whole, end > start + 1, ending if end == len(digits) else None))
                start = end
        return words, Decimal(f"{whole[-LONGEST:]}.{fraction[:LONGEST]}")

    def _end_of_groups(self, digits: list[str], marks: list[str], start: int) -> int:
        """The index behind the groups of three that make one number with ``digits[start]``; start + 1 for none."""
        mark = marks[start] if start < len(marks) else ""
        before = marks[start - 1] if start else ""
        if mark not in (*SPACES, *self.thousands, THOUSANDS) or before == mark:
            return start + 1
        if len(digits[start]) > 3 or digits[start].startswith("0"):
            return start + 1
        end = start + 1
        while end < len(digits) and marks[end - 1] == mark and len(digits[end]) == 3 and end - start < LONGEST:
            end += 1
        goes_on = end < len(digits) and marks[end - 1] == mark
        return start + 1 if goes_on else end

    def _is_fraction(self, marks: list[str], start: int, end: int) -> bool:
        """Whether a decimal mark is at ``end``, and none in front of the number or behind the fraction: 1,2,3."""
        decimal = (*self.decimal, DECIMAL)
        neighbours = (*marks[max(0, start - 1) : start], *marks[end : end + 1])
        return bool(self.point) and end <= len(marks) and marks[end - 1] in decimal and not {*neighbours} & {*decimal}

    # -----------------------------------------------------------------------------------------------------------------
    # One number

    def _correct(self, words: str | None, rewrite: Mapping[str, str]) -> str | None:
        for pattern, replacement in rewrite.items():
            words = words and re.sub(pattern, replacement, words)
        return words

    def _cardinal(self, number: int) -> str | None:
        return self._correct(_words(number, self.code, "cardinal"), self.rewrite)

    def _each_digit(self, digits: str) -> str | None:
        names = {digit: self._cardinal(int(digit)) for digit in set(digits)}
        return None if None in names.values() else " ".join(names[digit] for digit in digits)

    def _integer(self, digits: str, grouped: bool = True, ending: Ending | None = None) -> str | None:
        if len(digits) > LONGEST or (digits[0] == "0" and len(digits) > 1):
            return self._each_digit(digits)
        if not grouped and len(digits) > LONGEST_PLAIN and not digits.endswith("000"):
            return self._each_digit(digits)
        number, form = int(digits), ending.form if ending else "cardinal"
        if self.years and form == "cardinal" and not grouped and FIRST_YEAR <= number <= LAST_YEAR:
            form = "year"
        words = self._correct(_words(number, self.code, form), self.rewrite)
        return self._correct(words, ending.rewrite) if ending else words

    def _with_fraction(self, whole: str, fraction: str) -> str | None:
        if self.fraction == "parts" and len(whole) <= LONGEST_PLAIN and len(fraction) <= 6:
            return self._correct(_words(f"{whole}.{fraction}", self.code, "cardinal"), self.rewrite)
        zeros = len(fraction) - len(fraction.lstrip("0"))
        if self.fraction == "number" and zeros < len(fraction) <= zeros + 3:
            behind = [*[self._cardinal(0)] * zeros, self._cardinal(int(fraction[zeros:]))]
        else:
            behind = [self._each_digit(fraction)]
        words = [self._integer(whole), self.point, *behind]
        return None if None in words else " ".join(words)

    def _time(self, hours: str, minutes: str) -> list[str | None]:
        words = [self._cardinal(int(hours)), self.hour]
        if minutes != "00":
            words.append(self._cardinal(int(minutes)) if self.hour else self._integer(minutes))
        return [word for word in words if word != ""]

    def _agree(self, sign: str, value: Decimal | None) -> str:
        """The form of a sign's name that goes with a number; alone it is the form for many."""
        forms = self.symbols[sign]
        many = forms[min(len(forms), 3) - 1]
        if value is None or len(forms) == 1:
            return many
        if len(forms) > 3 and value % 1:
            return forms[3]
        last = value % 10 if self.code in COUNTED_BY_LAST_DIGIT and value % 100 not in range(11, 20) else value
        if last == 1:
            return forms[0]
        return forms[1] if len(forms) > 2 and last in (2, 3, 4) else many


def _ascii(digits: str) -> str:
    """Digits of any script as 0 to 9, the marks between them as they are."""
    return digits if digits.isascii() else "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in digits)


def read_spelling(numbers: Mapping | None, symbols: Mapping[str, str | list[str]]) -> Spelling | None:
    """From a language's YAML; None where it has no ``numbers``: its digits and signs are lost, and counted."""
    if numbers is None:
        return None
    forms = {sign: [words] if isinstance(words, str) else list(words) for sign, words in symbols.items()}
    endings = tuple(Ending(**ending) for ending in numbers.get("endings", ()))
    return Spelling(**{**numbers, "endings": endings, "symbols": forms})
