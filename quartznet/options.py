"""The command line of everything that looks at a training: train.py and ``python -m quartznet.doctor``.

Every setting of ``TrainSettings`` is an option, some have a short name, and the file of ``--config`` lies below them.

The surprise: ``--train`` has two meanings. ``--train lora`` says what learns, ``--train a.jsonl,b.jsonl`` says on
what; a manifest that is called ``all`` is written ``./all``.
"""

import argparse
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quartznet import commandline
from quartznet.config import TrainSettings
from quartznet.initial import read_base
from quartznet.recipes import LIMITS, Choice, Situation, as_mapping, choose, table
from quartznet.runstate import flatten
from quartznet.settings import from_dict, load_yaml, override, to_dict
from quartznet.text import find_language

logger = logging.getLogger(__name__)

SHORT_NAMES = {
    "data": "data.source",
    "dev": "data.dev",
    "batchnorm": "tune.batchnorm",
    "layer-decay": "tune.layer_decay",
    "replay": "keep.replay",
    "watch": "keep.watch",
    "unfreeze-every": "tune.unfreeze_every",
    "warmup-ratio": "schedule.warmup_ratio",
}
METHOD = re.compile(r"all|head|bn|adapters|lora|top-\d+")


RECIPES = ("auto", *dict(LIMITS), "none")


