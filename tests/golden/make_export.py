"""Writes ``export.nemo``: a very small random network of ours, as ``save_nemo`` sends it to NeMo.

Run by hand, in this project's environment, from the root of the repository, never in a test::

    PYTHONPATH=. python tests/golden/make_export.py

Every kind of block is in it: stride, residual, groups, dilation, and a full convolution at the end; each has dropout.
The surprise: the batch norms' numbers are random too, because a fresh batch norm does almost nothing in evaluation, and
with it a mistake in one would go unseen.
"""

from pathlib import Path

import torch
from torch import nn

from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.nemo import save_nemo

FOLDER = Path(__file__).resolve().parent
BLOCKS = (
    BlockConfig(8, 11, stride=2, dropout=0.1),
    BlockConfig(12, 13, repeat=2, dropout=0.1, residual=True),
    BlockConfig(12, 7, repeat=3, dropout=0.1, residual=True, groups=2),
    BlockConfig(12, 15, dilation=2, dropout=0.1),
    BlockConfig(16, 1, dropout=0.1, separable=False),
)


def main() -> None:
    torch.manual_seed(0)
    model = QuartzNet(ModelConfig((" ", "a", "n", "ñ", "é", "y", "'"), BLOCKS, FeatureConfig(mels=16))).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    save_nemo(model, FOLDER / "export.nemo")


if __name__ == "__main__":
    main()
