"""NeMo in and out: golden arrays of the real NeMo, files of every generation, round trips, the command line."""

import io
import sys
import tarfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch
import yaml
from torch import Tensor

from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.nemo import describe, load_nemo, read_nemo, save_nemo
from quartznet.nemo_config import ENGLISH_LABELS, write_settings
from quartznet.nemo_keys import to_nemo

GOLDEN = Path(__file__).parent / "golden"
BLOCKS = (
    BlockConfig(8, 5, stride=2),
    BlockConfig(12, 7, repeat=2, residual=True),
    BlockConfig(12, 87, dilation=2),
    BlockConfig(16, 1, separable=False),
)
OLD = FeatureConfig(mels=8, rule="0.x", periodic_window=True)


def random_model(config: ModelConfig) -> QuartzNet:
    """Random weights, and batch-norm statistics that differ from a fresh network's."""
    model = QuartzNet(config).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var", "norm.bias", "norm.weight")):
            tensor.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def model() -> QuartzNet:
    return random_model(ModelConfig((" ", "a", "ñ", "я", "'"), BLOCKS, OLD))


@pytest.fixture
def english() -> QuartzNet:
    """29 outputs, 64 mels and a periodic window: what files without a configuration are taken for."""
    features = FeatureConfig(rule="0.x", periodic_window=True)
    return random_model(ModelConfig(ENGLISH_LABELS, BLOCKS, features))


def foreign(model: QuartzNet) -> dict[str, Tensor]:
    return to_nemo(model.state_dict(), model.config)


def module_dictionaries(model: QuartzNet) -> tuple[OrderedDict, OrderedDict]:
    """The state dicts of JasperEncoder and JasperDecoderForCTC of 0.9 to 0.11."""
    weights = foreign(model)
    parts = []
    for prefix in ("encoder.", "decoder."):
        keys = [key for key in weights if key.startswith(prefix)]
        parts.append(OrderedDict((key.removeprefix(prefix), weights[key]) for key in keys))
    return parts[0], parts[1]


def old_yaml(model: QuartzNet) -> dict:
    """The configuration of 0.9 and 0.10."""
    settings = write_settings(model.config)
    front_end = {
        key: value for key, value in settings["preprocessor"].items() if key not in ("_target_", "sample_rate")
    }
    return {
        "model": "QuartzNet",
        "sample_rate": 16000,
        "AudioToMelSpectrogramPreprocessor": front_end | {"feat_type": "logfbank", "stft_conv": True},
        "JasperEncoder": {key: settings["encoder"][key] for key in ("activation", "conv_mask", "jasper")},
        "labels": settings["labels"],
    }


def write_pair(folder: Path, model: QuartzNet, suffix: str = "STEP-100", legacy: bool = True) -> None:
    for kind, weights in zip(("JasperEncoder", "JasperDecoderForCTC"), module_dictionaries(model), strict=True):
        path = folder / f"{kind}-{suffix}.pt"
        torch.save(weights, path, _use_new_zipfile_serialization=not legacy)


