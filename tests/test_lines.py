"""Lines of foreign text files: numbers, encodings, and input without end."""

from pathlib import Path

import pytest

from data.lines import LONGEST_LINE, complain, numbered_lines, shown, unquoted


def test_long_values_are_cut_in_messages() -> None:
    assert shown("a\x1bñ") == "'a\\x1bñ'"
    assert shown(["x" * 999], 10) == "['xxxxxxxx..."


def test_lines_are_numbered_without_mark_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffñ a\r\n\r\nb\u2028c\n\ufeffa second file\n\ufeff\ufeff\nlast\ufeff".encode())
    expected = [(1, "ñ a"), (2, ""), (3, "b\u2028c"), (4, "a second file"), (5, ""), (6, "last\ufeff")]
    assert list(numbered_lines(path)) == expected


def test_only_whole_csv_strings_lose_their_quotation_marks() -> None:
    fields = ['"a ""b"" c"', '"', '""', '"a', 'a"', '"a" b "c"', '"a"']
    assert [unquoted(field) for field in fields] == ['a "b" c', '"', "", '"a', 'a"', '"a" b "c"', "a"]


def test_latin1_is_named_with_file_line_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\ncaf\xe9\nfine\n")
    with pytest.raises(ValueError, match=r"a\.txt:2: not UTF-8 \(byte 0xe9 at position 4\).*iconv -f latin1 -t utf-8"):
        list(numbered_lines(path))
    skipped: list[str] = []
    assert [number for number, _ in numbered_lines(path, skipped)] == [1, 3]
    assert len(skipped) == 1


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hola", encoding="utf-16")
    with pytest.raises(ValueError, match="iconv -f utf-16"):
        list(numbered_lines(path))


def test_a_line_without_end_is_passed_over_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * (3 * LONGEST_LINE + 5) + b"\nnext\n" + b"y" * (LONGEST_LINE - 1) + b"\n")
    with pytest.raises(ValueError, match=r"a\.txt:1: this line is longer than 1048576 bytes"):
        next(numbered_lines(path))
    skipped: list[str] = []
    lines = list(numbered_lines(path, skipped))
    assert [(number, len(line)) for number, line in lines] == [(2, 4), (3, LONGEST_LINE - 1)]
    assert len(skipped) == 1


def test_complain_raises_or_appends() -> None:
    with pytest.raises(ValueError, match="broken"):
        complain("broken", None)
    skipped: list[str] = []
    complain("broken", skipped)
    assert skipped == ["broken"]
