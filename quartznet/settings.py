"""Settings dataclasses <-> dictionaries <-> YAML <-> dotted names such as ``optim.lr``.

Unknown keys, wrong types and impossible values are errors that name the full path. The surprise: PyYAML reads ``1e-3``
as a string, so every number is converted by the type of its field, never by what YAML thought it was. And a table that
names one setting of several leaves the others at what the dataclass around it has as its default, not at those of the
inner dataclass: ``optim: {lr: 0.01}`` must not turn another optimiser into the usual one.
"""

import dataclasses
import math
import reprlib
import types
import typing
from pathlib import Path

import yaml


def to_dict(settings: object) -> dict:
    """A settings dataclass as plain dictionaries, lists, numbers and strings, ready for YAML or a checkpoint."""

    def plain(value: object) -> object:
        if dataclasses.is_dataclass(value):
            return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return plain(settings)


Settings = typing.TypeVar("Settings")


def from_dict(kind: type[Settings], mapping: dict, path: str = "", base: Settings | None = None) -> Settings:
    """Builds ``kind`` from nested dictionaries; messages show long values shortened.

    Args:
        base: what is not in ``mapping`` is as in this one; None: as the dataclass has it.

    Raises:
        ValueError: for an unknown key, a wrong type or an impossible value; the message names the full path.
    """
    if not isinstance(mapping, dict):
        name = path.rstrip(".") or kind.__name__
        raise ValueError(f"{name} must be a table of settings, got {reprlib.repr(mapping)}")
    hints = typing.get_type_hints(kind)
    items = {item.name: item for item in dataclasses.fields(kind)}
    unknown = [key for key in mapping if key not in items]
    if unknown:
        where = ", ".join(f"{path}{key}" for key in unknown)
        raise ValueError(f"unknown setting {where}; {kind.__name__} has {', '.join(items)}")
    values = {}
    for key, value in mapping.items():
        if dataclasses.is_dataclass(hints[key]):
            inner = _default(items[key]) if base is None else getattr(base, key)
            values[key] = from_dict(hints[key], value, f"{path}{key}.", inner)
        else:
            values[key] = _convert(value, hints[key], f"{path}{key}")
    try:
        return kind(**values) if base is None else dataclasses.replace(base, **values)
    except (TypeError, ValueError) as error:
        where = "" if path and str(error).startswith(path.split(".")[0]) else f"{path.rstrip('.') or kind.__name__}: "
        raise ValueError(f"{where}{error}") from error


def _default(item: dataclasses.Field) -> object | None:
    """What a field is where nothing is said; None: it must be said."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return None if item.default is dataclasses.MISSING else item.default


def _convert(value: object, hint: object, path: str) -> object:
    """``value`` as the type ``hint``: what YAML and the command line hand over is text or nearly right."""
    if typing.get_origin(hint) is types.UnionType:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if value is None or value in ("none", "null"):
            return None
        return _convert(value, options[0], path)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, path + ".")
    if typing.get_origin(hint) is tuple:
        return _convert_tuple(value, typing.get_args(hint), path)
    if hint is bool:
        if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
            return str(value).lower() == "true"
        raise ValueError(f"{path} must be true or false, got {reprlib.repr(value)}")
    if hint in (int, float):
        return _number(value, hint, path)
    if not isinstance(value, str):
        raise ValueError(f"{path} must be text, got {reprlib.repr(value)}")
    return value


def _convert_tuple(value: object, arguments: tuple, path: str) -> tuple:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{path} must be a list, got {reprlib.repr(value)}")
    if arguments[-1] is not Ellipsis and len(value) != len(arguments):
        raise ValueError(f"{path} must have {len(arguments)} values, got {len(value)}: {reprlib.repr(value)}")
    return tuple(_convert(item, arguments[0], f"{path}[{index}]") for index, item in enumerate(value))


def _number(value: object, kind: type, path: str) -> int | float:
    name = "a whole number" if kind is int else "a number"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # a whole number of 400 digits is no float
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or (kind is int and number != int(number)):
        raise ValueError(f"{path} must be {name}, got {reprlib.repr(value)}")
    return kind(number)


def save_yaml(settings: object, path: str | Path) -> None:
    """Writes a settings dataclass as YAML, keys in the order of the fields."""
    Path(path).write_text(yaml.safe_dump(to_dict(settings), sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_yaml(path: str | Path) -> dict:
    """Reads a YAML file of settings as a dictionary; raises ``ValueError`` that names the file and the line."""
    if not Path(path).exists():  # a pipe will do: --config <(...)
        raise FileNotFoundError(f"there is no settings file {path}; correct the path")
    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(mapping, dict):
        raise ValueError(f"{path} must hold 'key: value' lines, got {type(mapping).__name__}")
    return mapping


def override(mapping: dict, dotted: str, value: object) -> None:
    """Sets ``mapping["optim"]["lr"]`` for ``dotted`` = ``optim.lr``, making the tables on the way.

    Raises:
        ValueError: a value stands where a table should be.
    """
    *tables, last = dotted.replace("-", "_").split(".")
    for table in tables:
        mapping = mapping.setdefault(table, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"{table} must be a table of settings, got {reprlib.repr(mapping)}")
    mapping[last] = value
