"""Alphabets, the rules of each language, alphabets from text: by hand and by fuzzing."""

import random
import sys
import unicodedata

import pytest

from quartznet.alphabet import Alphabet
from quartznet.audit import audit
from quartznet.text import Language, find_language, known_languages, language_from_texts, limit_marks, lower_case

PAIRS = [
    ("en", "Don’t panic, it's 'fine' & well-known.", "don't panic it's fine and well known"),
    ("en", "The dogs' bones; rock 'n' roll!", "the dogs' bones rock n roll"),
    ("en", "Naïve café, Æsop’s façade — Łódź", "naive cafe aesop's facade lodz"),
    ("en", "AT&T rose 3.5% in 1995", "at and t rose three point five per cent in nineteen ninety five"),
    ("en", "soft\u00adhyphen zero\u200bwidth\ufeff", "softhyphen zerowidth"),
    ("en", "ｆｕｌｌ ﬁne ①", "full fine"),
    ("es", "¿Dónde está el PINGÜINO, niño?", "dónde está el pingüino niño"),
    ("es", "El ESPAN\u0303OL, ce\u0301lebre", "el español célebre"),
    ("es", "corazón ❤️ sí", "corazón sí"),
    ("es", "Voilà, Barça; d'Artagnan y O’Donnell", "voila barca dartagnan y odonnell"),
    ("it", "L’uomo e la città: perché un po' così?", "l'uomo e la città perché un po' così"),
    ("it", "piú libertá, cosí puó; ça", "più libertà così può ca"),
    ("de", "Die STRAẞE, die Straße; Größe!", "die straße die straße größe"),
    ("de", "Weißenburg-Gunzenhausen geht's „gut“ ‚so‘", "weißenburg gunzenhausen gehts gut so"),
    ("ru", "Ёлка — ЕЩЁ подъезд, объём.", "ёлка ещё подъезд объём"),
    ("ru", "за\u0301мок и замо\u0301к", "замок и замок"),
    ("ru", "ceгодня (Latin c, e) XXI", "сегодня"),
    ("fr", "L’œuvre naïve d'Haÿ : où, à Noël, ça gêne", "l'œuvre naïve d'haÿ où à noël ça gêne"),
    ("fr", "ex æquo, aujourd’hui… « señor »", "ex æquo aujourd'hui senor"),
    ("pt", "A avó não vê; à lingüiça d'água, põe já", "a avó não vê à linguiça dágua põe já"),
    ("nl", "'s Avonds één ĳsje, vóór de foto’s: coördinatie", "'s avonds één ijsje voor de foto's coördinatie"),
    ("pl", "Zażółć gęślą jaźń, QUIZ Joyce'a", "zażółć gęślą jaźń quiz joycea"),
    ("ca", "L'home del col·legi; paraŀlel • punt·final", "l'home del col·legi paral·lel punt final"),
    ("ca", "El barceloní va dir-m’ho, ço és, pingüí", "el barceloní va dir m'ho ço és pingüí"),
    ("uk", "П’ЯТЬ об`єктів: Ґанок, їжак і є", "п'ять об'єктів ґанок їжак і є"),
    ("uk", "пiдъезд, выэё", "під'езд виейо"),
    ("sv", "Idén på ARMÉN: Søren & Ægir, 21 öl", "idén på armén sören och ägir tjugoett öl"),
    ("da", "RØDGRØD på Ærø, Malmö", "rødgrød på ærø malmø"),
    ("nb", "Én kafé på Ås, fôret ditt; Göteborg", "én kafé på ås fôret ditt gøteborg"),
    ("fi", "ŠAKKI, Åbo ja Õnne: hyvää yötä", "šakki åbo ja önne hyvää yötä"),
    ("cs", "PŘÍLIŠ žlutoučký kůň, Ľudmila", "příliš žlutoučký kůň ludmila"),
    ("sk", "Vŕba, KĹZAŤ, dĺžeň, stôl, päť", "vŕba kĺzať dĺžeň stôl päť"),
    ("ro", "Şi ţara ȘI ȚARA; l-am văzut în câmp", "și țara și țara l am văzut în câmp"),
    ("hu", "ÁRVÍZTŰRŐ tükörfúrógép; hõ, fû", "árvíztűrő tükörfúrógép hő fű"),
    ("tr", "IŞIK İzmir'de; KÂR, Türkçe'nin", "ışık izmirde kâr türkçenin"),
    ("eo", "EĤOŜANĜO ĉiuĵaŭde; Zürich", "eĥoŝanĝo ĉiuĵaŭde zurich"),
    ("eu", "Euskal Herrian: iñor, Curaçao", "euskal herrian iñor curaçao"),
    ("gl", "A muiñeira, lingüística, egoísmo; Façade", "a muiñeira lingüística egoísmo facade"),
    ("el", "ΟΔΟΣ, οδός; ΜΑΪΟΣ — τὸ πνεῦμα", "οδος οδός μαϊος τό πνεύμα"),
    ("el", "Aθήνα, Tο kαλό (Latin A, T, k), Pόδος, ΣΙΣΥΦΟΣ", "αθήνα το καλό ρόδος σισυφος"),
    ("ru", "Mосква, pека, сοбака (Latin M, p; Greek ο)", "москва река собака"),
    ("en", "wіth Cyrillic і and Grεεk ο in wοrds", "with cyrillic and greek in words"),
    ("es", "cаsa de Мoscú", "casa de moscú"),
]


