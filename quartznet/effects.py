"""Sounds changed as the world changes them: noise, rooms, telephones, codecs, tempo; functions of (samples,) tensors.

``quartznet.waveform`` draws the strengths and calls these. Every function keeps the length, but ``stretch``.

The surprise: a room delays. The direct sound reaches the microphone milliseconds after the clip begins, and a network
trained on delayed words learns wrong times; so a response is cut before its largest peak. Codecs delay too, but
libsndfile takes off what an encoder put in front (tests measure it).
"""

import io
import math
from pathlib import Path

import soundfile
import soxr
import torch
import torchaudio
from torch import Tensor

from quartznet.audio import audio_duration, read_audio

QUIETEST = 1e-10  # mean square below which a clip or a noise counts as silence (-100 dB)

CODECS = {  # name -> container, codec, and the rate it is used at (None: the clip's own)
    "mp3": ("MP3", "MPEG_LAYER_III", None),
    "vorbis": ("OGG", "VORBIS", None),
    "opus": ("OGG", "OPUS", None),
    "gsm": ("WAV", "GSM610", 8000),
    "mu-law": ("WAV", "ULAW", 8000),
    "a-law": ("WAV", "ALAW", 8000),
}


def decibels(signal: Tensor) -> float:
    """Mean power in dB: 10 log10(mean(x^2)); minus infinity for silence and for no samples."""
    power = signal.square().mean().item() if len(signal) else 0.0
    return 10 * math.log10(power) if power > QUIETEST else -math.inf


def mixed(signal: Tensor, noise: Tensor, snr: float) -> Tensor:
    """``signal`` plus noise (samples,) scaled so that the mean power of the clip lies ``snr`` dB above the noise's.

    Where either is silent, the signal itself: no ratio exists.
    """
    difference = decibels(signal) - decibels(noise) - snr
    if not math.isfinite(difference):
        return signal
    return signal + noise * 10 ** (difference / 20)


def resampled(signal: Tensor, rate: int, new_rate: int) -> Tensor:
    """(samples,) at ``rate`` -> at ``new_rate``, by soxr HQ."""
    return torch.from_numpy(soxr.resample(signal.numpy(), rate, new_rate, quality="HQ"))


def with_length(signal: Tensor, samples: int) -> Tensor:
    """Cut, or filled up with zeros, at the end."""
    return torch.nn.functional.pad(signal, (0, samples - len(signal)))


def noise_part(path: Path, samples: int, sample_rate: int, place: float) -> Tensor:
    """``samples`` of a recording from ``place`` (0 to 1) of those where they fit; a shorter one is repeated."""
    needed, whole = samples / sample_rate, audio_duration(path)
    if whole > needed + 0.1:
        part = read_audio(path, sample_rate, offset=place * (whole - needed - 0.1), duration=needed + 0.05)
    else:
        part = read_audio(path, sample_rate)
        part = part.roll(-int(place * len(part)))
    return part.repeat(-(-samples // len(part)))[:samples]


def in_room(signal: Tensor, response: Tensor) -> Tensor:
    """(samples,) convolved with ``response`` from its largest peak on; same length, same mean power."""
    if not len(signal):
        return signal
    direct = response[response.abs().argmax() :] * response[response.abs().argmax()].sign()
    size = 1 << (len(signal) + len(direct) - 2).bit_length()  # the sum of lengths minus 1, rounded up
    wet = torch.fft.irfft(torch.fft.rfft(signal, size) * torch.fft.rfft(direct, size), size)[: len(signal)]
    change = decibels(signal) - decibels(wet)
    return wet * 10 ** (change / 20) if math.isfinite(change) else signal


def telephone(signal: Tensor, sample_rate: int, rate: int, low: float, high: float) -> Tensor:
    """Through ``rate`` and back, with a band pass whose edges are half a cosine 100 Hz wide; the length stays."""
    narrow = resampled(signal, sample_rate, rate)
    size = len(narrow) + 2 * rate // 100  # 10 ms of zeros on either side would wrap around
    frequencies = torch.fft.rfftfreq(size, 1 / rate)
    rising = ((frequencies - low) / 100 + 0.5).clamp(0, 1) if low > 0 else torch.ones_like(frequencies)
    falling = ((high - frequencies) / 100 + 0.5).clamp(0, 1)
    shape = 0.5 - 0.5 * torch.cos(math.pi * rising * falling)
    narrow = torch.fft.irfft(torch.fft.rfft(narrow, size) * shape, size)[: len(narrow)]
    return with_length(resampled(narrow, rate, sample_rate), len(signal))


def through_codec(signal: Tensor, sample_rate: int, name: str, compression: float) -> Tensor:
    """Encoded and decoded again; same length. Samples outside [-1, 1] are scaled down before and up again after."""
    if not len(signal):
        return signal
    container, codec, rate = CODECS[name]
    rate = rate or sample_rate
    peak = max(1.0, signal.abs().max().item())
    clip = resampled(signal / peak, sample_rate, rate) if rate != sample_rate else signal / peak
    level = None if rate == 8000 else compression
    with io.BytesIO() as memory:
        soundfile.write(memory, clip.numpy(), rate, codec, format=container, compression_level=level)
        memory.seek(0)
        heard = torch.from_numpy(soundfile.read(memory, dtype="float32")[0])
    if rate != sample_rate:
        heard = resampled(heard, rate, sample_rate)
    return with_length(heard, len(signal)) * peak


def stretch(signal: Tensor, rate: float, window: int = 512) -> Tensor:
    """(samples,) -> (round(samples / rate),) at the same pitch, by torchaudio's phase vocoder.

    A clip shorter than one window is returned as it is: it has no second frame to advance to.
    """
    if len(signal) < window or rate == 1.0:
        return signal
    hop, shape = window // 4, torch.hann_window(window)
    spectrum = torch.stft(signal, window, hop, window=shape, return_complex=True)  # (bands, frames)
    advance = torch.linspace(0, math.pi * hop, len(spectrum)).unsqueeze(1)  # of each band's phase in one hop
    stretched = torchaudio.functional.phase_vocoder(spectrum, rate, advance)
    return torch.istft(stretched, window, hop, window=shape, length=round(len(signal) / rate))
