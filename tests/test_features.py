"""The front end: filterbank, frame counts, normalisation by hand; invariants of a padded batch.

The rules are held against what the real NeMo computed in ``test_nemo.py``.
"""

import math

import pytest
import torch

from quartznet.config import FeatureConfig
from quartznet.features import LogMel, frame_counts, hertz_to_mel, mel_filterbank, mel_to_hertz

RULES = ("0.x", "1.x", "2.5")


def front_end(**settings: object) -> LogMel:
    return LogMel(FeatureConfig(**settings)).eval()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(16000, (100, 101, 100)), (16037, (101, 101, 100)), (160, (1, 2, 1)), (161, (2, 2, 1)), (0, (0, 1, 0))],
)
def test_frame_counts_of_the_three_rules(samples: int, expected: tuple[int, ...]) -> None:
    counts = tuple(int(frame_counts(torch.tensor([samples]), FeatureConfig(rule=rule))) for rule in RULES)
    assert counts == expected


def test_mel_scale_by_hand() -> None:
    hertz = torch.tensor([0.0, 200.0, 1000.0, 6400.0], dtype=torch.double)
    torch.testing.assert_close(hertz_to_mel(hertz), torch.tensor([0.0, 3.0, 15.0, 42.0], dtype=torch.double))
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(hertz)), hertz)