@pytest.mark.parametrize(("code", "text", "expected"), PAIRS)
def test_normalisation_by_hand(code: str, text: str, expected: str) -> None:
    assert find_language(code).normalize(text) == expected


def test_every_language_is_in_the_table_above() -> None:
    assert set(known_languages()) == {code for code, _, _ in PAIRS}
    assert {"ca", "de", "en", "es", "fr", "it", "nl", "pl", "pt", "ru", "uk"} < set(known_languages())


@pytest.mark.parametrize("code", known_languages())
def test_labels_are_unique_and_their_own_normal_form(code: str) -> None:
    language = find_language(code)
    assert language.labels == (" ", *language.letters) and len(set(language.labels)) == len(language.labels)
    for letter in set(language.letters) - set("'·"):
        assert (
            language.normalize(letter) == language.normalize(letter.upper()) == letter
            or letter in "ßςΐΰ"
            or code == "tr"
        )
    assert Alphabet(language.labels).blank == len(language.letters) + 1
    for letter, written in language.mapping.items():
        assert unicodedata.is_normalized("NFC", letter + written) and letter == lower_case(letter, code)


def test_the_numbers_of_labels_that_others_rely_on() -> None:
    assert find_language("en").labels == tuple(" abcdefghijklmnopqrstuvwxyz'")
    assert len(find_language("ru").labels) == 34
    assert {code: len(find_language(code).letters) for code in ("es", "de", "fr", "uk", "pl")} == {
        "es": 33,
        "de": 30,
        "fr": 43,
        "uk": 34,
        "pl": 35,
    }


def fuzzed_texts(letters: str, count: int) -> list[str]:
    """Random texts from all of Unicode, with the letters, marks and apostrophes that make trouble mixed in."""
    chance = random.Random(0)
    trouble = letters + letters.upper() + "'’‘`·•\u0301\u0308\u0327\u093c\u05bcİIıΣς7%€²٣.,:- \"_.\u200d\u0640ŀĳǅﬃ가が"
    return [
        "".join(
            chance.choice(trouble) if chance.random() < 0.8 else chr(chance.randrange(sys.maxunicode + 1))
            for _ in range(chance.randrange(25))
        )
        for _ in range(count)
    ]


def assert_normal(language: Language, text: str) -> None:
    once = language.normalize(text)
    assert set(once) <= set(language.labels), (language.code, text)
    assert language.normalize(once) == once, (language.code, text)
    assert once == once.strip() and "  " not in once
    # a Hindi alphabet without ऩ but with न and the dot below writes it as these two, which is not NFC
    assert unicodedata.is_normalized("NFC", once) or not set(unicodedata.normalize("NFC", once)) <= set(language.labels)


