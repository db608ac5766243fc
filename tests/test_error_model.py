"""The error model: counts by hand, text that errs as the model says, files, and what is no error model."""

import json
import random
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from postcorrect.error_model import estimate, lang_of, losses, main, read_errors, save_errors
from postcorrect.mishearing import ErrorModel, ErrorSampler, chances, common_words
from postcorrect.pairs import Pair, write_jsonl, write_part
from quartznet.metrics import error_counts, total

SAID = ["the cat sat here", "the dog ran", "every day is new", "the cat was a pet", "go on now", "all is well here"]
HEARD = ["the cad sat her", "the dog ran", "everyday is new", "the cat was pet", "go on anow", "all is well hhere"]
PAIRS = [Pair(heard, said) for said, heard in zip(SAID, HEARD, strict=True)]


def test_counts_by_hand() -> None:
    model = estimate(PAIRS, "en")
    assert (model.lang, model.sentences, model.words, model.word_errors) == ("en", 6, 23, 7)
    assert model.changed == {" ": {"": 1}, "e": {"": 1}, "t": {"d": 1}}
    assert model.inserted == {" ": {"a": 1}, "h": {"h": 1}}
    assert model.dropped == {"1": 1} and model.added == {} and model.lengths["1"] == 1
    assert sum(model.letters.values()) == pytest.approx(sum(map(len, SAID)) - 2, rel=0.3)  # weighed by their words


def test_chances_have_the_mean_and_the_odds_that_were_asked_for() -> None:
    for share in (0.01, 0.3, 0.9):
        for rarity in (0.5, 1.0, 20.0):
            usual, often = chances(share, rarity, 0.25)
            assert 0.75 * usual + 0.25 * often == pytest.approx(share)
            assert often / (1 - often) == pytest.approx(rarity * usual / (1 - usual))
    assert chances(1.0, 9.0, 0.5) == (1.0, 1.0) and chances(0.0, 9.0, 0.5) == (0.0, 0.0)


def test_rare_is_what_comes_once_or_hardly_ever() -> None:
    assert common_words(["a b", "a"]) == {"a"}
    assert common_words(["a a b b b b"] + ["c"] * 150_000) == {"b", "c"}  # two are too few among 150,006


LETTERS = "abcdefghijklmnop"


def some_text(size: int) -> list[str]:
    """Sentences of few words that come often and many that come once."""
    draw = random.Random(1)
    often = ["".join(draw.choices(LETTERS, k=6)) for _ in range(60)]

    def word() -> str:
        return draw.choice(often) if draw.random() < 0.7 else "".join(draw.choices(LETTERS, k=6))

    return [" ".join(word() for _ in range(8)) for _ in range(size)]


def made(**changes: object) -> ErrorModel:
    """A model whose letters a to d, spaces and starts of words are each wrong in their own way."""
    letters = {letter: 1000.0 for letter in LETTERS + " "}
    changed = {"a": {"b": 60, "": 20}, "b": {"a": 40}, "c": {"": 50}, " ": {"": 10}}
    inserted = {"d": {"d": 30, " ": 20}, " ": {"e": 8}}
    lengths = {"1": 200, "5": 1000}
    given = ErrorModel(
        *("xx", 100, 1000, 150, 0.3, 0.0, 1.0, 1000.0, letters, changed, inserted, lengths, {"5": 10}, {"xyz": 10})
    )
    return replace(given, **changes)


def heard_by(sampler: ErrorSampler, text: list[str]) -> list[Pair]:
    generator = random.Random(2)
    return [Pair(sampler.mishear(sentence, generator), sentence) for sentence in text]


@pytest.mark.parametrize("together", [0.3, 1.0])
def test_sampled_text_errs_as_the_model_says(together: float) -> None:
    """Statistics of the sampled text, counted by alignment, are those that were put in, whatever goes together."""
    text, model = some_text(1500), made(together=together)
    found = estimate(heard_by(ErrorSampler(model), text), text=text, most_wer=9.0)
    for letter in LETTERS + " ":
        assert found.change_rate(letter) == pytest.approx(model.change_rate(letter), rel=0.15, abs=0.004), letter
        # An insertion beside a lost letter is taken for a substitution, and a split at the end of a word is none.
        assert found.insert_rate(letter) == pytest.approx(model.insert_rate(letter), rel=0.25, abs=0.004), letter
    assert found.changed["a"]["b"] / found.changed["a"][""] == pytest.approx(3, rel=0.2)
    assert found.inserted["d"]["d"] / found.inserted["d"][" "] == pytest.approx(1.5, rel=0.25)
    assert found.dropped["5"] / found.lengths["5"] == pytest.approx(0.01, rel=0.3)
    assert found.added["xyz"] / found.words == pytest.approx(0.009, rel=0.4)  # beside a wrong word it is a part of it


