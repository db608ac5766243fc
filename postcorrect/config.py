"""Settings of the corrector's network: the sizes of BERT, and what its two halves do differently.

    config = CorrectorConfig(vocabulary=30522)                                          # the sizes of bert-base
    config = settings.from_dict(CorrectorConfig, {"vocabulary": 30522, "decoder": {"layers": 6}})

Both halves are as wide as each other, because the decoder starts from the weights of the encoder's BERT. They differ in
depth, in dropout, and in what is added to the variance of a layer norm: 1e-12 in BERT, 1e-5 in NeMo's decoder
(nemo/collections/nlp/nm/trainables/common/transformer).

The surprise: the table of tokens has more rows than there are tokens, up to a multiple of 8, which matrix units of GPUs
like. The rows too many start at zero; they take part in the softmax, as in NeMo, and are never written.
"""

from dataclasses import dataclass, field
from typing import Literal, Self

MOST_WEIGHTS = 4_000_000_000  # 16 GB; the largest BERT published, twice, has 0.7
Activation = Literal["gelu", "gelu_new", "relu"]  # names of Hugging Face: exact, its approximation by tanh


@dataclass(frozen=True)
class DropoutConfig:
    """Shares of numbers set to zero while it learns, in each place where NeMo has them; 0.25 as there."""

    embedding: float = 0.25  # of tokens, before the first block
    attention_scores: float = 0.25  # of the weights after softmax
    attention_output: float = 0.25  # of what attention adds
    feed_forward: float = 0.25  # of what the feed-forward layer adds

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value < 1.0:
                raise ValueError(f"dropout {name} must be in [0, 1), got {value}")

    @classmethod
    def everywhere(cls, share: float) -> Self:
        """The same share in all places."""
        return cls(share, share, share, share)


@dataclass(frozen=True)
class StackConfig:
    """What an encoder or decoder decides for itself."""

    layers: int = 12  # blocks
    norm_epsilon: float = 1e-5  # added to the variance by layer norms
    dropout: DropoutConfig = field(default_factory=DropoutConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.layers <= 1000:
            raise ValueError(f"layers must be from 1 to 1000, got {self.layers}")
        if not 0.0 < self.norm_epsilon <= 0.1:
            raise ValueError(f"norm_epsilon must be above 0 and at most 0.1, got {self.norm_epsilon}")


@dataclass(frozen=True)
class SpecialTokens:
    """Numbers of the tokens that stand for no letters; those of Google's English BERTs unless said otherwise."""

    pad: int = 0  # [PAD]
    unknown: int = 100  # [UNK]
    begin: int = 101  # [CLS], before each text
    end: int = 102  # [SEP], after it
    mask: int = 103  # [MASK], what pre-training asks for

    def __post_init__(self) -> None:
        numbers = list(vars(self).values())
        if min(numbers) < 0 or len(set(numbers)) < len(numbers):
            raise ValueError(f"special tokens must have numbers of their own, from 0 on, got {self}")


def _bert_stack() -> StackConfig:
    return StackConfig(norm_epsilon=1e-12, dropout=DropoutConfig.everywhere(0.1))


@dataclass(frozen=True)
class CorrectorConfig:
    """The whole network; what stands here and not in ``encoder`` or ``decoder`` holds for both."""

    vocabulary: int  # tokens
    channels: int = 768  # width of every position
    heads: int = 12  # of attention; they share the channels
    feed_forward: int = 3072  # width between the two layers after attention
    positions: int = 512  # tokens of a text at most, begin and end included
    token_types: int = 2  # BERT numbers the sentences of a pair; here all is sentence 0
    activation: Activation = "gelu"
    encoder: StackConfig = field(default_factory=_bert_stack)
    decoder: StackConfig = field(default_factory=StackConfig)
    special: SpecialTokens = field(default_factory=SpecialTokens)

    def __post_init__(self) -> None:
        sizes = ("vocabulary", "channels", "heads", "feed_forward", "positions", "token_types")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.channels % self.heads:
            raise ValueError(f"channels must be a multiple of heads ({self.heads}), got {self.channels}")
        if self.activation not in ("gelu", "gelu_new", "relu"):
            raise ValueError(f"activation must be gelu, gelu_new or relu, got {self.activation}")
        if (
            self.weights > MOST_WEIGHTS
        ):  # a file may ask for any number, and memory is taken before its weights are read
            raise ValueError(f"sizes that make {self.weights:,} weights; they can be at most {MOST_WEIGHTS:,}")
        if max(vars(self.special).values()) >= self.vocabulary:
            raise ValueError(f"special tokens must be below vocabulary ({self.vocabulary}), got {self.special}")

    @property
    def weights(self) -> int:
        """Numbers in the matrices of the network, without biases and norms."""
        tables = (self.rows + self.positions + self.token_types) * self.channels
        attention, inner = 4 * self.channels**2, 2 * self.channels * self.feed_forward
        return tables + self.encoder.layers * (attention + inner) + self.decoder.layers * (2 * attention + inner)

    @property
    def rows(self) -> int:
        """Rows of the table of tokens: vocabulary, up to a multiple of 8."""
        return -(-self.vocabulary // 8) * 8
