"""Writes ``nemo_adapters.npz`` for ``tests/test_block_adapters.py``: what NeMo's linear adapters make of our network.

Run by hand, in the environment of ``make_nemo.py`` and after ``make_export.py``, never in a test::

    python tests/golden/make_nemo_adapters.py

NeMo restores ``export.nemo``, puts a ``LinearAdapter`` into every block of its encoder, and their numbers are drawn
at random, for NeMo starts with zeros that hide everything. Stored are the log-probabilities of evaluation in fp32;
the same in fp64, where no rounding hides a wrong formula, with loss and gradients as NeMo trains adapters (all else
frozen, batch norms in evaluation); and every block's output where dropout takes everything away. The surprise is in
the last of these: it is not zero, because the adapter comes after the dropout.
"""

from pathlib import Path

import numpy
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from torch import Tensor

FOLDER = Path(__file__).resolve().parent
SIZE = 5  # of the bottleneck
LENGTHS = torch.tensor([45, 30])  # frames
TARGETS, TARGET_LENGTHS = torch.tensor([[1, 2, 3, 0, 4, 4, 5], [2, 1, 1, 6, 0, 0, 0]]), torch.tensor([7, 4])


def adapted() -> tuple[EncDecCTCModel, dict[str, torch.nn.Parameter]]:
    """The network in evaluation mode with random adapters, and these by name."""
    model = EncDecCTCModel.restore_from(str(FOLDER / "export.nemo"), map_location="cpu")
    model.replace_adapter_compatible_modules()
    model.add_adapter("ours", LinearAdapterConfig(in_features=1, dim=SIZE))  # each block fills in its own in_features
    weights = {name: value for name, value in model.named_parameters() if ".adapter_layer." in name}
    generator = torch.Generator().manual_seed(0)
    for name, value in weights.items():
        if name.endswith("module.0.weight"):
            value.data.uniform_(0.5, 1.5, generator=generator)
        else:
            value.data.normal_(0.0, 0.3, generator=generator)
    return model.eval(), weights


def outputs_without_what_dropout_takes(model: EncDecCTCModel, features: Tensor) -> list[Tensor]:
    """Every block's output ``(channels,)`` in its first frame, where dropout with probability 1 leaves only zeros."""
    outputs = []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 1.0
            module.train()
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output[0][-1][0, :, 0]))
        for block in model.encoder.encoder
    ]
    with torch.no_grad():
        model(processed_signal=features, processed_signal_length=LENGTHS)
    for hook in hooks:
        hook.remove()
    return outputs


def main() -> None:
    model, weights = adapted()
    features = torch.randn(2, 16, 45, generator=torch.Generator().manual_seed(1))  # the padding is not zero either
    arrays = {"features": features, "lengths": LENGTHS, "targets": TARGETS, "target_lengths": TARGET_LENGTHS}
    arrays |= {f"weight_{name}": value.detach().clone() for name, value in weights.items()}
    with torch.no_grad():
        arrays["log_probs"], arrays["outputs"], _ = model(processed_signal=features, processed_signal_length=LENGTHS)
    model.double().freeze()
    model.unfreeze_enabled_adapters()
    exact, lengths, _ = model(processed_signal=features.double(), processed_signal_length=LENGTHS)
    loss = model.loss(log_probs=exact, targets=TARGETS, input_lengths=lengths, target_lengths=TARGET_LENGTHS)
    loss.backward()
    arrays |= {"exact_log_probs": exact.detach(), "exact_loss": loss.detach()}
    arrays |= {f"gradient_{name}": value.grad for name, value in weights.items()}
    dropped = outputs_without_what_dropout_takes(model, features.double())
    arrays |= {f"dropped_{index}": output for index, output in enumerate(dropped)}
    numpy.savez_compressed(FOLDER / "nemo_adapters.npz", **{key: numpy.asarray(value) for key, value in arrays.items()})


if __name__ == "__main__":
    main()
