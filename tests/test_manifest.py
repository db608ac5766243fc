"""Manifests: every way to write one, every way to get it wrong, and writing what is read again."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from data import manifest as module
from data.manifest import Utterance, read_manifest, write_manifest

GOOD = '{"audio_filepath": "a.wav", "duration": 1.5, "text": "hola"}'


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "m.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_line_by_hand(tmp_path: Path) -> None:
    line = {"audio_filepath": "c/a.wav", "duration": 2, "text": "¿qué?", "offset": 0.5, "speaker": 7, "lang": "es"}
    path = written(tmp_path, json.dumps(line))
    expected = Utterance(tmp_path / "c/a.wav", "¿qué?", 2.0, 0.5, f"{path}:1", "7", fields=(("lang", "es"),))
    assert read_manifest(path) == [expected]
    assert expected.name == f"{tmp_path / 'c/a.wav'}@0.5s"


def test_optional_keys_blank_lines_mark_and_windows_ends(tmp_path: Path) -> None:
    null = '{"audio_filename": "b.wav", "duration": null, "offset": null, "speaker": null, "text": ""}'
    path = written(tmp_path, f"\ufeff\r\n{GOOD}\r\n  \r\n{null}\r\n")
    first, second = read_manifest(str(path))
    assert first == Utterance(tmp_path / "a.wav", "hola", 1.5, origin=f"{path}:2")
    assert second == Utterance(tmp_path / "b.wav", "", None, origin=f"{path}:4")
    assert second.name == str(tmp_path / "b.wav")


def test_home_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    lines = [json.dumps({"audio_filepath": p, "text": "x"}) for p in ("~/a.wav", "/b.wav", "~nobody at all.wav")]
    paths = [clip.audio_path for clip in read_manifest(written(tmp_path, "\n".join(lines)))]
    assert paths == [Path("/home/someone/a.wav"), Path("/b.wav"), tmp_path / "~nobody at all.wav"]


BROKEN = {
    "hello": "not JSON .*write one object on a line",
    GOOD + ",": "not JSON",
    "[" * 5000 + "]": "not JSON",
    '"text"': "must be an object such as .*got str",
    '{"audio_filepath": "a.wav"}': 'no "text", only audio_filepath',
    '{"text": "a"}': 'no "audio_filepath", only text',
    "{}": 'no "audio_filepath", only nothing',
    '{"audio_filepath": "", "text": "a"}': "must be the path of a sound file",
    r'{"audio_filepath": "a\u0000.wav", "text": "a"}': "must be the path of a sound file",
    '{"audio_filepath": 3, "text": "a"}': '"audio_filepath" must be text in quotes, got 3',
    '{"audio_filepath": "a.wav", "text": null}': '"text" must be text in quotes, got None',
    r'{"audio_filepath": "a.wav", "text": "\ud800"}': "half a character",
    '{"audio_filepath": "a.wav", "text": "a", "duration": "3.2"}': '"duration" must be a number of seconds without',
    '{"audio_filepath": "a.wav", "text": "a", "duration": true}': '"duration" must be a number of seconds without',
    '{"audio_filepath": "a.wav", "text": "a", "duration": NaN}': "seconds from 0 on, got nan",
    '{"audio_filepath": "a.wav", "text": "a", "duration": 1e999}': "seconds from 0 on, got inf",
    '{"audio_filepath": "a.wav", "text": "a", "duration": -1}': "seconds from 0 on, got -1",
    '{"audio_filepath": "a.wav", "text": "a", "offset": -0.1}': '"offset" must be a number of seconds from 0',
    '{"audio_filepath": "a.wav", "text": "a", "duration": %s}' % ("9" * 5000): "not JSON",
    '{"audio_filepath": "a.tar", "text": "a", "byte_count": -1}': '"byte_count" must be a whole number of bytes from 0',
    '{"audio_filepath": "a.tar", "text": "a", "start_byte": 1.5, "byte_count": 1}': '"start_byte" must be a whole num',
    '{"audio_filepath": "a.tar", "text": "a", "start_byte": true}': '"start_byte" must be a whole number',
    '{"audio_filepath": "a.tar", "text": "a", "start_byte": 512}': '"start_byte" without "byte_count"; give both',
    '{"audio_filepath": "a.wav", "text": "a", "duration": %s}' % ("9" * 400): "seconds|too large",
}


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_is_an_error_with_its_place_or_a_counted_skip(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match=rf"(?s)m\.jsonl:3: .*({BROKEN[line]})"):
        read_manifest(path)
    skipped: list[str] = []
    assert len(read_manifest(path, skipped)) == 2
    assert len(skipped) == 1 and "m.jsonl:3: " in skipped[0]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_json_array_is_read_and_a_warning_says_how_to_convert_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mark: str
) -> None:
    path = written(tmp_path, f"{mark}\r\n[{GOOD},\n 7, {GOOD}]")
    skipped: list[str] = []
    clips = read_manifest(path, skipped)
    assert [clip.origin for clip in clips] == [f"{path}: entry 1", f"{path}: entry 3"]
    assert len(skipped) == 1 and "m.jsonl: entry 2: must be an object" in skipped[0]
    [record] = caplog.records
    assert re.search(r"m\.jsonl is a JSON array .* Convert it: python -c .* m\.jsonl > m\.lines\.jsonl", record.message)
    with pytest.raises(ValueError, match=r"m\.jsonl: entry 2: must be an object"):
        read_manifest(path)


@pytest.mark.parametrize("content", [f"[{GOOD}, ", "[" * 5000, b"[\xe9]"], ids=range(3))
def test_a_broken_json_array_is_an_error(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"m\.jsonl: a broken JSON array \(.*\); better write lines"):
        read_manifest(written(tmp_path, content), [])


def test_a_json_array_that_fills_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ARRAY", 2**20)
    with pytest.raises(ValueError, match=r"m\.jsonl is a JSON array of more than 1 MiB\. Convert it: python -c"):
        read_manifest(written(tmp_path, "[" + " " * 2**20))


def test_non_utf8_line_counts_as_broken(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.encode() + b"\n" + GOOD.replace("hola", "ñ").encode("latin1"))
    with pytest.raises(ValueError, match=r"m\.jsonl:2: not UTF-8"):
        read_manifest(path)


def test_missing_and_empty_manifests(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no manifest .*none\.jsonl"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no utterance; it needs lines such as"):
        read_manifest(written(tmp_path, "\n\n"))
    with pytest.raises(ValueError, match=r"holds no utterance; the first problem: .*m\.jsonl:1: not JSON"):
        read_manifest(written(tmp_path, "x\ny\n"), [])


def test_write_then_read_gives_the_same(tmp_path: Path) -> None:
    draw = random.Random(0)
    letters = 'añ🙂ё \u2028"\\\n\t'
    clips = [
        Utterance(
            tmp_path / draw.choice(["a b.wav", "sub/ñ.mp3", "~a.wav", "~/x.wav"]),
            "".join(draw.choices(letters, k=5)),
            draw.choice([None, 0.0, 1.25]),
            draw.choice([0.0, 2.5]),
            speaker=draw.choice(["", "ana"]),
            start_byte=512,
            byte_count=draw.choice([7, 2**40]),
            fields=draw.choice([(), (("accent", "andino ñ"), ("snr", 12.5), ("votes", 1), ("native", True))]),
        )
        for _ in range(50)
    ]
    path = tmp_path / "out.jsonl"
    write_manifest(path, clips)
    again = read_manifest(path)
    assert [replace(clip, origin="") for clip in again] == clips


def test_fields_are_what_is_short_and_has_no_place_of_its_own(tmp_path: Path) -> None:
    kept = {"accent": "andino", "snr": -2.5, "votes": 1, "native": False, "ñ": "é"}
    lost = {"list": [1], "none": None, "empty": " ", "long": "x" * 101, "nan": float("nan"), "most": 10**400, "": "x"}
    own = {"duration": 2.0, "speaker": "ana", "raw_text": "¡Hola!", "audio_filename": "b.wav"}
    entry = {**json.loads(GOOD), **lost, **own, **kept}
    halves = r', "half": "\ud800", "\ud800": 1}'
    [clip] = read_manifest(written(tmp_path, json.dumps(entry)[:-1] + halves))
    assert dict(clip.fields) == kept
    assert [type(value) for _, value in clip.fields] == [type(value) for value in kept.values()]
    assert clip.described == {**kept, "speaker": "ana", "duration": 2.0}
    assert Utterance(Path("a.wav"), "x", None).described == {}


def test_clips_of_one_shard_have_names_and_spans_of_their_own(tmp_path: Path) -> None:
    clips = [Utterance(Path("s.tar"), "x", 1.0, start_byte=start, byte_count=100) for start in (0, 512)]
    assert [clip.name for clip in clips] == ["s.tar[0:100]", "s.tar[512:612]"]
    assert [clip.span for clip in clips] == [(0, 100), (512, 100)]
    assert replace(clips[1], offset=0.5).name == "s.tar[512:612]@0.5s"
    assert Utterance(Path("a.wav"), "x", 1.0).span is None
    write_manifest(tmp_path / "m.jsonl", clips[:1])
    entry = json.loads((tmp_path / "m.jsonl").read_text())
    assert (entry["start_byte"], entry["byte_count"]) == (0, 100)


def test_written_paths_are_relative_below_the_manifest_and_letters_stay(tmp_path: Path) -> None:
    path = tmp_path / "x" / "out.jsonl"
    path.parent.mkdir()
    write_manifest(path, [Utterance(tmp_path / "x/c/a.wav", "ñ", 1.0), Utterance(tmp_path / "b.wav", "", None)])
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert first == '{"audio_filepath": "c/a.wav", "duration": 1.0, "text": "ñ"}'
    assert json.loads(second) == {"audio_filepath": str(tmp_path / "b.wav"), "text": ""}


def test_a_write_that_fails_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    bad = Utterance(tmp_path / "caf\udce9.wav", "x", 1.0)
    with pytest.raises(ValueError, match="cannot be written as UTF-8; rename the file"):
        write_manifest(path, [Utterance(tmp_path / "a.wav", "x", 1.0), bad])
    assert path.read_text() == GOOD
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]
