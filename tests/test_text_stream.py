"""Lines in and out: portions of a pipe, broken lines by their numbers, files whole or not at all."""

import io
import logging
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postcorrect import text_stream
from postcorrect.text_stream import Output, arriving, blocks, read_files


class Pipe:
    """Gives out what it was given, a portion at a time."""

    def __init__(self, *portions: bytes) -> None:
        self.portions = list(portions)

    def read1(self, size: int) -> bytes:
        assert size > 0
        return self.portions.pop(0) if self.portions else b""


def test_a_pipe_is_given_out_as_it_comes() -> None:
    pipe = Pipe(b"\xef\xbb\xbfone\ntwo\r\nth", b"ree", b"\n\nfive")
    found = arriving(pipe)
    assert next(found) == ["one", "two"] and len(pipe.portions) == 2  # nothing was waited for
    assert list(found) == [["three", ""], ["five"]]


@given(st.lists(st.text("aé中😀\u2028\t ", max_size=6), max_size=5), st.data())
def test_portions_change_nothing(lines: list[str], data: st.DataObject) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    ends = [0, *cuts, len(content)]
    portions = [content[begin:end] for begin, end in pairwise(ends) if begin < end]
    assert [line for some in arriving(Pipe(*portions)) for line in some] == lines


def test_broken_lines_are_named_after_the_good_ones() -> None:
    found = arriving(Pipe(b"a\nb\nse\xf1or\nc\n"))
    assert next(found) == ["a", "b"]
    with pytest.raises(ValueError, match=r"standard input:3: not UTF-8 \(invalid continuation byte\); convert it"):
        next(found)
    endless = arriving(Pipe(b"a\n", *[b"x" * (1 << 16)] * 17))
    assert next(endless) == ["a"]
    with pytest.raises(ValueError, match="standard input:2: this line is longer than 1048576 bytes"):
        next(endless)


def test_files_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stream, "BLOCK", 2)
    path = tmp_path / "x.txt"
    path.write_text("a\n\nb\u2028c\n", "utf-8")
    files = read_files([str(path), "-"])
    assert files == {str(path): ["a", "", "b\u2028c"]}
    assert list(blocks(str(path), files)) == [(str(path), 1, ["a", ""]), (str(path), 3, ["b\u2028c"])]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a\nb\nc")))
    assert list(blocks("-", files)) == [("standard input", 1, ["a", "b"]), ("standard input", 3, ["c"])]


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\nse\xf1or\n")
    with pytest.raises(ValueError, match=r"x\.txt:2: not UTF-8"):
        read_files([str(path)])
    with pytest.raises(FileNotFoundError, match=r"there is no file of texts .*y\.txt"):
        read_files([str(tmp_path / "y.txt")])


def test_a_file_is_whole_or_beside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, part = tmp_path / "out.txt", tmp_path / "out.txt.part"
    output = Output(str(path))
    output.write(["a", "é"])
    assert not path.exists()
    output.save()
    output.save_rest()
    assert path.read_text("utf-8") == "a\né\n" and not part.exists()
    output.write(["c"])
    with caplog.at_level(logging.WARNING):
        output.save_rest()
    assert path.read_text("utf-8") == "a\né\n" and part.read_text("utf-8") == "a\né\nc\n"
    assert "out.txt.part has the first 3 lines" in caplog.text
    output.save()
    assert path.read_text("utf-8") == "a\né\nc\n" and not part.exists() and len(list(tmp_path.iterdir())) == 1


def test_the_screen_shows_lines_at_once(capsys: pytest.CaptureFixture) -> None:
    output = Output(None)
    output.write(line for line in ("a", ""))
    assert capsys.readouterr().out == "a\n\n"
    output.save()
    output.save_rest()
    assert capsys.readouterr().out == ""
