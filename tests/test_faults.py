"""Faults of texts: each kind planted alone is found by its name, line and look, and clean text has none."""

from pathlib import Path

import pytest

from quartznet.faults import Fault, FaultFinder, mixture, mojibake
from quartznet.text import find_language, language_from_texts


def faults_of(code: str, *texts: str) -> list[tuple[str, str]]:
    finder = FaultFinder(find_language(code))
    for line, text in enumerate(texts, 1):
        finder.look(line, text)
    return [(fault.name, fault.example) for fault in finder.faults.values()]


PLANTED = [
    ("es", "cafe\u0301 solo", "decomposed accent", "e\u0301 for é"),
    ("ru", "иду в mагазин", "Latin letter in a Cyrillic word", "mагазин"),
    ("es", "la cаsa roja", "Cyrillic letter in a Latin word", "cаsa"),
    ("el", "το kαλό παιδί", "Latin letter in a Greek word", "kαλό"),
    ("es", "una 猫 negra", "letter of another script, CJK", "猫"),
    ("ru", "это hello", "letter of another script, LATIN", "o"),
    ("es", "son 123 casas", "digits", "123"),
    ("es", "hola \ufeffmundo", "byte-order mark inside the text", "\ufeff"),
    ("es", "ho\u200bla", "zero-width character", "\u200b"),
    ("de", "Zu\u00adcker", "zero-width character", "\u00ad"),
    ("es", "ho\u200dla", "zero-width character", "\u200d"),
    ("fr", "oui\u202f!", "non-breaking space", "\u202f"),
    ("es", "ho\x07la", "control character", "\x07"),
    ("es", "ho\tla", "control character", "\t"),
    ("es", "ho\ue000la", "unassigned character", "\ue000"),
    ("es", "el Ã¡rbol", "wrong encoding", "Ã¡ is á"),
    ("en", "donâ€™t", "wrong encoding", "â€™ is ’"),
    ("ru", "РїСЂРёРІРµС‚ мир", "wrong encoding", "РїСЂРёРІРµС‚ is привет"),
    ("es", "el \ufffdrbol", "replacement character of a wrong encoding", "\ufffd"),
    ("es", "uno &amp; dos", "HTML", "&amp;"),
    ("es", "uno<br/>dós", "HTML", "<br/>"),
    ("es", "  ", "empty line", ""),
    ("es", "largo " * 90, "longer than 500 characters", "540"),
    ("es", "e" + "\u0301" * 40, "too many accents on one letter", "10 cut off"),
    ("es", "...!", "no letter of Spanish", "...!"),
]


@pytest.mark.parametrize(("code", "text", "name", "example"), PLANTED, ids=range(len(PLANTED)))
def test_a_planted_fault_is_found(code: str, text: str, name: str, example: str) -> None:
    assert (name, example) in faults_of(code, text)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("es", "¿Dónde está «el» niño — 'aquí'? ¡No! M.ª º 1".replace("1", "")),
        ("ru", "Ещё бы! Подъезд № — «так»…"),
        ("ru", "ЁЖ, её, Рёв; П. Ё."),  # these are pairs of bytes that UTF-8 could have
        ("fr", "L’œuvre naïve, Ÿ: «ça»"),
        ("de", "STRAẞE, Größe – „so“"),
        ("el", "Οδός, ΣΊΣΥΦΟΣ· ναι;"),
        ("uk", "П’ять, об’єкт"),
    ],
)
def test_clean_texts_have_no_faults(code: str, text: str) -> None:
    assert faults_of(code, text) == []


def test_joiners_belong_to_the_scripts_that_need_them() -> None:
    finder = FaultFinder(language_from_texts("fa", ["می\u200cروم"]))
    finder.look(1, "می\u200cروم")
    assert finder.faults == {}


def test_letters_that_unicode_takes_apart_are_letters() -> None:
    finder = FaultFinder(language_from_texts("ko", ["안녕 하세요"]))
    finder.look(1, "안녕")
    assert finder.faults == {} and finder.scripts == {"HANGUL"}


def test_a_rare_stray_letter_makes_no_script_of_the_language() -> None:
    finder = FaultFinder(language_from_texts("kk", ["абвгдеёжзийклмнопрстуфхцчшщъыьэюя阪"]))
    assert finder.scripts == {"CYRILLIC"}


def test_repeats_and_counts() -> None:
    finder = FaultFinder(find_language("es"))
    for line, text in ((2, "Hola 1"), (5, "otra"), (7, "hola 1 "), (9, "Otra"), (10, "?"), (11, "2"), (12, "Õ")):
        finder.look(line, text)
    assert finder.most_frequent_first() == [
        Fault("digits", 2, "1", 3),
        Fault("the same text again", 7, "as in line 2", 2),
        Fault("no letter of Spanish", 10, "?", 1),
    ]


def test_wrong_encodings_are_undone_only_where_they_read_as_utf8() -> None:
    assert mojibake("Ã¼ber") == ("Ã¼", "ü") and mojibake("Ð¿Ñ€") == ("Ð¿Ñ€", "пр")
    assert mojibake("über, naïve") is None and mojibake("привет") is None


def test_scripts_in_a_word() -> None:
    assert mixture("привет") == mixture("猫cat") == "" and mixture("aяя") == "Latin letter in a Cyrillic word"


def test_real_texts_are_clean_but_for_one_decomposed_accent(shared: Path) -> None:
    folder = shared / "corpora" / "common_voice_sample"
    for code, expected in {"de": [], "it": [], "pt": [], "fr": ["decomposed accent"]}.items():
        rows = (folder / code / "validated.tsv").read_text(encoding="utf-8").splitlines()
        column = rows[0].split("\t").index("sentence")
        assert [name for name, _ in faults_of(code, *(row.split("\t")[column] for row in rows[1:]))] == expected
