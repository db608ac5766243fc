"""A BERT that guesses hidden pieces: the encoder of a corrector, and BERT's head of pre-training.

    scores = model(masked.ids, mask, masked.asked)          # (places, vocabulary), of the asked places alone

The head is a linear layer, the bend of the network, a layer norm, and then the table of tokens again, one parameter
with the encoder's, plus a bias: transformers' BertForMaskedLM. ``postcorrect.bert`` reads and writes both as a folder.

The surprise: nothing is computed where nothing is asked, neither scores, of which there are as many as tokens, nor the
last feed-forward layer. With few layers, as here, that is a good part of all there is to compute.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from postcorrect.config import CorrectorConfig
from postcorrect.model import Encoder, bend, initialise


class MaskHead(nn.Module):
    """Vectors of an encoder -> scores of tokens."""

    def __init__(self, config: CorrectorConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.dense = nn.Linear(config.channels, config.channels)
        self.norm = nn.LayerNorm(config.channels, config.encoder.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.apply(initialise)

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Scores before softmax, (places, vocabulary).

        Args:
            hidden: (places, channels).
            tokens: (rows, channels), the encoder's table; rows beyond the vocabulary are left out.
        """
        hidden = self.norm(bend(self.dense(hidden), self.activation))
        return functional.linear(hidden, tokens[: len(self.bias)], self.bias)


class MaskedModel(nn.Module):
    """An encoder and the head that guesses what is hidden from it."""

    def __init__(self, encoder: Encoder, head: MaskHead | None = None) -> None:
        """``head`` None: a new one, with random weights from torch's global generator."""
        super().__init__()
        self.encoder, self.head = encoder, head or MaskHead(encoder.config)

    @classmethod
    def new(cls, config: CorrectorConfig) -> Self:
        """Random weights, from torch's global generator."""
        return cls(Encoder(config))

    @property
    def device(self) -> torch.device:
        return self.head.bias.device

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Scores before softmax at some places, (places, vocabulary), text by text.

        Args:
            ids: (batch, time) numbers of tokens.
            mask: (batch, time), True = token, False = padding; each text has at least one token.
            places: (batch, time), True = wanted.

        Raises:
            ValueError: see ``Encoder.forward``.
        """
        return self.head(self.encoder(ids, mask, places), self.encoder.tables.tokens.weight)
