"""The corrector: a BERT reads what was recognised, a decoder of the same make writes what was said.

    hidden = corrector.encode(ids, mask)                    # (batch, time, channels)
    logits = corrector.decode(target, hidden, mask)         # (batch, target time, rows), for the token after each
    logits = corrector(ids, mask, target)                   # both

Every block is a row of sub-layers, each ``norm(x + dropout(layer(x)))``: attention to the text itself, in the decoder
also to the source, and two linear layers with a bend between. The norm comes last, as in BERT (arXiv:1810.04805) and in
the Transformer that it was made from (arXiv:1706.03762); the decoder, as NeMo's, has no other norm at its end. The
output layer is the table of tokens again, one parameter with it, plus a bias.

Attention is ``scaled_dot_product_attention``: its kernels keep scores and softmax in fp32, whatever autocast makes of
queries and keys. In generation a ``Cache`` keeps keys and values, so a step computes one token only; several texts that
are written for the same source share the keys and values of that source instead of copying them.

The surprise: the decoder adds BERT's vector for "sentence 0" to its tokens too. NeMo leaves it out there, and so hands
the first block of a decoder that starts from BERT something else than BERT had.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from postcorrect.config import Activation, CorrectorConfig, StackConfig
from postcorrect.wordpiece import WordPiece

KeysValues = tuple[Tensor, Tensor]  # each (batch, heads, time, channels of a head)

# ---------------------------------------------------------------------------------------------------------------------
# Sub-layers


class Attention(nn.Module):
    """Attention of several heads, what it adds, and the norm after it."""

    def __init__(self, config: CorrectorConfig, stack: StackConfig) -> None:
        super().__init__()
        channels = config.channels
        self.heads, self.score_dropout = config.heads, stack.dropout.attention_scores
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(stack.dropout.attention_output)
        self.norm = nn.LayerNorm(channels, stack.norm_epsilon)

    def keys_values(self, context: Tensor) -> KeysValues:
        """What can be looked at in ``context``, (batch, time, channels)."""
        split = "batch time (heads size) -> batch heads time size"
        return tuple(rearrange(layer(context), split, heads=self.heads) for layer in (self.key, self.value))

    def forward(self, x: Tensor, keys_values: KeysValues, seen: Tensor | None) -> Tensor:
        """(batch x copies, time, channels), the same shape as ``x``.

        Args:
            keys_values: of ``batch`` contexts; each serves as many rows of ``x``, one after the other.
            seen: True where a query may look, (batch, 1, 1, keys) or (queries, keys); None: everywhere.
        """
        keys, values = keys_values
        fold = "(batch copies) time (heads size) -> batch heads (copies time) size"
        query = rearrange(self.query(x), fold, batch=len(keys), heads=self.heads)
        dropout = self.score_dropout if self.training else 0.0
        taken = functional.scaled_dot_product_attention(query, keys, values, attn_mask=seen, dropout_p=dropout)
        unfold = "batch heads (copies time) size -> (batch copies) time (heads size)"
        return self.norm(x + self.dropout(self.out(rearrange(taken, unfold, time=x.shape[1]))))


class FeedForward(nn.Module):
    """Two linear layers with a bend between, and the norm after them."""

    def __init__(self, config: CorrectorConfig, stack: StackConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.inner = nn.Linear(config.channels, config.feed_forward)
        self.out = nn.Linear(config.feed_forward, config.channels)
        self.dropout = nn.Dropout(stack.dropout.feed_forward)
        self.norm = nn.LayerNorm(config.channels, stack.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, channels), the same shape."""
        return self.norm(x + self.dropout(self.out(bend(self.inner(x), self.activation))))


def bend(x: Tensor, activation: Activation) -> Tensor:
    """The activation of this name, of any shape."""
    if activation == "relu":
        return functional.relu(x)
    return functional.gelu(x, approximate="tanh" if activation == "gelu_new" else "none")


# ---------------------------------------------------------------------------------------------------------------------
# The encoder


class Tables(nn.Module):
    """A vector for each token, each position and each kind of sentence; encoder and decoder share them."""

    def __init__(self, config: CorrectorConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.rows, config.channels)
        self.positions = nn.Embedding(config.positions, config.channels)
        self.types = nn.Embedding(config.token_types, config.channels)

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """The sum of the three, (batch, time, channels), of tokens (batch, time) from position ``start`` on.

        Raises:
            ValueError: there are more tokens than positions.
        """
        end, positions = start + ids.shape[1], self.positions.num_embeddings
        if end > positions:
            raise ValueError(f"a text has {end} tokens, this network has {positions} positions; split or skip it")
        return self.tokens(ids) + self.positions.weight[start:end] + self.types.weight[0]