@pytest.mark.parametrize("code", known_languages())
def test_any_text_becomes_labels_only_and_twice_is_once(code: str) -> None:
    language = find_language(code)
    for text in fuzzed_texts(language.letters, 250):
        assert_normal(language, text)
        assert_normal(language.restricted_to([" ", *language.letters[::2]]), text)


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("hi", ["हिन्दी में क़लम", "नमस्ते"]),
        ("ar", ["السَّلَامُ عَلَيْكُمْ", "مرحبا"]),
        ("tr", ["IŞIK İzmir", "Türkçe'nin"]),
        ("el", ["ΟΔΟΣ Σίσυφος", "άλφα"]),
        ("yo", ["ẹ́ ọ̀rẹ́ ẹ"]),
        ("th", ["น้ำ ทำ"]),
    ],
)
def test_alphabets_from_text_obey_the_same_properties(code: str, texts: list[str]) -> None:
    language = language_from_texts(code, texts)
    assert audit(texts, language).dropped.total() == 0
    assert language.labels[0] == " " and list(language.labels) == sorted(language.labels)
    for text in texts + fuzzed_texts(language.letters, 200):
        assert_normal(language, text)


# ---------------------------------------------------------------------------------------------------------------------
# Alphabets from text


def test_turkish_keeps_its_two_i_apart() -> None:
    language = language_from_texts("tr", ["ILIK İNCİR ılık incir"])
    assert language.letters == "ciklnrı"
    assert language.normalize("ILIK İNCİR") == "ılık incir"
    assert language_from_texts("sw", ["KIINI"]).normalize("KIINI") == "kiini"


def test_vowel_marks_are_letters_and_survive() -> None:
    assert language_from_texts("hi", ["हिन्दी"]).normalize("हिन्दी।") == "हिन्दी"


def test_apostrophes_only_where_words_hold_them() -> None:
    assert language_from_texts("br", ["C’hoazh ur c'hi"]).letters == "'achioruz"
    assert language_from_texts("br", ["'ur' ki'"]).letters == "ikru"


def test_rare_letters_are_left_out_and_listed() -> None:
    language = language_from_texts("sw", ["a" * 20000 + "b" * 3 + "éжж"])
    assert language.letters == "ab"  # 3 of 20,006 are 0.015 %, 2 are just below 0.01 %
    assert language.rare == (("ж", 2), ("é", 1))
    assert language.normalize("abé ж") == "ab"
    assert "rare     ж 2  é 1" in audit(["ab"], language).table().splitlines()


def test_an_alphabet_needs_letters() -> None:
    with pytest.raises(ValueError, match="no letters in the texts to take an alphabet for 'sw' from"):
        language_from_texts("sw", ["12", "?!"])


def test_rare_letters_without_a_base_letter_are_named_in_a_text() -> None:
    language = language_from_texts("sw", ["ae" * 10000 + "b" * 3 + "éжжĂ"])
    assert language.rare_losses("ЖÉĂabж") == "ж" and language.rare_losses("aéb ψ") == ""
    assert language.restricted_to(["a"]).rare_losses("ж") == find_language("es").rare_losses("ж") == ""


def test_arabic_script_look_alikes_and_vowel_marks() -> None:
    assert language_from_texts("ar", ["على يد کتاب یوم"]).letters == "".join(sorted(set("علىيدكتابوم")))
    persian = language_from_texts("fa", ["كتاب يك خانه می‌روم", "هزار و دویست و سی و چهار"])
    assert "ك" not in persian.letters and "ي" not in persian.letters
    assert persian.normalize("كـــتاب يك ۲۱ ۱٬۲۳۴") == "کتاب یک بیست و یک هزار و دویست و سی و چهار"
    assert language_from_texts("ur", ["هے ہے كل"]).letters == "".join(sorted(set("ہےکل")))
    voiced = "السَّلَامُ"
    assert language_from_texts("ar", [voiced]).normalize(voiced) == voiced
    assert language_from_texts("ar-plain", [voiced]).normalize(voiced) == "السلام"


def test_russian_yo_is_kept_or_folded() -> None:
    assert find_language("ru").normalize("Ещё ЁЖ") == "ещё ёж"
    folded = find_language("ru-fold")
    assert folded.normalize("Ещё ЁЖ 3-й четвёртый 4-й") == "еще еж третий четвертый четвертый"
    assert (len(folded.letters), folded.code) == (32, "ru") and find_language("ru-RU") == find_language("ru")


