"""quartznet.recipes: valid settings for every situation, reasons that are printed, and a file that repeats the run."""

from dataclasses import replace
from pathlib import Path

import pytest
import tones
import yaml
from test_train import SCRATCH, english, read_settings

import train
from quartznet.checkpoint import load_checkpoint
from quartznet.config import TrainSettings
from quartznet.options import read_options, writes
from quartznet.recipes import Situation, as_mapping, choose, save_recipe, size_of, table
from quartznet.settings import from_dict, load_yaml, to_dict

SPANISH = Situation(hours=0.46, longest=16.0, has_init=True, device="cpu")


@pytest.mark.parametrize(
    "hours, name",
    [(0.1, "minutes"), (0.99, "minutes"), (1.0, "hours"), (10.0, "tens"), (99.0, "tens"), (500, "hundreds")],
)
def test_the_size_by_hours(hours: float, name: str) -> None:
    assert size_of(hours) == name


@pytest.mark.parametrize("has_init", [True, False])
@pytest.mark.parametrize("device, processes", [("cpu", 1), ("cuda", 1), ("cuda", 8)])
@pytest.mark.parametrize("hours", [0.01, 0.5, 5.0, 50.0, 900.0])
def test_every_recipe_is_valid_and_fits_the_screen(hours: float, device: str, processes: int, has_init: bool) -> None:
    situation = Situation(hours, 16.0, has_init, device, processes)
    choices = choose("auto", situation)
    settings = from_dict(TrainSettings, as_mapping(choices))
    assert settings.data.batch_seconds >= 16.0 or hours < 0.1
    names = [choice.name for choice in choices]
    assert len(names) == len(set(names)) and all(choice.reason for choice in choices)
    printed = table("auto", situation, choices, [])
    assert max(map(len, printed.splitlines())) <= 80 and all(f"  {name} " in printed for name in names)
    assert settings.optim.name == ("adamw" if has_init and hours < 10 else "novograd")


def test_the_rate_follows_the_batch_that_was_given() -> None:
    def rate(batch: float | None) -> float:
        return dict((c.name, c.value) for c in choose("minutes", replace(SPANISH, batch_seconds=batch)))["optim.lr"]

    assert rate(None) == rate(40.0) == 5e-4 and rate(160.0) == 1e-3 and rate(10.0) == 2.5e-4
    given = [choice.name for choice in choose("minutes", replace(SPANISH, batch_seconds=20.0))]
    assert "data.batch_seconds" not in given


def test_few_minutes_get_steps_not_epochs() -> None:
    def steps(hours: float) -> float:
        mapping = as_mapping(choose("minutes", replace(SPANISH, hours=hours)))
        return mapping["epochs"] * hours * 3600 / (0.67 * mapping["data"]["batch_seconds"])

    assert steps(0.17) == pytest.approx(1200, rel=0.1) and steps(0.46) == pytest.approx(1200, rel=0.1)


def test_few_epochs_get_small_batches_and_few_holes() -> None:
    german = replace(SPANISH, hours=1.41)

    def chosen(name: str, epochs: float | None) -> object:
        return dict((c.name, c.value) for c in choose("auto", replace(german, epochs=epochs)))[name]

    assert [chosen("data.batch_seconds", epochs) for epochs in (None, 30, 10, 2)] == [80.0, 80.0, 40.0, 40.0]
    assert [chosen("augment.cutout_masks", epochs) for epochs in (None, 30, 10, 2)] == [5, 5, 5, 2]
    assert chosen("optim.lr", 2) == 5e-4 and chosen("optim.lr", None) > 5e-4


def test_batch_norm_is_left_alone_where_there_is_little_speech() -> None:
    def mode(hours: float, has_init: bool = True) -> object:
        choices = choose("auto", replace(SPANISH, hours=hours, has_init=has_init))
        return dict((c.name, c.value) for c in choices).get("tune.batchnorm")

    assert mode(0.1) == mode(5.0) == "frozen" and mode(50.0) is None and mode(0.1, has_init=False) is None


def test_rate_and_batch_norm_follow_what_learns() -> None:
    def chosen(method: str, hours: float = 0.46) -> dict:
        return dict((c.name, c.value) for c in choose("auto", replace(SPANISH, hours=hours, method=method)))

    rates = {method: chosen(method)["optim.lr"] for method in ("all", "top-3", "head", "lora", "adapters", "bn")}
    assert rates == {"all": 5e-4, "top-3": 5e-4, "head": 5e-4, "lora": 1e-3, "adapters": 2e-3, "bn": 5e-3}
    assert "tune.batchnorm" not in chosen("bn") and chosen("top-3")["tune.batchnorm"] == "frozen"
    assert chosen("lora", 50.0)["optim.name"] == "adamw" and chosen("all", 50.0)["optim.name"] == "novograd"


