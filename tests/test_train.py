"""train.py: what is asked for is what happens, and each mistake gets one line and exit status 2."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch

import evaluate
import train
from quartznet import load_model
from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.config import BlockConfig, FeatureConfig, ModelConfig, TrainSettings
from quartznet.initial import build_model, read_base
from quartznet.model import QuartzNet
from quartznet.options import read_options
from quartznet.settings import to_dict


def read_settings(arguments: list[str]) -> TrainSettings:
    """The settings that train.py would take."""
    return read_options(arguments, "", "").settings()


SCRATCH = ["--from-scratch", "--lang", "es", "--device", "cpu", "--data.workers", "0"]


def english(path: Path, labels: str = " abcd", rule: str = "0.x") -> Path:
    """A small checkpoint to start from."""
    torch.manual_seed(1)
    blocks = (BlockConfig(16, 11, stride=2), BlockConfig(16, 11, residual=True), BlockConfig(16, 1, separable=False))
    model = QuartzNet(ModelConfig(tuple(labels), blocks, FeatureConfig(rule=rule)))
    save_checkpoint(path, {"model_config": to_dict(model.config), "weights": model.state_dict(), "lang": "en"})
    return path


def refused(capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    """The one line on stderr of a run that must not start."""
    assert train.main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    return errors


# ---------------------------------------------------------------------------------------------------------------------
# Settings


def test_command_line_wins_over_file_wins_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("optim: {lr: 0.5, weight_decay: 0.25}\nepochs: 7\n", encoding="utf-8")
    options = ["--config", str(file), "--from-scratch", "--lang", "pt", "--optim.lr", "1e-3", "--warmup-ratio", "0.2"]
    settings = read_settings([*options, "--allow-char-loss", "--data", "x", "--freeze-encoder=10"])
    assert (settings.optim.lr, settings.optim.weight_decay, settings.epochs) == (0.001, 0.25, 7)
    assert (settings.schedule.warmup_ratio, settings.freeze_encoder, settings.allow_char_loss) == (0.2, 10, True)
    assert (settings.data.source, settings.out, settings.init) == ("x", "runs/pt-scratch", None)
    assert settings.augment == TrainSettings().augment


def test_run_folder_is_named_after_language_and_start(tmp_path: Path) -> None:
    init = english(tmp_path / "nemo_en.pt")
    assert read_settings(["--init", str(init), "--lang", "es"]).out == "runs/es-nemo_en"


def test_saved_settings_run_again(tmp_path: Path) -> None:
    from quartznet.settings import save_yaml

    settings = read_settings(["--from-scratch", "--lang", "es", "--epochs", "3", "--train", "a,b", "--dev", "c"])
    assert settings.data.train == ("a", "b")
    both = read_settings([*SCRATCH, "--train", "a", "--train", "b,c", "--train", "all"])
    assert both.data.train == ("a", "b", "c") and both.tune.train == "all"
    save_yaml(settings, tmp_path / "settings.yaml")
    assert read_settings(["--config", str(tmp_path / "settings.yaml")]) == settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lang", "es"], "--init CHECKPOINT takes the encoder of a trained network"),
        (["--from-scratch"], "--lang is missing"),
        (["--init", "absent.nemo", "--lang", "es"], "--init absent.nemo: there is no such file"),
        (["--from-scratch", "--init", "x", "--lang", "es"], "--from-scratch and --init x contradict each other"),
        ([*SCRATCH, "--optim.lrr", "1"], "unknown option --optim.lrr; did you mean --optim.lr"),
        ([*SCRATCH, "--qqq"], "unknown option --qqq; --help lists all options"),
        ([*SCRATCH, "--optim.lr"], "--optim.lr: expected one argument"),
        ([*SCRATCH, "--optim.lr", "fast"], "optim.lr must be a number, got 'fast'"),
        ([*SCRATCH, "--config", "absent.yaml"], "absent.yaml"),
        ([*SCRATCH, "--config", "tables.yaml", "--train", "all"], "tune must be a table of settings, got 5"),
        ([*SCRATCH, "--device", "tpu"], "device must be auto, cpu or cuda"),
        ([*SCRATCH, "--dev", "x"], "--dev without --train"),
        ([*SCRATCH, "--tune.lora_rank", "4"], "--tune.lora_rank 4 does nothing without --train lora; add that, or"),
        ([*SCRATCH, "--tune.unfreeze_blocks", "2"], "does nothing without --unfreeze-every EPOCHS"),
        ([*SCRATCH, "--keep.temperature", "2"], "does nothing without --keep.lwf WEIGHT"),
        ([*SCRATCH, "--sequence.unit", "character"], "does nothing without --sequence.method mwer or policy"),
        ([*SCRATCH, "--sequence.method", "mwer", "--sequence.baseline", "greedy"], "without --sequence.method policy"),
        ([*SCRATCH, "--data", "absent"], "there is no absent"),
        (["--from-scratch", "--lang", "xx"], "name a corpus with --data PATH"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables.yaml").write_text("tune: 5\n", encoding="utf-8")
    assert message in refused(capsys, arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def test_lost_letters_stop_the_run_unless_allowed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("abba", "da ## d", "cab"))
    arguments = [*SCRATCH, "--preset", "tiny", "--train", str(manifest), "--dev", str(manifest), "--steps", "1"]
    arguments += ["--out", str(tmp_path / "run")]
    assert "accept the loss with --allow-char-loss" in refused(capsys, arguments)
    assert not (tmp_path / "run").exists()
    assert train.main([*arguments, "--allow-char-loss"]) == 0


def test_useless_clips_are_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("abba", "cab", "da", "bad"))
    lines = manifest.read_text(encoding="utf-8").splitlines()
    lines[0] = lines[0].replace('"abba"', f'"{"ab" * 60}"')  # no path through so few frames
    lines[1] = lines[1].replace("train1.wav", "absent.wav")
    (tmp_path / "train2.wav").write_bytes(b"RIFF no sound")  # found out while loading
    manifest.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "run"
    dev = tones.write_corpus(tmp_path / "dev", ("cab",), "dev")
    arguments = [*SCRATCH, "--preset", "tiny", "--train", str(manifest), "--dev", str(dev), "--out", str(out)]
    assert train.main([*arguments, "--steps", "2", "--allow-char-loss"]) == 0
    skipped = (out / "skipped.txt").read_text(encoding="utf-8")
    assert "train.jsonl:1: its text needs" in skipped
    assert "absent.wav" in skipped and "train.jsonl:3" in skipped
    assert "clips left out; all are listed in" in capsys.readouterr().out


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
def test_clips_shorter_than_a_frame_stop_nothing(rule: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In training the manifest promises more than there is; in dev and test the length is honest."""
    manifest, dev = tones.write_corpus(tmp_path), tones.write_corpus(tmp_path, ("cab", "d", "a"), "dev")
    (tmp_path / "train1.wav").write_bytes((tmp_path / "train0.wav").read_bytes())
    for name, samples in (("train0", 100), ("dev1", 100), ("dev2", 1)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(samples), 16000)
    lines = [json.loads(line) for line in dev.read_text(encoding="utf-8").splitlines()]
    dev.write_text("".join(json.dumps({**line, "duration": None}) + "\n" for line in lines), encoding="utf-8")
    out, init = tmp_path / "run", english(tmp_path / "en.pt", rule=rule)
    arguments = ["--init", str(init), *SCRATCH[1:], "--train", str(manifest), "--dev", str(dev), "--out", str(out)]
    assert train.main([*arguments, "--epochs", "1", "--data.max-batch", "1"]) == 0
    assert "train.jsonl:1: the clip has" in (out / "skipped.txt").read_text(encoding="utf-8")
    assert "3 clips failed to load" in capsys.readouterr().out
    assert evaluate.main(["--checkpoint", str(out), "--data", str(dev)]) == 0
    assert "2 clips left out" in capsys.readouterr().out


