"""ARPA files: scores by hand and against plain recursion, every way in which a file can be broken, KenLM as oracle."""

import gzip
import math
import random
from pathlib import Path

import pytest

from quartznet.arpa import LOG_10, ArpaModel, entry, read_arpa, read_counts, read_words, write_arpa
from quartznet.ngram import build_model

HAND = """\\data\\
ngram 1=5
ngram 2=4
ngram 3=1

\\1-grams:
-2\t<unk>
0\t<s>\t-0.5
-0.75\t</s>
-0.5\tsí\t-0.25
-1\tno\t-0.125

\\2-grams:
-0.25\t<s> sí\t-0.0625
-0.5\tsí no
-0.125\tno </s>
-0.375\tno no\t-1

\\3-grams:
-0.0625\t<s> sí no

\\end\\
"""


@pytest.fixture
def hand(tmp_path: Path) -> Path:
    path = tmp_path / "hand.arpa"
    path.write_text(HAND, encoding="utf-8")
    return path


def log10_scores(model: ArpaModel, text: str) -> list[float]:
    """Of each word and of the end."""
    state, scores = model.start(), []
    for word in text.split():
        score, state = model.score(state, word)
        scores.append(score / LOG_10)
    return [*scores, model.end(state) / LOG_10]


# ---------------------------------------------------------------------------------------------------------------------
# Scores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [-0.5 - 0.75]),
        ("sí", [-0.25, -0.0625 - 0.25 - 0.75]),
        ("sí no", [-0.25, -0.0625, -0.125]),
        ("no sí", [-0.5 - 1, -0.125 - 0.5, -0.25 - 0.75]),
        ("sí sí no", [-0.25, -0.0625 - 0.25 - 0.5, -0.5, -0.125]),
        ("no no no", [-1.5, -0.375, -1 - 0.375, -1 - 0.125]),
        ("quizá no", [-0.5 - 2, -1, -0.125]),
    ],
)
def test_scores_by_hand(hand: Path, text: str, expected: list[float]) -> None:
    assert log10_scores(read_arpa(hand), text) == pytest.approx(expected, abs=1e-12)


def test_order_vocabulary_and_what_it_knows(hand: Path) -> None:
    model = read_arpa(hand)
    assert model.order == 3 and sorted(model.vocabulary()) == sorted(read_words(hand)) == ["no", "sí"]
    assert model.knows("sí") and not any(map(model.knows, ("quizá", "<s>", "</s>", "<unk>", "")))
    assert read_counts(hand) == [5, 4, 1]


def test_contexts_that_say_no_more_than_their_ending_share_its_state(hand: Path) -> None:
    model = read_arpa(hand)
    after_no = model.score(model.start(), "no")[1]
    assert (
        model.score(model.score(model.start(), "sí")[1], "no")[1] == after_no
    )  # "sí no" begins nothing, weighs nothing
    assert model.score(after_no, "no")[1] != after_no  # "no no" has a weight
    assert model.score(after_no, "quizá")[1] == model.score(model.start(), "quizá")[1]