def test_variants_change_the_numbers() -> None:
    assert find_language("pt").normalize("16") == "dezasseis" and find_language("pt-BR").normalize("16") == "dezesseis"
    assert find_language("fr_BE").normalize("71") == "septante et un" and find_language("fr-CA").normalize("80") != "71"


def test_hundreds_of_marks_on_a_letter_are_cut_and_reported() -> None:
    marks = "\u0301\u0316"
    assert limit_marks("a" + marks * 20 + "b" + marks) == ("a" + marks * 15 + "b" + marks, marks * 5)
    assert limit_marks("हिन्दी…" + "…" * 50) == ("हिन्दी…" + "…" * 50, "")
    pieces = list(find_language("es").convert("a" + marks * 20))
    assert [piece for piece in pieces if piece[0] == "dropped"] == [("dropped", mark, "") for mark in marks * 5]
    text = "a" + marks * 500_000  # composing all of these would take hours
    assert find_language("es").normalize(text) == "á" and len(lower_case(text, "es")) <= 31


def test_codes_with_a_region_mean_the_language() -> None:
    assert find_language("pt-BR").code == find_language("PT_pt").code == "pt"
    assert find_language("sw") is None and find_language("com") is None
    assert find_language("es-MX") == find_language("es_419") == find_language("es")


@pytest.mark.parametrize("code", ["", "../es", "_common", "spanish"])
def test_what_is_no_code(code: str) -> None:
    with pytest.raises(ValueError, match="is no language code; use two or three letters of ISO 639"):
        find_language(code)
    with pytest.raises(ValueError, match="is no language code"):
        language_from_texts(code, ["a"])


# ---------------------------------------------------------------------------------------------------------------------
# A checkpoint's own labels


def test_labels_of_a_checkpoint_drive_the_rules() -> None:
    without_yo = [label for label in find_language("ru").labels if label != "ё"]
    assert find_language("ru").restricted_to(without_yo).normalize("Ёж ещё") == "еж еще"
    plain = find_language("de").restricted_to(find_language("en").labels)
    assert plain.normalize("Große Mädchen geht’s gut") == "grosse madchen geht's gut"
    assert audit(["Größe"], plain).mapped == {"ö": 1, "ß": 1}


def test_the_order_of_the_labels_and_the_place_of_the_space_stay() -> None:
    assert find_language("en").restricted_to(["b", " ", "a"]).labels == ("b", " ", "a")
    assert find_language("en").restricted_to(["b", "a"]).normalize("Ab, ba!") == "abba"


@pytest.mark.parametrize(("labels", "named"), [(["a", "##ing"], "##ing"), (["A", "b"], "A"), ([], "none")])
def test_labels_that_no_text_would_match(labels: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=f"labels must be single lower-case characters, got .*{named}"):
        find_language("en").restricted_to(labels)


# ---------------------------------------------------------------------------------------------------------------------
# The alphabet


def test_encoding_and_decoding_by_hand() -> None:
    alphabet = Alphabet((" ", "a", "b"))
    assert alphabet.encode("ab ba") == [1, 2, 0, 2, 1] and alphabet.blank == 3
    assert alphabet.decode([1, 2, 0, 2, 1]) == "ab ba"


def test_alphabet_errors() -> None:
    with pytest.raises(ValueError, match=r"labels without repeats; 3 given, repeated: \['a'\]"):
        Alphabet(("a", "b", "a"))
    with pytest.raises(ValueError, match="labels without repeats; 0 given"):
        Alphabet(())
    with pytest.raises(ValueError, match="the alphabet has no 'c', 'ß', in 'aßc'; normalise the text first"):
        Alphabet(("a", "b")).encode("aßc")
    with pytest.raises(ValueError, match=r"label numbers go from 0 to 1, got \[0, 2\]; remove blanks"):
        Alphabet(("a", "b")).decode([0, 2])


def test_quotations_nested_without_end_take_no_time_and_stay_normal() -> None:
    """A line of 1 MiB from a stranger: one pair of marks a round would take days."""
    language = find_language("en")
    text = language.normalize("'a " * 5000 + "don't " + "a' " * 5000)
    assert text == "a " * 5000 + "don't " + " ".join(["a"] * 5000)
    assert language.normalize(text) == text
