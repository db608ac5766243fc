import builtins

import numpy as np
import pytest

from data import espeak
from data.espeak import Espeak


@pytest.fixture(scope="module")
def synthesizer() -> Espeak:
    return Espeak()


def test_float_samples_of_a_plausible_length(synthesizer: Espeak) -> None:
    samples, rate = synthesizer.synthesize("mil doscientos", "es")
    assert rate == synthesizer.sample_rate == 22050
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert 0.5 < len(samples) / rate < 2.0 and 0.05 < np.abs(samples).max() <= 1.0


def test_faster_is_shorter_and_voices_differ(synthesizer: Espeak) -> None:
    slow, _ = synthesizer.synthesize("mil doscientos", "es", words_per_minute=120)
    fast, _ = synthesizer.synthesize("mil doscientos", "es", words_per_minute=240)
    assert len(fast) < 0.7 * len(slow)
    man, rate = synthesizer.synthesize("mil doscientos treinta", "es", variant="m1")
    woman, _ = synthesizer.synthesize("mil doscientos treinta", "es", variant="f3")
    assert fundamental(woman, rate) > 1.5 * fundamental(man, rate)


def fundamental(samples: np.ndarray, rate: int) -> float:
    """Hz: the median over frames of the best lag of the autocorrelation."""
    frames = samples[: len(samples) // 2048 * 2048].reshape(-1, 2048)
    shortest, longest = rate // 400, rate // 60
    correlations = [np.correlate(frame, frame, "full")[2047:] for frame in frames]
    return float(np.median([rate / (shortest + row[shortest:longest].argmax()) for row in correlations]))


def test_letters_beyond_ascii_are_read_as_utf8(synthesizer: Espeak) -> None:
    plain, _ = synthesizer.synthesize("ano", "es")
    tilde, _ = synthesizer.synthesize("año", "es")
    assert len(plain) != len(tilde)
    assert len(synthesizer.synthesize("тысяча", "ru")[0]) > 5000


def test_same_seed_and_same_calls_give_the_same_samples_even_interleaved() -> None:
    first, second, other = Espeak(1), Espeak(1), Espeak(2)
    for text in ("mil", "dos mil", "mil"):
        samples = [maker.synthesize(text, "es", variant="f2")[0] for maker in (first, other, second)]
        assert np.array_equal(samples[0], samples[2])
        assert not np.array_equal(samples[0], samples[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "a", "voice": "xx"}, "no voice 'xx'"),
        ({"text": "a", "voice": "es", "variant": "nobody"}, "no variant 'nobody'; there are .*f2"),
        ({"text": " ... ", "voice": "es"}, "nothing to say in ' ... '"),
        ({"text": "a", "voice": "es", "words_per_minute": 500}, "80 to 450 words a minute.*got 500"),
        ({"text": "a", "voice": "es", "pitch": 101}, "pitch 0 to 100.*pitch 101"),
    ],
)
def test_what_cannot_be_said_is_an_error(synthesizer: Espeak, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesizer.synthesize(**arguments)


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_loader(name: str, *rest: object) -> object:
        if name == "espeakng_loader":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_loader)
    with pytest.raises(FileNotFoundError, match="pip install espeakng-loader"):
        Espeak()


def test_missing_library_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espeakng_loader.get_library_path", lambda: "nowhere/lib.so")
    with pytest.raises(FileNotFoundError, match=r"lacks nowhere/lib\.so; run: pip install --force-reinstall"):
        Espeak()


def test_unreadable_voices_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    library, _ = espeak.installed_paths()
    monkeypatch.setattr(espeak, "installed_paths", lambda: (library, tmp_path / ("deep" * 45)))
    with pytest.raises(ValueError, match=r"cannot read its voices in .*deep.*160 letters"):
        Espeak()
