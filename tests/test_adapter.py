"""quartznet.adapter: a small file that gives the tuned network back, on its own base and on no other."""

import json
import tarfile
from pathlib import Path

import pytest
import tones
import torch
from test_train import english

import evaluate
import train
from quartznet import load_model, save_nemo, transcribe
from quartznet.adapter import apply_adapter, fingerprint, main, read_adapter, save_adapter
from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.initial import read_base
from quartznet.model import QuartzNet


def tuned(folder: Path, method: str, *options: str) -> tuple[Path, Path]:
    """A base and the run folder of a short training from it."""
    init, manifest = english(folder / "en.pt"), tones.write_corpus(folder)
    arguments = ["--init", str(init), "--lang", "xx", "--data", str(manifest), "--out", str(folder / "run")]
    arguments += ["--train", method, "--epochs", "2", "--device", "cpu", "--data.workers", "0", "--optim.lr", "0.01"]
    assert train.main([*arguments, "--allow-char-loss", *options]) == 0
    return init, folder / "run"


def output(model: QuartzNet) -> torch.Tensor:
    signal = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)) * 0.1
    return model.eval()(signal, torch.tensor([9000, 8000]))[0]


@pytest.mark.parametrize("method", ["lora", "adapters", "bn", "head"])
def test_base_and_file_give_the_tuned_network_bit_for_bit(tmp_path: Path, method: str, capsys) -> None:
    size = {"lora": ("--tune.lora_rank", "2"), "adapters": ("--tune.adapter_size", "2")}
    init, run = tuned(tmp_path, method, *size.get(method, ()))
    assert f"small file  {run / 'adapter.pt'}" in capsys.readouterr().out
    model = load_model(run)
    assert torch.equal(output(apply_adapter(load_model(init), run / "adapter.pt")), output(model))
    assert not torch.equal(output(model), output(load_model(init))[..., : output(model).shape[2]])
    contents = read_adapter(run / "adapter.pt")
    frozen = {name for name in load_checkpoint(init)["weights"] if ".pointwise.weight" in name}
    assert frozen and not frozen & set(contents["tensors"])  # what did not change is not in the file
    assert contents["lang"] == "xx" and contents["insert"].get("kind", method) == method


def test_a_whole_training_has_no_small_file_but_may_have_one(tmp_path: Path) -> None:
    init, run = tuned(tmp_path, "all")
    assert not (run / "adapter.pt").exists()
    save_adapter(run, tmp_path / "all.pt")
    assert torch.equal(output(apply_adapter(load_model(init), tmp_path / "all.pt")), output(load_model(run)))


def test_another_base_is_refused(tmp_path: Path) -> None:
    init, run = tuned(tmp_path, "lora")
    other = load_model(init)
    with torch.no_grad():
        other.encoder.blocks[1].layers[0].pointwise.weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"made for another base: it needs the network [0-9a-f]{12}, this is"):
        apply_adapter(other, run / "adapter.pt")
    payload = load_checkpoint(init)
    save_checkpoint(tmp_path / "other.pt", payload | {"weights": other.state_dict()})
    with pytest.raises(ValueError, match=r"is not the network that .* began with"):
        save_adapter(run, tmp_path / "x.pt", tmp_path / "other.pt")


def test_the_fingerprint_is_that_of_the_encoder_and_the_front_end(tmp_path: Path) -> None:
    model = load_model(english(tmp_path / "en.pt"))
    before = fingerprint(model.config, model.state_dict())
    with torch.no_grad():
        model.decoder.weight.zero_()  # another output layer is the same base
    assert fingerprint(model.config, model.state_dict()) == before
    other = load_model(english(tmp_path / "en2.pt", rule="2.5"))
    assert fingerprint(other.config, model.state_dict()) != before


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    init, run = tuned(tmp_path, "lora", "--tune.lora_rank", "2")
    small, plain = str(tmp_path / "es.adapter.pt"), str(tmp_path / "es.pt")
    assert main(["save", str(run), small]) == 0
    assert main(["show", small]) == 0
    shown = capsys.readouterr().out
    assert "lora, " in shown and "language xx, labels ' abd'" in shown
    assert main(["apply", str(init), small, plain]) == 0
    assert not any("low_rank" in name for name in load_checkpoint(plain)["weights"])
    torch.testing.assert_close(output(load_model(plain)), output(load_model(run)), atol=1e-4, rtol=0)
    assert main(["apply", str(init), str(init), plain]) == 2
    assert "is not a quartznet-adapter-1 file (it is: quartznet-1)" in capsys.readouterr().err


