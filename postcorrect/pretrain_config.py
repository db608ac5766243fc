"""Every setting of the training of a BERT; ``python -m postcorrect.pretrain --help`` lists them with these comments.

The sizes are those of a small BERT that two CPU cores can train in an evening at most, and that a corrector of a few
million weights can start from. The surprise: BERT's own recipe (arXiv:1810.04805) needs a million steps. Here the rate
is ten times as high and the steps are few; a network of four layers stays in one piece with that.
"""

from dataclasses import dataclass, field

from postcorrect.config import CorrectorConfig, DropoutConfig, SpecialTokens, StackConfig
from postcorrect.loop_config import TextLoop, check_loop
from postcorrect.masking import MaskSettings
from quartznet.config import OptimSettings, ScheduleSettings

DROPOUT = 0.1  # BERT's


@dataclass(frozen=True)
class NetworkSettings:
    """The sizes of a new BERT."""

    layers: int = 4  # blocks of attention and feed-forward layers
    channels: int = 256  # width of every position
    heads: int = 4  # of attention; they share the channels
    feed_forward: int = 1024  # width between the two layers after attention
    vocabulary: int = 8000  # pieces of words at most; fewer where the text has fewer
    positions: int = 128  # tokens of a text at most, begin and end among them

    def __post_init__(self) -> None:
        if self.positions < 4:
            raise ValueError(f"positions must be at least 4, or no word fits between begin and end: {self.positions}")
        self.config(max(self.vocabulary, 5), DROPOUT)  # raises for sizes that are impossible

    def config(self, vocabulary: int, dropout: float) -> CorrectorConfig:
        """The configuration of a network with a learnt vocabulary of so many tokens; the decoder is not used."""
        special = SpecialTokens(*range(5))
        stack = StackConfig(self.layers, 1e-12, DropoutConfig.everywhere(dropout))
        sizes = (self.channels, self.heads, self.feed_forward, self.positions)
        return CorrectorConfig(vocabulary, *sizes, encoder=stack, decoder=StackConfig(self.layers), special=special)

    @classmethod
    def of(cls, config: CorrectorConfig) -> "NetworkSettings":
        """The sizes of a network that is there already."""
        names = ("channels", "heads", "feed_forward", "vocabulary", "positions")
        return cls(layers=config.encoder.layers, **{name: getattr(config, name) for name in names})


@dataclass(frozen=True)
class PretrainSettings(TextLoop):
    """A whole run. ``epochs`` or ``steps`` ends it; ``steps`` wins where both are given."""

    # --- How long, and on what
    seed: int = 0  # of everything drawn by chance
    epochs: int = 20  # times that every sentence is read, each time with other pieces hidden
    steps: int | None = None  # of the optimiser; takes the place of epochs
    batch_tokens: int = 4096  # of a batch, padding counted
    dropout: float | None = None  # in every place; None: 0.1, or as the BERT of --bert has it
    precision: str = "auto"  # fp32 | bf16 | fp16 | auto: bf16 on a GPU that has it, else fp32
    device: str = "auto"  # cpu | cuda | auto

    # --- Evaluating, saving and logging
    ema: float = 0.0  # decay of averaged weights; 0: off
    evaluate_every: int = 1  # epochs from one evaluation to the next
    evaluate_steps: int | None = None  # steps; takes the place of evaluate_every
    save_every: float = 10.0  # minutes between two copies of last.pt; it is also saved after every evaluation
    keep_best: int = 1  # checkpoints, by the share of wrong guesses
    max_bad_steps: int = 10  # steps in a row without a finite loss after which the run stops
    log_every: int = 50  # steps from one line of the log to the next

    network: NetworkSettings = field(default_factory=NetworkSettings)
    masks: MaskSettings = field(default_factory=MaskSettings)
    optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(name="adamw", lr=0.001, weight_decay=0.01, grad_clip=1.0)
    )
    schedule: ScheduleSettings = field(default_factory=lambda: ScheduleSettings(warmup_ratio=0.1))

    def __post_init__(self) -> None:
        check_loop(self, self.dropout)
        if self.batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {self.batch_tokens}")
