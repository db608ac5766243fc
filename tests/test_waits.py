"""From a batch to the encoder's output, a training step never waits for the device: no number comes back from it.

Without a GPU the proof is one of shapes and copies (``fake_gpu``); with one, PyTorch itself watches every call.
"""

import fake_gpu
import pytest
import torch
from fake_gpu import CUDA, NoWaits
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from quartznet import speed
from quartznet.augment import augment_features
from quartznet.batch import Batch
from quartznet.config import AugmentSettings, FeatureConfig, ModelConfig, preset_blocks
from quartznet.model import QuartzNet
from quartznet.prefetch import sent

LENGTHS, SPEEDS = (16000, 12000, 9000), (0.9, 1.0, 1.1)
EVERYTHING = AugmentSettings(time_masks=2, freq_masks=2, masks_per_frame=0.01)


def network(**features: object) -> QuartzNet:
    return QuartzNet(ModelConfig(tuple("abc"), preset_blocks("tiny"), FeatureConfig(**features))).train()


def batch_on(device: torch.device) -> Batch:
    lengths, letters = torch.empty(3, dtype=torch.int64, device=device), torch.zeros(3, dtype=torch.int64)
    signal = torch.zeros(3, 16000, device=device)
    texts, names = ["", "", ""], ["a", "b", "c"]
    return Batch(signal, lengths, letters[:, None], letters, texts, names, [], SPEEDS, LENGTHS)


def step(model: QuartzNet, batch: Batch) -> tuple[Tensor, Tensor]:
    """What training does before the loss."""
    batch = batch.at_speed()
    features, lengths = model.features(batch.signal, batch.signal_lengths)
    features = augment_features(features, lengths, EVERYTHING, torch.Generator().manual_seed(0))
    encoded, lengths = model.encode(features, lengths)
    return model.decoder(encoded), lengths


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
@pytest.mark.parametrize("normalize", ["per_feature", "none"])
def test_nothing_waits(rule: str, normalize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(rule=rule, normalize=normalize)
    speed._weights.cache_clear()
    with fake_gpu.fake_gpu(monkeypatch):
        fake_gpu.moved(model)
        batch = batch_on(CUDA)
        batch.at_speed()  # the filters are computed and copied once
        with NoWaits():
            log_probs, lengths = step(model, batch)
        assert log_probs.device == lengths.device == CUDA
        samples = 18432  # rounded_length(ceil(16000 / 0.9))
        assert log_probs.shape == (3, -(-(samples // 160 + 1) // 16) * 8, 4)
    speed._weights.cache_clear()


def test_the_guard_notices_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu.fake_gpu(monkeypatch):
        there = torch.empty(4, device=CUDA)
        with NoWaits():
            sent(torch.zeros(4), CUDA)
            with pytest.raises(AssertionError, match=r"copy of \(4,\) between host and device waits"):
                torch.zeros(4).to(CUDA)
            with pytest.raises(AssertionError, match="between host and device waits"):
                there.cpu()
            with pytest.raises((AssertionError, DataDependentOutputException), match="_local_scalar_dense"):
                there.sum().item()
            with pytest.raises((AssertionError, DynamicOutputShapeException), match="nonzero"):
                there[there > 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_on_a_real_gpu() -> None:
    device = torch.device("cuda", 0)
    model, batch = network().to(device), batch_on(device)
    batch.signal_lengths.copy_(torch.tensor(LENGTHS))
    step(model, batch)  # libraries are loaded, filters copied
    torch.cuda.set_sync_debug_mode("error")
    try:
        log_probs, _ = step(model, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert log_probs.isfinite().all()