def test_evaluate_takes_base_and_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    init, run = tuned(tmp_path, "lora")
    scores = []
    for arguments in (["--checkpoint", str(run)], ["--checkpoint", str(init), "--adapter", str(run / "adapter.pt")]):
        data = ["--data", str(tmp_path / "train.jsonl"), "--json", str(tmp_path / "result.json")]
        assert evaluate.main([*arguments, *data]) == 0
        scores.append(json.loads((tmp_path / "result.json").read_text(encoding="utf-8")))
    assert scores[0]["adapter"] is None and scores[1]["adapter"] == str(run / "adapter.pt")
    assert scores[0]["loss"] == scores[1]["loss"] and scores[1]["lang"] == "xx"
    other = load_checkpoint(init)
    other["weights"]["encoder.blocks.0.layers.0.norm.bias"] += 1
    save_checkpoint(tmp_path / "other.pt", other)
    arguments = ["--checkpoint", str(tmp_path / "other.pt"), "--adapter", str(run / "adapter.pt")]
    assert evaluate.main([*arguments, *data]) == 2
    assert "made for another base" in capsys.readouterr().err


def test_transcribe_takes_base_and_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    init, run = tuned(tmp_path, "all")
    save_adapter(run, run / "adapter.pt")
    capsys.readouterr()
    heard = []
    for arguments in (["--checkpoint", str(run)], ["--checkpoint", str(init), "--adapter", str(run / "adapter.pt")]):
        assert transcribe.main([str(tmp_path / "train0.wav"), "--format", "json", *arguments]) == 0
        heard.append(json.loads(capsys.readouterr().out))
    assert heard[0] == heard[1] and heard[0]["duration"] > 0


def test_with_adapters_the_checkpoint_keeps_them(tmp_path: Path) -> None:
    init, run = tuned(tmp_path, "adapters")
    assert main(["apply", str(init), str(run / "adapter.pt"), str(tmp_path / "es.pt")]) == 0
    assert torch.equal(output(load_model(tmp_path / "es.pt")), output(load_model(run)))


def test_a_lora_run_is_a_start_for_another_training(tmp_path: Path) -> None:
    _, run = tuned(tmp_path, "lora")
    arguments = ["--init", str(run), "--lang", "xx", "--data", str(tmp_path / "train.jsonl"), "--epochs", "1"]
    arguments += ["--out", str(tmp_path / "next"), "--device", "cpu", "--data.workers", "0", "--allow-char-loss"]
    assert train.main(arguments) == 0
    assert "insert" not in load_checkpoint(tmp_path / "next")
    arguments[arguments.index(str(tmp_path / "next"))] = str(tmp_path / "lora")
    assert train.main([*arguments, "--train", "lora"]) == 0  # its base has LoRA that was merged
    again = apply_adapter(load_model(run), tmp_path / "lora" / "adapter.pt")
    assert torch.equal(output(again), output(load_model(tmp_path / "lora")))


def test_the_same_command_continues_a_lora_run(tmp_path: Path) -> None:
    _, run = tuned(tmp_path, "lora")
    weights = load_checkpoint(run / "last.pt")["weights"]
    tuned(tmp_path, "lora", "--epochs", "3")  # writes the same base and corpus again
    later = load_checkpoint(run / "last.pt")
    assert later["train"]["state"]["epoch"] == 3 and set(later["weights"]) == set(weights)


