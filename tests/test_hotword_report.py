"""Hits, misses and false alarms, counted by hand."""

import json

import pytest

from quartznet.hotword_report import PhraseCounts, report_hotwords
from quartznet.hotwords import HotWord

ENTRIES = [
    HotWord("New York", 6.0, ("new york",), False),
    HotWord("AT&T", 8.5, ("a t t", "a t and t"), True),
    HotWord("uh", -3.0, ("uh",), False),
    HotWord("a very long phrase that no terminal would like to show", 6.0, ("y",), False),
    HotWord("never", 6.0, ("never",), False),
]
REFERENCES = ["new york new york", "he works for a t t", "new yorkers", "uh"]
TEXTS = ["new york and newark", "AT&T works for a t and t", "new york", "y uh"]


def test_counts_by_phrase_and_in_all() -> None:
    report = report_hotwords(ENTRIES, REFERENCES, TEXTS)
    expected = [(1, 1, 1), (1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
    assert report.counts == tuple(PhraseCounts(*numbers) for numbers in expected)
    assert report.total == PhraseCounts(2, 1, 3)  # without the one that is not wanted
    assert (report.total.precision, report.total.recall, report.total.f_score) == (0.4, 2 / 3, 0.5)


def test_table_fits_a_terminal() -> None:
    lines = str(report_hotwords(ENTRIES, REFERENCES, TEXTS)).splitlines()
    assert all(len(line) <= 80 for line in lines) and len(lines) == 1 + 4 + 1 + 1
    assert lines[2].split() == ["AT&T", "8.5", "1", "0", "1", "50.0", "100.0", "66.7"]
    assert lines[4].startswith("a very long phrase that") and lines[4].split()[-4:] == ["1", "0.0", "-", "0.0"]
    assert lines[-2].split() == ["all", "that", "are", "wanted", "2", "1", "3", "40.0", "66.7", "50.0"]
    assert lines[-1] == "1 more were neither said nor heard"


def test_json_has_no_nan() -> None:
    written = json.dumps(report_hotwords(ENTRIES, REFERENCES, TEXTS).for_json(), allow_nan=False)
    numbers = json.loads(written)
    assert numbers["total"]["hits"] == 2 and numbers["phrases"][4]["recall"] is None
    assert numbers["phrases"][1]["phrase"] == "AT&T"


def test_without_spaces_a_phrase_is_found_anywhere() -> None:
    [count] = report_hotwords([HotWord("北京", 6.0, ("北京",), False)], ["我在北京"], ["北京人"], False).counts
    assert count == PhraseCounts(1, 0, 0)


def test_pairs_are_needed() -> None:
    with pytest.raises(ValueError, match="2 references and 1 texts; they must be pairs"):
        report_hotwords(ENTRIES, ["a", "b"], ["a"])