def test_chances_of_one_letter_by_hand() -> None:
    """The word "d" alone: it goes wrong with 0.3; within that, rates are 1 / 0.3 of the model's."""
    sampler, generator = ErrorSampler(made()), random.Random(5)
    heard = Counter(sampler.mishear("d", generator) for _ in range(20_000))
    expected = {"dd": 0.3 * (1 - 0.008 / 0.3) * 0.03 / 0.3, "ed": 0.3 * 0.008 / 0.3 * (1 - 0.05 / 0.3)}
    for text, chance in expected.items():
        times = 20_000 * chance * (1 - 10 / 1100) ** 2  # and nothing is added
        assert abs(heard[text] - times) < 4 * times**0.5, text


@pytest.mark.parametrize("rate", [None, 0.05, 0.3, 0.6])
@pytest.mark.parametrize("changes", [{}, {"spread": 1.5, "rarity": 12.0}])
def test_the_error_rate_is_the_one_that_was_asked_for(rate: float | None, changes: dict) -> None:
    text, model = some_text(600), made(**changes)
    pairs = heard_by(ErrorSampler(model, text, rate), text)
    measured = total(error_counts([p.said for p in pairs], [p.recognised for p in pairs])).rate
    assert measured == pytest.approx(model.rate if rate is None else rate, rel=0.15)


def test_hard_sentences_and_rare_words_come_back() -> None:
    text = some_text(1000)
    plain, hard, rare = (
        estimate(heard_by(ErrorSampler(made(**changes), text), text), text=text, most_wer=9.0)
        for changes in ({}, {"spread": 1.0}, {"rarity": 10.0})
    )
    assert plain.spread < 0.2 and hard.spread == pytest.approx(1.0, rel=0.4)
    assert plain.rarity == pytest.approx(1.0, rel=0.3) and rare.rarity > 2.5  # observed odds are nearer to 1