def test_an_init_gets_the_recipe_unless_told_otherwise(tmp_path: Path) -> None:
    arguments = ["--init", str(english(tmp_path / "en.pt")), "--lang", "es"]
    config = tmp_path / "other.yaml"
    config.write_text("optim: {lr: 0.1}\n")

    def recipe(*more: str) -> str | None:
        return read_options([*arguments, *more], "", "").recipe

    assert recipe() == "auto" and recipe("--recipe", "hours") == "hours"
    assert recipe("--recipe", "none") is None and recipe("--config", str(config)) is None
    assert recipe("--config", str(config), "--recipe", "auto") == "auto"
    assert read_options(["--from-scratch", "--lang", "es"], "", "").recipe is None


def test_a_language_that_is_known_gets_small_steps(tmp_path: Path) -> None:
    rates = [
        dict((c.name, c.value) for c in choose("auto", replace(SPANISH, is_known=known)))["optim.lr"]
        for known in (False, True)
    ]
    assert rates == [5e-4, 1e-5]
    base = english(tmp_path / "en.pt")
    assert writes(str(base), "en") and not writes(str(base), "es")


def test_what_was_chosen_stays_and_is_said() -> None:
    choices = choose("auto", SPANISH)
    printed = table("auto", SPANISH, choices, ["optim.lr", "lang", "epochs"])
    assert printed.startswith("recipe minutes: 0.46 h of speech") and "as you said: optim.lr, epochs" in printed
    assert "  optim.lr " not in printed


def test_impossible_recipes() -> None:
    with pytest.raises(ValueError, match="recipe must be auto, minutes, hours, tens, hundreds, got 'few'"):
        choose("few", SPANISH)
    with pytest.raises(ValueError, match="needs hours of speech"):
        choose("auto", replace(SPANISH, hours=0.0))


def test_the_file_repeats_the_settings(tmp_path: Path) -> None:
    choices = choose("auto", SPANISH)
    settings = from_dict(TrainSettings, as_mapping(choices) | {"lang": "es"})
    save_recipe(tmp_path / "recipe.yaml", to_dict(settings), choices)
    text = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert from_dict(TrainSettings, yaml.safe_load(text)) == settings
    assert all(f"# {choice.name}: {choice.reason}" in text for choice in choices)


def test_train_follows_it_and_the_saved_file_is_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    init, manifest = english(tmp_path / "en.pt"), tones.write_corpus(tmp_path)
    arguments = ["--init", str(init), "--lang", "xx", "--data", str(manifest), "--device", "cpu", "--data.workers", "0"]
    arguments += ["--allow-char-loss", "--recipe", "auto", "--epochs", "2", "--out", str(tmp_path / "run")]
    assert train.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "recipe minutes: 0.00 h of speech" in printed and "as you said: epochs" in printed
    saved = load_yaml(tmp_path / "run" / "recipe.yaml")
    assert saved == load_yaml(tmp_path / "run" / "settings.yaml")
    assert saved["optim"]["name"] == "adamw" and saved["epochs"] == 2 and saved["augment"]["cutout_masks"] == 2
    again = ["--config", str(tmp_path / "run" / "recipe.yaml"), "--out", str(tmp_path / "again")]
    assert train.main(again) == 0
    first, second = (load_checkpoint(tmp_path / name / "last.pt")["weights"] for name in ("run", "again"))
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_a_recipe_is_one_of_five(capsys: pytest.CaptureFixture) -> None:
    assert train.main([*SCRATCH, "--recipe", "best"]) == 2
    assert "invalid choice: 'best'" in capsys.readouterr().err
    assert read_settings([*SCRATCH, "--recipe", "auto"]).optim.name == "novograd"  # before the hours are known


def test_a_run_goes_on_with_its_own_settings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One that began without a recipe, or with less speech, would get another optimiser from today's."""
    manifest, run = tones.write_corpus(tmp_path), tmp_path / "run"
    arguments = ["--init", str(english(tmp_path / "en.pt")), "--lang", "xx", "--data", str(manifest), "--out", str(run)]
    arguments += ["--device", "cpu", "--data.workers", "0", "--allow-char-loss"]
    assert train.main([*arguments, "--recipe", "none", "--epochs", "1"]) == 0
    assert train.main([*arguments, "--epochs", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"settings that are not given are those of {run / 'settings.yaml'}" in printed
    assert "changed since the last run: epochs: 1 -> 2" in printed
    assert load_yaml(run / "settings.yaml")["optim"]["name"] == "novograd" and not (run / "recipe.yaml").exists()
    assert train.main([*arguments, "--recipe", "auto", "--epochs", "2"]) == 2
    assert "was trained with optim.name novograd" in capsys.readouterr().err
