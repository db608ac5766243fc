"""The preview of augmentation: files, titles, errors, and that it shows what training would hear."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from quartznet.audio import read_audio
from quartznet.augment_preview import main, make_copies
from quartznet.config import AugmentSettings, TrainSettings
from quartznet.settings import from_dict, load_yaml
from quartznet.waveform import Gain

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    samples = 0.2 * np.sin(np.arange(12000) / 9).astype(np.float32)
    samples[:4000] = 0
    soundfile.write(tmp_path / "clip.wav", samples, 16000)
    return tmp_path / "clip.wav"


def test_files_and_titles(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "preview"
    options = ["--augment.gain.probability", "1", "--augment.gain.low", "-6", "--augment.gain.high", "-6"]
    main([str(clip), "--out", str(out), "--copies", "2", "--augment.speeds", "0.8", *options])
    assert sorted(path.name for path in out.iterdir()) == ["after-1.flac", "after-2.flac", "before.flac", "preview.png"]
    assert torch.allclose(read_audio(out / "before.flac"), read_audio(clip), atol=1e-4)
    assert len(read_audio(out / "after-1.flac")) == 15000
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "before.flac     0.75 s  before"
    assert printed[1] == "after-1.flac    0.94 s  speed 0.8, Gain"
    assert (out / "preview.png").read_bytes()[:4] == b"\x89PNG"


def test_copies_differ_and_come_again(clip: Path) -> None:
    settings = TrainSettings(augment=AugmentSettings(gain=Gain(1.0), speeds=()))
    first, again = (make_copies(read_audio(clip), settings, 3) for _ in range(2))
    assert len(first) == 4 and torch.equal(first[0].signal, read_audio(clip))
    for left, right in zip(first, again, strict=True):
        assert torch.equal(left.signal, right.signal) and torch.equal(left.masked, right.masked)
    assert len({copy.signal.square().sum().item() for copy in first}) == 4
    assert not torch.equal(first[1].masked, first[1].features)
    assert torch.equal(first[0].masked, first[0].features)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out is missing"),
        (["--out", "x", "--copies", "0"], "--copies must be 1 to 20, got 0"),
        (["--out", "x", "--augment.noise.probability", "1"], "augment.noise.folder is missing"),
        (["--out", "x", "--augment.gian.probability", "1"], "did you mean --augment.gain.probability"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, clip: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(clip), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_missing_clip_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["nowhere.wav", "--out", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere.wav does not exist")


def test_the_noisy_recipe_is_valid() -> None:
    settings = from_dict(TrainSettings, load_yaml(CONFIGS / "noisy.yaml"))
    assert settings.augment.noise.probability == 0.5 and settings.augment.codec.names == (
        "mp3",
        "opus",
        "gsm",
        "mu-law",
    )
