"""quartznet.live: with all the context it needs the stream is the whole pass, and no word is later than stated."""

from dataclasses import replace

import pytest
import torch

from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.live import LiveRecogniser, recognise_stream
from quartznet.model import QuartzNet
from quartznet.words import words_of


def small_model(normalize: str = "none") -> QuartzNet:
    blocks = (BlockConfig(32, 5, stride=2), BlockConfig(32, 9, residual=True), BlockConfig(32, 1, separable=False))
    return QuartzNet(ModelConfig(tuple(" abcd"), blocks, FeatureConfig(normalize=normalize))).eval()


def speech(seconds: float) -> torch.Tensor:
    time = torch.arange(round(seconds * 16000)) / 16000
    return 0.3 * torch.sin(6000 * torch.sin(3 * time)) * torch.sin(2 * time)


@pytest.mark.parametrize("block", [1600, 777, 40000])
def test_with_full_context_it_is_the_whole_pass(block: int) -> None:
    model, signal = small_model(), speech(7.3)
    recogniser = LiveRecogniser(model, None, 0.5, None, None)
    updates = list(recognise_stream(recogniser, signal.split(block)))
    words = [word for update in updates for word in update.words]
    with torch.inference_mode():
        [whole] = words_of(*model(signal[None], torch.tensor([len(signal)])), model.alphabet, 0.02)
    assert "".join(word.text for word in words) == "".join(word.text for word in whole) != ""
    assert words[-1].end == pytest.approx(whole[-1].end) and words[0].start == pytest.approx(whole[0].start)
    assert updates[-1].partial == "" and updates[-1].seconds == pytest.approx(7.3, abs=0.02)
    assert [update.seconds for update in updates[:-1]] == pytest.approx([0.5 * n for n in range(1, len(updates))])


def test_no_frame_comes_later_than_stated() -> None:
    recogniser, given, heard = LiveRecogniser(small_model("per_feature"), None, 0.3, 0.08, 1.0), 0.0, 0.0
    assert recogniser.latency == pytest.approx(0.38 + 0.016)
    for signal in speech(4.0).split(160):
        given += 0.01
        for update in recogniser.push(signal):
            heard = update.seconds
        assert given - heard <= recogniser.latency + 0.01


def test_memory_is_bounded_and_the_stride_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quartznet.live.MEMORY", 1.01)
    recogniser = LiveRecogniser(small_model("per_feature"), None, 0.3, 0.1, 0.5)
    for signal in speech(6.0).split(1600):
        recogniser.push(signal)
        assert recogniser.held.shape[1] <= 102 + 30 + 10 + 11
    assert recogniser.finish().seconds == pytest.approx(6.0, abs=0.02)


def test_silence_says_nothing_or_little_and_too_short_a_stream_is_an_error() -> None:
    recogniser = LiveRecogniser(small_model("per_feature"))
    with pytest.raises(ValueError, match="0 samples are too short"):
        recogniser.finish()
    recogniser = LiveRecogniser(small_model("per_feature"))
    assert recogniser.push(torch.zeros(800)) == []
    assert recogniser.finish().seconds == pytest.approx(0.06, abs=0.02)


def test_a_decoder_of_ones_own_makes_the_final_words() -> None:
    model = small_model()
    decode = lambda log_probs, lengths: [  # noqa: E731
        [replace(word, text="x") for word in row] for row in words_of(log_probs, lengths, model.alphabet, 0.02)
    ]
    updates = list(recognise_stream(LiveRecogniser(model, decode), [speech(3.0)]))
    assert {word.text for update in updates for word in update.words} == {"x"}


def test_the_mode_is_left_as_it_was() -> None:
    model = small_model().train()
    list(recognise_stream(LiveRecogniser(model), [speech(1.0)]))
    assert model.training
