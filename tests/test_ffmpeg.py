"""Decoding through ffmpeg: a small script stands in for the program, so that nothing must be installed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from quartznet import ffmpeg
from quartznet.audio import audio_duration, read_audio
from quartznet.ffmpeg import container

M4A = b"\0\0\0\x20ftypM4A " + bytes(500)
SOUND = (0.5 * np.sin(np.arange(12000) / 20)).astype(np.float32)

STAND_IN = """#!{python}
import pathlib, sys
here = pathlib.Path(__file__).parent
here.joinpath("arguments").write_text("\\n".join(sys.argv[1:]))
given = sys.argv[sys.argv.index("-i") + 1].removeprefix("file:")
here.joinpath("given").write_bytes(pathlib.Path(given).read_bytes())
{body}
"""
WRITES_WAV = 'sys.stdout.buffer.write(here.joinpath("out.wav").read_bytes())'


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in that writes what ffmpeg writes: a float wav whose header does not know its length."""
    folder = tmp_path / "bin"
    folder.mkdir()
    soundfile.write(folder / "out.wav", np.stack([SOUND, SOUND], 1), 24000, subtype="FLOAT")
    content = bytearray((folder / "out.wav").read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    (folder / "out.wav").write_bytes(content)
    monkeypatch.setenv("PATH", str(folder))
    return replaced(folder, WRITES_WAV)


def replaced(folder: Path, body: str) -> Path:
    (folder / "ffmpeg").write_text(STAND_IN.format(python=sys.executable, body=body))
    (folder / "ffmpeg").chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (M4A, "mov"),
        (b"\0\0\0\x14ftypqt  ", "mov"),
        (b"\x1a\x45\xdf\xa3\x9f", "matroska"),
        (b"\x30\x26\xb2\x75\x8e\x66", "asf"),
        (b"#!AMR\n", "amr"),
        (b"\xff\xf1\x50", "aac"),
        (b"\xff\xf9\x50", "aac"),
        (b"\xff\xfb\x90", None),  # mp3
        (b"\xff\xf3\x40", None),  # mp3 at a low rate
        (b"ID3\x04", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"#EXTM3U\n", None),  # a playlist, which ffmpeg would follow
        (b"ffconcat version 1.0", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_the_first_bytes_say_whether_ffmpeg_is_asked_and_how(head: bytes, kind: str | None) -> None:
    assert container(head[: ffmpeg.HEAD]) == kind


def test_what_ffmpeg_writes_is_read_like_any_wav(tmp_path: Path, program: Path) -> None:
    path = tmp_path / "a -i b.mp3"
    path.write_bytes(M4A)
    assert np.array_equal(read_audio(path, 24000).numpy(), SOUND)
    assert len(read_audio(path)) == 8000 and audio_duration(path) == 0.5
    assert len(read_audio(path, offset=0.25, duration=0.125)) == 2000
    arguments = (program / "arguments").read_text().split("\n")
    start = arguments.index("-i")
    assert arguments[start - 4 : start + 2] == ["-protocol_whitelist", "file", "-f", "mov", "-i", f"file:{path}"]
    assert "-nostdin" in arguments and (program / "given").read_bytes() == M4A


def test_a_slice_of_a_shard_is_handed_over_as_a_file(tmp_path: Path, program: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"x" * 512 + M4A + b"y" * 99)
    assert audio_duration(tmp_path / "s.tar", (512, len(M4A))) == 0.5
    assert (program / "given").read_bytes() == M4A
    assert not Path((program / "arguments").read_text().partition("file:")[2].partition("\n")[0]).exists()


def test_without_ffmpeg_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.m4a").write_bytes(M4A)
    message = r"a\.m4a needs ffmpeg .* is not installed; apt install ffmpeg / brew install ffmpeg, or convert the clip"
    for read in (read_audio, audio_duration):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a.m4a")


FAILURES = {
    'sys.exit("[in#0 @ 0x5] [error] moov atom not found\\nError opening input")': r"\(ffmpeg: moov atom not found\)",
    "sys.exit(3)": r"a\.m4a does not decode as audio \(ffmpeg: status 3\)",
    "pass": r"a\.m4a does not decode as audio \(ffmpeg: status 0\)",
    f'{WRITES_WAV}; print("[matroska] File ended prematurely", file=sys.stderr)': r"\(ffmpeg: File ended prematurely\)",
    'print("no wav at all")': r"a\.m4a does not decode as audio",
    "import time; time.sleep(60)": r"a\.m4a: ffmpeg did not finish within 0\.5 s; convert it to flac",
    "sys.stdout.write('x' * 10**6)": r"a\.m4a holds more than 0 MiB of sound; cut it into pieces",
}


@pytest.mark.parametrize("body", FAILURES, ids=range(len(FAILURES)))
def test_what_goes_wrong_in_ffmpeg_is_a_message_with_the_clip(
    tmp_path: Path, program: Path, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "LARGEST", 10**6)
    if "sleep" in body:
        monkeypatch.setattr(ffmpeg, "TIMEOUT", 0.5)
    replaced(program, body)
    (tmp_path / "a.m4a").write_bytes(M4A)
    with pytest.raises(ValueError, match=FAILURES[body]):
        read_audio(tmp_path / "a.m4a")