def test_the_run_folder_cannot_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "run").touch()
    assert "run is a file; the run needs a folder" in refused(capsys, [*SCRATCH, "--out", str(tmp_path / "run")])


def test_no_usable_clip_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path)
    arguments = [*SCRATCH, "--data", str(manifest), "--data.max-duration", "0.2"]
    assert "no clip is left to train on; the first problem" in refused(capsys, arguments)


def test_encoder_and_front_end_come_from_init(tmp_path: Path) -> None:
    init = english(tmp_path / "en.pt")
    settings = read_settings(["--init", str(init), "--lang", "es"])
    model, old = build_model(settings, tuple(" abcdñ"), read_base(str(init))), load_model(init)
    assert model.config.features.rule == "0.x" and model.config.blocks == old.config.blocks
    for name, value in old.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name])
    assert torch.equal(model.decoder.weight[:5], old.decoder.weight[:5])  # " abcd" keep their rows, ñ is new
    assert model.decoder.weight.shape[0] == 7 and torch.equal(model.decoder.weight[6], old.decoder.weight[5])
    same = build_model(settings, tuple(" abcd"), read_base(str(init)))
    assert torch.equal(same.decoder.weight, old.decoder.weight)
    settings = read_settings(["--init", str(init), "--lang", "es", "--head", "new"])
    assert not torch.equal(
        build_model(settings, tuple(" abcd"), read_base(str(init))).decoder.weight, old.decoder.weight
    )
    with pytest.raises(ValueError, match="head must be copy or new"):
        read_settings(["--init", str(init), "--lang", "es", "--head", "old"])