def plain_model(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """N-gram -> log10 probability and weight, in the plainest way."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if "\t" in line)
    return {tuple(row[1].split(" ")): (float(row[0]), float(row[2]) if len(row) > 2 else 0.0) for row in rows}


def plain_score(model: dict, context: tuple[str, ...], word: str) -> float:
    if (*context, word) in model:
        return model[*context, word][0]
    return model.get(context, (0, 0.0))[1] + plain_score(model, context[1:], word)


def text_of(words: str, count: int, seed: int = 0) -> list[str]:
    source = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(source.choices(words, weights, k=source.randint(0, 8))) for _ in range(count)]


@pytest.mark.parametrize("prune", [(), (0, 0, 1), (0, 1, 1, 2)])
def test_scores_are_those_of_plain_recursion(tmp_path: Path, prune: tuple[int, ...]) -> None:
    path = tmp_path / "a.arpa"
    build_model(text_of("abcdefgh", 60), path, 4, prune)
    model, plain = read_arpa(path), plain_model(path)
    for text in text_of("abcdefghxy", 100, seed=1):
        words = ("<s>", *(word if model.knows(word) else "<unk>" for word in text.split()), "</s>")
        expected = [plain_score(plain, words[max(0, i - 3) : i], words[i]) for i in range(1, len(words))]
        assert log10_scores(model, text) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("prune", [(), (0, 0, 1)])
def test_lengths_of_what_scores_are_those_of_plain_search(tmp_path: Path, prune: tuple[int, ...]) -> None:
    build_model(text_of("abcd", 60), tmp_path / "x.arpa", 4, prune)
    plain, model = plain_model(tmp_path / "x.arpa"), read_arpa(tmp_path / "x.arpa")
    for text in [*text_of("abcde", 40, seed=1), ""]:
        words = ["<s>", *(word if word in "abcd" else "<unk>" for word in text.split()), "</s>"]
        expected = [
            max(n for n in range(1, 5) if n <= end and tuple(words[end - n : end]) in plain)
            for end in range(2, len(words) + 1)
        ]
        assert model.matched(text.split()) == expected


def test_scores_are_those_of_kenlm(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="the package kenlm is not installed (extra [lm])")
    path = tmp_path / "a.arpa"
    build_model(text_of("abcdefgh", 60), path, 4, (0, 0, 1))
    ours, theirs = read_arpa(path), kenlm.Model(str(path))
    for text in text_of("abcdefghxy", 100, seed=1):
        assert log10_scores(ours, text) == pytest.approx([row[0] for row in theirs.full_scores(text)], abs=1e-5)


def test_a_model_that_lacks_endings_of_its_ngrams(tmp_path: Path) -> None:
    """Other programs prune so; what follows is scored in the longest ending that is listed."""
    path = tmp_path / "a.arpa"
    path.write_text(HAND.replace("2=4", "2=3").replace("-0.5\tsí no\n", ""), encoding="utf-8")
    assert log10_scores(read_arpa(path), "sí no no") == pytest.approx([-0.25, -0.0625, -0.375, -1 - 0.125])


def test_probabilities_of_zero_stay_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.arpa"
    path.write_text(HAND.replace("-1\tno\t-0.125", "-inf\tno\t-inf"), encoding="utf-8")
    assert log10_scores(read_arpa(path), "no") == pytest.approx([-0.5 - 100, -0.125])
    assert log10_scores(read_arpa(path), "no sí") == pytest.approx([-0.5 - 100, -100.5, -1])


def test_a_model_without_unk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.arpa"
    path.write_text(HAND.replace("1=5", "1=4").replace("-2\t<unk>\n", ""), encoding="utf-8")
    assert log10_scores(read_arpa(path), "quizá no") == pytest.approx([-100.5, -1, -0.125])
    assert "lists no <unk>" in caplog.text


# ---------------------------------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize("change", ["gzip", "spaces", "windows", "comments"])
def test_other_ways_to_write_the_same(tmp_path: Path, change: str) -> None:
    path, text = tmp_path / "b.arpa", HAND
    if change == "spaces":
        text = text.replace("\t", " ").replace("ngram 1=5", "ngram 1 = 5")
    elif change == "windows":
        text = "\ufeff" + text.replace("\n", "\r\n")
    elif change == "comments":
        text = f"# Token count: 12\n\n{text}\n"
    content = text.encode()
    path.write_bytes(gzip.compress(content) if change == "gzip" else content)
    assert log10_scores(read_arpa(path), "sí no") == pytest.approx([-0.25, -0.0625, -0.125])


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("\\data\\", "hola", 1, "no ARPA file"),
        ("ngram 2=4", "ngram 3=4", 3, "where the count of 2-grams should be"),
        ("ngram 3=1", "ngram three=1", 4, "no count such as"),
        ("ngram 1=5\nngram 2=4\nngram 3=1\n", "", 2, "no count such as"),
        ("\\2-grams:", "\\2grams:", 13, "where \\\\2-grams: should be"),
        ("2=4", "2=5", 18, "5 2-grams were promised at the top, and there are 4"),
        ("2=4", "2=3", 17, "3 2-grams were promised .* one more"),
        ("-0.5\tsí no", "-0.5\tsí", 15, "no 2-gram"),
        ("-0.5\tsí no", "-0.5\tsí no no", 15, "no 2-gram"),
        ("-0.5\tsí no", "-0.5\tsí no\t-1\t-1", 15, "no 2-gram"),
        ("-0.5\tsí no", "-0.5", 15, "no 2-gram"),
        ("-0.5\tsí no", "x\tsí no", 15, "no 2-gram"),
        ("-0.5\tsí no", "0.5\tsí no", 15, "at most 0"),
        ("-0.5\tsí no", "nan\tsí no", 15, "at most 0"),
        ("-0.5\tsí no", "-0.5\tsí no\tinf", 15, "back-off weight at most 100"),
        ("-0.5\tsí no", "-0.5\tsí no\t1e3", 15, "back-off weight at most 100"),
        ("2=4", f"2={'9' * 5000}", 3, "no count such as"),
        ("-0.5\tsí no", "-0.5\tsí tal", 15, "needs 'tal', which is not listed"),
        ("-0.0625\t<s> sí no", "-0.1\tno sí no", 20, "needs 'no sí', which is not listed"),
        ("-0.5\tsí no", "-0.5\tno no", 17, "'no no' is listed twice"),
        ("-0.5\tsí no", "-0.5\tsí\0 no", 15, "NUL byte"),
        ("\\end\\", "\\ende\\", 22, "where \\\\end\\\\ should be"),
        ("\n\\end\\\n", "", 21, "the file ends before"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, problem: str) -> None:
    path = tmp_path / "bad.arpa"
    assert old in HAND
    path.write_text(HAND.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"bad\.arpa:{line}: .*{problem}"):
        read_arpa(path)


def test_bytes_that_are_no_text(hand: Path) -> None:
    hand.write_bytes(HAND.encode("latin1"))
    with pytest.raises(ValueError, match=r"hand\.arpa:10: bytes that are no UTF-8"):
        read_arpa(hand)


def test_a_file_cut_off_anywhere_is_refused(hand: Path) -> None:
    content = HAND.encode()
    for length in range(len(content) - len("\\\n")):
        hand.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"hand\.arpa:\d+: "):
            read_arpa(hand)


def test_a_gzip_file_cut_off_or_damaged(hand: Path) -> None:
    content = gzip.compress(HAND.encode())
    for damaged in (content[:-20], content[:40] + b"xxxx" + content[44:]):
        hand.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"hand\.arpa:\d+: the gzip stream breaks off"):
            read_arpa(hand)


@pytest.mark.parametrize("word", ["<s>", "</s>"])
def test_a_model_without_sentences(tmp_path: Path, word: str) -> None:
    path = tmp_path / "a.arpa"
    path.write_text(f"\\data\\\nngram 1=2\n\n\\1-grams:\n-1\t<unk>\n-1\t{word}\n\n\\end\\\n")
    with pytest.raises(ValueError, match=f"lists no {'</s>' if word == '<s>' else '<s>'}, so it knows no sentences"):
        read_arpa(path)


def test_no_file_and_a_binary(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no language model .*lm build"):
        read_arpa(tmp_path / "a.arpa")
    (tmp_path / "a.binary").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(ValueError, match="KenLM binary; to read it, pip install kenlm"):
        read_arpa(tmp_path / "a.binary")


@pytest.mark.parametrize("name", ["c.arpa", "c.arpa.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    sections = [
        [entry(-1.5, "<unk>", 0.0), entry(0.0, "<s>", -0.5), entry(-0.25, "</s>", 0.0)],
        [entry(-0.125, "<s> </s>", None)],
    ]
    write_arpa(tmp_path / name, [3, 1], sections)
    model = read_arpa(tmp_path / name)
    assert log10_scores(model, "a") == pytest.approx([-2.0, -0.25]) and log10_scores(model, "") == [-0.125]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_wrong_count_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 1-grams were given for .*, and 2 announced"):
        write_arpa(tmp_path / "c.arpa", [2], [[entry(-1, "<unk>", 0.0)]])
    assert not list(tmp_path.iterdir())


def test_natural_logarithms(hand: Path) -> None:
    model = read_arpa(hand)
    assert model.score(model.start(), "sí")[0] == pytest.approx(math.log(10**-0.25))
