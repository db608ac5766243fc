"""How long a clip is at another speed, and how far a batch is padded: whole numbers, known without asking a device.

The surprise: both must be exact. A text is checked against the samples that its clip will have, a schedule against the
seconds, and what a GPU makes of them is never looked at, because looking would wait for it. So nothing here is a
float: a speed counts in hundredths, ``speed = faster / slower`` in lowest terms (1.1 is 11 / 10, 0.9 is 9 / 10).
"""

import math


def speed_ratio(speed: float) -> tuple[int, int]:
    """``(faster, slower)``: how many samples become how many; (11, 10) for 1.1, (1, 1) for 1.0.

    Raises:
        ValueError: for a speed that is not positive, or too far from 1 to leave speech (outside 0.1 to 10).
    """
    if not 0.1 <= speed <= 10.0:
        raise ValueError(f"speed must be between 0.1 and 10, got {speed}; speech wants 0.9 to 1.1")
    percent = round(100 * speed)
    divisor = math.gcd(percent, 100)
    return percent // divisor, 100 // divisor


def changed_length(samples: int, speed: float) -> int:
    """``ceil(samples / speed)``: what ``samples`` last at a speed; errors as ``speed_ratio``."""
    faster, slower = speed_ratio(speed)
    return -(-samples * slower // faster)


def rounded_length(samples: int) -> int:
    """The smallest of the lengths in use that is not below ``samples``: multiples of 2^k between 16 and 32 of them."""
    step = 1 << max(0, samples.bit_length() - 5)
    return -(-samples // step) * step
