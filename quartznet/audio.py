"""Sound files -> mono float32 waveforms at one sample rate; wav, flac, mp3, ogg and more, nothing is converted first.

libsndfile decodes (its wheel carries the mp3 decoder), ffmpeg what libsndfile does not know (m4a, webm), channels are
averaged, soxr resamples with its HQ filter: the one that NeMo 2.x uses through librosa. Integer samples become floats
in [-1, 1) by division by 2^(bits-1), as in NeMo.

The surprise: libsndfile reads half a wav or mp3 without a word, while even the header of a whole mp3 may promise two
frames more than there are. So headers are compared with what is there, with a tolerance of 0.1 s.
"""

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soundfile
import soxr
import torch
from torch import Tensor

from quartznet.ffmpeg import HEAD, container, decode

RATES = (2000, 1_000_000)  # Hz, of files; speech at less is not intelligible, and a header that says more is broken
MOST_FRAMES = 2**48  # libsndfile says 2^63 - 1 where a flac header leaves its length out
TOLERANCE = 0.1  # seconds that a header may promise in excess; sound mp3 files reach 0.05
LARGEST = 1e15  # a sample; float files may go beyond 1, but the features of more than this overflow
ROUNDED = 0.05  # seconds by which a manifest's duration of a whole clip may fall short of it


def _claimed_wav_bytes(head: bytes) -> int:
    """How long a RIFF header says its file is; 0 for other files and for streams, whose writers fill in 0 or 2^31..."""
    if head[:4] != b"RIFF":
        return 0
    claimed = int.from_bytes(head[4:8], "little") + 8
    return claimed if claimed < 0x7FFF0000 else 0


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not an audio file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; correct the path (a manifest's paths are relative to the manifest)")
    return path


def _slice(path: Path, span: tuple[int, int]) -> bytes:
    """The bytes of a sound file inside another file, such as a tar shard."""
    start, count = span
    size = path.stat().st_size
    if start < 0 or count < 1 or start + count > size:
        raise ValueError(
            f"{path} has {size} bytes, but the slice of {count} bytes from byte {start} is asked for: the shard is cut "
            "off or was written anew; write manifest and shards again together"
        )
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)


class _ForwardOnly(soundfile.SoundFile):
    """soundfile seeks after every read to where it is already, and an mp3 does not continue from there seamlessly."""

    def seekable(self) -> bool:
        return False


@contextmanager
def _opened(
    path: str | Path, span: tuple[int, int] | None, reader: type[soundfile.SoundFile] = soundfile.SoundFile
) -> Iterator[tuple[soundfile.SoundFile, str]]:
    """The file opened for decoding and its name for messages; all that can go wrong becomes an error with that name."""
    path = _existing(path)
    content = None if span is None else _slice(path, span)
    name = str(path) if span is None else f"{path}[{span[0]}:{span[0] + span[1]}]"
    size = path.stat().st_size if content is None else len(content)
    if size == 0:
        raise ValueError(f"{path} is empty (0 bytes); fetch it again or take it out of the manifest")
    head = _head(path) if content is None else content[:HEAD]
    kind = container(head)
    if kind:
        content = decode(path, content, name, kind)
        size, head = len(content), content[:HEAD]
    if content is None and path.suffix.lower() == ".raw":  # soundfile would ask for a rate, whatever is in it
        content = path.read_bytes()
    plain = os.fsencode(path) if os.name == "posix" else path  # soundfile refuses str that is no UTF-8
    try:
        with reader(plain if content is None else io.BytesIO(content)) as file:
            _check_header(file, name, size, head)
            yield file, name
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip()
        reason = "unknown format" if not reason or "does not exist" in reason else reason  # no mp3 frame: it is there
        raise ValueError(
            f"{name} does not decode as audio ({reason}): it is cut off, damaged or no audio file; "
            "fetch it again, convert it to wav, flac, mp3 or ogg, or take it out of the manifest"
        ) from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _check_header(file: soundfile.SoundFile, name: str, size: int, head: bytes) -> None:
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise ValueError(
            f"{name} has a sample rate of {file.samplerate} Hz; {RATES[0]} to {RATES[1]} Hz are possible: "
            "correct its header or take it out of the manifest"
        )
    if file.frames > MOST_FRAMES:
        raise ValueError(f"{name} does not say how long it is; write it anew, for instance: flac -d, then flac")
    bytes_each_second = max(1, size / max(1, file.frames) * file.samplerate)
    if _claimed_wav_bytes(head) - size > TOLERANCE * bytes_each_second:
        raise _cut_off(name, f"{size} bytes of {_claimed_wav_bytes(head)}")


