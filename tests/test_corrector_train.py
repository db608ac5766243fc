"""Training a corrector: it learns, goes on bit for bit, several processes are one; what is missing is said."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_bert import SPECIAL, tiny_tokenizer

import postcorrect
from postcorrect import checkpoint, train
from postcorrect.bert import save_bert
from postcorrect.config import CorrectorConfig, DropoutConfig, StackConfig
from postcorrect.model import Corrector
from postcorrect.pairs import Pair, write_part
from postcorrect.train_config import CorrectorTraining, PairSettings
from quartznet import load_model
from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.settings import from_dict

ROOT = Path(__file__).resolve().parents[1]
PAIRS = [
    Pair("the contry", "the country", "1"),
    Pair("dont worry", "don't worry", "2"),
    Pair("a dog rans", "a dog runs", "3"),
    Pair("he is hear", "he is here", "4"),
    Pair("we are fin", "we are fine", "5"),
    Pair("all is well", "all is well", "6"),
]
SHORT = ["--data.batch-tokens", "64", "--optim.name", "adamw", "--log-every", "1", "--device", "cpu"]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """One block of 32 channels in each half, no dropout in the encoder."""
    tokenizer = tiny_tokenizer(tmp_path / "vocabulary")
    stack = StackConfig(1, 1e-12, DropoutConfig.everywhere(0.0))
    config = CorrectorConfig(
        len(tokenizer), channels=32, heads=2, feed_forward=64, positions=64, special=SPECIAL, encoder=stack
    )
    save_bert(Corrector(config, tokenizer).encoder, tmp_path / "bert", tokenizer)
    return tmp_path / "bert"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for part in ("train", "dev", "test"):
        write_part(tmp_path / "pairs", part, PAIRS)
    return tmp_path / "pairs"


def run(bert: Path, pairs: Path, out: Path, *more: str) -> int:
    return train.main(["--bert", str(bert), "--data", str(pairs), "--out", str(out), *SHORT, *more])


def test_it_learns_to_correct_and_loads(
    bert: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ("--steps", "150", "--optim.lr", "0.01", "--dropout", "0", "--evaluate-steps", "75")
    assert run(bert, pairs, out, *options, "--label-smoothing", "0") == 0
    shown = capsys.readouterr().out
    assert "schedule.warmup_steps 18 in place of 1000" in shown
    assert "dev now   WER 31.25 %" in shown and "dev, as heard       31.25 %" in shown
    corrector = postcorrect.load(out)
    assert corrector.correct([pair.recognised for pair in PAIRS]) == [pair.said for pair in PAIRS]
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["wer"] for record in records if record["kind"] == "dev"][-1] == 0.0
    assert records[0]["tokens_per_second"] > 0
    assert list((out / "tensorboard").iterdir())
    assert max(map(len, shown.splitlines())) <= 200


def test_a_run_that_was_stopped_goes_on_bit_for_bit(bert: Path, pairs: Path, tmp_path: Path) -> None:
    options = ("--schedule.name", "constant", "--schedule.warmup-steps", "0", "--optim.accumulate", "1")
    assert run(bert, pairs, tmp_path / "whole", "--steps", "6", *options) == 0
    assert run(bert, pairs, tmp_path / "halves", "--steps", "3", *options) == 0
    assert run(bert, pairs, tmp_path / "halves", "--steps", "6", *options) == 0
    whole, halves = (load_checkpoint(tmp_path / name / "last.pt")["weights"] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.parametrize("start", ["both", "encoder", "decoder", "none"])
def test_the_halves_start_where_they_are_told(bert: Path, start: str) -> None:
    settings = CorrectorTraining(bert=str(bert), start=start)
    found, whole = train.build(settings).state_dict(), postcorrect.from_bert(bert).state_dict()
    names = ("encoder.blocks.0.attention.query.weight", "decoder.blocks.0.cross.key.weight")
    same = {name.split(".")[0] for name in names if torch.equal(found[name], whole[name])}
    assert same == {"both": {"encoder", "decoder"}, "none": set()}.get(start, {start})
    same_table = torch.equal(found["encoder.tables.tokens.weight"], whole["encoder.tables.tokens.weight"])
    assert same_table == (start != "none")


def test_two_processes_are_one_with_twice_the_batches(bert: Path, pairs: Path, tmp_path: Path) -> None:
    options = ["--steps", "2", "--dropout", "0", "--optim.lr", "0.001", "--seed", "3"]
    common = ["--bert", str(bert), "--data", str(pairs), *SHORT, *options]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "postcorrect.train", *common, "--out", str(tmp_path / "two")]
    names = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
    workers = [
        subprocess.Popen(
            [*command, "--optim.accumulate", "1"],
            env={**os.environ, **{name: str(value) for name, value in (names | {"RANK": r, "LOCAL_RANK": r}).items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in (0, 1)
    ]
    assert train.main([*common, "--out", str(tmp_path / "one"), "--optim.accumulate", "2"]) == 0
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, output
    weights = [load_checkpoint(tmp_path / name / "last.pt")["weights"] for name in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], atol=2e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Settings


def test_defaults_are_those_of_the_paper() -> None:
    plain = CorrectorTraining()
    assert (plain.optim.name, plain.optim.lr, plain.optim.weight_decay, plain.optim.accumulate) == (
        "novograd", 0.001, 0.0, 8,
    )  # fmt: skip
    assert (plain.schedule.name, plain.schedule.warmup_steps, plain.schedule.min_lr) == ("square", 1000, 1e-5)
    assert (plain.dropout, plain.label_smoothing, plain.data.batch_tokens) == (0.25, 0.1, 4096)


def test_one_setting_of_a_group_leaves_the_others_as_they_are() -> None:
    chosen = from_dict(CorrectorTraining, {"optim": {"lr": 0.5}, "schedule": {"warmup_steps": 3}})
    assert chosen.optim.accumulate == 8 and chosen.optim.weight_decay == 0.0 and chosen.schedule.name == "square"


def test_few_pairs_get_small_steps_unless_they_were_chosen() -> None:
    plain = CorrectorTraining(epochs=10)
    small = train.fitted(plain, {}, batches=250)
    assert (small.optim.accumulate, small.schedule.warmup_steps) == (2, 1250 // 8)
    chosen = {"optim": {"accumulate": 8}, "schedule": {"warmup_steps": 1000}}
    assert train.fitted(plain, chosen, batches=250) == plain
    assert train.fitted(plain, {}, batches=10_000) == plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "half"}, "start must be both, encoder, decoder or none"),
        ({"dropout": 1.0}, "dropout embedding must be in"),
        ({"encoder_dropout": -0.1}, "dropout embedding must be in"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"precision": "fp8"}, "precision must be auto, fp32, bf16 or fp16"),
        ({"ema": 1.0}, "ema must be in"),
        ({"keep_best": 0}, "must be at least 1 and save_every above 0"),
        ({"steps": 0}, "epochs, steps and evaluate_steps must be at least 1"),
        ({"evaluate_steps": 0}, "epochs, steps and evaluate_steps must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorrectorTraining(**settings)


def test_impossible_settings_of_the_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_tokens >= 1, longest >= 3"):
        PairSettings(longest=2)


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert train.main(arguments) == 2
    return capsys.readouterr().err


def test_what_is_missing_is_said(bert: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--bert is missing" in told(["--data", str(pairs)], capsys)
    assert "--data is missing" in told(["--bert", str(bert)], capsys)
    out = ["--out", str(tmp_path / "run"), *SHORT]
    assert "has no train.jsonl" in told(["--bert", str(bert), "--data", str(tmp_path), *out], capsys)
    assert "there is no" in told(["--bert", str(tmp_path), "--data", str(pairs), *out], capsys)
    assert "unknown option --beart" in told(["--beart", "x"], capsys)


def test_pairs_that_teach_nothing_are_refused(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pairs"
    out = ["--bert", str(bert), "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    write_part(folder, "train", [Pair("", "a")])
    write_part(folder, "dev", PAIRS)
    assert "no pair of" in told(out, capsys)
    write_part(folder, "train", PAIRS)
    write_part(folder, "dev", [])
    assert "dev has no pairs" in told(out, capsys)
    write_part(folder, "dev", [Pair("", "a")])
    assert "no pair of dev" in told(out, capsys)
    for part in ("pred", "real", "jsonl"):
        (folder / f"train.{part}").write_text("", encoding="utf-8")
    assert told(out, capsys).strip().endswith("can be learnt from: train is empty")
    write_part(folder, "train", PAIRS)
    (folder / "train.pred").write_text("one line more\n" * 7, encoding="utf-8")
    assert "train.pred:7: this line has no partner" in told(out, capsys)


def test_a_rate_that_breaks_the_weights_is_named(
    bert: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bert, pairs, tmp_path / "run", "--steps", "2", "--optim.lr", "1e30") == 2
    assert "the training diverged: start again with a lower rate (--optim.lr)" in capsys.readouterr().err


def test_a_run_goes_on_with_other_batches_and_other_pairs(
    bert: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bert, pairs, tmp_path / "run", "--steps", "1") == 0
    assert run(bert, pairs, tmp_path / "run", "--steps", "2", "--data.batch-tokens", "30") == 0
    shown = capsys.readouterr().out
    assert "changed since the last run: data.batch_tokens: 64 -> 30" in shown and "it starts anew" in shown
    for part in ("train", "dev"):
        write_part(pairs, part, PAIRS[:1])
    assert run(bert, pairs, tmp_path / "run", "--steps", "3") == 0
    assert "continuing" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "run" / "last.pt")["train"]["state"]["step"] == 3


def test_a_file_of_weights_alone_does_not_go_on(
    bert: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(bert, pairs, out, "--steps", "1") == 0
    (out / "last.pt").write_bytes((out / "best.pt").read_bytes())
    assert run(bert, pairs, out, "--steps", "2") == 2
    told = capsys.readouterr().err
    assert "holds weights only" in told and "--init" not in told  # there is none here


def test_another_vocabulary_or_network_does_not_go_on(
    bert: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(bert, pairs, out, "--steps", "1") == 0
    payload = load_checkpoint(out / "last.pt")
    save_checkpoint(out / "last.pt", {**payload, "tokenizer": payload["tokenizer"] + " "})
    assert run(bert, pairs, out, "--steps", "2") == 2
    assert "another kind of network, or of another vocabulary" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# The checkpoint


def test_a_recogniser_is_no_corrector_and_the_other_way_round(bert: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(bert, pairs, out, "--steps", "1") == 0
    with pytest.raises(ValueError, match="holds a network of kind 'corrector' and no recogniser"):
        load_model(out)
    payload = load_checkpoint(out / "best.pt")
    for kind, name in ((None, "a recogniser"), ("bert", "a BERT in training"), (3, "something else")):
        save_checkpoint(tmp_path / "other.pt", {**payload, "kind": kind})
        with pytest.raises(ValueError, match=f"holds {name} and no corrector"):
            postcorrect.load(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_config": {"vocabulary": "x"}}, "model_config.vocabulary must be a whole number"),
        ({"model_config": {"vocabulary": 10**12, "channels": 12000}}, "can be at most"),
        ({"model_config": {"vocabulary": 10**400}}, "model_config.vocabulary must be a whole number"),
        ({"model_config": None}, r"c\.pt: model_config must be a table of settings"),
        ({"kind": []}, "holds something else and no corrector"),
        ({"tokenizer": "{"}, "the tokenizer of this checkpoint cannot be read"),
        ({"tokenizer": 3}, "tokenizer must be text"),
        ({"weights": {}}, "weights and model_config contradict each other"),
        ({"weights": 3}, "weights and model_config contradict each other"),
    ],
)
def test_a_broken_checkpoint_is_refused(change: dict, message: str, bert: Path, pairs: Path, tmp_path: Path) -> None:
    corrector = postcorrect.from_bert(bert)
    path = tmp_path / "c.pt"
    save_checkpoint(path, {**checkpoint.identity(corrector), "weights": corrector.state_dict(), **change})
    with pytest.raises(ValueError, match=message):
        postcorrect.load(path)


def test_sizes_that_lie_take_no_memory(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrector, path = postcorrect.from_bert(bert), tmp_path / "c.pt"
    whole = {**checkpoint.identity(corrector), "weights": corrector.state_dict()}
    huge = {**whole["model_config"], "vocabulary": 3_000_000, "channels": 1024}  # 12 GB
    made = []
    monkeypatch.setattr(checkpoint, "fill", lambda *_: made.append("a network"))
    save_checkpoint(path, {**whole, "model_config": huge})
    with pytest.raises(ValueError, match=r"contradict each other: bias has shape .*, asked for is \(3000000,\)"):
        postcorrect.load(path)
    save_checkpoint(path, {**whole, "weights": {}})
    with pytest.raises(ValueError, match=r"contradict each other: bias is missing, asked for is .* \(of \d+ such\)"):
        postcorrect.load(path)
    assert made == []


def test_a_tokenizer_of_another_network_is_refused(bert: Path, tmp_path: Path) -> None:
    corrector, path = postcorrect.from_bert(bert), tmp_path / "c.pt"
    whole = {**checkpoint.identity(corrector), "weights": corrector.state_dict()}
    for special, message in (
        ({"pad": 1, "unknown": 0}, r"calls unknown letters \[UNK\]"),
        ({"mask": corrector.config.vocabulary}, "has no token for mask"),
    ):
        config = {**whole["model_config"], "special": {**whole["model_config"]["special"], **special}}
        save_checkpoint(path, {**whole, "model_config": {**config, "vocabulary": config["vocabulary"] + 1}})
        with pytest.raises(ValueError, match=message):
            postcorrect.load(path)
    empty = json.loads(whole["tokenizer"])
    empty["model"]["vocab"], empty["added_tokens"] = {}, []
    save_checkpoint(path, {**whole, "tokenizer": json.dumps(empty)})
    with pytest.raises(ValueError, match=r"c\.pt: the tokenizer has no token for pad, unknown, begin, end, mask"):
        postcorrect.load(path)


def test_missing_parts_and_broken_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    corrector = postcorrect.from_bert(bert)
    whole, path = checkpoint.identity(corrector), tmp_path / "c.pt"
    save_checkpoint(path, {name: value for name, value in whole.items() if name != "tokenizer"})
    with pytest.raises(ValueError, match="has no tokenizer and no weights, so no corrector"):
        postcorrect.load(path)
    weights = corrector.state_dict()
    weights["bias"][0] = float("nan")
    save_checkpoint(path, {**whole, "weights": weights})
    with pytest.raises(ValueError, match="bias is not finite"):
        postcorrect.load(path)
    with pytest.raises(ValueError, match="without a tokenizer cannot be saved"):
        checkpoint.identity(Corrector(corrector.config))
    with pytest.raises(FileNotFoundError, match=r"has no best\.pt"):
        (tmp_path / "empty").mkdir()
        postcorrect.load(tmp_path / "empty")


def test_what_is_saved_comes_back(bert: Path, tmp_path: Path) -> None:
    corrector = postcorrect.from_bert(bert)
    save_checkpoint(tmp_path / "c.pt", {**checkpoint.identity(corrector), "weights": corrector.state_dict()})
    again = postcorrect.load(tmp_path / "c.pt")
    assert again.config == corrector.config and again.correct(["the contry"]) == corrector.correct(["the contry"])
    assert all(torch.equal(again.state_dict()[name], value) for name, value in corrector.state_dict().items())


def test_mixed_precision_learns_too(
    bert: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(bert, pairs, out, "--steps", "40", "--optim.lr", "0.01", "--dropout", "0", "--precision", "bf16") == 0
    assert "it makes more errors than it repairs" in capsys.readouterr().out
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0] - 1.0
    assert all(value.dtype == torch.float32 for value in load_checkpoint(out / "best.pt")["weights"].values())
