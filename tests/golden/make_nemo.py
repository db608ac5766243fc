"""Writes the golden NeMo files of ``tests/test_nemo.py``: very small random models and what the real NeMo computes.

Run by hand, in an environment of its own, never in a test::

    pip install torch==2.13.0 "nemo_toolkit[asr]==2.5.3" "pyarrow<21" "pandas<3" "datasets<4" "setuptools<81"
    python tests/golden/make_nemo.py

Three models: ``plain`` (masks, dilation, residual, non-ASCII labels), ``grouped`` (pointwise groups with shuffle, a
kernel factor, a full convolution in the middle) and ``unmasked`` (``conv_mask: false``). Lightning saves ``plain`` too.
The surprise: NeMo does not shorten the lengths of an unmasked model, so ours are compared on the frames alone.
"""

from pathlib import Path

import lightning.pytorch as pl
import numpy
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf

FOLDER = Path(__file__).resolve().parent
MODULES = "nemo.collections.asr.modules"
LABELS = [" ", "a", "n", "ñ", "é", "y", "'"]


def block(filters: int, kernel: int, repeat: int = 1, **more: object) -> dict:
    """One entry of NeMo's ``jasper`` list."""
    table = {"filters": filters, "kernel": [kernel], "repeat": repeat, "stride": [1], "dilation": [1], "dropout": 0.0}
    return table | {"residual": False, "separable": True} | more


MODELS = {
    "plain": (True, [block(8, 11, stride=[2]), block(12, 13, 2, residual=True), block(12, 87, dilation=[2])]),
    "grouped": (
        True,
        [
            block(8, 11, stride=[2]),
            block(12, 27, 3, residual=True, groups=2, kernel_size_factor=0.5),
            block(12, 5, 2, residual=True, separable=False),
        ],
    ),
    "unmasked": (False, [block(8, 11, stride=[2]), block(12, 13, 2, residual=True)]),
}


def build(masked: bool, blocks: list[dict]) -> EncDecCTCModel:
    """A model with random weights and random batch-norm statistics, in evaluation mode, without dither."""
    config = {
        "sample_rate": 16000,
        "labels": LABELS,
        "preprocessor": {
            "_target_": f"{MODULES}.AudioToMelSpectrogramPreprocessor",
            "normalize": "per_feature",
            "window_size": 0.02,
            "window_stride": 0.01,
            "window": "hann",
            "features": 16,
            "n_fft": 512,
        },
        "encoder": {
            "_target_": f"{MODULES}.ConvASREncoder",
            "feat_in": 16,
            "activation": "relu",
            "conv_mask": masked,
            "jasper": [*blocks, block(16, 1, separable=False)],
        },
        "decoder": {
            "_target_": f"{MODULES}.ConvASRDecoder",
            "feat_in": 16,
            "num_classes": len(LABELS),
            "vocabulary": LABELS,
        },
    }
    model = EncDecCTCModel(cfg=OmegaConf.create(config))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.5, 0.5)
    model.preprocessor.featurizer.dither = 0.0
    return model.eval()


def signal() -> tuple[numpy.ndarray, numpy.ndarray]:
    """Two noisy chirps as 16-bit integers ``(2, 8000)``, the second shorter and padded; and their lengths."""
    time = numpy.arange(8000) / 16000
    noise = numpy.random.default_rng(0).normal(size=(2, 8000))
    waves = numpy.stack([numpy.sin(2 * numpy.pi * (200 + 3000 * time) * time), numpy.sin(1500 * time)])
    lengths = numpy.array([8000, 5037])
    samples = (8000 * waves + 300 * noise).astype(numpy.int16)
    return samples * (numpy.arange(8000) < lengths[:, None]), lengths


def main() -> None:
    samples, lengths = signal()
    arrays = {"signal": samples.astype(numpy.int16), "lengths": lengths}
    inputs = torch.tensor(arrays["signal"], dtype=torch.float32) / 32768
    for name, (masked, blocks) in MODELS.items():
        torch.manual_seed(0)
        model = build(masked, blocks)
        with torch.no_grad():
            features, frames = model.preprocessor(input_signal=inputs, length=torch.tensor(lengths))
            log_probs, outputs, _ = model(processed_signal=features, processed_signal_length=frames)
        arrays |= {f"{name}_features": features, f"{name}_log_probs": log_probs}
        arrays |= {f"{name}_frames": frames, f"{name}_outputs": outputs}
        model.save_to(str(FOLDER / f"nemo_{name}.nemo"))
        if name == "plain":
            trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
            trainer.strategy.connect(model)
            trainer.save_checkpoint(FOLDER / "nemo_plain.ckpt")
    numpy.savez_compressed(FOLDER / "nemo.npz", **{key: numpy.asarray(value) for key, value in arrays.items()})


if __name__ == "__main__":
    main()
