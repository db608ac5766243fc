"""quartznet.nemo: what goes out comes back, and the commands inspect and export."""

import tarfile
from pathlib import Path

import pytest
import torch
from test_nemo import BLOCKS, OLD, assert_same, foreign, random_model, write_nemo, write_pair

from quartznet.checkpoint import save_checkpoint
from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.features import mel_filterbank
from quartznet.model import QuartzNet
from quartznet.nemo import describe, load_nemo, main, read_nemo, save_nemo
from quartznet.nemo_config import ENGLISH_LABELS, write_settings
from quartznet.settings import to_dict


@pytest.fixture
def model() -> QuartzNet:
    return random_model(ModelConfig((" ", "a", "ñ", "я", "'"), BLOCKS, OLD))


@pytest.fixture
def english() -> QuartzNet:
    """What files without a configuration are taken for."""
    return random_model(ModelConfig(ENGLISH_LABELS, BLOCKS, FeatureConfig(rule="0.x", periodic_window=True)))


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
@pytest.mark.parametrize("periodic", [False, True])
def test_round_trip_is_exact(tmp_path: Path, rule: str, periodic: bool) -> None:
    blocks = (
        *BLOCKS[:3],
        BlockConfig(16, 5, 3, groups=4, residual=True),
        BlockConfig(8, 3, 2, separable=False, groups=2),
    )
    features = FeatureConfig(mels=16, rule=rule, periodic_window=periodic, dither=0.0, pad_to=0, high_hertz=7600.0)
    model = random_model(ModelConfig(("y", "n", "no", "ñ", "ß", "1"), blocks, features))
    save_nemo(model, tmp_path / "new" / "m.nemo")
    assert_same(load_nemo(tmp_path / "new" / "m.nemo"), model)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.nemo"]


def test_output_is_the_same_file_twice(tmp_path: Path, model: QuartzNet) -> None:
    for name in ("a.nemo", "b.nemo"):
        save_nemo(model, tmp_path / name)
    assert (tmp_path / "a.nemo").read_bytes() == (tmp_path / "b.nemo").read_bytes()
    with tarfile.open(tmp_path / "a.nemo", "r:gz") as archive:
        assert archive.getnames() == ["./model_config.yaml", "./model_weights.ckpt"]


def test_carried_buffers_override_computed_ones(tmp_path: Path, model: QuartzNet) -> None:
    weights = foreign(model)
    weights["preprocessor.featurizer.fb"] = 2 * weights["preprocessor.featurizer.fb"]
    weights["preprocessor.featurizer.window"] = torch.linspace(0, 1, 320)
    path = write_nemo(tmp_path / "m.nemo", write_settings(model.config), weights)
    loaded = load_nemo(path)
    assert torch.equal(loaded.front_end.filterbank, 2 * mel_filterbank(model.config.features))
    assert torch.equal(loaded.front_end.window, torch.linspace(0, 1, 320))
    assert "no Hann window" in read_nemo(path).front_end_reason


def test_half_precision_weights_and_missing_counters(tmp_path: Path, model: QuartzNet) -> None:
    weights = {key: value for key, value in foreign(model).items() if not key.endswith("num_batches_tracked")}
    weights = {key: value.half() for key, value in weights.items()}
    path = write_nemo(tmp_path / "m.nemo", write_settings(model.config), weights)
    checkpoint = read_nemo(path)
    assert all(value.dtype in (torch.float32, torch.int64) for value in checkpoint.weights.values())
    assert "6 counters of batch-norm steps are not in the file" in checkpoint.notes[-1]
    assert checkpoint.parameters == sum(parameter.numel() for parameter in model.parameters())
    load_nemo(path)


# ---------------------------------------------------------------------------------------------------------------------
# What does not fit


def test_missing_unknown_and_misshapen_weights(tmp_path: Path, model: QuartzNet) -> None:
    settings, weights = write_settings(model.config), foreign(model)
    key = "encoder.encoder.1.mconv.1.conv.weight"
    lacking = {name: value for name, value in weights.items() if name != key}
    with pytest.raises(ValueError, match=rf"m.nemo: the file lacks {key}"):
        read_nemo(write_nemo(tmp_path / "m.nemo", settings, lacking))
    with pytest.raises(ValueError, match=rf"{key} has shape \(12, 8\), .* asks for \(12, 8, 1\)"):
        read_nemo(write_nemo(tmp_path / "m.nemo", settings, weights | {key: torch.zeros(12, 8)}))
    with pytest.raises(ValueError, match=r"no place for encoder.encoder.9.mconv.0.conv.weight"):
        more = {"encoder.encoder.9.mconv.0.conv.weight": torch.zeros(1, 1, 1)}
        read_nemo(write_nemo(tmp_path / "m.nemo", settings, weights | more))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*gone.nemo"):
        read_nemo(tmp_path / "gone.nemo")


# ---------------------------------------------------------------------------------------------------------------------
# Command line


def test_inspect(tmp_path: Path, english: QuartzNet, capsys: pytest.CaptureFixture) -> None:
    write_pair(tmp_path, english)
    assert main(["inspect", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for part in ("NeMo 0.8 to 0.10", "rule 0.x", "28 labels and blank", "assumed: 4", "dropped: nothing"):
        assert part in text


def test_inspect_prints_no_control_characters(tmp_path: Path, model: QuartzNet) -> None:
    path = write_nemo(tmp_path / "m.nemo", write_settings(model.config), foreign(model) | {"\x1b[2J": torch.zeros(1)})
    assert "  ?[2J" in describe(read_nemo(path)) and "\x1b" not in describe(read_nemo(path))


def test_a_decoder_without_outputs(tmp_path: Path, model: QuartzNet) -> None:
    weights = foreign(model) | {"decoder.decoder_layers.0.weight": torch.zeros(())}
    with pytest.raises(ValueError, match="5 labels and a blank do not match 0 outputs"):
        read_nemo(write_nemo(tmp_path / "m.nemo", write_settings(model.config), weights))


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "m.nemo").write_bytes(b"not a model")
    for arguments in (["inspect", str(tmp_path / "m.nemo")], ["inspect", str(tmp_path / "gone")]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
    assert main(["export", str(tmp_path), str(tmp_path / "out.nemo")]) == 2
    assert not (tmp_path / "out.nemo").exists()


def test_export(tmp_path: Path, model: QuartzNet, capsys: pytest.CaptureFixture) -> None:
    from quartznet.checkpoint import save_checkpoint
    from quartznet.settings import to_dict

    payload = {"model_config": to_dict(model.config), "weights": model.state_dict(), "lang": "es"}
    save_checkpoint(tmp_path / "run" / "last.pt", payload)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out.nemo")]) == 0
    assert "rule 0.x" in capsys.readouterr().out
    assert_same(load_nemo(tmp_path / "out.nemo"), model)
    with pytest.raises(ValueError, match="one of our own checkpoints"):
        read_nemo(tmp_path / "run" / "last.pt")


def test_inspect_describes_a_run_of_ours_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = QuartzNet(ModelConfig((" ", "a"), (BlockConfig(4, 3, stride=2),)))
    save_checkpoint(tmp_path / "best.pt", {"model_config": to_dict(model.config), "weights": model.state_dict()})
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "written by  this project" in printed and "alphabet    2 labels and blank: ' a'" in printed
