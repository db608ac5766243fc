"""Prints how far ours is from the real NeMo for one ``.nemo`` file: the figures of ``docs/parity.md``.

Run by hand, in the environment of ``make_nemo.py`` with einops and soundfile, from the root of the repository::

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/golden/compare_nemo.py quartznet15x5.nemo

Three noise clips of different lengths in one padded batch, dropout off. Both sides run by the front-end rule 2.5. The
training figures appear twice: in fp32, where rounding is amplified by the network, and in fp64 from the same features,
where only a different formula could make a difference. The masks of NeMo and ours are compared as distributions.
"""

import argparse
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.parts.submodules import spectr_augment
from scipy.stats import ks_2samp
from torch import Tensor

from quartznet.augment import SpecAugment, SpecCutout
from quartznet.ctc import ctc_loss
from quartznet.model import QuartzNet
from quartznet.nemo import load_nemo, save_nemo
from quartznet.nemo_keys import weight_table

DRAWS = 20000


def load_both(path: Path) -> tuple[EncDecCTCModel, QuartzNet]:
    """The same file twice, without dither and dropout."""
    theirs, ours = EncDecCTCModel.restore_from(str(path), map_location="cpu").eval(), load_nemo(path)
    theirs.preprocessor.featurizer.dither, theirs.spec_augmentation = 0.0, None
    ours.front_end.config = replace(ours.front_end.config, rule="2.5", dither=0.0)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for block in ours.encoder.blocks:
        block.config = replace(block.config, dropout=0.0)
    return theirs, ours


def batch(blank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Signal, its lengths, targets, their lengths: shaped noise of 1.2 to 2.2 s."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([18943, 30798, 35356])
    signal = torch.randn(3, 35356, generator=generator) * 0.1 * torch.sin(torch.arange(35356) / 900).abs()
    targets = torch.randint(0, blank, (3, 25), generator=generator)
    return (
        signal.masked_fill(torch.arange(35356) >= lengths[:, None], 0.0),
        lengths,
        targets,
        torch.tensor([15, 20, 25]),
    )


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest number."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def compare_training(theirs: EncDecCTCModel, ours: QuartzNet, features: list[Tensor], targets: list[Tensor]) -> None:
    """Loss, every gradient, and the batch-norm statistics of one step in training mode; changes both models."""
    theirs.train().zero_grad()
    ours.train().zero_grad()
    log_probs, lengths, _ = theirs(processed_signal=features[0], processed_signal_length=features[1])
    their_loss = theirs.loss(log_probs=log_probs, targets=targets[0], input_lengths=lengths, target_lengths=targets[1])
    our_log_probs, our_lengths = ours.forward_features(*features)
    our_loss = ctc_loss(our_log_probs, our_lengths, *targets, ours.alphabet.blank)
    their_loss.backward()
    our_loss.backward()
    print(f"  log_probs, padding counted {(our_log_probs - log_probs).abs().max().item():.1e}")
    print(f"  loss {our_loss.item():.6f}, relative {abs(our_loss.item() / their_loss.item() - 1):.1e}")

    foreign, own = dict(theirs.named_parameters()), dict(ours.named_parameters())
    buffers, our_buffers = theirs.state_dict(), ours.state_dict()
    gradients, statistics, counters = [], [], []
    for entry in weight_table(ours.config):
        name = entry.theirs if ours.config.masked else entry.theirs.replace(".conv.weight", ".weight")
        if entry.ours in own:
            gradients.append(relative(own[entry.ours].grad.reshape(entry.their_shape), foreign[name].grad))
        elif name.endswith("num_batches_tracked"):
            counters.append(torch.equal(our_buffers[entry.ours], buffers[name]))
        else:
            statistics.append(relative(our_buffers[entry.ours], buffers[name]))
    print(f"  {len(gradients)} gradients, worst {max(gradients):.1e}, median {numpy.median(gradients):.1e}")
    print(f"  {len(statistics)} running statistics, worst {max(statistics):.1e}; counters equal: {all(counters)}")


def masked(mask: Tensor) -> numpy.ndarray:
    """Rows of (bands, frames, share) that a mask ``(batch, mels, frames)`` covers."""
    columns = (mask.any(2).sum(1), mask.any(1).sum(1), mask.float().mean((1, 2)))
    return torch.stack([column.double() for column in columns], 1).numpy()


def compare_masks() -> None:
    """p-values of Kolmogorov and Smirnov: below 0.001 would mean that the distributions differ."""
    features, lengths = torch.ones(DRAWS // 50, 64, 400), torch.full((DRAWS // 50,), 333)
    generator = torch.Generator().manual_seed(0)
    pairs = {
        "SpecCutout, 1": (
            spectr_augment.SpecCutout(1, 120, 50, random.Random(0)),
            SpecCutout(1, 120, 50),
        ),
        "SpecCutout, 5": (spectr_augment.SpecCutout(5, 120, 50, random.Random(1)), SpecCutout(5, 120, 50)),
        "SpecAugment, time": (spectr_augment.SpecAugment(0, 1, 27, 0.05), SpecAugment(1, 0.05, 0, 27)),
        "SpecAugment, bands": (spectr_augment.SpecAugment(1, 0, 27, 0.05), SpecAugment(0, 0.05, 1, 27)),
    }
    for name, (theirs, ours) in pairs.items():
        rows = [[], []]
        for _ in range(50):
            more = {} if "Cutout" in name else {"length": lengths}
            rows[0].append(masked(theirs(input_spec=features.clone(), **more) == 0))
            rows[1].append(masked(ours(features, lengths, generator) == 0))
        samples = [numpy.concatenate(side) for side in rows]
        values = [ks_2samp(samples[0][:, column], samples[1][:, column]).pvalue for column in range(3)]
        means = [side.mean(0).round(3).tolist() for side in samples]
        print(f"  {name}: means {means[0]} and {means[1]}, p {min(values):.2f} at least")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    path = parser.parse_args().checkpoint
    torch.manual_seed(0)
    theirs, ours = load_both(path)
    signal, lengths, *targets = batch(ours.alphabet.blank)

    with torch.no_grad():
        features = list(theirs.preprocessor(input_signal=signal, length=lengths))
        found, frames = ours.features(signal, lengths)
        expected, outputs, _ = theirs(processed_signal=features[0], processed_signal_length=features[1])
        log_probs, our_outputs = ours.forward_features(*features)
        with tempfile.TemporaryDirectory() as folder:
            save_nemo(ours, Path(folder) / "ours.nemo")
            again = load_both(Path(folder) / "ours.nemo")[0]
        exported, *_ = again(processed_signal=features[0], processed_signal_length=features[1])
    real = torch.arange(expected.shape[1]) < outputs[:, None]
    print(f"features {(found - features[0]).abs().max().item():.1e}, frames equal: {torch.equal(frames, features[1])}")
    print(f"log_probs in evaluation {(log_probs - expected)[real].abs().max().item():.1e} (real frames), ", end="")
    print(f"lengths equal: {torch.equal(outputs, our_outputs)}")
    print(f"NeMo with our export, log_probs {(exported - expected).abs().max().item():.1e}")
    print("training, fp32")
    compare_training(theirs, ours, features, targets)
    print("training, fp64")
    theirs, ours = load_both(path)
    with patch.object(Tensor, "float", Tensor.double):  # ours asks for fp32 in log-softmax and CTC
        compare_training(theirs.double(), ours.double(), [features[0].double(), features[1]], targets)
    print("masks, (bands, frames, share) of NeMo and ours")
    compare_masks()


if __name__ == "__main__":
    main()
