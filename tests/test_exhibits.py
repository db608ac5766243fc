"""Sounds, pictures and words of an utterance: they decode to what went in, they are small, and there is a limit."""

import base64
import io

import numpy as np
import pytest
import soundfile
import tones
import torch

from quartznet.config import BlockConfig, ModelConfig
from quartznet.exhibits import COLUMNS, LEVELS, LONGEST, audio_uri, exhibits, palette, spectrogram_uri
from quartznet.model import QuartzNet
from quartznet.words import Word


@pytest.fixture(scope="module")
def model() -> QuartzNet:
    torch.manual_seed(0)
    return QuartzNet(ModelConfig(tuple(" abcd"), (BlockConfig(8, 5, stride=2),))).eval()


def content(uri: str, kind: str) -> io.BytesIO:
    start = f"data:{kind};base64,"
    assert uri.startswith(start)
    return io.BytesIO(base64.b64decode(uri[len(start) :], validate=True))


def signal(text: str = "abba") -> torch.Tensor:
    return torch.from_numpy(tones.sing(text))


def test_sound_comes_back() -> None:
    samples = signal("cab dada")
    file = content(audio_uri(samples, 16000), "audio/mpeg")
    assert len(file.getvalue()) < 6000 * len(samples) / 16000  # bytes, of which WAV takes 32000 a second
    found, rate = soundfile.read(file, dtype="float32")
    assert rate == 16000 and len(found) == len(samples)
    assert np.corrcoef(found, samples)[0, 1] > 0.95  # in place: a shift of one tenth of a period would show


def test_other_rates_and_libraries_without_mp3(monkeypatch: pytest.MonkeyPatch) -> None:
    loud = 3 * signal()
    file = content(audio_uri(loud, 16001), "audio/flac")
    found, rate = soundfile.read(file, dtype="float32")
    assert rate == 16001 and np.allclose(found, loud.clamp(-1, 1), atol=1e-4)
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "FLAC": ""})
    content(audio_uri(loud, 16000), "audio/flac")


def test_picture_by_hand() -> None:
    from PIL import Image

    features = torch.full((3, 8), -9.0)
    features[0, 4:] = 9.0  # the lowest band, at the end
    picture = Image.open(content(spectrogram_uri(features), "image/png"))
    assert picture.size == (4, 3)  # neighbours averaged
    assert np.array(picture).tolist() == [[0] * 4, [0] * 4, [0, 0, LEVELS - 1, LEVELS - 1]]
    assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 4) and len(palette()) == 3 * LEVELS
    long = Image.open(content(spectrogram_uri(torch.zeros(2, 4001)), "image/png"))
    assert long.size == (1334, 2) and long.size[0] <= COLUMNS


def test_words_lie_within_the_clip_and_say_the_texts(model: QuartzNet) -> None:
    heard = (Word("ab", 0.1, 0.2, 0.5),)
    shown = exhibits(model, [(7, "cab dada", heard)], lambda index: signal("cab dada"))[7]
    assert [word.text for word in shown.said] == ["cab", "dada"] and shown.heard == heard
    times = [time for word in shown.said for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= shown.seconds + 0.02
    assert all(0 <= word.confidence <= 1 for word in shown.said)
    assert shown.audio and shown.spectrogram and not shown.problem


def test_texts_without_a_place_in_the_clip_have_no_times(model: QuartzNet) -> None:
    for text in ("abcd" * 99, "xyz"):
        shown = exhibits(model, [(0, text, ())], lambda index: signal())[0]
        assert shown.said == () and shown.audio


def test_no_more_than_the_budget(model: QuartzNet) -> None:
    chosen = [(index, "ab", (Word("b", 0.0, 0.1, 1.0),)) for index in range(4)]
    one = exhibits(model, chosen[:1], lambda index: signal())[0]
    size = len(one.audio) + len(one.spectrogram)
    found = exhibits(model, chosen, lambda index: signal(), budget=int(2.5 * size))
    assert [bool(shown.audio) for shown in found.values()] == [True, True, False, False]
    assert "did not fit any more" in found[3].problem and found[3].heard and not found[3].spectrogram
    assert sum(len(shown.audio) + len(shown.spectrogram) for shown in found.values()) <= 2.5 * size


def test_long_clips_and_clips_that_fail(model: QuartzNet) -> None:
    def signals(index: int) -> torch.Tensor:
        if index:
            raise ValueError("it is gone")
        return torch.zeros(int(16000 * LONGEST) + 1)

    found = exhibits(model, [(0, "ab", ()), (1, "ab", ())], signals)
    assert "more than 60 s are not embedded" in found[0].problem and not found[0].audio
    assert found[1].problem == "it is gone" and found[1].seconds == 0