def _cut_off(name: str, found: str) -> ValueError:
    return ValueError(f"{name} is cut off: {found} are there; fetch it again or take it out of the manifest")


def _cut(file: soundfile.SoundFile, name: str, offset: float, duration: float | None) -> tuple[int, int]:
    """First frame and number of frames of the cut, at the file's own rate."""
    if not 0 <= offset < math.inf or (duration is not None and not 0 < duration < math.inf):
        raise ValueError(f"{name}: offset {offset} s and duration {duration} s need offset >= 0 and duration > 0")
    rate, start = file.samplerate, round(offset * file.samplerate)
    frames = file.frames - start if duration is None else round(duration * rate)
    if start > 0 and (start >= file.frames or start + frames - file.frames > TOLERANCE * rate):
        raise ValueError(
            f"{name} is {file.frames / rate:.2f} s long, but a cut from {offset:.2f} s "
            f"to {(start + frames) / rate:.2f} s is asked for; correct offset and duration in the manifest"
        )
    if start == 0 and file.frames - frames < ROUNDED * rate:
        return 0, file.frames
    return start, min(frames, file.frames - start)


def _decoded(file: soundfile.SoundFile, name: str, offset: float, duration: float | None) -> Tensor:
    """(frames, channels) float32 of the cut; an error where the file holds less than it says or nothing at all.

    An mp3 is decoded from its start: each frame borrows bits from those before, and after a seek some files decode to
    silence. Many cuts out of hours of mp3 are therefore slow; flac has no such trouble.
    """
    start, frames = _cut(file, name, offset, duration)
    decode_first = start if file.format == "MP3" else 0
    file.seek(start - decode_first)
    try:
        samples = torch.from_numpy(file.read(decode_first + frames, dtype="float32", always_2d=True))[decode_first:]
    except MemoryError as error:
        hours = frames / file.samplerate / 3600
        raise ValueError(
            f"{name} claims to hold {hours:.1f} hours, more than fits into memory; its header is broken, or cut it"
        ) from error
    if frames - len(samples) > TOLERANCE * file.samplerate:
        raise _cut_off(name, f"{len(samples) / file.samplerate:.2f} s of {frames / file.samplerate:.2f} s")
    if samples.numel() == 0:
        raise ValueError(f"{name} holds no samples: it is empty or cut off; take it out of the manifest")
    return samples


def _check_samples(samples: Tensor, name: str) -> None:
    """Raises ValueError for NaN, infinity and what is no sound; one product tells, a tenth of the cost of looks."""
    flat = samples.reshape(-1)
    if torch.dot(flat, flat) < LARGEST**2:
        return
    if not torch.isfinite(flat).all():
        raise ValueError(f"{name} holds samples that are NaN or infinite; export it again or take it out")
    if (largest := flat.abs().max()) > LARGEST:
        raise ValueError(f"{name} holds samples as large as {largest:.0e}, and sound lies within 1; export it again")


def decode_audio(
    path: str | Path, offset: float = 0.0, duration: float | None = None, span: tuple[int, int] | None = None
) -> tuple[Tensor, int]:
    """(frames, channels) float32 and the sample rate of a clip as the file holds it; see ``read_audio``."""
    with _opened(path, span) as (file, name):
        samples, rate = _decoded(file, name, offset, duration), file.samplerate
    _check_samples(samples, name)
    return samples, rate


