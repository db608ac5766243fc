"""Options made from a settings dataclass."""

import argparse
import importlib
import logging
import sys

import pytest
import torch

from quartznet import commandline
from quartznet.config import TrainSettings

SHORT = {"data": "data.source"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="train.py", allow_abbrev=False, exit_on_error=False, add_help=False)
    commandline.add_settings(made, TrainSettings, SHORT)
    return made


def chosen(*arguments: str) -> dict:
    return commandline.chosen_settings(commandline.parse(parser(), arguments), None)


def known_options() -> set[str]:
    return {flag for action in parser()._actions for flag in action.option_strings}


def test_both_spellings_short_names_switches_and_negative_words() -> None:
    assert chosen() == {}
    assert chosen("--freeze-encoder", "3") == chosen("--freeze_encoder=3") == {"freeze_encoder": "3"}
    assert chosen("--data", "x") == chosen("--data.source", "x") == {"data": {"source": "x"}}
    assert chosen("--sync-batchnorm") == {"sync_batchnorm": "true"}
    assert chosen("--sync-batchnorm", "false") == {"sync_batchnorm": "false"}


def test_a_value_without_its_option_is_named() -> None:
    with pytest.raises(ValueError, match=r"^runs/es belongs to no option; --help lists all options$"):
        chosen("--data", "x", "runs/es")


def test_every_setting_has_an_option_and_its_default() -> None:
    names = commandline.setting_types(TrainSettings)
    assert {"lang", "optim.lr", "schedule.warmup_ratio", "augment.speeds", "data.batch_seconds"} <= names.keys()
    text = commandline.help_text(parser(), TrainSettings, SHORT)
    for dotted in names:
        assert f"--{dotted.replace('_', '-')}" in text.split("Every setting")[1].replace(",", "").split(), dotted
        assert f"--{dotted}" in known_options()
    assert "--optim.weight_decay" not in text and "--data, --data.source TEXT" in text


def test_help_is_printed_and_ends_the_program(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        chosen("--help")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert printed == commandline.help_text(parser(), TrainSettings, SHORT)
    assert printed.startswith("usage: train.py") and "-h, --help  this text" in printed


def test_a_parser_with_a_help_of_its_own_is_refused() -> None:
    with pytest.raises(argparse.ArgumentError, match="conflicting option"):
        commandline.add_settings(argparse.ArgumentParser(), TrainSettings, {})


def test_misspelt_options_name_their_neighbours() -> None:
    with pytest.raises(ValueError, match=r"unknown option --optim\.weight_decai=3; did you mean --optim\.weight_decay"):
        chosen("--optim.weight_decai=3")
    with pytest.raises(ValueError, match="expected one argument"):
        chosen("--lang")


def commands(arguments: list[str]) -> int:
    """A command with a subcommand."""
    outer = commandline.Parser(prog="x")
    outer.add_subparsers(dest="command", required=True).add_parser("build").add_argument("--lang", type=int)
    return commandline.run(lambda: print(commandline.parse(outer, arguments)))


def test_subcommands_say_in_one_line_what_is_wrong(capsys: pytest.CaptureFixture) -> None:
    assert commands(["build", "--lang", "3"]) == 0 and "lang=3" in capsys.readouterr().out
    for arguments, message in (
        ([], "the following arguments are required: command; --help says more"),
        (["build", "--lamg", "3"], "unknown option --lamg; did you mean --lang?"),
        (["build", "--lang", "x"], "argument --lang: invalid int value: 'x'; --help says more"),
    ):
        assert commands(arguments) == 2
        assert capsys.readouterr().err == f"error: {message}\n"


def test_how_a_command_ends(capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture) -> None:
    def fails(error: BaseException) -> int:
        def work() -> None:
            raise error

        return commandline.run(work, memory="--beam")

    assert commandline.run(lambda: None) == 0 and commandline.run(lambda: 1) == 1
    for error, told in (
        (ValueError("a\n  b"), "error: a b"),
        (FileNotFoundError("there is no x"), "error: there is no x"),
        (OSError(28, "No space left on device", "x/a.txt"), "error: x/a.txt: No space left on device"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (torch.OutOfMemoryError("CUDA"), "error: the GPU's memory is full; lower --beam"),
    ):
        assert fails(error) == 2 and capsys.readouterr().err == f"{told}\n"
    assert fails(KeyboardInterrupt()) == 130 and capsys.readouterr().err == "aborted\n"
    with pytest.raises(ZeroDivisionError):  # ours to correct, not the user's
        fails(ZeroDivisionError())


@pytest.mark.parametrize(
    "module", ["data.prepare", "data.synthetic", "quartznet.report", "postcorrect.error_model", "postcorrect.correct"]
)
def test_the_help_of_a_command_fits_the_screen(
    module: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(module).main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0 and lines[0].startswith(f"usage: python -m {module}")
    assert [line for line in lines if len(line) > 80] == []


def test_where_messages_go_and_names_that_are_no_text(capsys: pytest.CaptureFixture) -> None:
    def work() -> None:
        logging.getLogger("quartznet").warning("a note")
        print("caf\udce9.wav")

    assert commandline.run(work) == commandline.run(work, log=sys.stderr) == 0
    assert capsys.readouterr() == ("a note\ncaf\\udce9.wav\ncaf\\udce9.wav\n", "a note\n")