def merged(below: Mapping, above: Mapping) -> dict:
    """Nested dictionaries, the second on top of the first."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


@dataclass(frozen=True)
class Options:
    """What was asked for, explicitly."""

    chosen: dict  # settings, nested
    recipe: str | None  # auto or a name of LIMITS; its settings lie below the chosen ones
    find_lr: bool  # no training, only the range test

    def settings(self, recipe: Mapping | None = None) -> TrainSettings:
        """Defaults, on top of them the recipe, on top of that what was chosen; ValueError for what is impossible."""
        return from_dict(TrainSettings, merged(recipe or {}, self.chosen))


def make_parser(description: str, usage: str) -> argparse.ArgumentParser:
    """All options; ``--help`` is in groups, see ``quartznet.helptext``."""
    parser = argparse.ArgumentParser(
        description=description, usage=usage, allow_abbrev=False, exit_on_error=False, add_help=False
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings of another run; options here have priority")
    parser.add_argument("--from-scratch", action="store_true", help="random weights in place of --init")
    parser.add_argument(
        "--train",
        metavar="WHAT",
        action="append",
        default=[],
        help="what learns: all, head, bn, top-K, adapters, lora (tune.train); or manifests to train on",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="settings by hours of speech, each with its reason; options have priority; auto picks, and is the default "
        "with --init and without --config",
    )
    parser.add_argument("--find-lr", action="store_true", help="no training: test which --optim.lr is good, draw it")
    commandline.add_settings(parser, TrainSettings, SHORT_NAMES)
    return parser


def read_options(arguments: Sequence[str] | None, description: str, usage: str) -> Options:
    """Command line and ``--config``.

    Raises:
        ValueError: something is missing, unknown or impossible.
    """
    options = commandline.parse(make_parser(description, usage), arguments)
    mapping = commandline.chosen_settings(options, options.config)
    manifests = [value for value in options.train if not METHOD.fullmatch(value)]
    for value in options.train:
        if METHOD.fullmatch(value):
            override(mapping, "tune.train", value)
    if manifests:
        override(mapping, "data.train", ",".join(manifests))
    check_start(mapping, options.from_scratch)
    if "lang" not in mapping:
        raise ValueError("--lang is missing: the code of the language to learn, such as es, it, ru, de or fr")
    if not mapping.get("out"):
        stem = Path(mapping["init"]).stem if mapping.get("init") else "scratch"
        mapping["out"] = f"runs/{mapping['lang']}-{stem}"
    if Path(mapping["out"]).exists() and not Path(mapping["out"]).is_dir():
        raise ValueError(f"--out {mapping['out']} is a file; the run needs a folder of its own")
    recipe = options.recipe
    if recipe is None and mapping.get("init") and not options.config:
        recipe = "auto"
        if (own := Path(mapping["out"], "settings.yaml")).exists() and own.with_name("last.pt").exists():
            logger.info("settings that are not given are those of %s; --recipe auto would choose anew", own)
            mapping, recipe = merged(load_yaml(own), mapping), None
    found = Options(mapping, None if recipe == "none" else recipe, options.find_lr)
    settings = found.settings()  # what is impossible or idle is said before the data is read
    check_effect(settings, flatten(commandline.chosen_settings(options, None)))
    return found


def check_effect(settings: TrainSettings, given: Collection[str]) -> None:
    """Raises ValueError for a setting in ``given`` that is not its default and does nothing, as another is missing."""
    tune, keep, method = settings.tune, settings.keep, settings.sequence.method
    needs = {  # prefix of settings -> whether they have an effect, and what would give them one
        "tune.lora_": (tune.train == "lora", "--train lora"),
        "tune.adapter_": (tune.train == "adapters", "--train adapters"),
        "tune.unfreeze_blocks": (tune.unfreeze_every > 0, "--unfreeze-every EPOCHS"),
        "keep.temperature": (keep.lwf > 0, "--keep.lwf WEIGHT"),
        "keep.lang": (bool(keep.replay or keep.watch), "--replay or --watch"),
        "sequence.baseline": (method == "policy", "--sequence.method policy"),
        "sequence.beam": (method == "mwer", "--sequence.method mwer"),
        "sequence.include_reference": (method == "mwer", "--sequence.method mwer"),
        "sequence.": (method != "none", "--sequence.method mwer or policy"),
    }
    plain = flatten(to_dict(TrainSettings()))
    for name, value in flatten(to_dict(settings)).items():
        has_effect, need = next((need for prefix, need in needs.items() if name.startswith(prefix)), (True, ""))
        if name in given and value != plain[name] and not has_effect and name != "sequence.method":
            raise ValueError(f"--{name} {value} does nothing without {need}; add that, or leave it out")


def writes(checkpoint: str, lang: str) -> bool:
    """Whether a network writes a language already: it has been trained on it, or says nothing and has its letters."""
    base, language = read_base(checkpoint), find_language(lang)
    if base.lang is not None:
        return base.lang == lang
    return language is not None and "decoder.weight" in base.weights and set(base.config.labels) == set(language.labels)


def follow_recipe(
    options: Options, seconds: Sequence[float], device: str, processes: int = 1
) -> tuple[TrainSettings, list[Choice]]:
    """Settings by hours of speech below those that were chosen, and the choices; printed with their reasons.

    Args:
        seconds: durations of the training clips.
    """
    asked = options.settings()
    is_open = "batch_seconds" not in options.chosen.get("data", {})
    batch = None if is_open else asked.data.batch_seconds * asked.optim.accumulate
    longest = min(max(seconds, default=0.0), asked.data.max_duration)
    epochs = asked.epochs if "epochs" in options.chosen else None
    situation = Situation(
        *(sum(seconds) / 3600, longest, asked.init is not None, device, processes, batch, epochs),
        is_known=asked.init is not None and writes(asked.init, asked.lang),
        method=asked.tune.train,
    )
    choices = choose(options.recipe, situation)
    logger.info("%s", table(options.recipe, situation, choices, list(flatten(options.chosen))))
    return options.settings(as_mapping(choices)), choices


def check_start(mapping: Mapping, from_scratch: bool) -> None:
    """Raises ValueError where it is not clear which weights the training begins with."""
    init, method = mapping.get("init"), mapping.get("tune", {}).get("train", "all")
    if from_scratch and init:
        raise ValueError(f"--from-scratch and --init {init} contradict each other; leave one out")
    if not from_scratch and "init" not in mapping:
        raise ValueError(
            "where shall the weights come from? --init CHECKPOINT takes the encoder of a trained network (an English "
            ".nemo file, or a run folder), --from-scratch starts with random weights of --preset 15x5"
        )
    if from_scratch and method != "all":
        raise ValueError(f"--train {method} keeps most weights as they are; from scratch they are random: leave it out")
    if init and not Path(init).exists():
        raise ValueError(f"--init {init}: there is no such file or folder")