def test_the_same_seed_gives_the_same_text() -> None:
    sampler = ErrorSampler(made())
    sentence = " ".join(some_text(1))
    texts = [[sampler.mishear(sentence, random.Random(seed)) for seed in range(20)] for _ in range(2)]
    assert texts[0] == texts[1] and len(set(texts[0])) > 3
    assert sampler.mishear("", random.Random(0)) in ("", "xyz")
    assert "ж" in sampler.mishear("ß ж", random.Random(3))  # a letter without errors stays


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_impossible_rates(rate: float) -> None:
    with pytest.raises(ValueError, match="word error rate must be above 0 and at most 1"):
        ErrorSampler(made(), rate=rate)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"together": 0.0}, "together must be in"),
        ({"words": 0}, "needs sentences, words and errors"),
        ({"changed": {"z": {"a": 1}}}, "'z' was heard as something else and never said"),
        ({"dropped": {"1": 999}}, "more words were dropped than said"),
    ],
)
def test_impossible_models(changes: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        made(**changes)


def test_nothing_to_estimate_from(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="all 1 pairs are right"):
        estimate([Pair("a", "a")])
    with pytest.raises(ValueError, match="none of 1 pairs has a word error rate"):
        estimate([Pair("a", "b")])
    with caplog.at_level("INFO"):
        estimate([*PAIRS, Pair("x y z", "a b c")])
    assert "1 of 7 pairs left out: word error rate above 0.5" in caplog.text and "only 7 word errors" in caplog.text


# ---------------------------------------------------------------------------------------------------------------------
# Files


def result(path: Path) -> Path:
    rows = [{"name": f"{n}.wav", "reference": p.said, "hypothesis": p.recognised} for n, p in enumerate(PAIRS)]
    path.write_text(json.dumps({"lang": "en", "transcripts": rows}), encoding="utf-8")
    return path


def test_all_that_errors_are_read_from(tmp_path: Path) -> None:
    model = estimate(PAIRS, "en")
    save_errors(tmp_path / "errors.json", model)
    assert read_errors(tmp_path / "errors.json") == model and lang_of(tmp_path / "errors.json") == "en"
    assert read_errors(result(tmp_path / "result.json")) == model
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    write_part(tmp_path / "folder", "train", PAIRS)
    assert read_errors(tmp_path / "pairs.jsonl") == read_errors(tmp_path / "folder") == replace(model, lang="")
    write_jsonl(tmp_path / "one.jsonl", PAIRS[:1])
    assert read_errors(tmp_path / "one.jsonl").word_errors == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": "x"}, "is no error model"),
        ({"words": "9"}, '"words" is missing or of another kind'),
        ({"together": True}, '"together" is missing'),
        ({"letters": {"a": -1}}, '"letters" is missing'),
        ({"changed": {"a": 3}}, '"changed" is missing'),
        ({"added": {"uh": 1.5}}, '"added" is missing'),
        ({"together": 7}, "together must be in"),
    ],
)
def test_damaged_models(tmp_path: Path, change: dict, problem: str) -> None:
    path = tmp_path / "errors.json"
    path.write_text(json.dumps({"format": "postcorrect-errors-1", **asdict(made()), **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"errors.json.*{problem}"):
        read_errors(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "errors.json"
    assert main([str(result(tmp_path / "r.json")), "--out", str(out), "--lang", "es"]) == 0
    printed = capsys.readouterr().out
    assert "7 errors in 23 words of 6 sentences (30.4 %)" in printed and read_errors(out).lang == "es"
    assert max(map(len, str(read_errors(out)).splitlines())) <= 80
    assert main([str(tmp_path / "none.json"), "--out", str(out)]) == 2
    assert "there are no errors" in capsys.readouterr().err
    (tmp_path / "x.txt").write_text("some text\n", encoding="utf-8")
    assert main([str(tmp_path / "x.txt"), "--out", str(out)]) == 2
    assert "x.txt:1: not a JSON object" in capsys.readouterr().err
    before = (tmp_path / "r.json").read_text()
    assert main([str(tmp_path / "r.json"), "--out", str(tmp_path / "." / "r.json")]) == 2
    assert "would be written over what is read" in capsys.readouterr().err
    assert (tmp_path / "r.json").read_text() == before
    assert main([str(tmp_path / "r.json"), "--out", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
    assert main([str(tmp_path / "r.json")]) == 2
    assert capsys.readouterr().err == "error: the following arguments are required: --out; --help says more\n"


def test_a_wrong_language_is_told_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    decodes, out = result(tmp_path / "r.json"), tmp_path / "errors.json"
    before = len("".join(SAID).replace(" ", ""))
    assert main([str(decodes), "--out", str(out), "--lang", "ru"]) == 2 and not out.exists()
    told = capsys.readouterr().err
    assert f"{before} of {before} characters of the texts (100.0%) are none of --lang ru: e, " in told
    assert told.endswith("; give the language of the texts\n") and told.count("\n") == 1
    assert main([str(decodes), "--out", str(out), "--lang", "xx"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("no alphabet is written down for xx, so it is not compared with the texts\n")
    assert main([str(out), "--out", str(tmp_path / "again.json"), "--lang", "ru"]) == 2  # of the model itself
    letters = len(set("".join(SAID)) - {" "})
    assert f"error: {letters} of {letters} different letters (100.0%) are none of " in capsys.readouterr().err


def test_letters_that_a_language_lacks_are_counted() -> None:
    pairs = [Pair("una casa", "una casa ж"), Pair("la ж", "la жж")]
    assert losses(pairs, "es") == "3 of 12 characters of the texts (25.0%) are none of --lang es: ж"
    assert losses(pairs[:1], "it").startswith("1 of 8 ") and losses(PAIRS, "en") == ""
    assert losses([Pair("", "abc жжж")], "es").startswith("3 of 6 ")  # one half is not more
    with pytest.raises(ValueError, match=r"^4 of 7 characters .* none of --lang es: ж; give the language of the texts"):
        losses([Pair("", "abc жжжж")], "es")
