"""The output layer for a new alphabet, made out of the old one: each letter starts as the letter that it sounds like.

    plan = plan_head(english_labels, spanish_labels)
    print(plan)                                           # copied 27, from a base letter 7 (á<-a é<-e ... ñ<-n)
    weights |= transfer_head(weights, plan)               # "decoder.weight" and "decoder.bias" for the new labels

A letter takes the row of, in this order: itself; itself without its marks (ñ -> n); a letter that sounds like it
(ш -> s, languages/_sounds.yaml), which also leads from one alphabet to another. The blank keeps its row. What is left
starts as the mean of all old letters with a little noise, so that at first it is as likely as any of them.

Copied rows gave Scribosermo 19.6 % WER for Spanish where a fresh layer gave 21.6 % (203 h, greedy). With minutes of
speech the difference is larger, docs/results.md.

The surprise: letters that start from the same row, such as a and á, share its probability at first and each gets half.
Nothing needs to be done about that: their targets differ, so the first steps part them.
"""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal

import torch
import yaml
from torch import Tensor

NOISE = 0.1  # of a new row, in standard deviations of the old rows

How = Literal["copied", "base", "sound", "new"]


@dataclass(frozen=True)
class Row:
    """Where the row of one new label comes from."""

    label: str
    how: How
    source: int | None  # row of the old layer; None: new


@dataclass(frozen=True)
class HeadPlan:
    """The rows of all new labels, without the blank, which is always copied."""

    rows: tuple[Row, ...]
    old_labels: tuple[str, ...]

    def __str__(self) -> str:
        """``copied 27, from a base letter 6 (á<-a ...), by sound 0, new 1 (x)``, for 80 columns."""
        kinds: dict[How, list[Row]] = {"copied": [], "base": [], "sound": [], "new": []}
        for row in self.rows:
            kinds[row.how].append(row)
        names = {"copied": "copied", "base": "from a base letter", "sound": "by sound", "new": "new"}
        parts = []
        for how, rows in kinds.items():
            shown = [row.label if row.source is None else f"{row.label}<-{self.old_labels[row.source]}" for row in rows]
            listed = f" ({' '.join(shown)})" if rows and how != "copied" else ""
            parts.append(f"{names[how]} {len(rows)}{listed}")
        return "\n".join(textwrap.wrap(f"output layer: {', '.join(parts)}", 80, subsequent_indent="  "))


@lru_cache(maxsize=1)
def _sounds() -> Mapping[str, str]:
    """Letter -> Latin letter, of all scripts."""
    path = resources.files("quartznet") / "languages" / "_sounds.yaml"
    return {
        letter: sound for script in yaml.safe_load(path.read_text("utf-8")).values() for letter, sound in script.items()
    }


def base_letter(letter: str) -> str:
    """The letter without its marks: ñ -> n, й -> и; a letter without any is its own."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
    return plain if len(plain) == 1 else letter


def sound(letter: str) -> str | None:
    """The Latin letter, a to z or the apostrophe, that sounds most like it; None for letters without one."""
    for candidate in (letter, base_letter(letter)):
        if candidate in _sounds():
            return _sounds()[candidate]
    plain = base_letter(letter).lower()
    return plain if plain == "'" or ("a" <= plain <= "z") else None


def plan_head(old_labels: Sequence[str], new_labels: Sequence[str]) -> HeadPlan:
    """Which old row each new label starts from; see the module's docstring. Letters are compared in lower case."""
    exact: dict[str, int] = {}
    by_sound: dict[str, int] = {}
    for number, label in enumerate(old_labels):
        exact.setdefault(label.lower(), number)
    marked_last = sorted(
        range(len(old_labels)), key=lambda number: base_letter(old_labels[number]) != old_labels[number]
    )
    for number in marked_last:
        label = old_labels[number]
        heard = sound(label.lower())
        if heard is not None and (heard not in by_sound or label.lower() == heard):
            by_sound[heard] = number  # the Latin letter itself, else the first

    def row(label: str) -> Row:
        letter = label.lower()
        if letter in exact:
            return Row(label, "copied", exact[letter])
        if base_letter(letter) in exact:
            return Row(label, "base", exact[base_letter(letter)])
        heard = sound(letter)
        if heard in by_sound:
            return Row(label, "sound", by_sound[heard])
        return Row(label, "new", None)

    return HeadPlan(tuple(row(label) for label in new_labels), tuple(old_labels))


def transfer_head(weights: Mapping[str, Tensor], plan: HeadPlan) -> dict[str, Tensor]:
    """``decoder.weight`` (new labels + 1, channels, 1, 1) and ``decoder.bias`` for the new labels, blank last.

    Args:
        weights: of the old network, or at least its ``decoder.weight`` (old labels + 1, channels, 1, 1) and ``.bias``.

    Raises:
        ValueError: where the layer has another number of outputs than the plan has old labels and the blank.
    """
    old_weight, old_bias = weights["decoder.weight"].float(), weights["decoder.bias"].float()
    outputs = len(plan.old_labels) + 1
    if len(old_weight) != outputs or len(old_bias) != outputs:
        raise ValueError(f"the output layer has {len(old_weight)} outputs, its alphabet asks for {outputs}")
    letters = [number for number, label in enumerate(plan.old_labels) if not label.isspace()]
    mean_weight, mean_bias = old_weight[letters].mean(0), old_bias[letters].mean()
    spread = old_weight[letters].std(0, correction=0)
    rows, biases = [], []
    for row in plan.rows:
        if row.source is None:
            rows.append(mean_weight + NOISE * spread * torch.randn_like(mean_weight))
            biases.append(mean_bias)
        else:
            rows.append(old_weight[row.source])
            biases.append(old_bias[row.source])
    return {
        "decoder.weight": torch.stack([*rows, old_weight[-1]]),
        "decoder.bias": torch.stack([*biases, old_bias[-1]]),
    }
