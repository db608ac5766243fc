"""Pairs: what is written is read, broken files are named by their lines, and every pair taken out is counted."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.splits import sentence_key
from postcorrect.pairs import (
    Cleaning,
    Pair,
    clean,
    part_chooser,
    read_jsonl,
    read_parallel,
    read_part,
    word_error_rates,
    write_jsonl,
    write_parallel,
    write_part,
)

PAIRS = [
    Pair("un gato", "un gato", "a.mp3", "greedy"),
    Pair("un pero", "un perro", "b.mp3@2s", "beam 2"),
    Pair("", "sí"),
]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_a_part_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_part(tmp_path / "new", "dev", PAIRS)
    assert read_part(tmp_path / "new", "dev") == PAIRS
    assert (tmp_path / "new/dev.pred").read_text(encoding="utf-8") == "un gato\nun pero\n\n"
    assert (tmp_path / "new/dev.real").read_text(encoding="utf-8") == "un gato\nun perro\nsí\n"
    first = json.loads((tmp_path / "new/dev.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert first == {"recognised": "un gato", "said": "un gato", "utterance": "a.mp3", "source": "greedy"}
    assert not list(tmp_path.rglob("*.tmp"))


def test_plain_text_alone_is_enough(tmp_path: Path) -> None:
    pred, real = write(tmp_path / "train.pred", "un  gato ", ""), write(tmp_path / "train.real", "un gato\r", "sí")
    assert read_part(tmp_path, "train") == [Pair("un gato", "un gato", "1"), Pair("", "sí", "2")]
    write_parallel(pred, real, PAIRS[:1])
    assert [pair.said for pair in read_parallel(pred, real)] == ["un gato"]


@pytest.mark.parametrize(("pred", "real"), [(3, 2), (2, 3)])
def test_unequal_lengths_name_the_line(tmp_path: Path, pred: int, real: int) -> None:
    paths = [write(tmp_path / f"x.{end}", *["a"] * size) for end, size in (("pred", pred), ("real", real))]
    longer = f"x.{'pred' if pred > real else 'real'}"
    with pytest.raises(ValueError, match=rf"{longer}:3: this line has no partner, .* ends after 2 lines"):
        read_parallel(*paths)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="and not both of"):
        read_part(tmp_path, "train")
    pred = write(tmp_path / "train.pred", "a")
    with pytest.raises(FileNotFoundError, match=r"there is no .*train\.real; pairs lie in two files"):
        read_parallel(pred, tmp_path / "train.real")
    with pytest.raises(FileNotFoundError, match="there is no file of pairs"):
        read_jsonl(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no json", "x.jsonl:2: not a JSON object"),
        ("[1]", "x.jsonl:2: not a JSON object"),
        ('{"recognised": "a"}', 'x.jsonl:2: "said" is missing or is no text'),
        ('{"recognised": 3, "said": "a"}', 'x.jsonl:2: "recognised" is missing'),
        ("[" * 100_000, "x.jsonl:2: not a JSON object"),
        ('{"recognised": "a", "said": "\\ud800"}', "x.jsonl:2: half a letter, which no text can hold"),
    ],
)
def test_broken_json_lines(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_jsonl(write(tmp_path / "x.jsonl", '{"recognised": "a", "said": "b", "more": 1}', line))


def test_texts_and_json_lines_that_differ(tmp_path: Path) -> None:
    write_part(tmp_path, "test", PAIRS)
    write(tmp_path / "test.pred", "un gato", "otra cosa", "")
    with pytest.raises(ValueError, match="differ at line 2; delete the older one"):
        read_part(tmp_path, "test")
    write_jsonl(tmp_path / "test.jsonl", PAIRS[:1])
    with pytest.raises(ValueError, match="differ at line 2"):
        read_part(tmp_path, "test")


def test_a_text_of_two_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.mp3: a sentence takes one line"):
        write_parallel(tmp_path / "a", tmp_path / "b", [Pair("a\nb", "c", "a.mp3")])


# ---------------------------------------------------------------------------------------------------------------------
# Cleaning


def test_cleaning_by_hand() -> None:
    wrong = [Pair(f"a b c {letter}", "a b c d", str(letter)) for letter in "xyzw"]
    given = [
        *wrong,
        Pair("x", "", "silence"),
        Pair("A, b", "held out", "leak"),
        Pair("a b c x", "a b c d", "twice"),
        Pair("q q c d", "a b c d", "at the limit"),
        Pair("q q q d", "a b c d", "too bad"),
        *[Pair(text, text, "right") for text in ("eins", "zwei", "drei", "vier")],
    ]
    kept, counts = clean(given, ["Held-out!"], identical=0.3)
    assert [pair.utterance for pair in kept if not pair.is_identical] == [*"xyzw", "at the limit"]
    assert counts == Cleaning(13, silent=1, leaks=1, duplicates=1, bad=1, copies=2, identical=2, kept=7)
    right = {pair.said for pair in kept if pair.is_identical}
    assert right == {pair.said for pair in clean(given[::-1], ["held out"], identical=0.3)[0] if pair.is_identical}
    assert max(map(len, counts.table().splitlines())) <= 80 and "duplicates" in counts.table()


texts = st.text("ab ", max_size=9).map(lambda text: " ".join(text.split()))


@given(
    st.lists(st.builds(Pair, texts, texts), max_size=20), st.floats(0, 1), st.floats(0, 2), st.lists(texts, max_size=2)
)
def test_nothing_is_lost_uncounted(pairs: list[Pair], share: float, most: float, held: list[str]) -> None:
    kept, counts = clean(pairs, held, most, share)
    assert counts.given == len(pairs)
    taken = counts.silent + counts.leaks + counts.duplicates + counts.bad + counts.copies
    assert counts.given - taken == counts.kept == len(kept) == len(set((p.recognised, p.said) for p in kept))
    assert counts.identical == sum(pair.is_identical for pair in kept) <= share * len(kept) + 1e-6
    assert all(rate <= most for rate in word_error_rates(kept))
    assert not {sentence_key(pair.said) for pair in kept} & {sentence_key(text) for text in held}


def test_all_right_pairs_may_stay() -> None:
    pairs = [Pair(text, text) for text in "abc"]
    assert clean(pairs, identical=1.0)[0] == pairs and clean(pairs)[0] == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"identical": 1.1}, "share of right pairs must be in"),
        ({"most_wer": -1.0}, "word error rate must be 0 or more"),
    ],
)
def test_impossible_settings(options: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        clean(PAIRS, **options)


# ---------------------------------------------------------------------------------------------------------------------
# Parts


def test_equal_sentences_stay_together() -> None:
    sentences = [f"satz nummer {n}" for n in range(100)]
    choose = part_chooser([*sentences, *sentences], share=0.1)
    parts = {sentence: choose(sentence) for sentence in sentences}
    assert [list(parts.values()).count(part) for part in ("train", "dev", "test")] == [80, 10, 10]
    assert all(choose(sentence.upper() + "!") == part for sentence, part in parts.items())
    assert parts == {s: p for s, p in zip(sentences, map(part_chooser(sentences[::-1], 0.1), sentences), strict=True)}
    few = part_chooser(sentences, share=0.4, most=3)
    assert [list(map(few, sentences)).count(part) for part in ("dev", "test")] == [3, 3]


def test_too_few_sentences() -> None:
    with pytest.raises(ValueError, match="only 2 different sentences"):
        part_chooser(["a", "b", "B."])
    with pytest.raises(ValueError, match="the share of dev and of test must be above 0"):
        part_chooser("abc", share=0.5)
