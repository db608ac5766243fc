"""Options made from a settings dataclass."""

import argparse

import pytest

from quartznet import commandline
from quartznet.config import TrainSettings


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    commandline.add_settings(made, TrainSettings, {"data": "data.source"})
    return made


def chosen(*arguments: str) -> dict:
    return commandline.chosen_settings(commandline.parse(parser(), arguments), None)


def test_both_spellings_short_names_switches_and_negative_words() -> None:
    assert chosen() == {}
    assert chosen("--freeze-encoder", "3") == chosen("--freeze_encoder=3") == {"freeze_encoder": "3"}
    assert chosen("--data", "x") == chosen("--data.source", "x") == {"data": {"source": "x"}}
    assert chosen("--sync-batchnorm") == {"sync_batchnorm": "true"}
    assert chosen("--sync-batchnorm", "false") == {"sync_batchnorm": "false"}


def test_every_setting_has_an_option_and_its_default() -> None:
    names = commandline.setting_types(TrainSettings)
    assert {"lang", "optim.lr", "schedule.warmup_ratio", "augment.speeds", "data.batch_seconds"} <= names.keys()
    assert commandline.default_of(TrainSettings, "optim.lr") == TrainSettings().optim.lr
    assert "--augment.cutout-swapped" in parser().format_help()


def test_misspelt_options_name_their_neighbours() -> None:
    with pytest.raises(ValueError, match=r"unknown option --optim\.weight_decai=3; did you mean --optim\.weight_decay"):
        chosen("--optim.weight_decai=3")
    with pytest.raises(ValueError, match="expected one argument"):
        chosen("--lang")