def test_filterbank_is_torchaudios() -> None:
    import torchaudio

    theirs = torchaudio.functional.melscale_fbanks(257, 0.0, 8000.0, 64, 16000, norm="slaney", mel_scale="slaney")
    bank = mel_filterbank(FeatureConfig())
    assert bank.shape == (64, 257)
    # torchaudio computes in fp32, ours in fp64
    torch.testing.assert_close(bank, theirs.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_valid_frames_are_normalised_and_the_rest_is_zero(rule: str) -> None:
    signal, lengths = torch.randn(2, 8000) * 0.1, torch.tensor([8000, 5003])
    signal[1, 5003:] = 0.0
    features, frames = front_end(rule=rule)(signal, lengths)
    assert features.shape == (2, 64, 64) and features.dtype == torch.float32
    for row, count in zip(features, frames.tolist(), strict=True):
        torch.testing.assert_close(row[:, :count].mean(1), torch.zeros(64), atol=1e-5, rtol=0)
        torch.testing.assert_close(row[:, :count].std(1), torch.ones(64), atol=1e-3, rtol=0)
        assert not row[:, count:].any()


def test_rule_2_5_does_not_depend_on_the_batch() -> None:
    signal = torch.randn(1, 8000) * 0.1
    alone, frames = front_end(rule="2.5", pad_to=0)(signal, torch.tensor([8000]))
    padded, _ = front_end(rule="2.5", pad_to=0)(torch.cat([signal, torch.zeros(1, 3000)], 1), torch.tensor([8000]))
    torch.testing.assert_close(padded[:, :, : int(frames)], alone[:, :, : int(frames)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_each_is_every_clip_alone(rule: str) -> None:
    module, signal, lengths = front_end(rule=rule), torch.randn(2, 9000) * 0.1, torch.tensor([6400, 8003])
    signal *= torch.arange(9000) < lengths[:, None]
    together, frames = module.each(signal, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, count = module(signal[row : row + 1, :length], lengths[row : row + 1])
        assert frames[row] == count[0]
        torch.testing.assert_close(together[row, :, : int(count)], alone[0, :, : int(count)], rtol=1e-5, atol=1e-5)
        assert not together[row, :, int(count) :].any()


@pytest.mark.parametrize("rule", RULES)
def test_rows_are_the_features_of_every_clip_alone(rule: str) -> None:
    module = front_end(rule=rule)
    signal, lengths = torch.randn(5, 9000) * 0.1, torch.tensor([6400, 8003, 257, 9000, 479])  # dirt beyond the ends
    found, frames = module.rows(signal, lengths)
    expected, expected_frames = module.each(signal * (torch.arange(9000) < lengths[:, None]), lengths)
    assert frames.tolist() == expected_frames.tolist()
    torch.testing.assert_close(found[:, :, : expected.shape[2]], expected, rtol=1e-5, atol=1e-5)
    assert not found[:, :, expected.shape[2] :].any() and found.shape[2] % 16 == 0


def test_all_steps_of_one_frame_by_hand() -> None:
    """The middle frame of a short clip, from the definition: pre-emphasis, window, DFT, mel, logarithm."""
    config = FeatureConfig(rule="2.5", normalize="none", pad_to=0)
    signal = torch.randn(1, 1600, dtype=torch.double) * 0.1
    features, _ = front_end(rule="2.5", normalize="none", pad_to=0)(signal.float(), torch.tensor([1600]))
    emphasised = signal[0].clone()
    emphasised[1:] -= 0.97 * signal[0, :-1]
    start = 5 * 160 - 160  # the window of 320 is centred on sample 5 x 160
    window = torch.tensor([0.5 - 0.5 * math.cos(2 * math.pi * n / 319) for n in range(320)], dtype=torch.double)
    spectrum = torch.fft.rfft(emphasised[start : start + 320] * window, n=512)
    expected = torch.log(mel_filterbank(config).double() @ spectrum.abs().square() + 2.0**-24)
    torch.testing.assert_close(features[0, :, 5].double(), expected, rtol=1e-4, atol=1e-4)


def test_dither_is_for_training_only() -> None:
    module, signal, lengths = front_end(), torch.randn(1, 4000) * 0.1, torch.tensor([4000])
    torch.testing.assert_close(module(signal, lengths), module(signal, lengths), rtol=0, atol=0)
    module.train()
    assert not torch.equal(module(signal, lengths)[0], module(signal, lengths)[0])


def test_fp32_under_autocast() -> None:
    module, signal, lengths = front_end(), torch.randn(2, 4000) * 0.1, torch.tensor([4000, 4000])
    expected, _ = module(signal, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = module(signal, lengths)
    torch.testing.assert_close(features, expected, rtol=0, atol=0)


def test_other_normalisations() -> None:
    signal, lengths = torch.randn(1, 8000) * 0.1, torch.tensor([8000])
    features, frames = front_end(normalize="all_features")(signal, lengths)
    valid = features[0, :, : int(frames)]
    torch.testing.assert_close(torch.stack([valid.mean(), valid.std()]), torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)


def test_single_frame_is_finite() -> None:
    features, frames = front_end(rule="2.5")(torch.randn(1, 200) * 0.1, torch.tensor([200]))
    assert frames.tolist() == [1] and features.isfinite().all()


@pytest.mark.parametrize(("rule", "shortest"), [("0.x", 257), ("1.x", 257), ("2.5", 160)])
def test_the_shortest_clip_is_accepted_and_one_sample_less_is_not(rule: str, shortest: int) -> None:
    module = front_end(rule=rule)
    assert module.shortest == shortest
    features, _ = module.each(torch.randn(2, shortest) * 0.1, torch.tensor([shortest, shortest]))
    assert features.isfinite().all()
    with pytest.raises(ValueError, match=f"a clip of {shortest - 1} samples"):
        module(torch.zeros(1, shortest - 1), torch.tensor([shortest - 1]))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="give a single clip as"):
        front_end()(torch.zeros(4000), torch.tensor([4000]))
    with pytest.raises(ValueError, match="too short; the front end needs 257"):
        front_end(rule="0.x")(torch.zeros(1, 200), torch.tensor([200]))
    with pytest.raises(ValueError, match="has no frame; leave empty clips out"):
        front_end()(torch.zeros(2, 4000), torch.tensor([4000, 100]))


@pytest.mark.parametrize("normalize", ["per_feature", "all_features", "none"])
@pytest.mark.parametrize("rule", ["0.x", "2.5"])
def test_where_lengths_are_not_looked_at_a_clip_without_a_frame_is_nan(
    rule: str, normalize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, that is; here the look is left out."""
    module, signal = front_end(rule=rule, normalize=normalize), torch.randn(2, 4000) * 0.1
    signal[1] = 0.0
    expected, _ = module(signal[:1], torch.tensor([4000]))
    monkeypatch.setattr(LogMel, "_check", lambda *_: None)
    features, frames = module(signal, torch.tensor([4000, 0]))
    assert frames[1] == 0 and features[1, :, :25].isnan().all()
    torch.testing.assert_close(features[:1], expected)


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_without_clips_has_no_features(rule: str) -> None:
    module = front_end(rule=rule)
    for samples in (0, 8000):
        for form in (module, module.each):
            features, frames = form(torch.zeros(0, samples), torch.zeros(0, dtype=torch.int64))
            assert features.shape == (0, 64, 16 if samples == 0 else 64) and frames.shape == (0,)


def test_a_model_moved_to_half_precision_still_has_features() -> None:
    module, signal, lengths = front_end(), torch.randn(1, 4000) * 0.1, torch.tensor([4000])
    features, _ = module.to(torch.bfloat16)(signal, lengths)
    assert features.dtype == torch.float32 and features.isfinite().all()
