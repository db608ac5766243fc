"""Rooms, noise, telephones, codecs and tempo: by hand, and by what a tone must become."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from quartznet.effects import (
    CODECS,
    decibels,
    in_room,
    mixed,
    noise_part,
    resampled,
    stretch,
    telephone,
    through_codec,
    with_length,
)

RATE = 16000


def tone(hertz: float, seconds: float = 1.0, loudness: float = 0.5) -> Tensor:
    return loudness * torch.sin(2 * torch.pi * hertz * torch.arange(int(RATE * seconds)) / RATE)


def frequency(signal: Tensor) -> float:
    """Of the strongest line of the spectrum, Hz."""
    spectrum = torch.fft.rfft(signal * torch.hann_window(len(signal))).abs()
    return spectrum.argmax().item() * RATE / len(signal)


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_decibels_by_hand() -> None:
    assert decibels(torch.full((10,), 0.1)) == pytest.approx(-20.0)
    assert decibels(tone(1000, loudness=1.0)) == pytest.approx(-3.0103, abs=1e-3)
    assert decibels(torch.zeros(5)) == decibels(torch.zeros(0)) == -np.inf


@pytest.mark.parametrize("snr", [-5.0, 0.0, 17.5, 60.0])
def test_mixed_reaches_the_ratio(snr: float) -> None:
    signal, hiss = tone(440), 0.003 * noise(RATE)
    added = mixed(signal, hiss, snr) - signal
    assert decibels(signal) - decibels(added) == pytest.approx(snr, abs=0.01)


def test_silence_is_mixed_with_nothing() -> None:
    silence, hiss = torch.zeros(100), noise(100)
    assert mixed(silence, hiss, 10) is silence
    assert mixed(hiss, silence, 10) is hiss


def test_with_length_by_hand() -> None:
    assert with_length(torch.tensor([1.0, 2.0]), 3).tolist() == [1, 2, 0]
    assert with_length(torch.tensor([1.0, 2.0]), 1).tolist() == [1]


def test_resampled_keeps_a_tone() -> None:
    low = resampled(tone(1000), RATE, 8000)
    assert len(low) == 8000
    expected = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)
    assert (low - expected)[200:-200].abs().max() < 1e-3


# ---------------------------------------------------------------------------------------------------------------------
# Rooms


def test_a_unit_impulse_changes_nothing() -> None:
    signal = tone(300)
    assert torch.allclose(in_room(signal, torch.tensor([1.0])), signal, atol=1e-6)


def test_the_direct_sound_stays_where_it_was() -> None:
    """An impulse after 30 ms, the other way up: the room delays nothing and turns nothing over."""
    response = torch.zeros(1000)
    response[480] = -0.2
    assert torch.allclose(in_room(tone(300), response), tone(300), atol=1e-6)


def test_an_echo_by_hand() -> None:
    response = torch.tensor([0.0, 1.0, 0.0, 0.5])
    signal = torch.tensor([1.0, 0.0, 0.0, 2.0])
    wet = torch.tensor([1.0, 0.0, 0.5, 2.0])
    expected = wet * (signal.square().mean() / wet.square().mean()).sqrt()  # the mean power stays
    assert torch.allclose(in_room(signal, response), expected, atol=1e-6)


def test_convolution_equals_numpy() -> None:
    signal, response = noise(500), noise(90, 1) * torch.linspace(1, 0, 90)
    response[0] = 5.0
    wet = torch.from_numpy(np.convolve(signal.numpy(), response.numpy())[:500])
    heard = in_room(signal, response)
    assert torch.allclose(heard / heard.norm(), wet / wet.norm(), atol=1e-6)


def test_rooms_without_sound() -> None:
    assert in_room(torch.zeros(50), torch.tensor([1.0, 0.5])).tolist() == [0.0] * 50
    assert in_room(tone(300), torch.zeros(4)).equal(tone(300))
    assert len(in_room(torch.zeros(0), torch.tensor([1.0]))) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Telephone and codecs


def test_the_telephone_lets_words_through_and_nothing_else() -> None:
    def loss(hertz: float) -> float:
        heard = telephone(tone(hertz), RATE, 8000, 300, 3400)
        assert len(heard) == RATE
        return decibels(tone(hertz)) - decibels(heard)

    assert abs(loss(1000)) < 1 and abs(loss(3000)) < 1
    assert loss(6000) > 40 and loss(100) > 30 and loss(3700) > 40


def test_a_telephone_without_a_lower_edge() -> None:
    heard = telephone(tone(100), RATE, 8000, 0, 3400)
    assert abs(decibels(tone(100)) - decibels(heard)) < 1


@pytest.mark.parametrize("samples", [1, 2, 10, 161])
def test_very_short_clips(samples: int) -> None:
    clip = noise(samples)
    for heard in (telephone(clip, RATE, 8000, 300, 3400), stretch(clip, 1.1), in_room(clip, noise(20, 1))):
        assert len(heard) == samples and torch.isfinite(heard).all()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("samples", [1, 100, 16001])
def test_a_codec_keeps_length_place_and_loudness(name: str, samples: int) -> None:
    clip = 0.1 * noise(samples).cumsum(0).sin()
    before = clip.clone()
    heard = through_codec(clip, RATE, name, 0.5)
    assert heard.shape == clip.shape and heard.dtype == torch.float32 and torch.isfinite(heard).all()
    assert torch.equal(clip, before)
    if samples > 10000:
        product = torch.fft.irfft(torch.fft.rfft(heard) * torch.fft.rfft(clip).conj(), n=samples)
        assert product.argmax() == 0  # no delay
        assert abs(decibels(heard) - decibels(clip)) < 3
        assert not torch.allclose(heard, clip, atol=1e-4)


def test_a_loud_clip_is_not_clipped_by_a_codec() -> None:
    loud = tone(440, loudness=4.0)
    heard = through_codec(loud, RATE, "vorbis", 0.1)
    assert decibels(heard) == pytest.approx(decibels(loud), abs=0.5)


def test_no_samples_through_a_codec() -> None:
    assert len(through_codec(torch.zeros(0), RATE, "mp3", 0.5)) == 0


def test_more_compression_sounds_worse() -> None:
    clip = 0.2 * noise(RATE)
    errors = [(through_codec(clip, RATE, "vorbis", level) - clip).square().mean().item() for level in (0.1, 0.95)]
    assert errors[0] < errors[1]


# ---------------------------------------------------------------------------------------------------------------------
# Tempo


@pytest.mark.parametrize("rate", [0.85, 0.93, 1.07, 1.15])
def test_stretching_changes_the_length_and_not_the_pitch(rate: float) -> None:
    faded = tone(1000) * torch.linspace(-2, 8, RATE).clamp(0, 1)  # silence first, as in speech
    stretched = stretch(faded, rate)
    assert len(stretched) == round(RATE / rate)
    assert frequency(stretched) == pytest.approx(1000, abs=5)
    middle = stretched[len(stretched) // 3 : -len(stretched) // 8]
    assert decibels(middle) == pytest.approx(decibels(tone(1000)), abs=2)  # phases of neighbouring bands drift apart


def test_stretching_moves_events() -> None:
    """A burst that ends in the middle ends in the middle of the longer clip."""
    clip = tone(500, 2.0)
    clip[RATE:] = 0
    longer = stretch(clip, 0.8)
    assert decibels(longer[: int(0.95 * RATE / 0.8)]) > -14
    assert decibels(longer[int(1.05 * RATE / 0.8) :]) < -40


def test_a_rate_of_one_changes_nothing() -> None:
    clip = tone(500)
    assert stretch(clip, 1.0) is clip


# ---------------------------------------------------------------------------------------------------------------------
# Parts of recordings


def test_noise_part_by_hand(tmp_path: Path) -> None:
    ramp = np.arange(RATE * 3, dtype=np.float32) / (RATE * 3)
    soundfile.write(tmp_path / "ramp.wav", ramp, RATE, subtype="FLOAT")
    for place in (0.0, 0.5, 0.999):
        part = noise_part(tmp_path / "ramp.wav", RATE, RATE, place)
        assert len(part) == RATE
        assert part[0].item() == pytest.approx(place * 1.9 / 3, abs=1e-4)
        assert torch.allclose(part.diff(), torch.full((RATE - 1,), 1 / (RATE * 3)), atol=1e-6)


def test_a_short_noise_is_repeated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.array([0.1, 0.2, 0.3, 0.4], np.float32), RATE, subtype="FLOAT")
    part = noise_part(tmp_path / "short.wav", 10, RATE, 0.5)
    assert part.tolist() == pytest.approx([0.3, 0.4, 0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4])