def write_yaml(path: Path, settings: dict) -> None:
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def write_archive(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_nemo(path: Path, settings: dict, weights: dict, prefix: str = "./", mode: str = "w:gz") -> Path:
    config = yaml.safe_dump(settings, allow_unicode=True).encode()
    members = {f"{prefix}model_config.yaml": config, f"{prefix}model_weights.ckpt": saved(weights)}
    return write_archive(path, members, mode)


def assert_same(found: QuartzNet, expected: QuartzNet) -> None:
    assert found.config == expected.config
    state, wanted = found.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    for name in wanted:
        assert torch.equal(state[name], wanted[name]), name


# ---------------------------------------------------------------------------------------------------------------------
# Against the real NeMo


@pytest.mark.parametrize("name", ["plain", "grouped", "unmasked"])
def test_equals_nemo(name: str) -> None:
    golden = numpy.load(GOLDEN / "nemo.npz")
    model = load_nemo(GOLDEN / f"nemo_{name}.nemo")
    signal = torch.tensor(golden["signal"]).float() / 32768
    with torch.no_grad():
        features, frames = model.features(signal, torch.tensor(golden["lengths"]))
        log_probs, lengths = model.forward_features(features, frames)
    assert frames.tolist() == golden[f"{name}_frames"].tolist() == [50, 31]
    assert lengths.tolist() == [25, 16]
    torch.testing.assert_close(features, torch.tensor(golden[f"{name}_features"]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_probs, torch.tensor(golden[f"{name}_log_probs"]), rtol=1e-4, atol=1e-5)


def test_lightning_checkpoint_of_nemo_equals_its_archive() -> None:
    checkpoint, archive = read_nemo(GOLDEN / "nemo_plain.ckpt"), read_nemo(GOLDEN / "nemo_plain.nemo")
    assert checkpoint.era == "lightning" and checkpoint.version == "2.5.3"
    assert checkpoint.config == archive.config
    assert checkpoint.weights.keys() == archive.weights.keys()
    assert all(torch.equal(checkpoint.weights[name], archive.weights[name]) for name in archive.weights)
    assert "optimizer_states" in checkpoint.dropped and archive.dropped == ()


def test_golden_configurations() -> None:
    plain = read_nemo(GOLDEN / "nemo_plain.nemo")
    assert plain.config.labels == (" ", "a", "n", "ñ", "é", "y", "'")
    assert plain.config.features == FeatureConfig(mels=16, rule="2.5")
    assert plain.config.blocks[2] == BlockConfig(12, 87, dilation=2)
    grouped = read_nemo(GOLDEN / "nemo_grouped.nemo").config
    assert grouped.blocks[1] == BlockConfig(12, 13, repeat=3, residual=True, groups=2)  # 27 * 0.5 -> 13
    assert grouped.blocks[2] == BlockConfig(12, 5, repeat=2, residual=True, separable=False)
    assert not read_nemo(GOLDEN / "nemo_unmasked.nemo").config.masked


def test_shared_fixture(shared: Path) -> None:
    golden = numpy.load(shared / "fixtures" / "quartznet_tiny.npz")
    model = load_nemo(shared / "fixtures" / "quartznet_tiny.nemo")
    with torch.no_grad():
        features, frames = model.features(torch.tensor(golden["signal"]), torch.tensor(golden["signal_length"]))
        log_probs, lengths = model.forward_features(features, frames)
    assert frames.tolist() == golden["feature_length"].tolist()
    assert lengths.tolist() == golden["encoded_length"].tolist()
    torch.testing.assert_close(features, torch.tensor(golden["features"]), rtol=0, atol=1e-4)
    torch.testing.assert_close(log_probs, torch.tensor(golden["log_probs"]), rtol=0, atol=1e-4)


def test_real_english_model(shared: Path) -> None:
    checkpoint = read_nemo(shared / "checkpoints" / "quartznet15x5_en.nemo")
    assert checkpoint.parameters == 18_924_381
    assert checkpoint.config.labels == ENGLISH_LABELS
    assert checkpoint.config.features == FeatureConfig(rule="0.x")
    assert len(checkpoint.config.blocks) == 18 and checkpoint.dropped == ()
    text = describe(checkpoint)
    assert "18,924,381" in text and max(map(len, text.splitlines())) <= 80


# ---------------------------------------------------------------------------------------------------------------------
# Every generation


@pytest.mark.parametrize("legacy", [True, False])
def test_pair_of_0_10(tmp_path: Path, model: QuartzNet, legacy: bool) -> None:
    write_pair(tmp_path, model, legacy=legacy)
    write_yaml(tmp_path / "quartznet.yaml", old_yaml(model))
    (tmp_path / "optimiser.yaml").write_text("lr: 0.01\n")
    names = (tmp_path, tmp_path / "JasperEncoder-STEP-100.pt", tmp_path / "JasperDecoderForCTC-STEP-100.pt")
    for path in names:
        assert_same(load_nemo(path), model)
    checkpoint = read_nemo(tmp_path)
    assert checkpoint.era == "0.10" and "configuration from quartznet.yaml" in checkpoint.notes
    assert "0.8 to 0.10" in checkpoint.front_end_reason and "stft_conv" in checkpoint.front_end_reason


def test_pair_without_configuration(tmp_path: Path, english: QuartzNet) -> None:
    write_pair(tmp_path, english, "EPOCH-3")
    assert_same(load_nemo(tmp_path), english)
    notes = " ".join(read_nemo(tmp_path).notes)
    assert "29 outputs are taken as space, a to z" in notes and "stride 2 in the first block" in notes


def test_latest_step_wins_and_an_explicit_file_its_own(tmp_path: Path, model: QuartzNet) -> None:
    other = random_model(model.config)
    write_pair(tmp_path, model, "STEP-9")
    write_pair(tmp_path, other, "STEP-10")
    write_yaml(tmp_path / "q.yaml", old_yaml(model))
    assert_same(load_nemo(tmp_path), other)
    assert_same(load_nemo(tmp_path / "JasperEncoder-STEP-9.pt"), model)
    assert "took JasperEncoder-STEP-10.pt of 2 JasperEncoder files" in read_nemo(tmp_path).notes
    (tmp_path / "JasperDecoderForCTC-STEP-10.pt").unlink()
    assert "no JasperDecoder of step 10; took JasperDecoderForCTC-STEP-9.pt" in read_nemo(tmp_path).notes


def test_missing_decoder(tmp_path: Path, model: QuartzNet) -> None:
    write_pair(tmp_path, model)
    write_yaml(tmp_path / "q.yaml", old_yaml(model))
    (tmp_path / "JasperDecoderForCTC-STEP-100.pt").unlink()
    with pytest.raises(ValueError, match=r"put JasperDecoderForCTC.*encoder_only=True"):
        read_nemo(tmp_path)
    loaded = load_nemo(tmp_path, encoder_only=True)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], tensor)


