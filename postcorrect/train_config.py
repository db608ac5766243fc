"""Every setting of a corrector's training; ``python -m postcorrect.train --help`` lists them with these comments.

The values are those of arXiv:1910.10697 and of NeMo 0.10's script (examples/nlp/asr_postprocessor): NovoGrad 0.001, a
rate that falls as a square, dropout 0.25, label smoothing 0.1, steps of 8 x 4096 tokens. The surprise: they are for a
million pairs. ``postcorrect.train`` shortens the warm-up and the steps where there are few, unless they were chosen.
"""

from dataclasses import dataclass, field

from postcorrect.loop_config import TextLoop, check_loop
from quartznet.config import OptimSettings, ScheduleSettings

WARMUP = 1000  # steps
ACCUMULATE = 8  # batches
STARTS = ("both", "encoder", "decoder", "none")


@dataclass(frozen=True)
class PairSettings:
    """The pairs, and how they become batches."""

    folder: str | None = None  # what postcorrect.collect made: train and dev
    batch_tokens: int = 4096  # of both texts of a batch, padding counted
    longest: int = 128  # tokens of a text; pairs with a longer one are left out and counted
    dev_pairs: int = 500  # of dev that are corrected in an evaluation; 0: all

    def __post_init__(self) -> None:
        if self.batch_tokens < 1 or self.longest < 3 or self.dev_pairs < 0:
            raise ValueError("data needs batch_tokens >= 1, longest >= 3 and dev_pairs >= 0")


@dataclass(frozen=True)
class CorrectorTraining(TextLoop):
    """A whole run. ``epochs`` or ``steps`` ends it; ``steps`` wins where both are given."""

    # --- What to learn from
    bert: str | None = None  # folder of a BERT in Hugging Face's layout: sizes, vocabulary and weights
    start: str = "both"  # both | encoder | decoder | none: which halves start from the BERT's weights
    dropout: float = 0.25  # of the decoder, in every place
    encoder_dropout: float | None = None  # of the encoder; None: as the BERT's config.json says, usually 0.1
    label_smoothing: float = 0.1  # share of the target that all tokens get alike
    out: str = "runs/corrector"  # run folder

    # --- How long, and on what
    seed: int = 0  # of everything drawn by chance
    epochs: int = 20  # times that every pair is read
    steps: int | None = None  # of the optimiser; takes the place of epochs
    precision: str = "auto"  # fp32 | bf16 | fp16 | auto: bf16 on a GPU that has it, else fp32
    device: str = "auto"  # cpu | cuda | auto

    # --- Evaluating, saving and logging
    ema: float = 0.0  # decay of averaged weights; 0: off
    evaluate_every: int = 1  # epochs from one evaluation to the next
    evaluate_steps: int | None = None  # steps; takes the place of evaluate_every
    save_every: float = 10.0  # minutes between two copies of last.pt; it is also saved after every evaluation
    keep_best: int = 1  # checkpoints, by dev WER
    max_bad_steps: int = 10  # steps in a row without a finite loss after which the run stops
    log_every: int = 50  # steps from one line of the log to the next

    data: PairSettings = field(default_factory=PairSettings)
    optim: OptimSettings = field(default_factory=lambda: OptimSettings(weight_decay=0.0, accumulate=ACCUMULATE))
    schedule: ScheduleSettings = field(
        default_factory=lambda: ScheduleSettings(name="square", warmup_steps=WARMUP, min_lr=1e-5)
    )

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"start must be {', '.join(STARTS[:-1])} or {STARTS[-1]}, got {self.start!r}")
        check_loop(self, self.dropout, self.encoder_dropout)
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
