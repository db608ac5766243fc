"""The learning rate as a pure function of the optimiser step: warm-up, then cosine, polynomial, square or constant.

With s the index of the step (0, 1, ...), N all steps, W warm-up steps, b the base rate and m the least rate:

    s <= W, W > 0    b (s + 1) / (W + 1)                          never 0 at step 0, exactly b at s = W
    cosine           m + (b - m) (1 + cos(pi (s - W) / (N - W))) / 2
    polynomial       m + (b - m) (1 - (s - W) / (N - W)) ^ power
    square           max(b ((N - s) / (N - W)) ^ 2, m)
    constant         b
    s > N            m                                            except for constant, which has no end

These are NeMo 1.x's formulas; 0.x gives 0 past N. The surprise: the rate of the last step, s = N - 1, is not m yet.
"""

import math

from quartznet.config import ScheduleSettings


def warmup_steps(total_steps: int, settings: ScheduleSettings) -> int:
    """W: the number given, else the ratio of all steps, rounded down."""
    if settings.warmup_steps is not None:
        return settings.warmup_steps
    return int(settings.warmup_ratio * total_steps)


def learning_rate(step: int, total_steps: int, settings: ScheduleSettings, base: float) -> float:
    """The rate of optimiser step ``step`` (0 is the first) out of ``total_steps``.

    Raises:
        ValueError: if ``total_steps`` < 1, ``step`` < 0, warm-up is negative, or ``min_lr`` exceeds ``base``.
    """
    warmup = warmup_steps(total_steps, settings)
    if total_steps < 1 or step < 0 or warmup < 0:
        raise ValueError(
            f"a schedule needs total_steps >= 1, step >= 0 and schedule.warmup_steps >= 0, "
            f"got {total_steps}, {step} and {warmup}"
        )
    least = settings.min_lr
    if least > base:
        raise ValueError(f"schedule.min_lr {least} is above the base rate optim.lr {base}; lower it")
    if step <= warmup and warmup > 0:
        return base * (step + 1) / (warmup + 1)
    if settings.name == "constant":
        return base
    if step > total_steps:
        return least
    left = (total_steps - step) / (total_steps - warmup)  # 1 at s = W, 0 at s = N
    if settings.name == "cosine":
        return least + (base - least) * 0.5 * (1 + math.cos(math.pi * (1 - left)))
    if settings.name == "polynomial":
        return least + (base - least) * left**settings.power
    return max(base * left**2, least)