def test_encoder_only_drops_the_decoder_by_name(tmp_path: Path, model: QuartzNet) -> None:
    save_nemo(model, tmp_path / "m.nemo")
    checkpoint = read_nemo(tmp_path / "m.nemo", encoder_only=True)
    assert checkpoint.dropped == ("decoder.decoder_layers.0.weight", "decoder.decoder_layers.0.bias")
    assert not any(name.startswith("decoder") for name in checkpoint.weights)


def test_labels_of_another_size_are_asked_for(tmp_path: Path, model: QuartzNet) -> None:
    settings = {key: value for key, value in old_yaml(model).items() if key != "labels"}
    write_pair(tmp_path, model)
    write_yaml(tmp_path / "q.yaml", settings)
    with pytest.raises(ValueError, match=r"no labels in the file, which has 6 outputs; give the 5"):
        read_nemo(tmp_path)
    assert_same(load_nemo(tmp_path, labels=model.config.labels), model)
    with pytest.raises(ValueError, match="2 labels and a blank do not match 6 outputs"):
        read_nemo(tmp_path, labels=["a", "b"])


def test_0_8_keys(tmp_path: Path, model: QuartzNet) -> None:
    encoder, decoder = module_dictionaries(model)
    old = {key.replace(".conv.weight", ".weight").replace(".mconv.", ".conv."): value for key, value in encoder.items()}
    torch.save(old, tmp_path / "JasperEncoder-STEP-1.pt")
    torch.save(decoder, tmp_path / "JasperDecoderForCTC-STEP-1.pt")
    write_yaml(tmp_path / "q.yaml", old_yaml(model))
    assert_same(load_nemo(tmp_path), model)


def test_0_11_archive(tmp_path: Path, model: QuartzNet) -> None:
    encoder, decoder = module_dictionaries(model)
    old = old_yaml(model)
    parts = {
        "encoder_params": old["JasperEncoder"],
        "decoder_params": {"feat_in": 16, "num_classes": 5, "vocabulary": old["labels"]},
        "preprocessor_params": old["AudioToMelSpectrogramPreprocessor"],
    }
    wrapped = {name: {"header": {"full_spec": "nemo"}, "init_params": table} for name, table in parts.items()}
    members = {
        ".nemo_tmp/header.content": b"x",
        ".nemo_tmp/module.yaml": yaml.safe_dump({"header": {}, "init_params": wrapped}, allow_unicode=True).encode(),
        ".nemo_tmp/JasperEncoder.pt": saved(encoder),
        ".nemo_tmp/JasperDecoderForCTC.pt": saved(decoder),
        ".nemo_tmp/Other.pt": saved(decoder),
    }
    path = write_archive(tmp_path / "m.nemo", members)
    assert_same(load_nemo(path), model)
    assert read_nemo(path).era == "0.11"
    assert read_nemo(path).dropped == ("file header.content", "file Other.pt")


