"""read_audio, audio_duration: generated sounds, sines as the judge, every kind of bad file."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from quartznet.audio import audio_blocks, audio_duration, read_audio


def tone(hertz: float = 440.0, seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_integer_samples_are_divided_by_their_full_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.array([0, 16384, -32768, 32767], dtype=np.int16))
    assert read_audio(path).tolist() == [0.0, 0.5, -1.0, 32767 / 32768]


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.array([[16384, 0], [-8192, 8192]], dtype=np.int16))
    assert read_audio(path).tolist() == [0.25, 0.0]


@pytest.mark.parametrize(("kind", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("mp3", 0.02), ("ogg", 0.02)])
def test_every_format_gives_the_tone_back(tmp_path: Path, kind: str, tolerance: float) -> None:
    path = write(tmp_path / f"a.{kind}", tone())
    signal = read_audio(path)
    assert signal.dtype == torch.float32 and signal.shape == (16000,)
    # mp3 and ogg lose a little, and more at the two ends
    assert np.abs(signal.numpy() - tone())[1000:-1000].max() < tolerance
    assert audio_duration(path) == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [8000, 11025, 11127, 16001, 22050, 32000, 44099, 44100, 48000, 96000])
def test_resampling_keeps_the_tone_at_any_rate(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", tone(rate=rate), rate, "FLOAT")
    signal = read_audio(path).numpy()
    assert len(signal) == 16000
    # soxr's HQ filter has 20 bits of precision in the pass band: 2^-20 of full scale is 1e-6; the ends ring
    assert np.abs(signal - tone())[500:-500].max() < 2e-6


@pytest.mark.parametrize("rate", [22050, 48000])
def test_what_lies_above_the_new_band_is_gone(tmp_path: Path, rate: int) -> None:
    signal = read_audio(write(tmp_path / "a.wav", tone(9000.0, rate=rate), rate, "FLOAT")).numpy()
    assert np.abs(signal[500:-500]).max() < 1e-5  # otherwise it would be heard at 7000 Hz


def test_resampling_against_the_sum_that_it_stands_for(tmp_path: Path) -> None:
    """A sound of few frequencies is known between its samples too: its Fourier series, evaluated where 16 kHz asks."""
    draw = np.random.default_rng(0)
    frequencies, amplitudes = draw.uniform(50, 7000, 20), draw.uniform(0, 0.05, 20)
    phases = draw.uniform(0, 2 * np.pi, 20)

    def sound(rate: int) -> np.ndarray:
        angles = 2 * np.pi * frequencies[:, None] * np.arange(rate // 2) / rate + phases[:, None]
        return (amplitudes[:, None] * np.sin(angles)).sum(0)

    signal = read_audio(write(tmp_path / "a.wav", sound(48000), 48000, "FLOAT")).numpy()
    assert np.abs(signal - sound(16000))[500:-500].max() < 2e-6


LOSSLESS = {"PCM_U8": 0.02, "PCM_16": 2e-4, "PCM_24": 1e-5, "PCM_32": 1e-5, "FLOAT": 1e-5, "DOUBLE": 1e-5}  # error


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("kind", "subtype"), [*(("wav", name) for name in LOSSLESS), ("flac", "PCM_16"), ("flac", "PCM_24")]
)
def test_every_depth_rate_and_number_of_channels(
    tmp_path: Path, kind: str, subtype: str, rate: int, channels: int
) -> None:
    louder = np.linspace(0.5, 1.5, channels) if channels > 1 else np.ones(1)  # the channels differ, their mean is right
    path = write(tmp_path / f"a.{kind}", tone(440.0, 0.2, rate)[:, None] * louder, rate, subtype)
    signal = read_audio(path).numpy()
    assert len(signal) == 3200 and audio_duration(path) == pytest.approx(0.2)
    assert np.abs(signal - tone(440.0, 0.2))[500:-500].max() < LOSSLESS[subtype]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        *((kind, rate) for kind in ("mp3", "ogg") for rate in (8000, 16000, 22050, 44100, 48000)),
        *(("opus", rate) for rate in (8000, 16000, 48000)),
    ],
)
def test_every_compressed_format(tmp_path: Path, kind: str, rate: int, channels: int) -> None:
    path = tmp_path / f"a.{kind}"
    samples = np.repeat(tone(440.0, 0.5, rate)[:, None], channels, axis=1)
    soundfile.write(path, samples, rate, "OPUS" if kind == "opus" else None, format="OGG" if kind == "opus" else None)
    signal = read_audio(path).numpy()
    # opus always decodes at 48 kHz and may round its length to that
    assert abs(len(signal) - 8000) <= (3 if kind == "opus" else 0)
    assert np.abs(signal[:8000] - tone(440.0, 0.5)[: len(signal)])[2000:-2000].max() < 0.07  # of 0.5; most at 8 kHz


@pytest.mark.parametrize("rate", [1, 1999, 1_000_001])
def test_impossible_rates_are_refused(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", np.zeros(4000, np.float32), rate)
    for read in (read_audio, audio_duration):
        with pytest.raises(ValueError, match=rf"a\.wav has a sample rate of {rate} Hz; 2000 to 1000000 Hz are"):
            read(path)


def test_a_header_that_promises_years_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac", np.zeros(16000, np.float32))

    def read(*_: object, **__: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    with pytest.raises(ValueError, match=r"a\.flac claims to hold 0\.0 hours, more than fits into memory"):
        read_audio(path)


@pytest.mark.parametrize("rate", [8000, 11025, 22051, 44100, 48000, 96000])
@pytest.mark.parametrize("frames", [1, 2, 100, 4801])
def test_length_is_rounded_up(tmp_path: Path, rate: int, frames: int) -> None:
    path = write(tmp_path / "a.wav", np.ones(frames, np.float32), rate)
    assert len(read_audio(path)) == math.ceil(frames * 16000 / rate)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_a_slice_of_a_shard_is_read_like_a_file(tmp_path: Path, kind: str) -> None:
    content = write(tmp_path / f"a.{kind}", tone(rate=48000), 48000).read_bytes()
    shard = tmp_path / "s.tar"
    shard.write_bytes(b"x" * 512 + content + b"y" * 700)
    span = (512, len(content))
    assert torch.equal(read_audio(shard, span=span), read_audio(tmp_path / f"a.{kind}"))
    part = read_audio(shard, 16000, 0.25, 0.5, span)
    assert torch.equal(part, read_audio(tmp_path / f"a.{kind}", offset=0.25, duration=0.5)) and len(part) == 8000
    assert audio_duration(shard, span) == audio_duration(tmp_path / f"a.{kind}")


@pytest.mark.parametrize("span", [(0, 0), (-1, 5), (512, 10**9)])
def test_impossible_slices(tmp_path: Path, span: tuple[int, int]) -> None:
    path = write(tmp_path / "a.tar.wav", tone())
    with pytest.raises(ValueError, match=r"has 32044 bytes, but the slice of .* is asked for: the shard is cut"):
        read_audio(path, span=span)


def test_a_slice_that_is_no_audio_is_named_with_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"<html>" * 100)
    with pytest.raises(ValueError, match=r"s\.tar\[6:306\] does not decode as audio"):
        audio_duration(tmp_path / "s.tar", (6, 300))


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_a_cut_equals_the_slice(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a.{kind}", tone(200.0, 2.0))
    whole, part = read_audio(path), read_audio(path, offset=0.5, duration=0.25)
    torch.testing.assert_close(part, whole[8000:12000], atol=1e-6, rtol=0)
    assert len(read_audio(path, offset=1.5)) == len(whole) - 24000


def test_a_rounded_duration_of_a_whole_clip_cuts_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    assert len(read_audio(path, duration=0.96)) == 16000
    assert len(read_audio(path, duration=0.94)) == 15040


def test_a_duration_a_little_too_long_is_cut_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    assert len(read_audio(path, offset=0.5, duration=0.55)) == 8000
    assert len(read_audio(path, duration=9.0)) == 16000


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.wav does not exist; correct the path"):
        read_audio(tmp_path / "no.wav")
    with pytest.raises(FileNotFoundError, match="is a folder, not an audio file"):
        audio_duration(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match=r"a\.wav is empty \(0 bytes\); fetch it again"):
        read_audio(tmp_path / "a.wav")


def test_not_audio(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_text("<html>404 not found</html>" * 20)
    with pytest.raises(
        ValueError, match=r"a\.mp3 does not decode as audio \(unknown format\): it is cut off, damaged or"
    ):
        read_audio(tmp_path / "a.mp3")
    with pytest.raises(ValueError, match="does not decode as audio"):
        audio_duration(tmp_path / "a.mp3")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("wav", r"a\.wav is cut off: \d+ bytes of 64044 are there"),
        ("flac", r"a\.flac does not decode as audio"),
        ("mp3", r"a\.mp3 is cut off: .+ s of 2\.\d+ s are there"),
        ("ogg", r"a\.ogg holds no samples: it is empty or cut off"),
    ],
)
def test_half_a_file_is_an_error_and_not_a_shorter_clip(tmp_path: Path, kind: str, message: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    with pytest.raises(ValueError, match=message):
        read_audio(cut(write(tmp_path / f"a.{kind}", noise), 0.5))


def test_a_streamed_wav_whose_header_promises_the_largest_size_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(path)) == 16000


def test_no_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(0, np.float32))
    with pytest.raises(ValueError, match=r"a\.wav holds no samples"):
        read_audio(path)
    with pytest.raises(ValueError, match=r"a\.wav holds no samples"):
        audio_duration(path)


def test_samples_that_are_no_sound(tmp_path: Path) -> None:
    loud = write(tmp_path / "a.wav", 32768 * tone(), subtype="FLOAT")  # integers written as floats
    assert read_audio(loud).abs().max() > 1000
    path = write(tmp_path / "b.wav", 1e30 * tone(), subtype="FLOAT")
    for read in (read_audio, lambda path: list(audio_blocks(path))):
        with pytest.raises(ValueError, match=r"b\.wav holds samples as large as .*e\+\d+, and sound lies within 1"):
            read(path)


def test_any_name_will_do(tmp_path: Path) -> None:
    content = write(tmp_path / "a.wav", tone()).read_bytes()
    for name in ("b.raw", "c.RAW", os.fsdecode(b"caf\xe9.wav"), "d e%s ñ'<.wav", "-f.mp3", "no_ending"):
        (tmp_path / name).write_bytes(content)
        assert torch.equal(read_audio(tmp_path / name), read_audio(tmp_path / "a.wav"))
        assert audio_duration(tmp_path / name) == audio_duration(tmp_path / "a.wav")
    (tmp_path / "b.raw").write_bytes(content[44:])
    with pytest.raises(ValueError, match=r"b\.raw does not decode as audio"):
        read_audio(tmp_path / "b.raw")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[77] = value
    with pytest.raises(ValueError, match=r"a\.wav holds samples that are NaN or infinite"):
        read_audio(write(tmp_path / "a.wav", samples, subtype="FLOAT"))


@pytest.mark.parametrize(
    ("offset", "duration", "message"),
    [
        (-1.0, None, r"offset -1.0 s and duration None s need offset >= 0"),
        (0.0, 0.0, r"duration 0.0 s need .* duration > 0"),
        (float("nan"), None, r"offset nan s"),
        (2.0, None, r"a\.wav is 1\.00 s long, but a cut from 2\.00 s"),
        (0.5, 1.0, r"is 1\.00 s long, but a cut from 0\.50 s to 1\.50 s is asked for; correct offset"),
    ],
)
def test_impossible_cuts(tmp_path: Path, offset: float, duration: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_audio(write(tmp_path / "a.wav", tone()), offset=offset, duration=duration)


def test_real_clips_decode_to_their_stated_durations(shared: Path) -> None:
    clips = sorted((shared / "corpora").glob("*/*/clips/*.mp3"))[::25]
    assert len(clips) >= 10
    for path in clips:
        # an mp3 header counts the decoder's delay, up to two frames of 1152 samples
        assert abs(len(read_audio(path)) / 16000 - audio_duration(path)) < 0.1


def test_a_flac_without_its_length_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(16000), 16000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # the total number of samples: 36 bits from the middle of byte 21 on
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    for read in (audio_duration, read_audio):
        with pytest.raises(ValueError, match=r"a\.flac does not say how long it is"):
            read(tmp_path / "a.flac")


@pytest.mark.parametrize(("kind", "rate", "channels"), [("wav", 96000, 2), ("mp3", 44100, 1), ("flac", 16000, 1)])
@pytest.mark.parametrize("seconds", [0.1, 0.37, 30.0])
def test_blocks_are_the_whole_bit_for_bit(tmp_path: Path, kind: str, rate: int, channels: int, seconds: float) -> None:
    samples = np.stack([tone(440 * (1 + index), 1.23, rate) for index in range(channels)], axis=1)
    path = write(tmp_path / f"a.{kind}", samples, rate)
    blocks = list(audio_blocks(path, 16000, seconds))
    assert torch.equal(torch.cat(blocks), read_audio(path)) and all(len(block) for block in blocks)
    assert max(map(len, blocks)) <= seconds * 16000 + 4096  # soxr gives in lumps


def test_blocks_of_bad_files(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp3", tone(seconds=5.0))
    with pytest.raises(ValueError, match=r"is cut off: .* s of 5"):
        list(audio_blocks(cut(whole, 0.5), 16000, 1.0))
    with pytest.raises(ValueError, match="NaN or infinite"):
        list(audio_blocks(write(tmp_path / "b.wav", np.array([0.0, math.nan]), subtype="FLOAT")))
    with pytest.raises(ValueError, match="holds no samples"):
        list(audio_blocks(write(tmp_path / "c.wav", np.zeros(0))))
