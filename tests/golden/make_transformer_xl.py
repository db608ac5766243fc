"""Writes ``transformer_xl.npz``: what Hugging Face's Transformer-XL makes of two segments, with random weights.

Run by hand in an environment with transformers up to 4.5x (later ones have it no more), from the root::

    python tests/golden/make_transformer_xl.py

Two pre-norm blocks without dropout, one segment after the other with its memory, which is long enough to hold all. The
surprise: biases and norms are made random too, because fresh ones do almost nothing and would hide a mistake.
"""

from pathlib import Path
from unittest.mock import patch

import numpy
import torch
from transformers import TransfoXLConfig, TransfoXLModel

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Builds it, runs both segments, saves weights, numbers in and vectors out (before any final norm)."""
    torch.manual_seed(0)
    config = TransfoXLConfig(
        vocab_size=7, cutoffs=[], d_model=8, d_embed=8, n_head=2, d_head=4, d_inner=32, div_val=1, pre_lnorm=True,
        n_layer=2, mem_len=16, clamp_len=-1, same_length=False, dropout=0.0, dropatt=0.0, untie_r=True, adaptive=False,
    )  # fmt: skip
    model = TransfoXLModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
        ids = torch.randint(0, 6, (2, 11))  # 6 is the boundary of ours, and absent
        with patch.object(torch.Tensor, "type_as", lambda tensor, dtype: tensor.to(dtype)):  # mends transformers 4.53
            first = model(ids[:, :6])
            second = model(ids[:, 6:], mems=first.mems)
    arrays = {f"weight.{name}": value.numpy() for name, value in model.state_dict().items()}
    hidden = torch.cat([first.last_hidden_state, second.last_hidden_state], dim=1)
    numpy.savez_compressed(FOLDER / "transformer_xl.npz", ids=ids.numpy(), hidden=hidden.numpy(), **arrays)
    print({name: value.shape for name, value in arrays.items()})


if __name__ == "__main__":
    main()