@pytest.mark.parametrize(("prefix", "mode"), [("./", "w:gz"), ("", "w:gz"), ("./", "w"), ("", "w")])
def test_1_x_archives(tmp_path: Path, model: QuartzNet, prefix: str, mode: str) -> None:
    path = write_nemo(tmp_path / "m.nemo", write_settings(model.config), foreign(model), prefix, mode)
    assert_same(load_nemo(path), model)


def test_unpacked_archive(tmp_path: Path, model: QuartzNet) -> None:
    write_yaml(tmp_path / "model_config.yaml", write_settings(model.config))
    torch.save(foreign(model), tmp_path / "model_weights.ckpt")
    assert_same(load_nemo(tmp_path), model)


def test_configuration_of_1_0_beta(tmp_path: Path, model: QuartzNet) -> None:
    settings = write_settings(model.config)
    beta = {key: settings[key] for key in ("sample_rate", "labels", "target")}
    for part in ("encoder", "decoder", "preprocessor"):
        table = dict(settings[part])
        beta[part] = {"cls": table.pop("_target_"), "params": table}
    beta["preprocessor"]["params"]["stft_conv"] = True
    weights = {key: value for key, value in foreign(model).items() if "featurizer" not in key}
    weights["preprocessor.featurizer.stft.forward_basis"] = torch.zeros(3)
    path = write_nemo(tmp_path / "m.nemo", {"model": beta}, weights)
    assert_same(load_nemo(path), model)
    assert read_nemo(path).dropped == ("preprocessor.featurizer.stft.forward_basis",)
    assert "no nemo_version" in read_nemo(path).front_end_reason


def test_lightning_with_omegaconf_objects(tmp_path: Path, model: QuartzNet, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("omegaconf")

    class Node:
        def __init__(self, **state: object):
            self.__dict__.update(state)

    Node.__module__, Node.__qualname__, module.Node = "omegaconf", "Node", Node

    def wrap(value: object) -> Node:
        if isinstance(value, dict):
            return Node(_content={key: wrap(item) for key, item in value.items()}, _parent=None)
        if isinstance(value, list):
            return Node(_content=[wrap(item) for item in value])
        return Node(_val=value)

    monkeypatch.setitem(sys.modules, "omegaconf", module)
    settings = write_settings(model.config)
    for number, hyper in enumerate((wrap(settings), {"cfg": wrap(settings)}, settings)):
        content = {"state_dict": foreign(model), "hyper_parameters": hyper, "optimizer_states": [{}], "epoch": 3}
        torch.save(content, tmp_path / f"{number}.ckpt")
    monkeypatch.delitem(sys.modules, "omegaconf")
    for number in range(3):
        assert_same(load_nemo(tmp_path / f"{number}.ckpt"), model)
        assert read_nemo(tmp_path / f"{number}.ckpt").dropped == ("optimizer_states", "epoch")


@pytest.mark.parametrize("wrapper", ["", "module.", "model."])
def test_plain_dictionaries(tmp_path: Path, english: QuartzNet, wrapper: str) -> None:
    weights = {wrapper + key: value for key, value in foreign(english).items()} | {"loss.weight": torch.zeros(1)}
    torch.save(weights, tmp_path / "plain.pth")
    torch.save({"state_dict": weights}, tmp_path / "wrapped.pt")
    for name in ("plain.pth", "wrapped.pt"):
        assert_same(load_nemo(tmp_path / name), english)
        assert read_nemo(tmp_path / name).dropped == ("loss.weight",)
        assert "no version in the file" in read_nemo(tmp_path / name).front_end_reason


def test_plain_dictionary_with_a_configuration_beside_it(tmp_path: Path, model: QuartzNet) -> None:
    torch.save(foreign(model), tmp_path / "mine.pt")
    write_yaml(tmp_path / "mine.yaml", write_settings(model.config))
    write_yaml(tmp_path / "other.yaml", {"encoder": 3})
    assert_same(load_nemo(tmp_path / "mine.pt"), model)


def test_keys_without_masks(tmp_path: Path, model: QuartzNet) -> None:
    unmasked = random_model(replace(model.config, masked=False))
    save_nemo(unmasked, tmp_path / "m.nemo")
    assert_same(load_nemo(tmp_path / "m.nemo"), unmasked)
    torch.save(foreign(unmasked), tmp_path / "m.pt")
    assert not read_nemo(tmp_path / "m.pt", labels=model.config.labels, encoder_only=True).config.masked
