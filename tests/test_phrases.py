import itertools
import random

import pytest

from data.phrases import PHRASEBOOKS, clean, field_values, phrases


def first(lang: str, count: int, seed: int = 0) -> list[str]:
    return list(itertools.islice(phrases(lang, random.Random(seed)), count))


def test_clean_by_hand() -> None:
    assert clean("One thousand, two hundred and Thirty-Four") == "one thousand two hundred and thirty four"
    assert clean("Cafe\u0301  dev'ять!") == "caf\u00e9 dev'ять"
    assert clean("  -,. ") == ""


@pytest.mark.parametrize("lang", sorted(PHRASEBOOKS))
def test_phrases_of_every_language_are_different_clean_and_short(lang: str) -> None:
    texts = first(lang, 300)
    assert len(set(texts)) == 300
    assert all(text and text == clean(text) for text in texts)
    assert max(map(len, texts)) < 120


@pytest.mark.parametrize("lang", sorted(PHRASEBOOKS))
def test_every_template_can_be_filled(lang: str) -> None:
    values = field_values(lang, random.Random(0))
    for template in PHRASEBOOKS[lang].templates.splitlines():
        assert template.strip().format(**values)
    assert len(PHRASEBOOKS[lang].months.split()) == 12


def test_same_seed_same_phrases() -> None:
    assert first("es", 50) == first("es", 50) != first("es", 50, seed=1)


def test_sums_add_up() -> None:
    from num2words import num2words

    numbers = {clean(num2words(number, lang="es")): number for number in range(2000)}
    sums = [text for text in first("es", 500) if " son " in text]
    assert len(sums) > 10
    for text in sums:
        terms, total = text.split(" son ")
        assert sum(numbers[term] for term in terms.split(" más ")) == numbers[total]


def test_english_covers_the_alphabet() -> None:
    assert set("abcdefghijklmnopqrstuvwxyz ") == set("".join(first("en", 600)))


def test_unknown_language_is_an_error() -> None:
    with pytest.raises(ValueError, match="no phrases in 'tlh'; there are ca, de, en"):
        next(phrases("tlh", random.Random(0)))
