"""quartznet.pcm_stream: raw samples, WAVs of any rate, and what is neither."""

import builtins
import io
import struct

import numpy as np
import pytest
import soundfile
import torch

from quartznet.audio import read_audio
from quartznet.pcm_stream import microphone_blocks, pcm_blocks

SAMPLES = (np.sin(np.arange(5000) / 10) * 20000).astype("<i2")


def wav(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def test_raw_samples_come_as_they_are() -> None:
    blocks = list(pcm_blocks(io.BytesIO(SAMPLES.tobytes() + b"\x01")))
    assert [len(block) for block in blocks] == [1600, 1600, 1600, 200]
    assert torch.equal(torch.cat(blocks), torch.from_numpy(SAMPLES.astype(np.float32) / 32768))
    assert list(pcm_blocks(io.BytesIO(b""))) == [] == list(pcm_blocks(io.BytesIO(b"RI")))[1:]


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (16000, 2), (44100, 1), (96000, 2), (8000, 1)])
def test_a_wav_is_what_the_file_is(rate: int, channels: int, tmp_path: pytest.TempPathFactory) -> None:
    content = wav(np.stack([SAMPLES, SAMPLES[::-1]], axis=1)[:, :channels], rate)
    (tmp_path / "a.wav").write_bytes(content)
    found = torch.cat(list(pcm_blocks(io.BytesIO(content), rate=11025)))
    expected = read_audio(tmp_path / "a.wav")
    assert abs(len(found) - len(expected)) <= 1
    torch.testing.assert_close(found, expected[: len(found)], rtol=0, atol=2e-5)


def test_the_length_in_a_header_is_not_looked_at() -> None:
    content = bytearray(wav(SAMPLES, 16000))
    content[4:8] = content[40:44] = b"\x00\x00\x00\x00"
    assert sum(map(len, pcm_blocks(io.BytesIO(bytes(content))))) == 5000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RIFF\x00\x00\x00\x00AVI ", "no WAV"),
        (wav(SAMPLES, 16000)[:30], "ends within its header"),
        (wav(SAMPLES, 16000, "PCM_24"), "24 bits of format"),
        (b"RIFF" + bytes(4) + b"WAVEdata" + struct.pack("<I", 2) + bytes(2), "does not say its format"),
        (b"RIFF" + bytes(4) + b"WAVELIST" + b"\xff" * 4, "4294967295 bytes come before its samples"),
        (wav(SAMPLES, 16000).replace(b"\x01\x00\x01\x00", b"\x01\x00\xff\xff", 1), "65535 channels"),
        (b"fLaC" + bytes(100), "is FLAC, not samples; decode it first: ffmpeg"),
        (b"ID3\x03" + bytes(100), "is MP3, not samples"),
        (wav(SAMPLES, 100), "2000 to 1000000 Hz, got 100"),
    ],
)
def test_streams_that_cannot_be_read(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(pcm_blocks(io.BytesIO(content)))


def test_a_microphone_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "sounddevice":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install sounddevice"):
        next(microphone_blocks())
