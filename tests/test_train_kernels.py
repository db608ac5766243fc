"""train.py with the fused kernels, in Triton's interpreter: the same training as with PyTorch's layers."""

from pathlib import Path

import pytest
import tones
import torch
import triton_cpu

triton_cpu.interpreted()
import train  # noqa: E402
from quartznet.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from quartznet.config import BlockConfig, FeatureConfig, ModelConfig, TrainSettings  # noqa: E402
from quartznet.finetune import Tuning  # noqa: E402
from quartznet.model import QuartzNet  # noqa: E402
from quartznet.settings import to_dict  # noqa: E402
from quartznet.tune_config import TuneSettings  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A training of three steps of a very small network."""
    folder = tmp_path_factory.mktemp("tones")
    torch.manual_seed(1)
    blocks = (BlockConfig(4, 11, stride=2), BlockConfig(6, 9, 2, residual=True), BlockConfig(8, 1, separable=False))
    model = QuartzNet(ModelConfig(tuple(" abcd"), blocks, FeatureConfig(mels=8)))
    checkpoint = {"model_config": to_dict(model.config), "weights": model.state_dict(), "lang": "en"}
    save_checkpoint(folder / "en.pt", checkpoint)
    manifest = tones.write_corpus(folder, tones.TEXTS * 2)
    return [
        *("--init", str(folder / "en.pt"), "--lang", "en", "--allow-char-loss", "--recipe", "none", "--seed", "3"),
        *("--train", str(manifest), "--dev", str(manifest), "--device", DEVICE, "--data.workers", "0"),
        *("--precision", "bf16", "--data.batch_seconds", "6", "--steps", "3", "--optim.lr", "0.01"),
    ]


def encoder_of(path: Path) -> torch.Tensor:
    """All weights and statistics of a checkpoint's encoder in a row."""
    weights = load_checkpoint(path)["weights"]
    names = [name for name in sorted(weights) if name.startswith("encoder.") and "num_batches" not in name]
    return torch.cat([weights[name].double().flatten() for name in names])


def weights_after(command: list[str], out: Path, *more: str) -> torch.Tensor:
    assert train.main([*command, "--out", str(out), *more]) == 0
    return encoder_of(out / "last.pt")


def test_fused_kernels_train_what_plain_layers_train(
    command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = weights_after(command, tmp_path / "plain", "--kernels", "plain")
    assert "plain kernels" in caplog.text
    fused = weights_after(command, tmp_path / "fused", "--kernels", "triton")
    assert "fused kernels" in caplog.text
    way = plain - encoder_of(Path(command[1]))
    assert way.norm() > 0.1
    assert (fused - plain).norm() < 0.05 * way.norm()  # of bf16, whose roundings differ

    whole = weights_after(command, tmp_path / "graphs", "--kernels", "triton", "--graphs", "--recompute")
    assert "fused kernels, graphs, recompute, 1 process" in caplog.text
    assert (whole - plain).norm() < 0.05 * way.norm()
    assert torch.equal(whole, fused) or (whole - fused).norm() < 0.01 * way.norm()


def test_graphs_of_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="graphs are for one process; leave --graphs out, or train on one GPU"):
        train.check_machine(TrainSettings(graphs=True), torch.device("cpu"))


def test_processes_that_cannot_all_use_the_fused_kernels_all_use_plain_layers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the ranks' optimisers would round differently, and their networks would part ways."""
    model = QuartzNet(ModelConfig(tuple(" abcd"), (BlockConfig(4, 5, stride=2),), FeatureConfig(mels=8))).to(DEVICE)
    settings, tuning = TrainSettings(precision="bf16", kernels="triton"), Tuning(TuneSettings(batchnorm="frozen"))
    train.choose_kernels(model, settings, model.device, tuning)
    assert model.fused and model.training and not model.encoder.blocks[0].layers[0].norm.training
    monkeypatch.setattr(train.distributed, "world_size", lambda: 2)
    monkeypatch.setattr(train.distributed, "sum_over_ranks", lambda values, device: list(values))
    train.choose_kernels(model, settings, model.device, tuning)
    assert not model.fused
    assert "another process cannot use the fused ones" in caplog.text


def test_what_belongs_to_fused_kernels_is_said_to_have_no_effect_or_refused(
    command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    assert (
        train.main([*command, "--out", str(tmp_path / "r"), "--steps", "1", "--recompute", "--precision", "fp32"]) == 0
    )
    assert "no effect without the fused kernels (docs/gpu.md): --recompute" in caplog.text
    for options, message in (
        (
            ["--kernels", "plain", "--graphs"],
            "recompute and graphs need the fused kernels; leave them out, or take kernels auto",
        ),
        (["--kernels", "triton", "--precision", "fp32"], "kernels triton cannot be used: they compute in bf16"),
        (["--kernels", "fast"], "kernels must be auto, plain or triton, got 'fast'"),
        (["--graphs", "--sequence.method", "mwer"], "graphs records CTC alone"),
    ):
        assert train.main([*command, "--out", str(tmp_path / "n"), *options]) == 2
        assert message in capsys.readouterr().err
