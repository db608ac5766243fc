"""quartznet.checkup: what is measured, on signals and networks made for it."""

from dataclasses import replace

import pytest
import torch
from test_finetune import FOUR
from test_model import small_model

from quartznet.checkup import (
    check_front_end,
    check_overfit,
    check_sample_rate,
    check_transcripts,
    energy_above,
    front_end_distance,
    other_front_ends,
    own_text_wins,
    slowed,
)
from quartznet.config import FeatureConfig
from quartznet.model import QuartzNet


def chirps(count: int = 6) -> list[torch.Tensor]:
    """Sweeps with some noise, 64 frames each, so that nothing is padded."""
    time = torch.arange(10240) / 16000
    noise = torch.Generator().manual_seed(3)
    return [
        0.3 * torch.sin(2 * torch.pi * (150 + 90 * n) * time * (1 + 2 * time))
        + 0.003 * torch.randn(10240, generator=noise)
        for n in range(count)
    ]


def remembering(signals: list[torch.Tensor]) -> QuartzNet:
    """A network whose first batch norm remembers these signals, without padding.

    Its first layer looks at fine detail, as trained ones do and random ones do not: the curvature in time of the
    difference between neighbouring bands.
    """
    model = small_model(FOUR).eval()
    layer, frames = model.encoder.blocks[0].layers[0], []
    with torch.no_grad():
        middle = layer.depthwise.weight.shape[3] // 2
        layer.depthwise.weight.zero_()[..., middle - 1 : middle + 2] = torch.tensor([1.0, -2.0, 1.0])
        layer.pointwise.weight.zero_()
        for channel in range(16):
            layer.pointwise.weight[channel, 4 * channel : 4 * channel + 2, 0, 0] = torch.tensor([1.0, -1.0])
    for signal in signals:
        features, lengths = model.front_end(signal[None], torch.tensor([len(signal)]))
        with torch.no_grad():
            frames.append(layer.pointwise(layer.depthwise(features[:, :, None, : int(lengths)]))[0, :, 0])
    everything = torch.cat(frames, 1)
    layer.norm.running_mean.copy_(everything.mean(1))
    layer.norm.running_var.copy_(everything.var(1))
    return model


def test_the_right_front_end_is_near_and_others_are_not() -> None:
    signals = chirps()
    model = remembering(signals)
    own = front_end_distance(model, signals, model.config.features)
    assert own < 1e-4
    finding = check_front_end(model, signals)
    assert finding.level == "ok" and f"memory {own:.3f}" in finding.text


@pytest.mark.parametrize(
    "change, name",
    [
        ({"window_size": 512}, "a window of 20 ms"),
        ({"normalize": "none"}, "normalize per_feature"),
        ({"preemphasis": 0.0}, "pre-emphasis 0.97"),
    ],
)
def test_the_front_end_of_the_training_is_named(change: dict, name: str) -> None:
    signals = chirps()
    model = remembering(signals)
    model.config = replace(model.config, features=replace(model.config.features, **change))
    finding = check_front_end(model, signals)
    assert finding.level == "fault" and f"was trained with {name}" in finding.text


def test_features_that_nothing_explains() -> None:
    model = remembering(chirps())
    norm = model.encoder.blocks[0].layers[0].norm
    norm.running_mean += 2 * norm.running_var.sqrt()
    finding = check_front_end(model, chirps())
    assert finding.level == "fault" and "the features are not those the network was trained on" in finding.text


def test_other_front_ends_leave_out_the_own() -> None:
    others = other_front_ends(FeatureConfig())
    assert "a window of 20 ms" not in others and "a window of 25 ms" in others
    assert all(other != FeatureConfig() for other in others.values())
    small = other_front_ends(FeatureConfig(window_size=100, hop=100, fft_size=128))  # no hop of the others fits into it
    assert small["a hop of 12.5 ms"].fft_size == 256


def test_own_texts_win_where_they_are_written_into_the_output() -> None:
    blank, ids = 3, [[0, 1, 2, 0], [2, 2, 1, 0], [1, 0, 1, 0], [0, 0, 2, 1], [1, 2, 0]]
    log_probs = torch.full((5, 12, 4), -4.0)
    for row, text in zip(log_probs, ids, strict=True):
        row[:, blank] = 0.0
        for place, label in enumerate(text):
            row[2 * place + 1, label], row[2 * place + 1, blank] = 1.0, -4.0
    log_probs, lengths = log_probs.log_softmax(2), torch.full((5,), 12)
    shares, losses = own_text_wins(log_probs, lengths, ids, blank)
    assert shares == [1.0] * 5 and max(losses) < 1.5
    shuffled, worse = own_text_wins(log_probs, lengths, [*ids[1:], ids[0]], blank)
    assert sum(shuffled) < 2.6 and min(worse) > max(losses)


def test_texts_too_long_for_a_clip_are_no_rivals() -> None:
    log_probs = torch.zeros(2, 4, 3).log_softmax(2)
    shares, losses = own_text_wins(log_probs, torch.tensor([4, 4]), [[0], [0, 0, 0]], 2)
    assert shares == [] or len(shares) == 1  # the long text fits nowhere
    assert losses[1] == float("inf")


def test_levels_of_the_transcripts() -> None:
    names = [f"{n}.wav" for n in range(10)]
    assert check_transcripts([1.0] * 10, names).level == "ok"
    assert check_transcripts([0.5] * 10, names).level == "fault"
    doubtful = check_transcripts([1.0] * 7 + [0.0, 0.25, 1.0], names)
    assert doubtful.level == "note" and "7.wav, 8.wav" in doubtful.advice
    assert "too few" in check_transcripts([1.0] * 3, names).text


def test_energy_and_half_speed() -> None:
    time = torch.arange(16000) / 16000
    low, high = torch.sin(2 * torch.pi * 1000 * time), torch.sin(2 * torch.pi * 6000 * time)
    assert energy_above(low, 16000, 4800) < -70 and energy_above(low + high, 16000, 4800) == pytest.approx(
        -3.0, abs=0.1
    )
    slow = slowed(low)
    assert len(slow) == 32000 and energy_above(slow, 16000, 600) < -40  # 1000 Hz has become 500


def test_levels_of_the_sample_rate() -> None:
    noise = [torch.randn(16000, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    fast = check_sample_rate(noise, 16000, [28, 28, 28], {"as it is": 3.5, "slowed": 1.9})
    assert fast.level == "fault" and "taken at 8000 Hz" in fast.advice
    assert check_sample_rate(noise, 16000, [28, 28, 28], {"as it is": 1.9, "slowed": 3.5}).level == "ok"
    assert check_sample_rate(noise, 16000, [12, 12, 12], {"as it is": 3.5, "slowed": 1.9}).level == "ok"
    low = [torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)] * 3
    narrow = check_sample_rate(low, 16000, [12] * 3, {"as it is": 1.0, "slowed": 3.0})
    assert narrow.level == "note" and "8000 Hz speech in files of 16000 Hz" in narrow.advice


def test_levels_of_learning() -> None:
    assert check_overfit([100, 50, 0.5], [], 0.0, 0.001, 8).level == "ok"
    high = check_overfit([100, 400, 90, 80], [100, 60, 30], 1.0, 0.1, 8)
    assert high.level == "fault" and "try --optim.lr 0.001" in high.advice
    assert "does not fall" in check_overfit([100, 101, 99], [100, 100, 100], 1.0, 0.001, 8).text
    assert check_overfit([100, 50, 20], [100, 99, 98], 0.4, 0.001, 8).level == "note"
    assert check_overfit([100, float("inf")], [100, 40], 1.0, 1.0, 8).level == "fault"
