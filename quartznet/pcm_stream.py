"""Sound that is still being made: raw 16-bit samples or a WAV out of a pipe, or a microphone -> blocks of waveform.

A WAV is told from raw samples by its first four bytes, ``RIFF``. The surprise: the length in its header is not looked
at. Who writes a WAV into a pipe cannot know it yet, and fills in zero or as much as fits.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soxr
import torch
from torch import Tensor

from quartznet.audio import RATES

BLOCK = 0.1  # s
LARGEST = 2**24  # bytes before the samples of a WAV, and no more channels than 64: a header that says more is broken
FILES = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3\x02": "MP3", b"ID3\x03": "MP3", b"ID3\x04": "MP3"}  # how they begin


def _read_header(file: BinaryIO) -> tuple[int, int]:
    """Rate and channels of a WAV after its first four bytes; leaves the file at the first sample.

    Raises:
        ValueError: it is no WAV of 16-bit integers, or ends within its header.
    """
    file.read(4)  # the length
    if file.read(4) != b"WAVE":
        raise ValueError("the stream begins as a RIFF file that is no WAV; send a WAV, or raw 16-bit samples")
    rate = channels = 0
    while len(head := file.read(8)) == 8:
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            if not rate:
                raise ValueError("the WAV in the stream does not say its format before its samples; write it anew")
            return rate, channels
        if size > LARGEST:
            raise ValueError(f"the WAV in the stream says that {size} bytes come before its samples; write it anew")
        content = file.read(size + size % 2)
        if name == b"fmt " and len(content) >= 16:
            kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if kind not in (1, 0xFFFE) or bits != 16 or not 1 <= channels <= 64:
                raise ValueError(
                    f"the WAV in the stream has {bits} bits of format {kind}, {channels} channels; send 16-bit integers"
                )
    raise ValueError("the WAV in the stream ends within its header")


def pcm_blocks(file: BinaryIO, rate: int = 16000, sample_rate: int = 16000) -> Iterator[Tensor]:
    """Samples of a pipe as they come, a tenth of a second at a time; channels are averaged.

    Args:
        file: raw signed 16-bit little-endian samples, one channel; or a WAV of 16-bit integers.
        rate: of raw samples, Hz; a WAV says its own.
        sample_rate: of the result, Hz.

    Yields:
        (samples,) float32 in [-1, 1), never empty. Half a sample at the end is left out.

    Raises:
        ValueError: for an impossible rate, a WAV of another kind, or a FLAC, Ogg or MP3 file.
    """
    first, channels = file.read(4), 1
    if first in FILES:
        raise ValueError(
            f"the stream is {FILES[first]}, not samples; decode it first: "
            f"ffmpeg -i FILE -f s16le -ac 1 -ar {rate} - | ..."
        )
    if first == b"RIFF":
        rate, channels = _read_header(file)
        first = b""
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"a stream has {RATES[0]} to {RATES[1]} Hz, got {rate}")
    stream = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, "float32", quality="HQ")
    size, is_last = 2 * channels * max(1, round(BLOCK * rate)), False
    while not is_last:
        data = first + file.read(size - len(first))
        is_last, first = len(data) < size, b""
        samples = np.frombuffer(data[: len(data) - len(data) % (2 * channels)], dtype="<i2").reshape(-1, channels)
        block = samples.astype(np.float32).mean(axis=1) / 32768
        block = block if stream is None else stream.resample_chunk(block, last=is_last)
        if len(block):
            yield torch.from_numpy(block)


def microphone_blocks(sample_rate: int = 16000) -> Iterator[Tensor]:
    """The default microphone, a tenth of a second at a time, without end.

    Raises:
        ValueError: the package sounddevice is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, PortAudio is not
        raise ValueError(
            "a microphone needs sounddevice: pip install sounddevice (and apt install libportaudio2); or send its "
            "sound through a pipe: arecord -f S16_LE -r 16000 -t raw | ... - --stream"
        ) from error
    try:
        with sounddevice.RawInputStream(samplerate=sample_rate, channels=1, dtype="int16") as microphone:
            while True:
                data, _ = microphone.read(round(BLOCK * sample_rate))
                yield torch.from_numpy(np.frombuffer(bytes(data), dtype="<i2").astype(np.float32) / 32768)
    except sounddevice.PortAudioError as error:
        raise ValueError(f"no microphone to read from: {error}") from error
