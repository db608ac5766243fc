"""The text of ``--help`` for a settings dataclass, made of the comments in its own source.

What a setting means is said once, in the comment behind its field; where groups begin is said in the source too (the
convention stands in ``quartznet.commandline``). Outer settings come before nested ones, level by level, so that the
forty numbers of augmentation do not stand between a reader and ``--data``.

The surprise: comments are no part of a running program, so the source is read again, and only when help is asked for.
Where it cannot be read (an interpreter's prompt, a frozen program) names and defaults remain.
"""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from dataclasses import dataclass

COLUMNS = 80  # of a terminal
WIDEST = 36  # a longer name gets a line of its own
SECTION = "# --- "  # starts a group between the fields
LEGEND = (
    "Every setting, with its default in brackets. N is a whole number, X a number, A,B a list, none no value; "
    "a name without a value is a switch. Underscores may take the place of dashes."
)


@dataclass(frozen=True)
class Setting:
    """One option."""

    dotted: str  # optim.weight_decay
    hint: object
    default: object
    description: str  # empty where the source has no comment


@dataclass(frozen=True)
class Group:
    """Options that stand together."""

    title: str
    settings: tuple[Setting, ...]


# ---------------------------------------------------------------------------------------------------------------------
# What the source says


@dataclass(frozen=True)
class Notes:
    """Of one dataclass: the first sentence of its docstring, and for each field its comment and its section."""

    sentence: str
    comments: dict[str, str]
    sections: dict[str, str]  # empty text before the first section


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence, without it, on one line and without marks of code."""
    paragraph = " ".join(text.split("\n\n")[0].replace("``", "").split())
    return paragraph.split(". ")[0].removesuffix(".")


def trailing_comment(line: str, end: int) -> str:
    """What follows ``#`` behind column ``end`` of a line; ``end`` counts bytes, as ``ast`` does."""
    return line.encode()[end:].decode().partition("#")[2].strip()


def read_notes(kind: type) -> Notes:
    """The notes of one class; fields that it inherits are not among them. Without source all are empty."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return Notes("", {}, {})
    tree, lines = ast.parse(source).body[0], source.splitlines()
    starts = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip().startswith(SECTION)]
    comments, sections = {}, {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            name = node.target.id
            comments[name] = trailing_comment(lines[node.end_lineno - 1], node.end_col_offset)
            above = [line for number, line in starts if number < node.lineno]
            sections[name] = above[-1].removeprefix(SECTION).strip(" -") if above else ""
    return Notes(first_sentence(ast.get_docstring(tree) or ""), comments, sections)


def notes_of(kind: type) -> Notes:
    """The notes of a dataclass and of those it inherits fields from; its own come last and win."""
    parts = [read_notes(base) for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)]
    comments = {name: text for part in parts for name, text in part.comments.items()}
    sections = {name: text for part in parts for name, text in part.sections.items()}
    return Notes(parts[-1].sentence, comments, sections)


def groups_of(kind: type) -> list[Group]:
    """Every setting of ``kind``, grouped: its own sections, then the dataclasses inside it, then those inside them."""
    found: list[Group] = []
    level = [(kind(), "", "settings")]
    while level:
        deeper = []
        for settings, path, other_title in level:
            notes = notes_of(type(settings))
            sections: dict[str, list[Setting]] = {}
            for name, hint in typing.get_type_hints(type(settings)).items():
                value, comment = getattr(settings, name), notes.comments.get(name, "")
                if dataclasses.is_dataclass(hint):
                    deeper.append((value, f"{path}{name}.", comment or f"{path}{name}"))
                    continue
                title = notes.sections.get(name) or (path and notes.sentence) or other_title
                sections.setdefault(title, []).append(Setting(f"{path}{name}", hint, value, comment))
            found += [Group(title, tuple(members)) for title, members in sections.items()]
        level = deeper
    return found


# ---------------------------------------------------------------------------------------------------------------------
# How it looks


def as_typed(value: object) -> str:
    """A value as the command line takes it: ``none``, ``true``, ``0.9,1,1.1``."""
    if isinstance(value, tuple):
        return ",".join(map(as_typed, value)) or "empty"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def placeholder(hint: object) -> str:
    """What stands for the value behind a name: `` N``, `` X``, `` A,B``, `` TEXT``, and nothing for a switch."""
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        return " A,B"
    return {bool: "", int: " N", float: " X"}.get(hint, " TEXT")


def rows(group: Group, flags: dict[str, str]) -> list[str]:
    """The lines of one group: names, then descriptions in a column of their own, as far left as the names allow."""
    names = [flags[setting.dotted] + placeholder(setting.hint) for setting in group.settings]
    column = 4 + max((len(name) for name in names if len(name) <= WIDEST), default=WIDEST)
    lines = []
    for setting, name in zip(group.settings, names, strict=True):
        text = f"{setting.description} [{as_typed(setting.default)}]".strip()
        first, *others = textwrap.wrap(text, COLUMNS - column, break_on_hyphens=False)
        head = f"  {name}"
        if len(head) + 2 > column:
            lines.append(head)
            head = ""
        lines += [f"{head:{column}}{first}", *(" " * column + other for other in others)]
    return lines


def settings_help(kind: type, flags: dict[str, str]) -> str:
    """All groups of a settings dataclass as text of 80 columns; ``flags`` are the names to show, by dotted name."""
    lines = textwrap.wrap(LEGEND, COLUMNS)
    for group in groups_of(kind):
        lines += ["", *textwrap.wrap(f"{group.title}:", COLUMNS), *rows(group, flags)]
    return "\n".join(lines) + "\n"
