"""Help from the source: comments, sections and docstrings arrive, and everything fits 80 columns."""

import re
from dataclasses import dataclass, field

import pytest

import train
from quartznet import augment_preview, commandline, helptext
from quartznet.config import TrainSettings
from quartznet.helptext import Group, Setting, as_typed, first_sentence, groups_of, placeholder, settings_help


@dataclass(frozen=True)
class Base:
    chance: float = 0.5  # inherited, in 50 % of all cases


@dataclass(frozen=True)
class Deep(Base):
    """The deepest ``part``. A second sentence."""

    names: tuple[str, ...] = ("a # b", "é")  # no comment begins in a text


@dataclass(frozen=True)
class Inner:
    untitled: int | None = None
    deep: Deep = field(default_factory=Deep)
    deep_of_comment: int = 0  # 100 % "sure" %(default)s


@dataclass(frozen=True)
class Outer:
    """The whole."""

    first: int = 3  # before any section
    # an ordinary comment
    # --- Second part ---------
    second: bool = False  # a switch
    inner: Inner = field(default_factory=Inner)  # What is inside
    # --- Third part: rates
    some_rate: float = field(
        default=1e-8,
    )  # at the end of its lines
    # --- Second part
    again: str = "word"  # one more of an earlier section


def groups(kind: type) -> dict[str, list[str]]:
    return {group.title: [setting.dotted for setting in group.settings] for group in groups_of(kind)}


def flags_of(kind: type) -> dict[str, str]:
    return {dotted: f"--{dotted}" for dotted in commandline.setting_types(kind)}


def test_groups_come_from_sections_comments_and_docstrings_level_by_level() -> None:
    assert groups(Outer) == {
        "settings": ["first"],
        "Second part": ["second", "again"],
        "Third part: rates": ["some_rate"],
        "What is inside": ["inner.untitled", "inner.deep_of_comment"],
        "The deepest part": ["inner.deep.chance", "inner.deep.names"],
    }


def test_text_by_hand() -> None:
    assert settings_help(Outer, flags_of(Outer)).split("\n\n")[1:] == [
        "settings:\n  --first N  before any section [3]",
        "Second part:\n  --second      a switch [false]\n  --again TEXT  one more of an earlier section [word]",
        "Third part: rates:\n  --some_rate X  at the end of its lines [1e-08]",
        "What is inside:\n"
        "  --inner.untitled N         [none]\n"
        '  --inner.deep_of_comment N  100 % "sure" %(default)s [0]',
        "The deepest part:\n"
        "  --inner.deep.chance X   inherited, in 50 % of all cases [0.5]\n"
        "  --inner.deep.names A,B  no comment begins in a text [a # b,é]\n",
    ]


def test_long_names_get_a_line_and_long_texts_are_wrapped() -> None:
    long = Setting("x" * 40, int, 1, ("word " * 30).strip())
    lines = helptext.rows(
        Group("title", (long, Setting("short", int, 2, "fits"))), {long.dotted: "--" + "x" * 40, "short": "--short"}
    )
    assert lines[0] == "  --" + "x" * 40 + " N" and lines[-1] == "  --short N  fits [2]"
    assert len(lines) == 5 and lines[1].startswith(" " * 13 + "word") and lines[3].endswith("word [1]")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        (None, "none"),
        (True, "true"),
        (160.0, "160"),
        (1e-8, "1e-08"),
        ((), "empty"),
        ((0.9, 1.0), "0.9,1"),
        ("runs/x", "runs/x"),
    ],
)
def test_defaults_look_as_they_are_typed(value: object, typed: str) -> None:
    assert as_typed(value) == typed


def test_placeholders_and_first_sentences() -> None:
    hints = (bool, int, float | None, tuple[str, ...], tuple[float, float] | None, str)
    assert [placeholder(hint) for hint in hints] == ["", " N", " X", " A,B", " A,B", " TEXT"]
    assert first_sentence("NeMo 0.10 does\n``this``. And that.\n\nMore.") == "NeMo 0.10 does this"
    assert first_sentence("One. ") == "One" and first_sentence("") == ""


def test_without_source_names_and_defaults_remain() -> None:
    names: dict = {}
    code = "from dataclasses import dataclass\n@dataclass\nclass Typed:\n    size: int = 7  # unseen\n"
    exec(compile(code, "<prompt>", "exec"), {"__name__": "nowhere"}, names)
    assert settings_help(names["Typed"], {"size": "--size"}).endswith("settings:\n  --size N  [7]\n")


# ---------------------------------------------------------------------------------------------------------------------
# The real settings


@pytest.mark.parametrize("group", groups_of(TrainSettings), ids=lambda group: group.title)
def test_every_setting_is_described_in_its_source(group: Group) -> None:
    assert [setting.dotted for setting in group.settings if not setting.description] == []
    assert group.title[0].isupper(), f"a section or a docstring is missing: {group.title}"


@pytest.mark.parametrize("command", [train, augment_preview], ids=lambda module: module.__name__)
def test_help_of_the_commands(command: object, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    listed = re.findall(r"^  .*?--([\w.-]+)(?: [A-Z,]+)?(?:  |$)", text, re.MULTILINE)
    assert {dotted.replace("_", "-") for dotted in commandline.setting_types(TrainSettings)} <= {*listed}
    assert [listed.count(name) for name in {*listed}] == [1] * len({*listed})
    for title in ("What to learn, and where from:", "The corpus, and how it becomes batches:", "The optimiser:"):
        assert f"\n\n{title}\n  --" in text
    assert re.search(r"--optim.lr X +the highest rate; [^[]*\[0.001\]", text)
    assert re.search(r"--freeze-encoder N +epochs in which", text) and "freeze_encoder" not in text
