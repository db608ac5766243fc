"""What the settings of both trainings of text have in common: how the loop sees them, and what is impossible.

The surprise: the fields stand in ``train_config`` and ``pretrain_config`` each, since ``--help`` shows the comments
behind them in the order in which they stand, and two trainings mean different things by "best".
"""

import math

from postcorrect.config import DropoutConfig
from quartznet.config import LoopSettings


class TextLoop:
    """What ``quartznet.config.LoopSettings`` asks for and text has no choice in."""

    @property
    def layer_decay(self) -> float:
        """All layers learn at the same rate."""
        return 1.0

    def total_steps(self, batches: int) -> int:
        """Steps of a whole run whose epochs have so many batches."""
        return self.steps or self.epochs * math.ceil(batches / self.optim.accumulate)

    @property
    def max_failures(self) -> float:
        """Nothing can fail to load: texts are in memory."""
        return 1.0


def check_loop(settings: LoopSettings, *dropouts: float | None) -> None:
    """Raises ValueError for impossible settings of the loop, or shares of dropout."""
    if settings.precision not in ("auto", "fp32", "bf16", "fp16"):
        raise ValueError(f"precision must be auto, fp32, bf16 or fp16, got {settings.precision!r}")
    if not 0.0 <= settings.ema < 1.0:
        raise ValueError(f"ema must be in [0, 1), got {settings.ema}")
    for share in dropouts:
        DropoutConfig.everywhere(share or 0.0)  # raises for an impossible one
    least = (settings.evaluate_every, settings.max_bad_steps, settings.keep_best, settings.log_every)
    if min(least) < 1 or settings.save_every <= 0:
        raise ValueError(
            "evaluate_every, max_bad_steps, keep_best and log_every must be at least 1 and save_every above 0"
        )
    counts = (settings.epochs, settings.steps, settings.evaluate_steps)
    if any(count is not None and count < 1 for count in counts):
        raise ValueError("epochs, steps and evaluate_steps must be at least 1")
