"""Settings by hours of speech, each with its reason: what ``train.py --init`` takes where nothing else is said.

    minutes     below 1 h       few-shot: small batches, so that there are steps at all; a fixed number of steps
    hours       1 to 10 h       the same optimiser, larger batches, all of the augmentation
    tens        10 to 100 h     NovoGrad at a tenth of the rate of training from scratch
    hundreds    above           the same, fewer epochs, averaged weights

A choice is a setting, a value and the reason, which is printed and stands as a comment in ``recipe.yaml``; that file
repeats the run. What is given on the command line has priority, and where the batch is given, the rate follows it.

Where the reason is a figure of ``docs/results.md``, it was measured on 10 to 28 minutes of speech; the larger recipes
rest on what others published (arXiv:2005.04290; Scribosermo; NVIDIA's DeepLearningExamples) and say so.

The surprise: with little speech nothing matters as much as leaving batch norm alone, although it holds 0.6 % of the
numbers. Freezing the encoder first helps where the output layer starts at random; with copied rows it only costs steps.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from quartznet.checkpoint import replace_atomically
from quartznet.settings import override

LIMITS = (("minutes", 1.0), ("hours", 10.0), ("tens", 100.0), ("hundreds", math.inf))  # hours of speech
STEPS = 1200  # of the recipe for minutes; where fewer come together, larger batches cost more than they give
FILLED = 0.67  # of a batch's seconds, seen on 10 and 28 minutes: buckets and the slowest speed leave the rest empty
RATES = {"all": 5e-4, "lora": 1e-3, "adapters": 2e-3, "bn": 5e-3}  # of AdamW, for 40 s of speech in a step
COLUMNS = 80


@dataclass(frozen=True)
class Choice:
    """One setting and why."""

    name: str  # dotted, as on the command line
    value: object
    reason: str


@dataclass(frozen=True)
class Situation:
    """What the choices depend on."""

    hours: float  # of training speech
    longest: float  # clip, s
    has_init: bool
    device: str  # cpu | cuda
    processes: int = 1
    batch_seconds: float | None = None  # of one process and step, accumulation counted; None: the recipe may choose
    epochs: float | None = None  # None: the recipe may choose
    is_known: bool = False  # the network that it begins with writes this very language
    method: str = "all"  # what learns: tune.train


def size_of(hours: float) -> str:
    """The recipe for so many hours."""
    return next(name for name, limit in LIMITS if hours < limit)


def bf16_is_fast(device: str) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; a GPU is asked by ``precision: auto``."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device == "cpu" and is_supported is not None and bool(is_supported())


def is_short(situation: Situation, batch: float) -> bool:
    """Whether the epochs that were given are too few for ``STEPS`` steps of ``batch`` seconds."""
    return situation.epochs is not None and situation.epochs * situation.hours * 3600 / (FILLED * batch) < STEPS


def seconds_wanted(name: str, situation: Situation) -> float:
    """Seconds of speech in a step; halved, down to 40, while the epochs that were given make too few steps of it."""
    wanted = {"minutes": 40.0, "hours": 80.0, "tens": 320.0, "hundreds": 1280.0}[name]
    while wanted > 40 and is_short(situation, wanted):
        wanted /= 2
    return wanted


def batches(name: str, situation: Situation) -> tuple[float, list[Choice]]:
    """Seconds of speech in a step over all processes, and the choice where the user left it open."""
    if situation.batch_seconds is not None:
        return situation.batch_seconds * situation.processes, []
    wanted = seconds_wanted(name, situation)
    most = 80.0 if situation.device == "cpu" else 320.0  # of one process and batch, by memory
    batch = max(min(wanted / situation.processes, most), min(situation.longest, 20.0))
    accumulate = max(1, round(wanted / situation.processes / batch))
    steps = situation.hours * 3600 / (FILLED * batch * accumulate * situation.processes)
    choices = [Choice("data.batch_seconds", batch, f"{steps:.0f} steps an epoch; larger batches would leave too few")]
    if accumulate > 1:
        choices.append(Choice("optim.accumulate", accumulate, "as many batches to a step as the optimiser likes"))
    return batch * accumulate * situation.processes, choices


def optimiser(name: str, batch: float, situation: Situation) -> list[Choice]:
    """Optimiser and rate; the rate grows with the square root of the batch."""
    if not situation.has_init:
        return [
            Choice("optim.name", "novograd", "the paper's, from scratch"),
            Choice("optim.lr", 0.01, "the paper's, from scratch"),
            Choice("optim.betas", [0.95, 0.5], "NeMo's recipe from scratch"),
        ]
    if name in ("minutes", "hours") or situation.method in ("lora", "adapters", "bn"):
        least = RATES.get(situation.method, RATES["all"])
        reason = f"{least:g} for 40 s of speech in a step (docs/results.md), times the root"
        if situation.is_known:
            least, reason = (
                least / 50,
                "it knows the language: larger rates cost more than they teach (docs/results.md)",
            )
        return [
            Choice("optim.name", "adamw", "learns most in few steps"),
            Choice("optim.lr", float(f"{least * math.sqrt(min(batch, 160.0) / 40):.2g}"), reason),
            Choice("optim.weight_decay", 0.01, "AdamW's usual; it decays towards zero, not towards English"),
            Choice("optim.grad_clip", 1.0, "copied rows meet new letters with large gradients at first"),
        ]
    rate = 0.002 if batch > 2000 else 0.001
    return [
        Choice("optim.name", "novograd", "what the published Russian and Spanish fine-tunings used"),
        Choice("optim.lr", rate, "a tenth of the rate from scratch, or the network forgets what it brings"),
        Choice("optim.betas", [0.95, 0.25], "published for fine-tuning"),
        Choice("optim.weight_decay", 0.001, "published for fine-tuning"),
    ]


def batch_norm(name: str, method: str) -> list[Choice]:
    """What happens to batch norm in a fine-tuning."""
    if name not in ("minutes", "hours") or method == "bn":
        return []
    reason = "statistics of few voices in small batches spoil those of thousands of hours (docs/results.md)"
    return [Choice("tune.batchnorm", "frozen", reason)]


def duration(name: str, batch: float, situation: Situation) -> list[Choice]:
    """Epochs and schedule."""
    factor = 1 if situation.has_init else 3
    if name == "minutes":
        steps = max(1.0, situation.hours * 3600 / (FILLED * batch))
        epochs = max(8, min(100, round(STEPS * factor / steps)))
        why = f"about {STEPS * factor:,} steps: with so little speech steps count, not epochs"
    else:
        epochs = {"hours": 30, "tens": 25, "hundreds": 15}[name] * factor
        why = "longer is better until dev WER rises; best.pt keeps the best"
    return [
        Choice("epochs", epochs, why),
        Choice("schedule.name", "cosine", "falls to zero, so that small steps settle what large ones tore"),
        Choice("schedule.warmup_ratio", 0.12, "published for fine-tuning"),
    ]


def regularisation(name: str, batch: float, situation: Situation) -> list[Choice]:
    """Dropout, augmentation, averaged weights."""
    choices = [Choice("augment.speeds", [0.9, 1.0, 1.1], "every clip three times, for free")]
    if name == "minutes" or is_short(situation, batch):
        choices.append(Choice("augment.cutout_masks", 2, "five holes hide too much from a network that hears little"))
    else:
        choices.append(Choice("augment.cutout_masks", 5, "as the checkpoint was trained"))
    choices.append(Choice("dropout", None, "as the checkpoint was trained (15x5: none); masks and speeds do its work"))
    if name == "hundreds":
        choices.append(Choice("ema", 0.999, "averaged weights, as NVIDIA's long trainings score them"))
    return choices


def choose(name: str, situation: Situation) -> list[Choice]:
    """All choices of a recipe; ``auto`` takes the one for the hours.

    Raises:
        ValueError: for another name, or without speech.
    """
    if situation.hours <= 0:
        raise ValueError("a recipe needs hours of speech to go by; there are none")
    name = size_of(situation.hours) if name == "auto" else name
    if name not in dict(LIMITS):
        raise ValueError(f"recipe must be auto, {', '.join(dict(LIMITS))}, got {name!r}")
    batch, choices = batches(name, situation)
    if situation.has_init:
        choices = [
            Choice("head", "copy", "rows of like letters beat a new layer in every language tried (docs/results.md)"),
            Choice("tune.train", "all", "LoRA, adapters and batch norm alone learn less of a new language"),
            Choice("freeze_encoder", 0, "with copied rows there is nothing to wait for"),
            *batch_norm(name, situation.method),
            *choices,
        ]
    choices += optimiser(name, batch, situation)
    choices += duration(name, batch, situation)
    choices += regularisation(name, batch, situation)
    if bf16_is_fast(situation.device):
        choices.append(
            Choice("precision", "bf16", "this CPU multiplies bf16 in hardware: 1.6 times as fast (docs/speed.md)")
        )
    return choices


def as_mapping(choices: Sequence[Choice]) -> dict:
    """Nested settings, to lie below those of the command line."""
    mapping: dict = {}
    for choice in choices:
        override(mapping, choice.name, choice.value)
    return mapping


def table(name: str, situation: Situation, choices: Sequence[Choice], chosen: Sequence[str]) -> str:
    """Every choice with its reason, 80 columns wide; settings in ``chosen`` were given and stay as they are."""
    kept = [choice for choice in choices if choice.name not in chosen]
    title = size_of(situation.hours) if name == "auto" else name
    lines = [f"recipe {title}: {situation.hours:.2f} h of speech"]
    for choice in kept:
        value = ",".join(map(str, choice.value)) if isinstance(choice.value, list) else choice.value
        value = "none" if value is None else value
        lines.append(f"  {choice.name} {value}")
        lines += textwrap.wrap(choice.reason, COLUMNS, initial_indent=" " * 6, subsequent_indent=" " * 6)
    given = ", ".join(choice.name for choice in choices if choice.name in chosen)
    lines += (
        textwrap.wrap(f"as you said: {given}", COLUMNS, initial_indent="  ", subsequent_indent="  ") if given else []
    )
    return "\n".join(lines)


def save_recipe(path: Path, settings: dict, choices: Sequence[Choice]) -> None:
    """``recipe.yaml``: ``train.py --config`` of it is the same run; reasons stand as comments."""
    reasons = "".join(f"# {choice.name}: {choice.reason}\n" for choice in choices)
    text = f"# python train.py --config {path.name}\n{reasons}" + yaml.safe_dump(
        settings, sort_keys=False, allow_unicode=True
    )
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
