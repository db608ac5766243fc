"""Sound files below a folder and the names that tables have for them."""

from pathlib import Path

import pytest
from test_folder import make

from data.sounds import SOUNDS, Sounds, any_below, is_sound, walk


def test_names_of_sounds() -> None:
    assert all(is_sound(f"a{suffix.upper()}") for suffix in SOUNDS)
    assert not any(is_sound(name) for name in ("a.txt", "wav", "a.wav.bak", ""))


def test_walk_is_sorted_and_passes_over_hidden_files(tmp_path: Path) -> None:
    make(tmp_path, {name: "" for name in ("b.wav", "a/z.wav", "a/b/c.txt", ".git/x.wav", "a/._z.wav")})
    assert [str(path.relative_to(tmp_path)) for path in walk(tmp_path, [])] == ["b.wav", "a/z.wav", "a/b/c.txt"]
    assert any_below(tmp_path, lambda name: name == "c.txt") and not any_below(tmp_path, lambda name: name == "x.wav")
    assert not any_below(tmp_path / "b.wav", is_sound)


FILES = ("wavs/a.wav", "other/a.mp3", "wavs/b.c.flac", "x/d.wav", "y/d.wav", "e.opus")


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("wavs/a.wav", "wavs/a.wav"),
        (" wavs/a ", "wavs/a.wav"),
        ("other\\a", "other/a.mp3"),
        ("b.c", "wavs/b.c.flac"),
        ("b.c.wav", "wavs/b.c.flac"),  # converted since
        ("/home/somebody/e.opus", "e.opus"),
        ("a.wav", "several clips are called 'a.wav': "),
        ("d", "several clips are called 'd': "),
        ("z/d", "several clips"),
        ("b", "no clip is called 'b'; looked for .wav/.flac"),
        ("", "no sound file is named: ''"),
        ("a\0", "no sound file is named: 'a\\x00'"),
        ("y" * 5000, "no clip is called 'yyy"),
    ],
)
def test_find(tmp_path: Path, key: str, found: str) -> None:
    result = Sounds(make(tmp_path, dict.fromkeys(FILES, "")), []).find(key, tmp_path)
    if isinstance(result, Path):
        assert result == tmp_path / found
    else:
        assert result.startswith(found) and len(result) < 600


def test_a_table_prefers_the_sounds_below_its_own_folder(tmp_path: Path) -> None:
    sounds = Sounds(make(tmp_path, dict.fromkeys(("ana/wavs/1.wav", "ben/wavs/1.wav"), "")), [])
    assert sounds.find("1", tmp_path / "ben") == tmp_path / "ben/wavs/1.wav"


def test_paths_that_are_there_need_no_list_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, dict.fromkeys(FILES, ""))
    monkeypatch.setattr("data.sounds.walk", None)
    assert Sounds(tmp_path, []).find("x/d.wav", tmp_path) == tmp_path / "x/d.wav"