def read_audio(
    path: str | Path,
    sample_rate: int = 16000,
    offset: float = 0.0,
    duration: float | None = None,
    span: tuple[int, int] | None = None,
) -> Tensor:
    """Decodes a clip or a cut of it.

    Args:
        path: wav, flac, mp3, ogg, opus or whatever else libsndfile knows; m4a, mp4, aac, webm, wma and amr where
            ffmpeg is installed (it decodes the whole file for each cut).
        sample_rate: of the result, Hz.
        offset: where the cut starts, seconds.
        duration: of the cut, seconds; None: to the end. Manifests often give rounded or estimated durations of whole
            clips, so of a cut from the start it is only an upper limit, and one that would take off less than 0.05 s
            takes off nothing (NeMo would cut those samples).
        span: first byte and number of bytes where the sound file is a slice of ``path``, such as a member of a tar
            shard; None: all of ``path``.

    Returns:
        (samples,) float32, ``ceil(frames * sample_rate / own rate)`` samples, in [-1, 1] but for what mp3 decoding and
        resampling overshoot.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, cut off, damaged or no audio, holds NaN or infinity, or the cut lies outside.
    """
    samples, rate = decode_audio(path, offset, duration, span)
    signal = samples[:, 0] if samples.shape[1] == 1 else samples.mean(dim=1)
    return signal if rate == sample_rate else _resample(signal, rate, sample_rate)


def audio_blocks(path: str | Path, sample_rate: int = 16000, seconds: float = 30.0) -> Iterator[Tensor]:
    """A file of any length, block by block: joined, the blocks are what ``read_audio`` returns, bit for bit.

    Only one block is decoded and in memory at a time (but for what needs ffmpeg, which is decoded as a whole).

    Args:
        path, sample_rate: as in ``read_audio``.
        seconds: of sound in a block, about; the first may be shorter and the last is what is left.

    Yields:
        (samples,) float32; never an empty one.

    Raises:
        FileNotFoundError, ValueError: as ``read_audio``; that a file is cut off is known, and said, at its end only.
    """
    with _opened(path, None, _ForwardOnly) as (file, name):
        rate, frames, seen, given = file.samplerate, file.frames, 0, 0
        stream = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, "float32", quality="HQ")
        while True:
            samples = file.read(max(1, round(seconds * rate)), dtype="float32", always_2d=True)
            seen += len(samples)
            block = torch.from_numpy(samples)
            _check_samples(block, name)
            block = block[:, 0] if block.shape[1] == 1 else block.mean(dim=1)
            is_last = len(samples) == 0
            if stream is not None:
                block = torch.from_numpy(stream.resample_chunk(block.numpy(), last=is_last))
            if is_last:
                missing = -(-seen * sample_rate // rate) - given - len(block)
                block = torch.nn.functional.pad(block, (0, max(0, missing)))
            given += len(block)
            if len(block):
                yield block
            if is_last:
                break
        if frames - seen > TOLERANCE * rate:
            raise _cut_off(name, f"{seen / rate:.2f} s of {frames / rate:.2f} s")
        if seen == 0:
            raise ValueError(f"{name} holds no samples: it is empty or cut off; take it out of the manifest")


def _resample(signal: Tensor, rate: int, sample_rate: int) -> Tensor:
    """soxr's HQ filter, at any ratio of rates; (frames,) -> (ceil(frames * sample_rate / rate),).

    soxr rounds the length to the nearest; librosa, and so NeMo, appends a zero where that is one sample short of the
    ceiling. Here too, so the length is NeMo's.
    """
    length = -(-len(signal) * sample_rate // rate)
    resampled = torch.from_numpy(soxr.resample(signal.numpy(), rate, sample_rate, quality="HQ"))
    missing = length - len(resampled)
    return resampled[:length] if missing <= 0 else torch.nn.functional.pad(resampled, (0, missing))


def audio_duration(path: str | Path, span: tuple[int, int] | None = None) -> float:
    """Seconds of audio that the file's header states, without decoding it (but for what ffmpeg decodes).

    Arguments and errors as ``read_audio``.
    """
    with _opened(path, span) as (file, name):
        if file.frames == 0:
            raise ValueError(f"{name} holds no samples: it is empty or cut off; take it out of the manifest")
        return file.frames / file.samplerate