def test_an_encoder_without_its_decoder_is_a_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from quartznet.nemo import load_nemo, save_nemo  # a .nemo without its decoder, as old JasperEncoder files lie alone

    caplog.set_level("INFO")
    whole = load_model(english(tmp_path / "en.pt"))
    save_nemo(whole, tmp_path / "en.nemo")
    assert load_nemo(tmp_path / "en.nemo").config.blocks == whole.config.blocks
    folder = tmp_path / "bare"
    with tarfile.open(tmp_path / "en.nemo") as archive:
        archive.extractall(folder, filter="data")
    weights = torch.load(folder / "model_weights.ckpt", weights_only=True)
    torch.save(
        {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")},
        folder / "JasperEncoder-STEP-1.pt",
    )
    (folder / "model_weights.ckpt").unlink()
    init = folder / "JasperEncoder-STEP-1.pt"
    with pytest.raises(ValueError, match="Decoder"):
        load_model(init)
    model = build_model(read_settings(["--init", str(init), "--lang", "es"]), tuple(" abcdñ"), read_base(str(init)))
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name]), name
    assert model.decoder.weight.shape[0] == 7
    assert "only the encoder of" in caplog.text and "new output layer for 6 labels" in caplog.text


def test_frozen_encoder_is_still_that_of_init_after_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    init, manifest = english(tmp_path / "en.pt"), tones.write_corpus(tmp_path)
    out = tmp_path / "run"
    arguments = [
        "--init",
        str(init),
        "--lang",
        "es",
        "--train",
        str(manifest),
        "--dev",
        str(manifest),
        "--device",
        "cpu",
    ]
    arguments += ["--out", str(out), "--epochs", "1", "--freeze-encoder", "1", "--data.workers", "0"]
    arguments += ["--recipe", "none"]  # which would hold batch norm still
    assert train.main(arguments) == 0
    old, new = load_model(init), load_checkpoint(out / "last.pt")["weights"]
    for name, parameter in old.encoder.named_parameters():
        assert torch.equal(parameter, new[f"encoder.{name}"])
    first = "blocks.0.layers.0.norm.running_mean"
    assert not torch.equal(old.encoder.get_buffer(first), new[f"encoder.{first}"])
    assert load_checkpoint(out)["lang"] == "es"
    assert "output layer: copied 5, from a base letter 1 (á<-a)" in capsys.readouterr().out
    assert train.main([*arguments, "--epochs", "2", "--preset", "5x5"]) == 0  # resumes; the preset has no say
    assert "changed since the last run: epochs: 1 -> 2" in capsys.readouterr().out
    other = [*arguments, "--lang", "pt"]
    assert "another network: labels differ" in refused(capsys, other)


def test_too_few_clips_for_a_dev_part_are_scored_themselves(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("cab",))
    arguments = [*SCRATCH, "--preset", "tiny", "--data", str(manifest), "--steps", "1", "--out", str(tmp_path / "run")]
    assert train.main(arguments) == 0
    assert "no dev clips: the training clips are scored instead" in capsys.readouterr().out


def test_the_command_to_evaluate_names_the_data_that_was_scored(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("cab",))
    arguments = [*SCRATCH, "--preset", "tiny", "--train", str(manifest), "--steps", "1", "--out", str(tmp_path / "run")]
    assert train.main(arguments) == 0
    assert f"--data {manifest}\n" in capsys.readouterr().out
