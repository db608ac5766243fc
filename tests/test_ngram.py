"""Estimated models against lmplz's files, a textbook, and what must hold: probabilities sum to one."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet import ngram_counts
from quartznet.arpa import UNKNOWN, _Reader, read_arpa, read_counts
from quartznet.ngram import ModelSummary, build_model, check_settings, discounts

GOLDEN = Path(__file__).parent / "golden" / "lm"
Entries = dict[str, tuple[float, float]]


def entries(path: Path) -> Entries:
    """Words -> log10 probability and back-off weight."""
    reader = _Reader(path)
    counts = reader.header()
    rows = (row for order, count in enumerate(counts, 1) for row in reader.section(order, count))
    return {words: (log_prob, backoff) for log_prob, words, backoff in rows}


def lines(name: str) -> list[str]:
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()


# ---------------------------------------------------------------------------------------------------------------------
# Against lmplz


@pytest.mark.parametrize(
    ("name", "text", "order", "prune"),
    [("plain", "text", 3, ()), ("pruned", "text", 4, (0, 0, 1)), ("tiny", "tiny", 4, ()), ("single", "text", 1, ())],
)
def test_models_are_those_of_lmplz(tmp_path: Path, name: str, text: str, order: int, prune: tuple[int, ...]) -> None:
    expected = entries(GOLDEN / f"{name}.arpa.gz")
    summary = build_model(lines(text), tmp_path / "a.arpa", order, prune)
    found = entries(tmp_path / "a.arpa")
    assert found.keys() == expected.keys()
    assert [row.written for row in summary.orders] == read_counts(GOLDEN / f"{name}.arpa.gz")
    np.testing.assert_allclose([found[words] for words in expected], list(expected.values()), rtol=0, atol=1e-5)
    assert {row.is_fallback for row in summary.orders} == {name == "tiny"}


# ---------------------------------------------------------------------------------------------------------------------
# Against a textbook


def windows(sentences: list[str], order: int) -> Iterator[tuple[str, ...]]:
    """Every n-gram of one order, with a single <s> in front of a sentence and </s> behind it."""
    for sentence in sentences:
        words = ("<s>", *sentence.split(), "</s>")
        yield from (words[i : i + order] for i in range(len(words) - order + 1))


def adjusted_counts(sentences: list[str], order: int) -> list[Counter]:
    """Of each order from 1 on, by the definition; without <s> alone."""
    found = []
    for k in range(1, order + 1):
        real = Counter(windows(sentences, k))
        befores = Counter(ngram[1:] for ngram in set(windows(sentences, k + 1)))
        adjusted = {g: real[g] if k == order or g[0] == "<s>" else befores[g] for g in real if g != ("<s>",)}
        found.append(Counter(adjusted))
    return found


def log10(value: float) -> float:
    return math.log10(value) if value > 0 else -100.0


def textbook(sentences: list[str], order: int, amounts: list[tuple[float, ...]]) -> Entries:
    """Interpolated Kneser-Ney with given discounts; nothing pruned."""
    counts, result = adjusted_counts(sentences, order), {}
    words = [word for (word,) in counts[0]]

    def gamma(context: tuple[str, ...]) -> float:
        k = len(context)
        own = [count for ngram, count in counts[k].items() if ngram[:-1] == context]
        return sum(amounts[k][min(count, 3)] for count in own) / sum(own) if own else 1.0

    def probability(ngram: tuple[str, ...]) -> float:
        if not ngram:
            return 1 / (len(words) + 1)  # <unk> is a word too
        k = len(ngram)
        total = sum(count for other, count in counts[k - 1].items() if other[:-1] == ngram[:-1])
        count = counts[k - 1][ngram]
        return (count - amounts[k - 1][min(count, 3)]) / total + gamma(ngram[:-1]) * probability(ngram[1:])

    for k in range(order):
        for ngram in counts[k]:
            backoff = log10(gamma(ngram)) if k + 1 < order else 0.0
            result[" ".join(ngram)] = (log10(probability(ngram)), backoff)
    result["<s>"] = (0.0, log10(gamma(("<s>",))) if order > 1 else 0.0)
    result[UNKNOWN] = (log10(gamma(()) * probability(())), 0.0)
    return result


texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(texts, st.integers(1, 4))
def test_models_are_those_of_a_textbook(tmp_path_factory: pytest.TempPathFactory, text: list[str], order: int) -> None:
    path = tmp_path_factory.mktemp("lm") / "a.arpa"
    summary = build_model(text, path, order)
    expected = textbook(text, order, [row.discounts for row in summary.orders])
    found = entries(path)
    assert found.keys() == expected.keys()
    for words, values in expected.items():
        assert found[words] == pytest.approx(values, abs=1e-5), words


thresholds = st.lists(st.integers(0, 2), max_size=3).map(lambda rest: (0, *sorted(rest)))


@settings(max_examples=40, deadline=None)
@given(texts, thresholds)
def test_probabilities_sum_to_one_in_every_context(
    tmp_path_factory: pytest.TempPathFactory, text: list[str], prune: tuple[int, ...]
) -> None:
    path = tmp_path_factory.mktemp("lm") / "a.arpa"
    build_model(text, path, 4, prune)
    model = read_arpa(path)
    words = [*model.vocabulary(), UNKNOWN]
    for context in (context for length in range(3) for context in product(words, repeat=length)):
        state = model.start()
        for word in context:
            state = model.score(state, word)[1]
        total = math.exp(model.end(state)) + sum(math.exp(model.score(state, word)[0]) for word in words)
        assert total == pytest.approx(1.0, abs=1e-5), context


# ---------------------------------------------------------------------------------------------------------------------
# By hand


def test_unigrams_by_hand(tmp_path: Path) -> None:
    summary = build_model(["a a b", "a"], tmp_path / "a.arpa", 1)
    assert summary == ModelSummary(2, 4, 2, summary.orders)
    assert summary.orders[0].discounts == pytest.approx(
        (0, 1 / 3, 1, 3)
    )  # one word is seen once, one twice, one thrice
    found = {words: 10**log_prob for words, (log_prob, _) in entries(tmp_path / "a.arpa").items()}
    rest = (3 + 1 / 3 + 1) / 6 / 4  # taken from 6 tokens, shared by a, b, </s> and <unk>
    expected = {"a": rest, "b": (1 - 1 / 3) / 6 + rest, "</s>": (2 - 1) / 6 + rest, "<unk>": rest, "<s>": 1.0}
    assert found == pytest.approx(expected, rel=1e-6)


def test_discounts_by_hand() -> None:
    found, is_fallback = discounts([9, 40, 10, 5, 2])
    y = 40 / 60
    assert found == pytest.approx((0, 1 - 2 * y * 10 / 40, 2 - 3 * y * 5 / 10, 3 - 4 * y * 2 / 5)) and not is_fallback


@pytest.mark.parametrize(
    "counts", [[0, 0, 1, 1, 1], [0, 5, 0, 1, 1], [0, 5, 1, 0, 1], [0, 9, 1, 9, 1], [0, 9, 1, 1, 9]]
)
def test_discounts_without_a_closed_form_or_out_of_range(counts: list[int]) -> None:
    assert discounts(counts) == ((0.0, 0.5, 1.0, 1.5), True)


def test_pruning_leaves_out_what_occurs_seldom(tmp_path: Path) -> None:
    build_model(["a b c", "a b", "a b d"], tmp_path / "a.arpa", 3, (0, 1, 2))
    expected = {"<unk>", "<s>", "</s>", "a", "b", "c", "d", "<s> a", "a b", "<s> a b"}
    assert entries(tmp_path / "a.arpa").keys() == expected


def test_a_weight_of_zero_can_be_written_and_read(tmp_path: Path) -> None:
    """Three bigrams occur once and one three times, so that D(2) is 0, and "b" is always followed by "a"."""
    summary = build_model(["", "", "", "b a a b a"], tmp_path / "a.arpa", 4)
    assert summary.orders[1].discounts == pytest.approx((0, 2 / 3, 0, 3), abs=1e-6)
    assert entries(tmp_path / "a.arpa")["b"] == (pytest.approx(-0.5351132), -100.0)


# ---------------------------------------------------------------------------------------------------------------------
# Size


@pytest.mark.parametrize("prune", [(), (0, 0, 1)])
def test_nothing_depends_on_how_much_is_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prune: tuple[int, ...]
) -> None:
    text = lines("text")
    build_model(text, tmp_path / "a.arpa", 4, prune)
    for module in ("quartznet.ngram_counts", "quartznet.ngram"):
        monkeypatch.setattr(f"{module}.AT_ONCE", 64)
    monkeypatch.setattr(ngram_counts, "FLUSH", 50)
    build_model(iter(text), tmp_path / "b.arpa", 4, prune)
    assert (tmp_path / "a.arpa").read_bytes() == (tmp_path / "b.arpa").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.arpa", "b.arpa"]


def test_a_vocabulary_that_does_not_fit_one_key(tmp_path: Path) -> None:
    """5,000 words take 13 bits, so the five words of an n-gram are sorted by two integers."""
    source = random.Random(0)
    text = [" ".join(f"w{source.randrange(5000)}" for _ in range(5)) for _ in range(500)] * 2
    text = text + [" ".join(f"w{number}" for number in range(start, start + 10)) for start in range(0, 5000, 10)]
    build_model(text, tmp_path / "a.arpa", 5)
    expected = Counter(ngram for ngram in windows(text, 5))
    found = {tuple(words.split()) for words in entries(tmp_path / "a.arpa") if words.count(" ") == 4}
    assert found == set(expected)


def test_more_ngrams_than_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram_counts, "LONGEST", 400)
    with pytest.raises(ValueError, match=r"more than 400 2-grams; install lmplz"):
        build_model(lines("text"), tmp_path / "a.arpa", 3)


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be done


@pytest.mark.parametrize("order", [0, 7])
def test_orders_out_of_range(order: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to 6, got {order}"):
        check_settings(order, ())


@pytest.mark.parametrize("prune", [(1,), (0, 2, 1), (0, 0, 0, 0)])
def test_thresholds_that_make_no_sense(prune: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="begin with 0, never fall, and are one for each of the 3 orders at most"):
        check_settings(3, prune)


def test_the_last_threshold_is_that_of_all_higher_orders() -> None:
    assert check_settings(5, (0, 0, 1)) == (0, 0, 1, 1, 1) and check_settings(2, ()) == (0, 0)


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>"])
def test_words_that_are_none(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValueError, match=f"sentence 2 holds {word}"):
        build_model(["a b", f"a {word} b"], tmp_path / "a.arpa")
    assert not list(tmp_path.iterdir())


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no sentence to count"):
        build_model([], tmp_path / "a.arpa")
