"""Transformer-XL (arXiv:1901.02860): a causal Transformer with relative positions and a memory of what came before.

Query i looks at key j by what it holds and by how far back it is (section 3.3 of the paper):

    score(i, j) = ((q_i + u) k_j + (q_i + v) r_(i-j)) / sqrt(channels of a head)

``q_i``, ``k_j`` are linear in the vectors at i and j, ``r_d`` is linear in a sinusoid of the distance d. The learnt
``u`` and ``v``, one vector a head, say what is worth a look whatever stands at i. Since only distances enter, the keys
of an earlier segment serve a later one unchanged: a text is read segment by segment, and each block is handed what it
saw of the last ``memory`` positions, without gradient. Blocks normalise what they read (pre-norm, the setting
``pre_lnorm`` of the authors' code), not what they write as in the paper: it trains from the first step at a high rate.

Two rules that the paper does not have make the output independent of how a stream is cut. A position sees itself and
at most ``memory`` positions before it, also within its own segment; and nothing before the boundary that began its
sentence, so a sentence has the same probability alone, in a padded batch, and in the middle of a stream.

The surprise: blocks stacked on each other see further than the memory, like layers of convolutions. The memory holds
inputs of blocks, which know of positions that are forgotten themselves.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

# ---------------------------------------------------------------------------------------------------------------------
# Settings and state


@dataclass(frozen=True)
class TransformerConfig:
    """The network of a neural language model."""

    layers: int = 4  # blocks of attention and a feed-forward layer
    channels: int = 256  # width of every position
    heads: int = 4  # of attention; they share the channels
    memory: int = 256  # positions back that each block sees
    dropout: float = 0.1  # while it learns

    def __post_init__(self) -> None:
        if not (1 <= self.layers <= 100 and self.heads >= 1 and self.memory >= 1):
            raise ValueError(f"a network needs layers from 1 to 100, heads >= 1 and memory >= 1, got {self}")
        if self.channels < 2 or self.channels % (2 * self.heads):
            raise ValueError(f"channels must be a multiple of twice the heads ({2 * self.heads}), got {self.channels}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class Memory:
    """What is kept of the segments before: the last positions, ``config.memory`` of them at most."""

    hidden: tuple[Tensor, ...]  # input of each block: (batch, kept, channels), without gradient
    sentence: Tensor  # number of the sentence that each position is in: (batch, kept)


# ---------------------------------------------------------------------------------------------------------------------
# Relative positions


def sinusoids(distances: Tensor, channels: int) -> Tensor:
    """R of the paper, (distances, channels): sines, then cosines, of d / 10000^(2 c / channels), c < channels / 2."""
    rates = 10000.0 ** -(torch.arange(0, channels, 2, device=distances.device) / channels)
    angles = distances.unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def relative_shift(by_distance: Tensor) -> Tensor:
    """Scores by distance, (..., queries, keys), as scores by key, of the same shape (appendix B of the paper).

    Column c stands for the distance ``keys - 1 - c``. The last query is the last key, so its row is in place already;
    the row above belongs one column further left, and so on. One number put before each row, and ``queries`` numbers
    taken off the start of them all, moves row i left by ``queries - 1 - i``, without a copy for each row:

        a2 a1 a0      _ a2 a1 a0                   a1 a0  _
        b2 b1 b0      _ b2 b1 b0   without _ a2    b2 b1 b0     (two queries, three keys)

    What stands right of the diagonal, in the future, is left over from other rows and must be masked.
    """
    queries, keys = by_distance.shape[-2:]
    flat = rearrange(functional.pad(by_distance, (1, 0)), "... queries keys -> ... (queries keys)")
    return rearrange(flat[..., queries:], "... (queries keys) -> ... queries keys", queries=queries, keys=keys)


def visible(sentence: Tensor, queries: int, memory: int) -> Tensor:
    """(batch, 1, queries, keys): which keys each query sees; the queries are the last of the keys.

    Args:
        sentence: (batch, keys) numbers of sentences.
        memory: how far back, in positions.
    """
    position = torch.arange(sentence.shape[1], device=sentence.device)
    distance = position[-queries:].unsqueeze(1) - position
    is_near = (distance >= 0) & (distance <= memory)
    is_same = sentence[:, -queries:].unsqueeze(2) == sentence.unsqueeze(1)
    return (is_near & is_same).unsqueeze(1)


class RelativeAttention(nn.Module):
    """Attention by contents and distance; the formula stands at the top of the file."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.distance_key = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.u = nn.Parameter(torch.zeros(heads, 1, channels // heads))
        self.v = nn.Parameter(torch.zeros(heads, 1, channels // heads))

    def forward(self, context: Tensor, queries: int, positions: Tensor, seen: Tensor) -> Tensor:
        """What the last ``queries`` positions take from all: (batch, queries, channels).

        Args:
            context: (batch, keys, channels), memory first.
            positions: sinusoids of the distances keys - 1 to 0, (keys, channels).
            seen: (batch, 1, queries, keys), see ``visible``.
        """
        split = "batch time (heads size) -> batch heads time size"
        query = rearrange(self.query(context[:, -queries:]), split, heads=self.heads)
        key, value = (rearrange(x, split, heads=self.heads) for x in self.key_value(context).chunk(2, dim=-1))
        distance_key = rearrange(self.distance_key(positions), "keys (heads size) -> heads size keys", heads=self.heads)
        scale = query.shape[-1] ** -0.5
        by_distance = relative_shift((query + self.v) @ distance_key) * scale
        bias = by_distance.masked_fill(~seen, float("-inf")).to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        taken = functional.scaled_dot_product_attention(
            (query + self.u).to(query.dtype), key, value, attn_mask=bias, dropout_p=dropout, scale=scale
        )
        return self.out(rearrange(taken, "batch heads time size -> batch time (heads size)"))


# ---------------------------------------------------------------------------------------------------------------------
# The network


class Block(nn.Module):
    """Attention, then a feed-forward layer four times as wide; each adds to what it read."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        channels = config.channels
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = RelativeAttention(channels, config.heads, config.dropout)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(4 * channels, channels),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """(batch, time, channels), from the same and ``memory`` (batch, kept, channels)."""
        context = self.attention_norm(torch.cat([memory, x], dim=1))
        x = x + self.dropout(self.attention(context, x.shape[1], positions, seen))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class TransformerXL(nn.Module):
    """Numbers of letters -> scores of the letter after each of them.

    ``letters`` numbers stand for letters, the one after the last for the boundary, which begins and ends a sentence.
    With so few of them the output layer need not share its weights with the embedding, as that of words does.
    """

    def __init__(self, letters: int, config: TransformerConfig) -> None:
        super().__init__()
        self.config, self.boundary = config, letters
        self.embedding = nn.Embedding(letters + 1, config.channels)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.channels)
        self.output = nn.Linear(config.channels, letters + 1)
        self.apply(_initialise)

    def no_memory(self, batch: int) -> Memory:
        """The memory of a stream that begins."""
        weight = self.embedding.weight
        return Memory(
            tuple(weight.new_zeros(batch, 0, self.config.channels) for _ in self.blocks),
            torch.zeros(batch, 0, dtype=torch.long, device=weight.device),
        )

    def forward(self, ids: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Scores before softmax, (batch, time, letters + 1), and the memory for the next segment.

        Args:
            ids: (batch, time), from 0 to ``letters``.
            memory: of the segment before; None: there was none.
        """
        memory = memory or self.no_memory(len(ids))
        time, kept = ids.shape[1], memory.sentence.shape[1]
        before = memory.sentence[:, -1:] if kept else ids.new_zeros(len(ids), 1)
        sentence = torch.cat([memory.sentence, before + (ids == self.boundary).cumsum(1)], dim=1)
        seen = visible(sentence, time, self.config.memory)
        distances = torch.arange(kept + time - 1, -1, -1, device=ids.device)
        positions = self.dropout(sinusoids(distances, self.config.channels))

        x = self.dropout(self.embedding(ids))
        inputs = []
        for block, hidden in zip(self.blocks, memory.hidden, strict=True):
            inputs.append(torch.cat([hidden, x], dim=1)[:, -self.config.memory :].detach())
            x = block(x, hidden, positions, seen)
        return self.output(self.norm(x)), Memory(tuple(inputs), sentence[:, -self.config.memory :])


def _initialise(module: nn.Module) -> None:
    """Small linear layers, as in the authors' code: at first all letters are about equally probable."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
