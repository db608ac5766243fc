"""``make demo`` before it runs: the shipped checkpoint hears English, and every command of the target parses."""

import shlex
from pathlib import Path

import pytest
from test_train import read_settings

import evaluate
from data.source import open_source
from data.synthetic import make_corpus
from quartznet import load_model
from quartznet.config import TrainSettings, preset_blocks
from quartznet.metrics import error_counts, total
from quartznet.settings import from_dict, load_yaml
from quartznet.slim import halved

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "quartznet" / "assets" / "english_synthetic.pt"


def demo_commands(program: str) -> list[list[str]]:
    """Arguments of every line of the target ``demo`` that runs ``program``."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndemo:")[1].split("\n\n")[0]
    start = f"\t$(BIN)/python {program} "
    return [shlex.split(line.removeprefix(start)) for line in recipe.splitlines() if line.startswith(start)]


def test_shipped_checkpoint_is_small_and_is_the_network_of_the_demo() -> None:
    assert SHIPPED.stat().st_size <= 4_000_000
    model = load_model(SHIPPED)
    assert model.config.blocks == preset_blocks(load_yaml(ROOT / "configs" / "demo.yaml")["preset"])
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_500_000
    for name, value in model.state_dict().items():
        halved(name, value)  # finite


def test_shipped_checkpoint_hears_english_of_new_voices_and_new_phrases(tmp_path: Path) -> None:
    clips = open_source(make_corpus("en", tmp_path / "en", clips=1, held_out=8)).test
    heard = load_model(SHIPPED).transcribe([clip.audio_path for clip in clips])
    assert total(error_counts([clip.text for clip in clips], heard, "character")).rate < 0.15


def test_both_trainings_differ_in_their_initial_weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    fine, scratch = (read_settings(arguments) for arguments in demo_commands("train.py"))
    assert (fine.init, scratch.init) == (str(SHIPPED.relative_to(ROOT)), None)
    same = {"init": None, "out": "runs/demo"}
    assert vars(fine) | same == vars(scratch) | same


def test_results_are_written_where_the_report_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [arguments[arguments.index("--out") + 1] for arguments in demo_commands("train.py")]
    monkeypatch.chdir(tmp_path)
    for run in runs:
        Path(run).mkdir(parents=True)
    found = [evaluate.read_options(arguments) for arguments in demo_commands("evaluate.py")]
    assert {(options.checkpoint, options.json) for options in found} == {(run, f"{run}/test.json") for run in runs}
    assert {options.split for options in found} == {"test"} and max(options.show for options in found) == 10
    [report] = demo_commands("-m quartznet.report")
    assert report[:2] == runs and report[report.index("--png") + 1].endswith(".png")


def test_english_settings_parse() -> None:
    settings = from_dict(TrainSettings, load_yaml(ROOT / "configs" / "demo_english.yaml"))
    assert settings.preset == load_yaml(ROOT / "configs" / "demo.yaml")["preset"]
