"""What was collected, for people: how much from where, what was taken out, which errors there are to learn.

The surprise: the figures of train say nothing of the recogniser. Its pairs were heard in hard ways, and the right ones
among them were thinned; what it makes of new speech stands in the rows of dev and test.
"""

import textwrap
from collections.abc import Sequence

from postcorrect.errors import error_table
from postcorrect.hearing import PLAIN
from postcorrect.pairs import Cleaning, Pair
from quartznet.metrics import error_counts, total

BY_HEART = 0.5  # of the error rate of dev: train below that was learnt by heart


def _row(label: str, pairs: Sequence[Pair]) -> str:
    texts = [p.said for p in pairs], [p.recognised for p in pairs]
    rates = [total(error_counts(*texts, unit)).rate for unit in ("word", "character")]
    right = sum(pair.is_identical for pair in pairs) / len(pairs)
    cells = "".join(f"{100 * rate:>8.2f} %" for rate in rates)
    return f"{label:<34}{len(pairs):>10,}{100 * right:>9.1f} %{cells}"


def source_table(parts: dict[str, list[Pair]]) -> str:
    """Pairs, share of right ones, WER and CER of each part and source, for a terminal of 80 columns."""
    lines = [f"{'before anything is taken out':<34}{'pairs':>10}{'right':>11}{'WER':>10}{'CER':>10}"]
    for part, pairs in parts.items():
        by_source: dict[str, list[Pair]] = {}
        for pair in pairs:
            by_source.setdefault(pair.source, []).append(pair)
        lines += [_row(f"{part}, {source}"[:34], found) for source, found in by_source.items()]
    return "\n".join(lines)


def by_heart(parts: dict[str, list[Pair]]) -> str:
    """A warning where the clips of train were decoded much better than those of dev; "" where they were not."""
    rates = []
    for part in ("train", "dev"):
        plain = [pair for pair in parts[part] if pair.source == PLAIN]
        rates.append(total(error_counts([p.said for p in plain], [p.recognised for p in plain])).rate)
    if not rates[0] < BY_HEART * rates[1] or not any(pair.source == PLAIN for pair in parts["train"]):
        return ""
    return textwrap.fill(
        f"WARNING: the network errs on {100 * rates[0]:.1f} % of the words of train and {100 * rates[1]:.1f} % of dev: "
        "it has learnt train by heart, and its errors there are not those of new speech; use --folds, or more ways",
        80,
        break_on_hyphens=False,
    )


def report(
    parts: dict[str, list[Pair]],
    train: Sequence[Pair],
    cleaning: Cleaning,
    notes: Sequence[str],
    skipped: int,
    is_crossed: bool,
) -> str:
    """All tables.

    Args:
        parts: before cleaning.
        train: after it.
        notes: what else is to be said.
        skipped: clips that could not be decoded.
        is_crossed: train was decoded by networks that had not learnt it.
    """
    said = [*notes, f"{skipped} clips left out, see skipped.txt" if skipped else ""]
    said.append("" if is_crossed else by_heart(parts))
    remarks = "\n".join(line for line in said if line)
    tables = (source_table(parts), cleaning.table(), error_table(train), remarks)
    return "\n\n".join(table for table in tables if table)
