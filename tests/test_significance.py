"""The paired bootstrap: by hand, against scipy's, calibration on data whose truth is known, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartznet.metrics import ErrorCounts
from quartznet.significance import (
    Comparison,
    Result,
    compare,
    comparison_table,
    main,
    paired_bootstrap,
    read_result,
)


def counts(errors: list[int], lengths: list[int] | int = 10) -> list[ErrorCounts]:
    lengths = [lengths] * len(errors) if isinstance(lengths, int) else lengths
    return [ErrorCounts(substitutions=e, reference_length=n) for e, n in zip(errors, lengths, strict=True)]


def test_by_hand() -> None:
    """Two utterances of ten words, errors 2 and 1 -> 0 and 1: a draw holds the first 0, 1 or 2 times of 2."""
    found = paired_bootstrap(counts([2, 1]), counts([0, 1]))
    assert found.value == pytest.approx(-0.1) and (found.first.errors, found.second.errors) == (3, 1)
    assert found.interval == (pytest.approx(-0.2), 0.0)
    assert found.improvement == pytest.approx(0.75 + 0.25 / 2, abs=0.02)  # a quarter of the draws are ties
    assert (found.better, found.worse, found.equal, found.verdict) == (1, 0, 1, "undecided")


def test_scipy_draws_the_same_interval() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, 30, 120)
    first, second = draw.binomial(lengths, 0.3), draw.binomial(lengths, 0.25)
    found = paired_bootstrap(counts(first.tolist(), lengths.tolist()), counts(second.tolist(), lengths.tolist()))

    def difference(a: np.ndarray, b: np.ndarray, n: np.ndarray, axis: int = -1) -> np.ndarray:
        return (b.sum(axis) - a.sum(axis)) / n.sum(axis)

    theirs = stats.bootstrap(
        (first, second, lengths), difference, paired=True, vectorized=True, method="percentile", rng=0
    )
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval), abs=0.002)
    assert found.improvement == pytest.approx(np.mean(theirs.bootstrap_distribution < 0), abs=0.02)


def test_the_interval_misses_the_truth_once_in_twenty() -> None:
    draw, missed = np.random.default_rng(0), 0
    for seed in range(200):
        lengths = draw.integers(5, 20, 60)
        first, second = draw.binomial(lengths, 0.2), draw.binomial(lengths, 0.2)  # no difference in truth
        found = paired_bootstrap(
            counts(first.tolist(), lengths.tolist()), counts(second.tolist(), lengths.tolist()), seed, 500
        )
        missed += found.verdict != "undecided"
    assert 3 <= missed <= 22  # 10 are expected; 1 in 1000 lies outside


PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(PAIRS)
def test_exchanging_the_systems_turns_the_sign(errors: list[tuple[int, int]]) -> None:
    first, second = (counts([pair[side] for pair in errors]) for side in (0, 1))
    there, back = paired_bootstrap(first, second, 1, 300), paired_bootstrap(second, first, 1, 300)
    assert there.value == pytest.approx(-back.value)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.improvement == pytest.approx(1 - back.improvement)
    assert (there.better, there.worse, there.equal) == (back.worse, back.better, back.equal)
    same = paired_bootstrap(first, first, 1, 300)
    assert (same.value, same.interval, same.improvement, same.verdict) == (0.0, (0.0, 0.0), 0.5, "undecided")


def test_seeds_and_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = counts([3, 1, 0, 2, 5]), counts([1, 1, 1, 2, 2])
    assert paired_bootstrap(first, second, 4) == paired_bootstrap(first, second, 4)
    assert paired_bootstrap(first, second, 4, 150) != paired_bootstrap(first, second, 5, 150)
    whole = paired_bootstrap(first, second, 4, 1000)
    monkeypatch.setattr("quartznet.significance.DRAWN_AT_ONCE", 7)
    assert paired_bootstrap(first, second, 4, 1000) == whole


def test_draws_without_a_word_are_left_out() -> None:
    found = paired_bootstrap(counts([1, 0], [0, 5]), counts([0, 0], [0, 5]))
    assert np.isfinite(found.interval).all() and found.value == pytest.approx(-0.2)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="2 utterances of one system but 1 of the other"):
        paired_bootstrap(counts([1, 2]), counts([1]))
    with pytest.raises(ValueError, match="no utterances to compare"):
        paired_bootstrap([], [])
    with pytest.raises(ValueError, match="nothing was said in any of the utterances"):
        paired_bootstrap(counts([1], 0), counts([0], 0))


def result(label: str, *rows: tuple[str, str, str]) -> Result:
    return Result(label, rows)


def test_utterances_are_found_by_name_and_reference() -> None:
    first = result("a", ("1", "x y", "x"), ("2", "y", "y"), ("3", "z", "z"), ("1", "x y", "second cut"))
    second = result("b", ("3", "z", "o"), ("2", "yy", "y"), ("1", "x y", "x y"), ("1", "x y", "cut"))
    found = compare(first, second)
    assert found.hypotheses == {0: "z", 2: "x", 3: "second cut"}
    assert (found.only_first, found.only_second, found.label) == (1, 1, "a")
    assert (found.words.first.errors, found.words.second.errors) == (3, 3)
    assert (found.words.better, found.words.worse, found.words.equal) == (1, 1, 1)
    assert found.characters.second.reference_length == 7


def test_a_corpus_in_two_folders() -> None:
    first = result("a", ("es/clips/1.wav", "x", "x"), ("es/clips/2.wav", "y", "y"))
    second = result("b", ("/data/es/clips/1.wav", "x", "o"), ("/data/es/clips/2.wav", "y", "y"))
    assert compare(first, second).hypotheses == {0: "x", 1: "y"}
    bare = result("c", ("1.wav", "x", "x"), ("2.wav", "y", "y"))
    assert compare(bare, second).hypotheses == {0: "x", 1: "y"}
    with pytest.raises(ValueError, match="a and d share no utterance with the same reference"):
        compare(first, result("d", ("es/clips/1.wav", "other", "x")))


def write(path: Path, rows: object) -> Path:
    path.write_text(json.dumps({"transcripts": rows}), encoding="utf-8")
    return path


def row(name: str, reference: str, hypothesis: str) -> dict[str, str]:
    return {"name": name, "reference": reference, "hypothesis": hypothesis}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    texts = [f"a b c {'d' * n}" for n in range(1, 41)]
    wrong = [row(str(n), text, text.replace("b", "x")) for n, text in enumerate(texts)]
    right = [row(str(n), text, text) for n, text in enumerate(texts[:-1])]
    a, b = write(tmp_path / "a.json", wrong), write(tmp_path / "b.json", right)
    assert main([str(a), str(b), "--seed", "1", "--resamples", "200"]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert all(len(line) <= 80 for line in lines[3:]) and lines[2] == "39 utterances in both"
    assert lines[5].split() == ["WER", "25.00", "%", "0.00", "%", "-25.00", "-25.00", "..", "-25.00", "100.0", "%"]
    assert "better on 39 utterances, worse on 0, equal on 0" in output
    assert "left out: 1 only in the first, 0 only in the second" in output
    assert lines[-1] == "the second is better than the first: the interval leaves zero out"
    assert max(map(len, lines[3:])) <= 80
    assert main([str(b), str(b)]) == 0 and "may be luck" in capsys.readouterr().out


def test_wide_figures_fit_the_screen() -> None:
    one = paired_bootstrap(counts([999, 0, 1]), counts([0, 999, 0]))
    found = Comparison("other", one, one, {}, 123456, 123456)
    assert max(map(len, comparison_table(found).splitlines())) <= 80


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no result"),
        ("[" * 100_000, "is not a result of evaluate.py --json"),
        ("[1", "is not a result of evaluate.py --json"),
        ("[1, 2]", "is not a result of evaluate.py --json"),
        ('{"wer": 1}', "is not a result of evaluate.py --json"),
        ('{"transcripts": [{"name": 1}]}', "is not a result of evaluate.py --json"),
        ('{"transcripts": []}', "holds no transcripts"),
        ('{"transcripts": [{"name": "a", "reference": 3, "hypothesis": ""}]}', "holds no transcripts"),
    ],
)
def test_mistakes_get_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main([str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    with pytest.raises((ValueError, OSError), match=message):
        read_result(path)


def test_too_few_draws_and_unknown_options(capsys: pytest.CaptureFixture) -> None:
    assert main(["a", "b", "--resamples", "9"]) == 2
    assert "fewer than 100 draws say nothing" in capsys.readouterr().err
    assert main(["a", "b", "--sed", "9"]) == 2
    assert "unknown option --sed; did you mean --seed" in capsys.readouterr().err
