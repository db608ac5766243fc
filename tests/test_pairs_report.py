"""The report of a collection: rows by source, and the warning about clips that were learnt by heart."""

from postcorrect.pairs import Pair, clean
from postcorrect.pairs_report import by_heart, report, source_table

RIGHT, WRONG = Pair("a b", "a b", "1", "greedy"), Pair("a c", "a b", "2", "greedy")


def test_rows_by_source() -> None:
    beam = Pair("a", "a b", "1", "beam 2")
    lines = source_table({"train": [RIGHT, WRONG, beam], "dev": [RIGHT], "test": []}).splitlines()
    assert lines[1].split() == ["train,", "greedy", "2", "50.0", "%", "25.00", "%", "16.67", "%"]
    assert [line[:14].strip() for line in lines[2:]] == ["train, beam 2", "dev, greedy"]
    assert max(map(len, lines)) <= 80


def test_learnt_by_heart() -> None:
    assert "errs on 0.0 % of the words of train and 50.0 % of dev" in by_heart({"train": [RIGHT], "dev": [WRONG]})
    assert by_heart({"train": [RIGHT, WRONG], "dev": [WRONG]}) == ""  # 25 % of 50 %
    assert by_heart({"train": [], "dev": [WRONG]}) == by_heart({"train": [WRONG], "dev": []}) == ""


def test_everything_is_said() -> None:
    parts = {"train": [RIGHT, WRONG], "dev": [WRONG], "test": [RIGHT]}
    train, cleaning = clean(parts["train"])
    text = report(parts, train, cleaning, ["a note"], 3, is_crossed=True)
    for part in ("before anything is taken out", "pairs to learn from", "b > c", "a note", "3 clips left out"):
        assert part in text
    assert "WARNING" not in text
    hard = {**parts, "train": [RIGHT] * 3}
    assert "WARNING" in report(hard, train, cleaning, [], 0, is_crossed=False)
    assert "WARNING" not in report(hard, train, cleaning, [], 0, is_crossed=True)
    assert max(map(len, report(hard, train, cleaning, [], 0, False).splitlines())) <= 80
