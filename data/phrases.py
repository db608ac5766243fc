"""What the embedded corpora say: number phrases in eleven languages, and small English sentences.

A template such as ``"{a} más {b} son {sum}"`` is filled with numbers written out by num2words, all from one
``random.Random``, so that a seed fixes every phrase. Templates never put a noun after a number: Spanish would need
*veintiún euros* where num2words says *veintiuno*, and the Slavic languages would need cases.

The surprise: the written form is also what is spoken. "1984" could be read in several ways, so no digit, hyphen or
comma is left in a phrase and the transcript is exact.
"""

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from num2words import num2words


@dataclass(frozen=True)
class Phrasebook:
    """One language: its espeak-ng voices (accents), months and templates.

    Fields of a template: ``number`` 0-9999, ``small``, ``other`` 0-99, ``year`` 1900-2059, ``day`` 2-28, ``hour`` 2-12,
    ``minute`` 1-59, ``month``, ``ordinal`` 1-31, and a sum ``a``, ``b``, ``sum``; English also has kinds of words.
    """

    voices: tuple[str, ...]
    months: str
    templates: str  # one a line
    spoken_years: bool = False  # 1984 is "nineteen eighty-four"


PHRASEBOOKS = {
    "es": Phrasebook(
        ("es", "es-419"),
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        """{number}
        {small} {other} {day}
        el año {year}
        página {number} capítulo {small}
        calle mayor {number}
        el autobús {small}
        kilómetro {number}
        habitación {number} por favor
        {a} más {b} son {sum}
        {a} menos {small}
        {small} por {other}
        el {day} de {month} de {year}
        a las {hour} y {minute}
        marca el {number}
        entre {small} y {number}
        salida {small} puerta {other}""",
    ),
    "it": Phrasebook(
        ("it",),
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        """{number}
        {small} {other} {day}
        pagina {number} capitolo {small}
        camera {number} per favore
        {a} più {b} fa {sum}
        {small} per {other}
        il {day} {month} {year}
        alle {hour} e {minute}
        tra {small} e {number}""",
    ),
    "de": Phrasebook(
        ("de",),
        "januar februar märz april mai juni juli august september oktober november dezember",
        """{number}
        {small} {other} {day}
        seite {number} kapitel {small}
        zimmer {number} bitte
        {a} plus {b} ist {sum}
        {small} mal {other}
        im {month} {year}
        um {hour} uhr {minute}
        zwischen {small} und {number}""",
        spoken_years=True,
    ),
    "fr": Phrasebook(
        ("fr", "fr-be", "fr-ch"),
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        """{number}
        {small} {other} {day}
        page {number} chapitre {small}
        chambre {number} merci
        {a} plus {b} font {sum}
        {small} fois {other}
        le {day} {month} {year}
        entre {small} et {number}""",
    ),
    "pt": Phrasebook(
        ("pt", "pt-br"),
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        """{number}
        {small} {other} {day}
        página {number} capítulo {small}
        quarto {number} por favor
        {a} mais {b} são {sum}
        {small} vezes {other}
        no dia {day} de {month} de {year}
        entre {small} e {number}""",
    ),
    "nl": Phrasebook(
        ("nl",),
        "januari februari maart april mei juni juli augustus september oktober november december",
        """{number}
        {small} {other} {day}
        bladzijde {number} hoofdstuk {small}
        kamer {number} alsjeblieft
        {a} plus {b} is {sum}
        {small} keer {other}
        op {day} {month} {year}
        tussen {small} en {number}""",
    ),
    "pl": Phrasebook(
        ("pl",),
        "styczeń luty marzec kwiecień maj czerwiec lipiec sierpień wrzesień październik listopad grudzień",
        """{number}
        {small} {other} {day}
        strona {number} rozdział {small}
        pokój {number} proszę
        {a} plus {b} równa się {sum}
        {month} rok {year}
        numer {small} i numer {number}""",
    ),
    "ru": Phrasebook(
        ("ru",),
        "январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь",
        """{number}
        {small} {other} {day}
        страница {number} глава {small}
        комната {number} пожалуйста
        {a} плюс {b} равно {sum}
        {month} год {year}
        номер {small} и номер {number}""",
    ),
    "uk": Phrasebook(
        ("uk",),
        "січень лютий березень квітень травень червень липень серпень вересень жовтень листопад грудень",
        """{number}
        {small} {other} {day}
        сторінка {number} розділ {small}
        кімната {number} будь ласка
        {a} плюс {b} дорівнює {sum}
        {month} рік {year}
        номер {small} і номер {number}""",
    ),
    "ca": Phrasebook(
        ("ca",),
        "gener febrer març abril maig juny juliol agost setembre octubre novembre desembre",
        """{number}
        {small} {other} {day}
        pàgina {number} capítol {small}
        habitació {number} si us plau
        {a} més {b} fan {sum}
        {small} per {other}
        entre {small} i {number}
        {month} any {year}""",
    ),
    "en": Phrasebook(
        ("en", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc"),
        "january february march april may june july august september october november december",
        """{number}
        {small} {other} {day}
        page {number} chapter {small}
        room {number} please
        {a} plus {b} is {sum}
        the {ordinal} of {month} {year}
        one {time} in {month} at {hour}
        the {adjective} {noun} {verb} the {thing}
        {person} {verb} {small} {plural} {adverb}
        my {noun} {verb} the {adjective} {thing} {place}
        {adverb} the {noun} {verb} a {thing} {place}
        we {verb} the {noun} and the {thing} {adverb}
        {question} the {adjective} {plural} {place}
        the {thing} is {adjective} but the {noun} is {quality}
        {person} and {noun} {verb} {plural} {place}
        every {time} they {verb} the {thing}
        {quality} {plural} and {adjective} {things}
        please {command} the {adjective} {thing} {place}""",
        spoken_years=True,
    ),
}

# Kinds of English words ("_" is a space). Sounds and spellings are what counts, so rare letters (j, q, x, z) abound.
ENGLISH_WORDS = {
    "noun": """dog horse river teacher village doctor engine garden winter student fox lawyer captain forest mountain
        zebra queen judge orchestra island bridge cloud farmer kitchen lion market neighbour ocean painter rabbit sailor
        tiger uncle volcano wizard yacht author butcher child dancer eagle friend giant hunter infant jacket king""",
    "person": """brother sister mother father cousin daughter nephew grandfather jack julia george victoria max zoe
        oliver charlotte thomas elizabeth quentin yvonne walter nancy harry felix""",
    "adjective": """old small green quick lazy heavy strange bright frozen curious broken gentle hollow joyful purple
        quiet rough silver thirsty ugly vivid warm young fresh sharp tiny enormous wooden yellow foreign dangerous""",
    "quality": """cheap expensive empty dark light simple difficult square round hungry tired wrong right useful famous
        healthy dirty clean equal exact crazy busy thick thin smooth lovely""",
    "verb": """watched followed carried found bought painted chased moved measured opened joined questioned fixed
        visited brought caught washed built described threw pushed used heard left wanted changed served helped""",
    "command": "open close take bring move wash check touch choose join watch push leave show give send read write",
    "question": "where_are who_knows how_do_you_like why_do_you_need what_about do_you_see when_did_you_choose",
    "thing": """table window letter bottle church hammer piano question jewel box bicycle mirror photograph shirt ticket
        umbrella violin wheel yard zip orange knife machine newspaper television paper measure garage earth bath voice
        ring boy""",
    "things": """apples birds coins doors eggs flowers gloves houses judges keys leaves mouths nights oysters pictures
        roads stones teeth vegetables watches zones boxes""",
    "plural": """tables windows letters bottles churches hammers pianos questions jewels wolves bicycles mirrors
        shirts tickets umbrellas violins wheels yachts oranges knives machines newspapers thoughts songs toys""",
    "adverb": """quickly slowly yesterday again together usually never always almost twice once suddenly later early
        perhaps today tomorrow outside""",
    "place": """in_the_garden near_the_station under_the_bridge behind_the_school at_home on_the_beach by_the_river
        across_the_valley above_the_village through_the_fog before_lunch after_the_exam with_great_pleasure
        without_a_sound over_the_hedge around_the_corner beyond_the_zoo""",
    "time": "morning evening afternoon week month year hour summer autumn spring sunday thursday",
}


def clean(text: str) -> str:
    """Lower case, composed (NFC), letters and apostrophes only, words apart by one space."""
    text = unicodedata.normalize("NFC", text.lower())
    kept = "".join(letter if letter.isalpha() or letter == "'" else " " for letter in text)
    return " ".join(kept.split())


def field_values(lang: str, draw: random.Random) -> dict[str, str]:
    """One draw of every field that a template of ``lang`` may use, written out."""
    book = PHRASEBOOKS[lang]
    ranges = {"small": (0, 99), "other": (0, 99), "day": (2, 28), "hour": (2, 12), "minute": (1, 59), "a": (1, 899)}
    numbers = {name: draw.randint(*limits) for name, limits in ranges.items()}
    numbers["number"] = draw.randrange(10 ** draw.choice((2, 3, 4, 4)))  # short numbers are heard as often as long ones
    numbers["b"] = draw.randint(1, 99)
    numbers["sum"] = numbers["a"] + numbers["b"]
    values = {name: num2words(number, lang=lang) for name, number in numbers.items()}
    values["year"] = num2words(draw.randint(1900, 2059), lang=lang, to="year" if book.spoken_years else "cardinal")
    values["month"] = draw.choice(book.months.split())
    if lang == "en":
        values["ordinal"] = num2words(draw.randint(1, 31), lang=lang, to="ordinal")
        values |= {kind: draw.choice(words.split()).replace("_", " ") for kind, words in ENGLISH_WORDS.items()}
    return values


def phrases(lang: str, draw: random.Random) -> Iterator[str]:
    """Endless different phrases of ``lang``; the same state of ``draw`` gives the same phrases.

    Raises:
        ValueError: no phrases were written for ``lang``.
    """
    if lang not in PHRASEBOOKS:
        raise ValueError(f"no phrases in {lang!r}; there are {', '.join(sorted(PHRASEBOOKS))}")
    templates = [line.strip() for line in PHRASEBOOKS[lang].templates.splitlines()]
    seen: set[str] = set()
    while True:
        phrase = clean(draw.choice(templates).format(**field_values(lang, draw)))
        if phrase not in seen:
            seen.add(phrase)
            yield phrase
