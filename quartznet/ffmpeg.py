"""Sound that libsndfile does not decode (m4a, mp4, aac, webm, wma, amr), through the program ffmpeg where there is one.

ffmpeg writes a wav to its standard output, and the rest is the same as for any wav. Whether a file is for ffmpeg is
told by its first bytes and never by its name: an m4a that is called mp3 decodes too. Half a file is an error, but for
half a wma, in which nothing says that it is half.

The surprise: to ffmpeg a sound file may be a *program*. A playlist or a "concat" script that is called ``a.m4a`` makes
it open other files and fetch addresses from the network. So the container that was recognised is forced, only the
``file`` protocol is open, and ffmpeg sees no terminal, no shell and no more time than it needs.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

TIMEOUT = 300  # seconds; an hour of m4a decodes in about 10
LARGEST = 2**31  # bytes of output: an hour and a half of stereo at 48 kHz
CUT_OFF = "ended prematurely"  # said of half a webm, of which ffmpeg decodes the half and reports success
HEAD = 16  # bytes that ``container`` needs

FLAGS = ("-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", "-protocol_whitelist", "file")
OUTPUT = ("-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_f32le", "-f", "wav", "-fs", str(LARGEST), "-")


def container(head: bytes) -> str | None:
    """The name that ffmpeg has for the container of a file that begins with ``head``; None: not one for ffmpeg."""
    if head[4:8] == b"ftyp":
        return "mov"  # m4a, mp4, 3gp and mov are one family
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"  # and webm
    if head[:4] == b"\x30\x26\xb2\x75":
        return "asf"  # wma
    if head[:5] == b"#!AMR":
        return "amr"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"  # ADTS; in the same place an mp3 has a layer other than 0
    return None


def decode(path: Path, content: bytes | None, name: str, kind: str) -> bytes:
    """A wav file in memory with 32-bit floats, in the sound's own rate and channels.

    Args:
        path: the sound file.
        content: its bytes, where it is a slice of ``path`` and not all of it.
        name: for messages.
        kind: from ``container``.

    Raises:
        ValueError: where ffmpeg is not installed, fails, takes too long, or the sound is longer than 2 GiB of floats.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(
            f"{name} needs ffmpeg to decode it, and ffmpeg is not installed; apt install ffmpeg / brew install ffmpeg, "
            "or convert the clip to wav, flac, mp3 or ogg"
        )
    if content is None:
        return _run(program, path, name, kind)
    with tempfile.TemporaryDirectory() as folder:  # the index of an mp4 lies at its end: a pipe will not do
        copy = Path(folder, "slice")
        copy.write_bytes(content)
        return _run(program, copy, name, kind)


def _run(program: str, path: Path, name: str, kind: str) -> bytes:
    command = [program, *FLAGS, "-f", kind, "-i", f"file:{os.path.abspath(path)}", *OUTPUT]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{name}: ffmpeg did not finish within {TIMEOUT} s; convert it to flac yourself") from error
    complaints = result.stderr.decode(errors="replace").strip()
    if result.returncode or not result.stdout or CUT_OFF in complaints:
        first = re.sub(r"^(\[[^\]]*\] *)+", "", complaints.partition("\n")[0])[:200] or f"status {result.returncode}"
        raise ValueError(
            f"{name} does not decode as audio (ffmpeg: {first}): it is cut off, damaged "
            "or holds no sound; fetch it again or take it out of the manifest"
        )
    if len(result.stdout) >= LARGEST:
        raise ValueError(f"{name} holds more than {LARGEST >> 20} MiB of sound; cut it into pieces")
    return result.stdout
