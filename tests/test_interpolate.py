"""quartznet.interpolate: both ends bit for bit, batch norm measured in between."""

import copy
from pathlib import Path

import pytest
import torch
from test_finetune import FOUR, batch_of, statistics
from test_model import small_model
from test_old_speech import command
from test_train import english

import train
from quartznet import load_model
from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.interpolate import Line, interpolated, main, measure_batch_norm


def test_the_ends_are_the_networks_bit_for_bit() -> None:
    base, tuned = small_model(FOUR).state_dict(), small_model(FOUR).state_dict()
    assert all(torch.equal(value, base[name]) for name, value in interpolated(base, tuned, 0.0).items())
    assert all(torch.equal(value, tuned[name]) for name, value in interpolated(base, tuned, 1.0).items())
    half = interpolated(base, tuned, 0.25)
    name = "encoder.blocks.0.layers.0.pointwise.weight"
    torch.testing.assert_close(half[name], 0.75 * base[name] + 0.25 * tuned[name])
    with pytest.raises(ValueError, match="differ in more than values: x"):
        interpolated(base, tuned | {"x": torch.zeros(1)}, 0.5)


def test_measured_statistics_are_the_mean_over_batches() -> None:
    model = small_model(FOUR)
    batch = batch_of(model)
    measure_batch_norm(model, [batch, batch])
    norm = model.encoder.blocks[0].layers[0].norm
    layer = model.encoder.blocks[0].layers[0]
    features, lengths = model.front_end.each(batch.signal, batch.signal_lengths)
    x = features[:, :, None]
    mask = (torch.arange(x.shape[3]) < lengths[:, None]).float()[:, None, None]
    half = (lengths - 1) // 2 + 1
    after = (torch.arange((x.shape[3] - 1) // 2 + 1) < half[:, None]).float()[:, None, None]
    y = layer.pointwise(layer.depthwise(x * mask) * after)
    torch.testing.assert_close(norm.running_mean, y.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, y.var((0, 2, 3)), atol=1e-5, rtol=1e-3)
    assert norm.momentum == 0.1 and not model.training and not norm.training
    with pytest.raises(ValueError, match="no training clip could be loaded"):
        measure_batch_norm(model, [])


def test_only_statistics_change() -> None:
    model = small_model(FOUR)
    before = copy.deepcopy(model.state_dict())
    measure_batch_norm(model, [batch_of(model)])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == statistics(changed) != set()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main(command(tmp_path, "--batchnorm", "auto")) == 0
    capsys.readouterr()
    run, out = str(tmp_path / "run"), str(tmp_path / "half.pt")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for part, name in (("train", "new"), ("dev", "dev")):
        text = (tmp_path / f"{name}.jsonl").read_text().replace('"audio_filepath": "', '"audio_filepath": "../')
        (corpus / f"{part}.jsonl").write_text(text)
    options = [run, "--data", str(corpus), "--alphas", "0", "0.5", "1", "--watch", f"en={tmp_path / 'old.jsonl'}"]
    assert main([*options, "--out", out, "--alpha", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["alpha", "dev", "WER", "dev", "CER", "en,", "old", "layer"]
    assert [line.split()[0] for line in lines[1:4]] == ["0.00", "0.50", "1.00"] and lines[-1] == f"{out}: alpha 0.5"
    base, tuned, half = (load_model(path).state_dict() for path in (tmp_path / "en.pt", run, out))
    name = "encoder.blocks.1.layers.0.pointwise.weight"
    torch.testing.assert_close(half[name], (base[name] + tuned[name]) / 2)
    name = "encoder.blocks.1.layers.0.norm.running_var"  # measured, not averaged
    assert not torch.allclose(half[name], (base[name] + tuned[name]) / 2, rtol=1e-3)
    assert load_checkpoint(out)["lang"] == "xx"
    assert main([*options, "--out", out]) == 0  # the best one
    assert main([run, "--data", str(corpus), "--alphas", "1.5"]) == 2
    assert "alpha goes from 0 (base) to 1 (tuned)" in capsys.readouterr().err
    assert main([str(tmp_path / "en.pt"), "--data", str(corpus)]) == 2
    assert "does not say what it began with" in capsys.readouterr().err
    for minutes in ("0", "-1", "nan"):
        assert main([run, "--data", str(corpus), "--minutes", minutes]) == 2
        assert "there must be some speech to measure batch norm on" in capsys.readouterr().err
    payload = load_checkpoint(tmp_path / "en.pt")
    save_checkpoint(tmp_path / "other.pt", payload | {"weights": payload["weights"] | {name: base[name] + 1}})
    assert main([run, "--data", str(corpus), "--base", str(tmp_path / "other.pt")]) == 2
    assert f"other.pt is not the network that {run} began with" in capsys.readouterr().err


def test_statistics_that_both_ends_share_stay(tmp_path: Path) -> None:
    network = load_model(english(tmp_path / "en.pt"))
    start = network.state_dict()
    end = {name: value + 1 if name.endswith("pointwise.weight") else value for name, value in start.items()}
    Line(network, start, end, [], [], []).go_to(0.5)  # nothing to measure on is no error
    name = "encoder.blocks.0.layers.0.norm.running_var"
    assert torch.equal(network.state_dict()[name], start[name])
