"""Command line -> settings: every field is reachable as ``--optim.lr 0.01``, a few also under a short name.

The command line wins over ``--config FILE.yaml``, and that over the defaults of the dataclass. A misspelt option is
an error that names its near matches. The surprise: options are made from the dataclass itself, so a new setting needs
no line here, and the help text lists it.
"""

import argparse
import dataclasses
import difflib
import logging
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from quartznet.settings import load_yaml, override

Names = dict[str, str]


def setting_types(kind: type, path: str = "") -> dict[str, object]:
    """``{"optim.lr": float, ...}`` for all fields of a settings dataclass, nested ones included."""
    found: dict[str, object] = {}
    for name, hint in typing.get_type_hints(kind).items():
        nested = dataclasses.is_dataclass(hint)
        found |= setting_types(hint, f"{path}{name}.") if nested else {f"{path}{name}": hint}
    return found


def default_of(kind: type, dotted: str) -> object:
    """The default of ``optim.lr``."""
    value: object = kind()
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def spellings(dotted: str, short_names: Names) -> list[str]:
    """``--freeze-encoder`` and ``--freeze_encoder``; short names come first."""
    flags = [f"--{short}" for short, full in short_names.items() if full == dotted]
    flags += [f"--{dotted.replace('_', '-')}", f"--{dotted}"]
    return list(dict.fromkeys(flags))


def add_settings(parser: argparse.ArgumentParser, kind: type, short_names: Names) -> None:
    """One option for each setting. Values stay text until the dataclass converts them; a switch needs no value."""
    group = parser.add_argument_group("settings, with their defaults")
    for dotted, hint in setting_types(kind).items():
        flags = spellings(dotted, short_names)
        default = str(default_of(kind, dotted)).replace("%", "%%")
        target = f"settings:{dotted}"
        if hint is bool:
            group.add_argument(*flags, dest=target, nargs="?", const="true", default=None, metavar="true", help=default)
        else:
            group.add_argument(*flags, dest=target, default=None, metavar="VALUE", help=default)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """``parser.parse_args`` whose errors are one line.

    Raises:
        ValueError: an unknown option (near matches are named), or one without its value.
    """
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        known = sorted(flag for action in parser._actions for flag in action.option_strings)
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "--help lists all options"
        raise ValueError(f"unknown option {unknown[0]}; {hint}")
    return options


@contextmanager
def messages_on_screen() -> Iterator[None]:
    """Inside the ``with`` block, what the packages log is printed to stdout, line by line."""
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stdout)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def chosen_settings(options: argparse.Namespace, config: str | None) -> dict:
    """What was chosen explicitly, in the file ``config`` or on the command line, as nested dictionaries.

    Raises:
        FileNotFoundError, ValueError: from reading ``config``.
    """
    mapping = load_yaml(config) if config else {}
    for target, value in vars(options).items():
        if target.startswith("settings:") and value is not None:
            override(mapping, target.removeprefix("settings:"), value)
    return mapping
