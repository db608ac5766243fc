"""Command line -> settings: every field is reachable as ``--optim.lr 0.01``, a few also under a short name.

The command line wins over ``--config FILE.yaml``, and that over the defaults of the dataclass. A misspelt option is
an error that names its near matches. The surprise: options are made from the dataclass itself, so a new setting needs
no line here. ``--help`` lists it, and says of it what the source of the dataclass says (``quartznet.helptext``):

- the comment behind a field is its description;
- a line ``# --- Title`` between fields starts a group, which lasts until the next such line;
- a dataclass within the dataclass is a group of its own, and the first sentence of its docstring is the title.
"""

import argparse
import dataclasses
import difflib
import io
import logging
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TextIO

import torch

from quartznet.helptext import settings_help
from quartznet.settings import load_yaml, override

Names = dict[str, str]


def setting_types(kind: type, path: str = "") -> dict[str, object]:
    """``{"optim.lr": float, ...}`` for all fields of a settings dataclass, nested ones included."""
    found: dict[str, object] = {}
    for name, hint in typing.get_type_hints(kind).items():
        nested = dataclasses.is_dataclass(hint)
        found |= setting_types(hint, f"{path}{name}.") if nested else {f"{path}{name}": hint}
    return found


def spellings(dotted: str, short_names: Names) -> list[str]:
    """``--freeze-encoder``; short names come first."""
    return [*(f"--{short}" for short, full in short_names.items() if full == dotted), f"--{dotted.replace('_', '-')}"]


def help_text(parser: argparse.ArgumentParser, kind: type, short_names: Names) -> str:
    """The parser's own usage and options, then every setting, grouped."""
    flags = {dotted: ", ".join(spellings(dotted, short_names)) for dotted in setting_types(kind)}
    return f"{parser.format_help()}\n{settings_help(kind, flags)}"


class ShowHelp(argparse.Action):
    """``--help``; its ``const`` is (dataclass, short names)."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(help_text(parser, *self.const))
        parser.exit()


def add_settings(parser: argparse.ArgumentParser, kind: type, short_names: Names) -> None:
    """One option for each setting, and ``--help`` (so ``parser`` is made with ``add_help=False``).

    Values stay text until the dataclass converts them; a switch needs no value. ``--freeze_encoder`` is understood as
    ``--freeze-encoder`` is, but help shows the dashes only.
    """
    parser.add_argument("-h", "--help", action=ShowHelp, nargs=0, const=(kind, short_names), help="this text")
    for dotted, hint in setting_types(kind).items():
        shown = spellings(dotted, short_names)
        hidden = [f"--{dotted}"] if f"--{dotted}" not in shown else []
        nargs, const = ("?", "true") if hint is bool else (None, None)
        parser.add_argument(
            *shown, *hidden, dest=f"settings:{dotted}", nargs=nargs, const=const, help=argparse.SUPPRESS
        )


class Parser(argparse.ArgumentParser):
    """A parser, its subcommands included, that raises ValueError where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; --help says more")


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    """All options, those of subcommands too."""
    inner = [action.choices.values() for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    own = {flag for action in parser._actions for flag in action.option_strings}
    return own.union(*(_flags(command) for commands in inner for command in commands))


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """``parser.parse_args`` whose errors are one line.

    Raises:
        ValueError: an unknown option (near matches are named), one without its value, or a value without its option.
    """
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        if not unknown[0].startswith("-"):
            raise ValueError(f"{unknown[0]} belongs to no option; --help lists all options")
        near = difflib.get_close_matches(unknown[0].split("=")[0], sorted(_flags(parser)), n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "--help lists all options"
        raise ValueError(f"unknown option {unknown[0]}; {hint}")
    return options


def run(
    work: Callable[[], int | None],
    memory: str = "--batch-seconds",
    log: TextIO | None = None,
    stopped: str = "aborted",
) -> int:
    """The exit status of a command that is done by ``work``: its own, None is 0; 2 something to correct; 130 Ctrl-C.

    What there is to correct is one line on stderr. Names of files that are no UTF-8 are shown with escapes.

    Args:
        work: reads the command line and does all the rest; may raise ValueError, OSError.
        memory: what to lower where the GPU's memory is full.
        log: where the messages of the packages go; stdout if left out.
        stopped: what is said after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with messages_on_screen(log):
            return work() or 0
    except torch.OutOfMemoryError:
        told = f"error: the GPU's memory is full; lower {memory}"
    except (ValueError, OSError) as error:
        told = f"error: {_one_line(error)}"
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    print(told, file=sys.stderr)
    return 2


def _one_line(error: Exception) -> str:
    """What an error says, without Python's numbers: ``x/a.txt: No space left on device``."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return re.sub(r"\s*\n\s*", " ", str(error).strip())


@contextmanager
def messages_on_screen(log: TextIO | None = None) -> Iterator[None]:
    """Inside the ``with`` block, what the packages log is printed to ``log``, or stdout, line by line."""
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stdout if log is None else log)
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