class EncoderBlock(nn.Module):
    """Attention to the text itself, then the feed-forward layer."""

    def __init__(self, config: CorrectorConfig) -> None:
        super().__init__()
        self.attention = Attention(config, config.encoder)
        self.feed_forward = FeedForward(config, config.encoder)

    def forward(self, x: Tensor, seen: Tensor, places: Tensor | None = None) -> Tensor:
        """(batch, time, channels), the same shape; ``seen`` as in ``Attention``, ``places`` as in ``Encoder``."""
        x = self.attention(x, self.attention.keys_values(x), seen)
        return self.feed_forward(x if places is None else x[places])


class Encoder(nn.Module):
    """A BERT without pooler and heads: tokens -> vectors that know their surroundings."""

    def __init__(self, config: CorrectorConfig) -> None:
        super().__init__()
        self.config = config
        self.tables = Tables(config)
        self.norm = nn.LayerNorm(config.channels, config.encoder.norm_epsilon)
        self.dropout = nn.Dropout(config.encoder.dropout.embedding)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder.layers))
        self.apply(initialise)
        with torch.no_grad():
            self.tables.tokens.weight[config.vocabulary :] = 0.0

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor | None = None) -> Tensor:
        """(batch, time, channels); where the mask is False they mean nothing.

        Args:
            ids: (batch, time) numbers of tokens.
            mask: (batch, time), True = token, False = padding; each text has at least one token.
            places: (batch, time), True = wanted. Then only those come back, (places, channels), text by text, and what
                the last feed-forward layer would cost elsewhere is saved.

        Raises:
            ValueError: the mask is not boolean or has another shape, or the text is longer than the positions.
        """
        if mask.dtype != torch.bool or mask.shape != ids.shape:
            shape = tuple(ids.shape)
            raise ValueError(f"mask must be boolean of shape {shape}, got {mask.dtype} {tuple(mask.shape)}")
        x = self.dropout(self.norm(self.tables(ids)))
        for block in self.blocks[:-1]:
            x = block(x, mask[:, None, None])
        return self.blocks[-1](x, mask[:, None, None], places)


# ---------------------------------------------------------------------------------------------------------------------
# The decoder


@dataclass(frozen=True)
class Cache:
    """What the decoder keeps while texts are written: rows stand source by source, ``copies`` texts for each."""

    source: tuple[KeysValues, ...]  # of each block, of the sources
    source_seen: Tensor  # (batch, 1, 1, source time), True = token
    written: tuple[KeysValues, ...]  # of each block, of the tokens so far: (batch x copies, heads, time, size)

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self.written[0][0].shape[2]

    def take_rows(self, rows: Tensor) -> Self:
        """The texts of these rows (numbers, of the same sources in the same order); a row may go on more than once."""
        return replace(self, written=_select(self.written, rows))

    def take_sources(self, sources: Tensor, rows: Tensor) -> Self:
        """Only these sources and the rows that belong to them; the others are finished."""
        kept = _select(self.source, sources)
        return replace(self, source=kept, source_seen=self.source_seen[sources], written=_select(self.written, rows))


