"""From text to a BERT: by heart, to the bit, into a folder that others read, and what is wrong with a command."""

import gzip
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_bert import tiny_corrector, tiny_tokenizer, write_bert

import postcorrect
from postcorrect.bert import masked_from_bert, save_bert
from postcorrect.folder import read_json
from postcorrect.pretrain import main, print_results
from postcorrect.pretrain_config import NetworkSettings, PretrainSettings
from quartznet.checkpoint import load_checkpoint

TEXT = """Elephants never forget anything important.
My brother plays chess every Sunday.
Cold rain fell over London yesterday.
Put these heavy boxes upstairs, please!
Seven small birds sang outside.
Her train leaves before midnight.
Doctors recommend fresh fruit daily.
Nobody saw who broke windows.
This river flows through Germany.
Children love chocolate ice cream.
"""
SIZES = ["--layers", "1", "--channels", "16", "--heads", "2", "--feed-forward", "32", "--vocabulary", "120"]
TINY = ["--lang", "en", *SIZES, "--positions", "40", "--batch-tokens", "60", "--device", "cpu", "--log-every", "5"]
STILL = ["--schedule.name", "constant", "--schedule.warmup-ratio", "0"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


def weights(out: Path, name: str = "last.pt") -> torch.Tensor:
    return torch.cat([value.flatten() for value in load_checkpoint(out / name)["weights"].values()])


def test_ten_sentences_are_learnt_by_heart(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = [str(text), "--dev", str(text), "--out", str(tmp_path / "bert"), *TINY, "--batch-tokens", "400"]
    sizes = ["--channels", "128", "--feed-forward", "128", "--vocabulary", "300", "--dropout", "0"]
    assert (
        main([*run, *sizes, "--optim.lr", "0.005", "--steps", "160", "--evaluate-steps", "160", "--log-every", "50"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "sentences of" in shown  # dev is part of the text, and that is said
    [dev] = [record for record in records(tmp_path / "bert") if record["kind"] == "dev"]
    assert dev["loss"] < 0.8 and dev["wrong"] < 0.1 and dev["not among 5"] < 0.05
    assert f"best dev    {dev['loss']:>8.4f}" in shown and "guessed by frequency: loss" in shown
    plan = shown.split("\nnetwork")[1].split("\ndevice")[0]
    assert max(map(len, f"network{plan}".splitlines())) <= 80


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("stop_after", ["2", "3"])
def test_a_run_goes_on_to_the_bit(text: Path, tmp_path: Path, stop_after: str) -> None:
    run = [str(text), *TINY, *STILL, "--ema", "0.9"]
    assert main([*run, "--out", str(tmp_path / "whole"), "--steps", "8"]) == 0
    for steps in (stop_after, "8"):
        torch.rand(3)
        assert main([*run, "--out", str(tmp_path / "parts"), "--steps", steps]) == 0
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert main([*run, "--out", str(tmp_path / "other"), "--steps", "8", "--seed", "1"]) == 0
    assert not torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "other"))


def test_the_folder_is_a_bert(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    packed, out = tmp_path / "more.txt.gz", tmp_path / "bert"
    packed.write_bytes(gzip.compress(b"Quickly the brown fox jumps.\n"))
    assert main([str(text), str(packed), "--out", str(out), *TINY, "--epochs", "2"]) == 0
    shown = capsys.readouterr().out
    assert "tokens/s" in shown and "wrong" in shown and "WER" not in shown
    assert f"python -m postcorrect.train --data PAIRS --bert {out}" in shown
    assert read_json(out / "config.json")["architectures"] == ["BertForMaskedLM"]
    model, tokenizer = masked_from_bert(out)
    best = load_checkpoint(out / "best.pt")
    assert best["kind"] == "bert" and best["lang"] == "en" and best["tokenizer"] == tokenizer.to_json()
    for name, value in best["weights"].items():
        found = model.state_dict()[name]
        assert torch.equal(found, value), name
    corrector = postcorrect.from_bert(out)
    assert corrector.tokenizer.repeats("my brother plays chess") and len(corrector.correct(["my brother"])) == 1
    dev = [record for record in records(out) if record["kind"] == "dev"]
    assert len(dev) == 2 and {"wrong", "not among 5", "loss"} <= set(dev[0])


def test_transformers_fills_the_mask(text: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    out = tmp_path / "bert"
    assert main([str(text), "--out", str(out), *TINY, "--steps", "3"]) == 0
    fill = transformers.pipeline("fill-mask", model=str(out), device="cpu")
    guesses = fill("my brother plays [MASK] every sunday", top_k=3)
    assert len(guesses) == 3 and guesses[0]["score"] >= guesses[1]["score"] > 0


def test_it_goes_on_from_a_bert(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, out = tmp_path / "first", tmp_path / "second"
    assert main([str(text), "--out", str(first), *TINY, "--steps", "4"]) == 0
    run = [str(text), "--lang", "en", "--bert", str(first), "--out", str(out), "--batch-tokens", "60", "--steps", "2"]
    assert main([*run, "--optim.lr", "1e-9", "--channels", "16"]) == 0
    assert "dev before" in capsys.readouterr().out
    before, after = weights(first, "best.pt"), weights(out)
    torch.testing.assert_close(before, after, rtol=0, atol=1e-7)
    assert (out / "vocab.txt").read_text("utf-8") == (first / "vocab.txt").read_text("utf-8")
    history = [record["loss"] for record in records(out) if record["kind"] == "dev"]
    assert [record["step"] for record in records(out) if record["kind"] == "dev"] == [0, 2]
    assert history[0] == pytest.approx(records(first)[-1]["loss"], rel=1e-5)


def test_a_bert_without_head_gets_one(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bert, out = tmp_path / "bert", tmp_path / "out"
    save_bert(tiny_corrector().encoder, bert, tiny_tokenizer(tmp_path / "vocabulary"))
    run = ["--lang", "en", "--bert", str(bert), "--out", str(out), "--batch-tokens", "200", "--steps", "1"]
    assert main([str(text), *run]) == 0
    assert "has no head that guesses hidden pieces; it starts at random" in capsys.readouterr().out
    assert read_json(out / "config.json")["hidden_size"] == 8


def test_a_stopped_run_leaves_its_best_and_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from postcorrect import masked_task

    calls, plain = [], masked_task.Masker.__call__

    def interrupted(masker: object, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(masker, *arguments)

    out, run = tmp_path / "bert", [str(text), *TINY, "--steps", "8", "--evaluate-steps", "2"]
    monkeypatch.setattr(masked_task.Masker, "__call__", interrupted)
    assert main([*run, "--out", str(out)]) == 130
    assert "holds the best BERT so far; the same command continues" in capsys.readouterr().err
    masked_from_bert(out)
    assert main([*run, "--out", str(out)]) == 0
    assert main([*run, "--out", str(tmp_path / "whole")]) == 0
    assert torch.equal(weights(out), weights(tmp_path / "whole"))


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """What the command says of something that it cannot do."""
    assert main([str(word) for word in arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_sentences_of_a_corpus_are_left_out(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    corpus = tmp_path / "corpus.jsonl"
    (tmp_path / "a.wav").touch()
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "my brother plays chess every sunday"}
    corpus.write_text(json.dumps(row) + "\n", encoding="utf-8")
    run = [str(text), *TINY, "--steps", "1", "--against", str(corpus), "--leave-out", "--out", str(tmp_path / "bert")]
    assert main(run) == 0
    assert f"1 lines with sentences of {corpus} were left out" in capsys.readouterr().out
    assert "chess" not in masked_from_bert(tmp_path / "bert")[1].to_json()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--vocabulary", "20"], "tokens are needed for the letters alone, got size 20"),
        (["--heads", "3"], r"network: channels must be a multiple of heads \(3\), got 16"),
        (["--layers", "0"], "layers must be from 1 to 1000, got 0"),
        (["--positions", "3"], "positions must be at least 4"),
        (["--dropout", "1"], r"must be in \[0, 1\), got 1.0"),
        (["--masks.share", "0"], "share must be above 0"),
        (["--epochs", "0"], "epochs, steps and evaluate_steps must be at least 1"),
        (["--log-every", "0"], "must be at least 1 and save_every above 0"),
        (["--batch-tokens", "0"], "batch_tokens must be at least 1, got 0"),
        (["--precision", "fp8"], "precision must be auto, fp32, bf16 or fp16"),
        (["--ema", "1"], r"ema must be in \[0, 1\)"),
        (["--dev", "nowhere.txt"], "there is no text nowhere.txt"),
        (["--bert", "nowhere"], "there is no folder nowhere"),
        (["--layer", "2"], "unknown option --layer; did you mean --layers"),
    ],
)
def test_bad_options(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture, extra: list[str], message: str) -> None:
    import re

    told = refused(capsys, text, "--out", tmp_path / "bert", *TINY, *extra)
    assert re.search(message, told), told
    assert not (tmp_path / "bert").exists()


def test_empty_texts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n", encoding="utf-8")
    assert "nothing is left of the 0 lines" in refused(capsys, tmp_path / "empty.txt", "--out", tmp_path / "b", *TINY)
    (tmp_path / "one.txt").write_text("one sentence\n", encoding="utf-8")
    assert "at least two different" in refused(capsys, tmp_path / "one.txt", "--out", tmp_path / "b", *TINY)
    assert "there is no text" in refused(capsys, tmp_path / "none.txt", "--out", tmp_path / "b", *TINY)


def test_a_bert_of_other_sizes(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_bert(tmp_path / "bert")
    run = (text, "--lang", "en", "--bert", tmp_path / "bert", "--out", tmp_path / "out")
    assert "--layers 3 is asked for, but" in refused(capsys, *run, "--layers", "3")
    assert "--feed-forward 1024 is asked for" in refused(capsys, *run, "--layers", "2", "--feed-forward", "1024")
    assert "has 65; leave it out" in refused(capsys, *run, "--vocabulary", "8000")
    (tmp_path / "ru.txt").write_text("привет\nмама мыла раму\n", encoding="utf-8")
    run = (tmp_path / "ru.txt", "--lang", "ru", *run[3:])
    assert "the vocabulary does not know" in refused(capsys, *run)


def test_folders_that_would_be_harmed(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_bert(tmp_path / "bert")
    run = (text, *TINY)
    assert "holds model.safetensors, which this" in refused(capsys, *run, "--out", tmp_path / "bert")
    assert "is the folder of --bert" in refused(
        capsys, text, "--lang", "en", "--bert", tmp_path / "bert", "--out", tmp_path / "bert"
    )
    assert f"--out {text} is a file" in refused(capsys, *run, "--out", text)


def test_runs_that_cannot_go_on(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, out = [str(text), *TINY, "--steps", "1"], tmp_path / "bert"
    assert main([*run, "--out", str(out)]) == 0
    kept = (out / "model.safetensors").read_bytes()
    assert "was trained with another vocabulary" in refused(capsys, *run, "--out", out, "--vocabulary", "100")
    assert "is the run of another network" in refused(capsys, *run, "--out", out, "--channels", "32")
    assert (out / "model.safetensors").read_bytes() == kept
    (tmp_path / "other").mkdir()
    torch.save({"format": "quartznet-1", "weights": {}}, tmp_path / "other" / "last.pt")
    assert "is no training of a BERT" in refused(capsys, *run, "--out", tmp_path / "other")


def test_a_broken_best_is_named(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, out = [str(text), *TINY, "--steps", "1"], tmp_path / "bert"
    assert main([*run, "--out", str(out)]) == 0
    best = torch.load(out / "best.pt", weights_only=True)
    torch.save({**best, "weights": {}}, out / "best.pt")
    assert "best.pt: weights and model_config contradict each other" in refused(capsys, *run, "--out", out)


def test_sizes_of_a_network_come_back() -> None:
    sizes = NetworkSettings(layers=3, channels=64, heads=2, feed_forward=128, vocabulary=500, positions=32)
    assert NetworkSettings.of(sizes.config(500, 0.1)) == sizes
    assert PretrainSettings().layer_decay == 1.0 and PretrainSettings().max_failures == 1.0


@pytest.mark.parametrize("step", [0, 11])
def test_dev_before_is_shown_only_where_it_was_measured(step: int, capsys: pytest.CaptureFixture) -> None:
    record = {"step": step, "loss": 6.5, "wer": 0.9, "cer": 0.8}
    print_results(SimpleNamespace(history=[record]), Path("bert"))
    shown = capsys.readouterr().out
    assert ("dev before" in shown) == (step == 0) and shown.count("best dev") == 1
