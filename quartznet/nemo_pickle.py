"""Reads a ``torch.save`` file of a stranger without running any of it.

A checkpoint is a pickle, and a pickle is a program: it names functions and calls them. ``weights_only=True`` of torch
calls only those that build tensors. A Lightning checkpoint of NeMo also holds its settings as omegaconf objects; each
class that it names is replaced by ``Inert``, which keeps the state it is given and does nothing. Nothing is imported.

Not running anything is not enough: a few bytes can stand for any amount of memory (a view that repeats one number, a
list that holds the same list ten times, ten deep), so what a file would fill is counted before it is filled.

The surprise: dictionaries of a subclass must come back as ``OrderedDict``, the only one that the unpickler fills.
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

BYTES_LIMIT = 2**30  # of an unpacked file; the largest QuartzNet has 80 MB, three times that with its optimiser
PICKLE = b"\x80"  # the first byte of every file that torch.save has ever written, but for zips
VALUES_LIMIT = 200_000  # in settings, each counted as often as it is referred to; a QuartzNet has a few hundred
DEPTH_LIMIT = 64  # of nested settings
# A Lightning checkpoint names classes of these packages. None is imported: Inert takes the place of each.
INERT_PACKAGES = (
    "omegaconf", "nemo", "pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "typing", "enum",
    "pathlib", "argparse", "datetime", "numpy", "_operator", "torch",
)  # fmt: skip
INERT_BUILTINS = ("dict", "list", "tuple", "str", "int", "float", "bool", "bytes", "object", "NoneType")


class Refused(ValueError):
    """A file that is readable and that we do not want."""


class Inert:
    """Stands in for any class or function that a pickle names: takes arguments and state, does nothing with them."""

    def __new__(cls, *arguments: object) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *arguments: object):
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _inert_dictionary(*arguments: object) -> OrderedDict:
    """For subclasses of ``dict``, which the unpickler fills only if they are an ``OrderedDict``."""
    return OrderedDict()


def _stubs(names: list[str], where: str) -> list[tuple[object, str]]:
    stubs: list[tuple[object, str]] = []
    for name in names:
        package, last = name.split(".")[0], name.rsplit(".", 1)[-1]
        if name == "collections.defaultdict" or last == "AttributeDict":
            stubs.append((_inert_dictionary if package == "collections" else OrderedDict, name))
        elif package in INERT_PACKAGES or (package == "builtins" and last in INERT_BUILTINS):
            stubs.append((Inert, name))
        else:
            raise Refused(f"{where} names the code {name}, which weights do not need; the file is refused")
    return stubs


def read_pickle(source: Path | io.BytesIO, where: str) -> object:
    """The object that ``torch.save`` wrote, zip or legacy format, on the CPU; classes from outside torch are ``Inert``.

    Raises:
        ValueError: where the file is damaged, too large, or wants to run anything.
    """
    stubs: list[tuple[object, str]] = []
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                if sum(item.file_size for item in archive.infolist()) > BYTES_LIMIT:
                    raise Refused(f"{where} unpacks to more than 1 GiB; it is not a QuartzNet")
            _rewind(source)
            stubs = _stubs(torch.serialization.get_unsafe_globals_in_checkpoint(source), where)
        elif _first_byte(source) not in (b"", PICKLE):
            raise Refused(f"{where} is damaged or no checkpoint: it begins like none; give a .nemo, .pt or .ckpt")
        _rewind(source)
        with torch.serialization.safe_globals(stubs):
            return torch.load(source, map_location="cpu", weights_only=True)
    except Refused:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where} holds more than weights and is refused: {first_line(error)}") from error
    except Exception as error:  # a damaged file fails anywhere inside torch: EOFError, KeyError, RuntimeError, ...
        raise ValueError(f"{where} is damaged or no checkpoint: {type(error).__name__}: {first_line(error)}") from error


def _first_byte(source: Path | io.BytesIO) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(1)
    _rewind(source)
    return source.read(1)


def _rewind(source: Path | io.BytesIO) -> None:
    if not isinstance(source, Path):
        source.seek(0)


def first_line(error: Exception) -> str:
    """The sentence of an error that says something; torch wraps it in advice for programmers."""
    message = re.search(r"WeightsUnpickler error:\s*([^\n]+)", str(error))
    return (message.group(1) if message else str(error).split("\n")[0]).strip()[:160]


def check_values(top: object, parts: Callable[[object], Iterable[object]], where: str) -> None:
    """Refuses nested settings that a few aliases make endless: every later walk or message would write them all out.

    Args:
        top: the settings.
        parts: the direct parts of one value.

    Raises:
        ValueError: where they hold more than ``VALUES_LIMIT`` values, or themselves.
    """
    counts: dict[int, int] = {}

    def count(value: object) -> int:
        if id(value) not in counts:
            counts[id(value)] = VALUES_LIMIT + 1  # until it is known: what is inside itself is endless
            counts[id(value)] = min(1 + sum(map(count, parts(value))), VALUES_LIMIT + 1)
        return counts[id(value)]

    if count(top) > VALUES_LIMIT:
        raise ValueError(f"{where} stands for more than {VALUES_LIMIT:,} values, or holds itself; it is refused")


def _plain_parts(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def plain_settings(value: object, where: str) -> object:
    """``plain``, and nothing that repeats itself endlessly."""
    settings = plain(value)
    check_values(settings, _plain_parts, where)
    return settings


def plain(value: object, depth: int = 0, seen: dict[int, object] | None = None) -> object:
    """omegaconf containers, read as ``Inert``, turned into dictionaries, lists and values.

    Raises:
        ValueError: for settings nested more than 64 deep, as those that hold themselves are.
    """
    seen = {} if seen is None else seen
    if depth > DEPTH_LIMIT:
        raise ValueError(f"settings are nested more than {DEPTH_LIMIT} deep; the file is damaged")
    if id(value) in seen:
        return seen[id(value)]
    result = value
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, dict) else {}
        result = plain(state.get("_content", state.get("_val")), depth + 1, seen)
    elif isinstance(value, dict):
        result = {key: plain(item, depth + 1, seen) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = [plain(item, depth + 1, seen) for item in value]
    seen[id(value)] = result
    return result


def tensors_of(content: object, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict and the names of what else lay in it.

    Raises:
        ValueError: where there is not one tensor, or tensors that would unfold to more than 1 GiB.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds a {type(content).__name__}, not a dictionary of tensors")
    tensors = {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{where} holds no tensors under its keys {', '.join(map(str, list(content)[:8]))}")
    if sum(4 * value.numel() for value in tensors.values()) > BYTES_LIMIT:
        raise ValueError(f"{where} unfolds to more than 1 GiB of numbers; it is not a QuartzNet")
    return tensors, [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