def _select(pairs: Sequence[KeysValues], rows: Tensor) -> tuple[KeysValues, ...]:
    return tuple((keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in pairs)


class DecoderBlock(nn.Module):
    """Attention to what is written, attention to the source, then the feed-forward layer."""

    def __init__(self, config: CorrectorConfig) -> None:
        super().__init__()
        self.attention = Attention(config, config.decoder)
        self.cross = Attention(config, config.decoder)
        self.feed_forward = FeedForward(config, config.decoder)

    def forward(
        self, x: Tensor, written: KeysValues, seen: Tensor | None, source: KeysValues, source_seen: Tensor
    ) -> tuple[Tensor, KeysValues]:
        """(rows, time, channels), the same shape; and the keys and values of all that is written now."""
        keys, values = self.attention.keys_values(x)
        written = torch.cat([written[0], keys], dim=2), torch.cat([written[1], values], dim=2)
        x = self.cross(self.attention(x, written, seen), source, source_seen)
        return self.feed_forward(x), written


class Decoder(nn.Module):
    """Tokens so far and a source -> vectors that foretell the token after each; it never looks ahead."""

    def __init__(self, config: CorrectorConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.channels, config.decoder.norm_epsilon)
        self.dropout = nn.Dropout(config.decoder.dropout.embedding)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder.layers))
        self.apply(initialise)

    def start(self, hidden: Tensor, mask: Tensor, copies: int) -> Cache:
        """The cache before the first token; see ``Corrector.start``."""
        source = tuple(block.cross.keys_values(hidden) for block in self.blocks)
        empty = tuple(
            tuple(x[:, :, :0].repeat_interleave(copies, dim=0) for x in keys_values) for keys_values in source
        )
        return Cache(source, mask[:, None, None], empty)

    def forward(self, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """(rows, time, channels) from sums of the tables, the same shape; and the cache that knows these tokens too."""
        time, before = x.shape[1], cache.length
        seen = x.new_ones(time, before + time, dtype=torch.bool).tril(before) if time > 1 else None
        x, written = self.dropout(self.norm(x)), []
        for block, own, source in zip(self.blocks, cache.written, cache.source, strict=True):
            x, own = block(x, own, seen, source, cache.source_seen)
            written.append(own)
        return x, replace(cache, written=tuple(written))


# ---------------------------------------------------------------------------------------------------------------------
# The network


class Corrector(nn.Module):
    """Both halves and the output layer; with a tokenizer also from text to text."""

    def __init__(self, config: CorrectorConfig, tokenizer: WordPiece | None = None) -> None:
        """Random weights, from torch's global generator.

        Raises:
            ValueError: the tokenizer does not fit the configuration.
        """
        super().__init__()
        if tokenizer is not None:
            check_tokenizer(tokenizer, config)
        self.config, self.tokenizer = config, tokenizer
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.bias = nn.Parameter(torch.zeros(config.rows))  # of the output layer

    @property
    def device(self) -> torch.device:
        return self.bias.device

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, channels) of source tokens; arguments and errors as in ``Encoder.forward``."""
        return self.encoder(ids, mask)

    def start(self, hidden: Tensor, mask: Tensor, copies: int = 1) -> Cache:
        """The cache with which writing begins.

        Args:
            hidden: (batch, source time, channels) of ``encode``, for the same ``mask`` (batch, source time).
            copies: texts to write for each source at the same time.
        """
        return self.decoder.start(hidden, mask, copies)

    def step(self, ids: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Scores before softmax of the token after each, (batch x copies, time, rows), and the cache after these.

        Args:
            ids: (batch x copies, time), the tokens that follow those in the cache; the first of all is ``begin``.

        Raises:
            ValueError: the text is longer than the positions.
        """
        hidden, cache = self.decoder(self.encoder.tables(ids, cache.length), cache)
        return functional.linear(hidden, self.encoder.tables.tokens.weight, self.bias), cache

    def decode(self, target: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Scores before softmax of the token after each target token, (batch, target time, rows).

        Args:
            target: (batch, target time), from ``begin`` on, padded at the end with anything.
            hidden: (batch, source time, channels) of ``encode``, for the same ``mask`` (batch, source time).
        """
        return self.step(target, self.start(hidden, mask))[0]

    def forward(self, source: Tensor, source_mask: Tensor, target: Tensor) -> Tensor:
        """``encode``, then ``decode``: (batch, target time, rows)."""
        return self.decode(target, self.encode(source, source_mask), source_mask)

    def correct(self, texts: Sequence[str]) -> list[str]:
        """The most probable text for each, by a beam of four; ``postcorrect.candidates`` has more to choose from.

        What cannot be corrected comes back as it is: see ``postcorrect.candidates``. No gate is asked; the command
        ``postcorrect.correct`` asks it.

        Raises:
            TypeError: one text in place of a list of texts.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a list of texts, got one text; put it into brackets: [{texts[:20]!r}]")
        from postcorrect.candidates import candidates

        found = candidates(self, texts)
        return [best[0].text if best else text for text, best in zip(texts, found, strict=True)]


def check_tokenizer(tokenizer: WordPiece, config: CorrectorConfig) -> None:
    """Raises ValueError where a tokenizer has more tokens than a network, or other special ones."""
    if tokenizer.special != config.special or len(tokenizer) > config.vocabulary:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens with {tokenizer.special}, the network {config.vocabulary} "
            f"with {config.special}; take the tokenizer of the same BERT"
        )


def initialise(module: nn.Module) -> None:
    """As BERT begins: small numbers, so that at first all tokens are about equally probable."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
