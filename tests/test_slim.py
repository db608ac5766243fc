"""Small checkpoints: same network, same transcripts, a fraction of the bytes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from quartznet import load_model
from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.config import ModelConfig, preset_blocks
from quartznet.model import QuartzNet
from quartznet.settings import to_dict
from quartznet.slim import main, slim


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose best.pt also carries an optimiser's worth of numbers."""
    torch.manual_seed(0)
    model = QuartzNet(ModelConfig((" ", "a", "b"), preset_blocks("tiny")))
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(1e-6, 1e6)  # beyond float16 at both ends
    folder = tmp_path_factory.mktemp("run")
    payload = {"model_config": to_dict(model.config), "weights": model.state_dict(), "lang": "en"}
    save_checkpoint(folder / "best.pt", {**payload, "train": {"moments": torch.zeros(100000)}})
    return folder


def test_the_network_is_the_same_but_for_rounded_convolutions(run: Path, tmp_path: Path) -> None:
    small = slim(run, tmp_path / "deep" / "small.pt")
    before, after = load_checkpoint(run), load_checkpoint(small)
    assert set(after) == {"format", "model_config", "lang", "weights"}
    assert (after["model_config"], after["lang"]) == (before["model_config"], "en")
    assert small.stat().st_size < 0.6 * (run / "best.pt").stat().st_size
    model, twin = load_model(run), load_model(small)
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float32}
    for (name, value), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        tolerance = 2**-11 if value.dim() == 4 else 0.0
        assert torch.allclose(value.float(), other.float(), rtol=tolerance, atol=1e-7 * (tolerance > 0)), name
    signal, lengths = torch.randn(1, 16000), torch.tensor([16000])
    assert torch.allclose(model(signal, lengths)[0], twin(signal, lengths)[0], atol=0.02)


def test_a_checkpoint_may_replace_itself(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "best.pt", tmp_path / "a.pt")
    size = slim(tmp_path / "a.pt", tmp_path / "a.pt").stat().st_size
    assert slim(tmp_path / "a.pt", tmp_path / "a.pt").stat().st_size == size
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_what_cannot_be_made_small_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder; name the file to write, such as .*small\.pt"):
        slim(run, tmp_path)
    save_checkpoint(tmp_path / "empty.pt", {"lang": "en"})
    with pytest.raises(ValueError, match="no model_config and no weights; give a run folder"):
        slim(tmp_path / "empty.pt", tmp_path / "out.pt")
    payload = load_checkpoint(run)
    payload["weights"]["decoder.weight"][0] = 1e6
    save_checkpoint(tmp_path / "large.pt", {key: payload[key] for key in ("model_config", "weights", "lang")})
    with pytest.raises(ValueError, match=r"decoder\.weight holds 1e\+06, which float16 cannot"):
        slim(tmp_path / "large.pt", tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(run), str(tmp_path / "small.pt")]) == 0
    assert " MB, before " in capsys.readouterr().out
    assert main([str(tmp_path / "absent"), str(tmp_path / "out.pt")]) == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_the_module_runs_without_a_warning(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "quartznet.slim", str(run), str(tmp_path / "small.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (0, "")