def test_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    init, run = tuned(tmp_path, "lora")
    model, path = load_model(init), tmp_path / "x.pt"
    with pytest.raises(FileNotFoundError, match="there is no adapter file"):
        apply_adapter(model, path)
    path.write_bytes(b"PK\3\4 not really")
    with pytest.raises(ValueError, match=r"x.pt cannot be read as an adapter file"):
        apply_adapter(model, path)
    contents = read_adapter(run / "adapter.pt")
    torch.save({key: value for key, value in contents.items() if key != "insert"}, path)
    with pytest.raises(ValueError, match=r"x.pt lacks insert"):
        apply_adapter(model, path)
    for key, value, message in (
        ("base_sha256", 5, "x.pt: base_sha256 must be text, got 5"),
        ("lang", ["es"], "x.pt: lang must be text, got "),
        ("tensors", {1: torch.zeros(1)}, "tensors must be a table of tensors"),
        ("model_config", None, "model_config must be a table of settings, got None"),
        ("insert", {"kind": "lora", "rank": 10**9}, "rank and size can be at most"),
    ):
        torch.save(contents | {key: value}, path)
        with pytest.raises(ValueError, match=message):
            read_adapter(path)
        assert main(["show", str(path)]) == 2
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.pt cannot be read as an adapter file: "):
        read_adapter(path)
    tensors = contents["tensors"]
    torch.save(contents | {"tensors": {name: v for name, v in tensors.items() if name != "decoder.bias"}}, path)
    with pytest.raises(ValueError, match=r"do not fit its base: missing \['decoder.bias'\]"):
        apply_adapter(model, path)
    torch.save(contents | {"tensors": tensors | {"decoder.bias": torch.zeros(3)}}, path)
    with pytest.raises(ValueError, match=r"do not fit its base: Error.*size mismatch"):
        apply_adapter(model, path)
    torch.save(contents | {"tensors": tensors | {"decoder.bias": tensors["decoder.bias"] * float("nan")}}, path)
    with pytest.raises(ValueError, match=r"decoder.bias is not finite"):
        apply_adapter(model, path)
    torch.save(contents | {"tensors": [1]}, path)
    with pytest.raises(ValueError, match="tensors must be a table of tensors"):
        apply_adapter(model, path)
    with pytest.raises(ValueError, match="did not begin with another checkpoint"):
        save_adapter(init, path)


def test_adapters_cannot_go_into_a_nemo_file(tmp_path: Path) -> None:
    from quartznet import save_nemo

    _, run = tuned(tmp_path, "adapters")
    with pytest.raises(ValueError, match="cannot become part of a plain network"):
        save_nemo(load_model(run), tmp_path / "es.nemo")
    _, run = tuned(tmp_path / "second", "lora")
    model = load_model(run)
    save_nemo(model, tmp_path / "es.nemo")
    torch.testing.assert_close(output(load_model(tmp_path / "es.nemo")), output(model), atol=1e-4, rtol=0)


def test_an_encoder_alone_can_be_the_base(tmp_path: Path) -> None:
    """A .nemo without its decoder: the training ends well, and base and file give the tuned network."""
    init = english(tmp_path / "en.pt")
    save_nemo(load_model(init), tmp_path / "en.nemo")
    bare = tmp_path / "bare"
    with tarfile.open(tmp_path / "en.nemo") as archive:
        archive.extractall(bare, filter="data")
    weights = torch.load(bare / "model_weights.ckpt", weights_only=True)
    encoder = {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}
    torch.save(encoder, bare / "JasperEncoder-STEP-1.pt")
    (bare / "model_weights.ckpt").unlink()
    manifest, run = tones.write_corpus(tmp_path), tmp_path / "run"
    arguments = ["--init", str(bare / "JasperEncoder-STEP-1.pt"), "--lang", "xx", "--data", str(manifest)]
    arguments += ["--train", "lora", "--epochs", "1", "--device", "cpu", "--data.workers", "0", "--out", str(run)]
    assert train.main([*arguments, "--allow-char-loss"]) == 0
    base = read_base(str(bare / "JasperEncoder-STEP-1.pt"))
    assert torch.equal(output(apply_adapter(base, run / "adapter.pt")), output(load_model(run)))
