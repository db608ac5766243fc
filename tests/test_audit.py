"""The audit: counts by hand, the limit, the table, real transcripts."""

import json
import unicodedata
from pathlib import Path

import pytest

from quartznet.audit import audit
from quartznet.text import find_language


def test_counts_by_hand() -> None:
    result = audit(["Voilà, 7 días…", "días-días ж!", "42", "?"], find_language("es"))
    assert result.kept == {"v": 1, "o": 1, "i": 1, "l": 1, "d": 3, "í": 3, "a": 3, "s": 3}
    assert result.mapped == {"à": 1} and result.spelled == {"7": 1, "42": 1} and result.dropped == {"ж": 1}
    assert result.written == {"à": "a", "7": "siete", "42": "cuarenta y dos"}
    assert result.punctuation == {",": 1, "…": 1, "-": 1, "!": 1, "?": 1}
    assert (result.texts, result.empty, result.letters, result.characters_spelled) == (4, 1, 21, 3)
    assert result.letters_lost == pytest.approx(1 / 21)
    assert result.examples == {"à": "Voilà, 7 días…", "7": "Voilà, 7 días…", "ж": "días-días ж!", "42": "42"}
    assert result.unused == "bfghjkmñpqwxzáéóúü" and result.lines == {}


def test_digits_and_signs_of_a_language_that_cannot_spell_them_are_lost_one_by_one() -> None:
    result = audit(["40 % d’euskara"], find_language("eu"))
    assert result.dropped == {"4": 1, "0": 1, "%": 1} and not result.spelled


def test_nothing_lost_passes_and_lost_letters_stop_with_the_remedy() -> None:
    audit(["días " * 100 + "ж 7 8 9"], find_language("es")).check()
    result = audit(["tiene # años", "# жuntos"], find_language("es"))
    with pytest.raises(ValueError, match=r"17\.65% of the letters .* Spanish \(--lang es\) .* # 2x, ж 1x\. Spell"):
        result.check()
    with pytest.raises(ValueError, match=r"more than 0\.50%: .* choose another --lang, .* with --allow-char-loss"):
        result.check()
    result.check(limit=0.2)


def test_a_wrong_language_is_named_before_anything_else() -> None:
    with pytest.raises(
        ValueError, match=r"none of 1 texts holds a letter of Spanish \(--lang es\); choose another --lang"
    ):
        audit(["привет"], find_language("es")).check(limit=1.0)


def test_texts_of_nothing_but_numbers_are_fine_where_they_are_spelled() -> None:
    audit(["42", "3 %"], find_language("es")).check()
    with pytest.raises(ValueError, match="none of 1 texts holds a letter of Basque"):
        audit(["42"], find_language("eu")).check()
    with pytest.raises(ValueError, match="none of 2 texts holds a letter of Spanish"):
        audit(["привет", "42"], find_language("es")).check(limit=1.0)


def test_ten_worst_characters_and_the_number_of_the_others() -> None:
    with pytest.raises(ValueError, match=r"а 1x, .* й 1x and 3 other characters"):
        audit(["aaa", "абвгдежзийклм"], find_language("en").restricted_to(["a"])).check()


def test_the_table_fits_a_terminal() -> None:
    texts = ["Voilà, 7 días\tcon 東京 y ё, " + "muy largo " * 20, "हिन्दी " + "".join(map(chr, range(0x3041, 0x3061)))]
    table = audit(texts, find_language("es")).table()
    lines = table.splitlines()
    seen = [[c for c in line if not unicodedata.combining(c) and unicodedata.category(c) != "Mc"] for line in lines]
    assert max(sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) for line in seen) <= 80
    assert lines[0] == "Spanish (es): 33 letters and the space"
    assert lines[1].startswith("2 texts, ") and lines[2].endswith("% spelled, 19.07% lost")
    assert any(line.startswith("mapped   à -> a") and "voilà, 7 días con" in line for line in lines)
    assert any(line.startswith("spelled  7 -> siete       ") for line in lines)
    assert any(line.startswith("lost     東") for line in lines) and "others, " in table
    assert any(line.startswith("removed  , 2") for line in lines)
    assert lines[-1] == "1 of the texts are empty after this"


def test_a_table_of_few_letters_in_full() -> None:
    assert audit(
        ["Abba!", "ça"], find_language("en").restricted_to([" ", "a", "b", "c", "d"])
    ).table().splitlines() == [
        "English (en): 4 letters and the space",
        "2 texts, 6 letters",
        "83.33% kept, 16.67% mapped, 0.00% spelled, 0.00% lost",
        "kept     a 3  b 2",
        "unused   d",
        "mapped   ç -> c                1  ça",
        "removed  ! 1",
    ]


def test_rows_name_lines_where_they_are_known() -> None:
    table = audit(["uno", "à 3 " + "9" * 300, "#"], find_language("es"), lines=[1, 4, 2000]).table().splitlines()
    assert "mapped   à -> a                1  line 4: à 3 99999999999999999999999999999999" in table
    assert f"spelled  {'3 -> tres':<45}        1  line 4" in table
    assert f"         {'99999999999999999... -> nueve nueve nueve ':<42}...        1  line 4" in table
    assert "lost     #                     1  line 2,000: #" in table and max(map(len, table)) <= 80


@pytest.mark.parametrize(
    ("code", "folder", "least"),
    # measured over the train splits: es 99.4 % of the read part (its prompts were typed without accents), de 99.5 %
    # (apostrophes of foreign names), ru 99.4 % (one prompt names Latin letters), en 100 %
    [("es", "es_read", 0.99), ("de", "de_kerstin", 0.99), ("ru", "ru_prompts", 0.99), ("en", "en_kathleen", 1.0)],
)
def test_real_transcripts_normalise_to_their_edited_texts(shared: Path, code: str, folder: str, least: float) -> None:
    lines = (shared / "corpora" / folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    utterances = [line for line in map(json.loads, lines) if line["set"] != "asterisk_es"]
    language = find_language(code)
    equal = sum(language.normalize(line["raw_text"]) == line["text"] for line in utterances)
    assert len(utterances) > 100 and equal / len(utterances) >= least
    audit([line["raw_text"] for line in utterances], language).check()
