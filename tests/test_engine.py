"""The training loop with a toy network: the loop knows nothing of speech, and these tests hold it to that."""

import json
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quartznet.checkpoint import load_checkpoint
from quartznet.config import OptimSettings, ScheduleSettings, TrainSettings
from quartznet.engine import choose_precision, fit, steps_in_all
from quartznet.runstate import TrainState
from quartznet.task import DevResult, Task

CLIPS = 7


@dataclass
class ToyBatch:
    signal: Tensor  # (batch, 1, 6)
    targets: Tensor  # (batch,)
    names: list[str]
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> "ToyBatch":
        return replace(self, signal=self.signal.to(device), targets=self.targets.to(device))


class ToySampler:
    """Batches of ``size`` out of seven clips, in an order that depends on the epoch."""

    def __init__(self, size: int) -> None:
        self.size, self.epoch, self.start = size, 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.start = epoch, 0

    def start_at(self, batch: int) -> None:
        self.start = batch

    def __len__(self) -> int:
        return -(-CLIPS // self.size)

    def __iter__(self):
        order = torch.randperm(CLIPS, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        batches = [order[i : i + self.size] for i in range(0, CLIPS, self.size)]
        return iter(batches[self.start :])


class ToyData(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.signal = torch.randn(CLIPS, 1, 6, generator=torch.Generator().manual_seed(3))
        self.bad: int | None = None  # this clip becomes NaN

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.signal[index] * (float("nan") if index == self.bad else 1.0)


def collate(items: list[tuple[int, Tensor]]) -> ToyBatch:
    signal = torch.stack([row for _, row in items])
    return ToyBatch(signal, signal.mean(dim=(1, 2)), [f"clip{index}" for index, _ in items])


class ToyModel(nn.Module):
    def __init__(self, norm: bool = True, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(8, 1)

    def forward(self, signal: Tensor) -> Tensor:
        return self.decoder(self.dropout(self.encoder(signal).mean(dim=2)))[:, 0]


def losses_of(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
    noise = 0.01 * torch.randn(batch.signal.shape, generator=generator)  # stands for augmentation
    return (model(batch.signal + noise) - batch.targets).square()


def score(model: nn.Module, should_stop: object) -> DevResult:
    with torch.no_grad():
        error = float((model(ToyData().signal) - ToyData().signal.mean(dim=(1, 2))).square().mean())
    return DevResult(error, error, error / 2, [("reference", "hypothesis")])


def task_for(model: nn.Module, **parts: object) -> Task:
    task = Task(losses_of, score, lambda batch: 1.0 * len(batch), {"model_config": {"size": 8}, "lang": "xx"})
    return replace(task, **parts)


def loader_of(size: int = 2, data: ToyData | None = None) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(data or ToyData(), batch_sampler=ToySampler(size), collate_fn=collate)


def settings_for(**values: object) -> TrainSettings:
    optim = OptimSettings(lr=0.01, weight_decay=0.01)
    settings = TrainSettings(device="cpu", steps=10, evaluate_steps=100, log_every=2, optim=optim)
    return replace(settings, schedule=ScheduleSettings("constant", 0.0), **values)


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def train(out: Path, settings: TrainSettings, task_parts: dict | None = None, loader: object = None) -> ToyModel:
    torch.manual_seed(0)
    model = ToyModel()
    fit(model, loader_of() if loader is None else loader, settings, task_for(model, **(task_parts or {})), out)
    return model


# ---------------------------------------------------------------------------------------------------------------------


def test_loss_falls_and_the_run_folder_is_complete(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=40, evaluate_steps=10))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    dev = [record for record in records if record["kind"] == "dev"]
    assert [record["step"] for record in dev] == [10, 20, 30, 40]
    assert dev[-1]["loss"] < dev[0]["loss"]
    first = records[0]
    assert set(first) == {
        *("kind", "step", "epoch", "loss", "lr", "grad_norm", "audio_seconds_per_second", "seconds", "audio_hours")
    }
    assert len(list(tmp_path.glob("wer*.pt"))) == 3  # keep_best
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["score"]["wer"] == min(record["wer"] for record in dev)
    assert list((tmp_path / "tensorboard").iterdir())
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("stop_after", [4, 5])  # at the end of the first epoch, and in the middle of the second
def test_ten_steps_equal_five_and_resume_and_five_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    whole = train(tmp_path / "whole", settings_for(ema=0.9))
    train(tmp_path / "parts", settings_for(ema=0.9, steps=stop_after))
    parts = train(tmp_path / "parts", settings_for(ema=0.9))
    assert same(whole.state_dict(), parts.state_dict())
    one, two = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert same(one["train"]["average"]["weights"], two["train"]["average"]["weights"])
    assert torch.equal(one["train"]["random"][0]["torch"], two["train"]["random"][0]["torch"])
    moments = [[state["exp_avg"] for state in p["train"]["optimizer"]["state"].values()] for p in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, number: int) -> None:
    calls = []

    def interrupted(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return losses_of(model, batch, generator)

    torch.manual_seed(0)
    model = ToyModel()
    state, came = fit(model, loader_of(), settings_for(), task_for(model, loss=interrupted), tmp_path / "parts")
    assert (state.step, came) == (3, number)
    parts = train(tmp_path / "parts", settings_for())
    assert same(train(tmp_path / "whole", settings_for()).state_dict(), parts.state_dict())


def test_an_interrupted_evaluation_is_made_up_for(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=4, evaluate_steps=4), {"evaluate": lambda model, should_stop: None})
    assert load_checkpoint(tmp_path / "last.pt")["train"]["state"]["evaluation_due"]
    train(tmp_path, settings_for(steps=4, evaluate_steps=4))
    assert load_checkpoint(tmp_path / "best.pt")["score"]["step"] == 4


@pytest.mark.parametrize("optimizer", ["adamw", "novograd"])
def test_accumulated_batches_weigh_every_clip_alike(tmp_path: Path, optimizer: str) -> None:
    """Seven clips at once, or as 2 + 2 + 2 + 1: the same step, as long as no batch norm mixes them."""
    weights = []
    for size, accumulate in ((7, 1), (2, 4)):
        torch.manual_seed(0)
        model = ToyModel(norm=False, dropout=0.0)
        optim = OptimSettings(optimizer, lr=0.1, accumulate=accumulate, grad_clip=0.5)
        task = task_for(model, loss=lambda model, batch, generator: (model(batch.signal) - batch.targets).square())
        state, _ = fit(model, loader_of(size), settings_for(steps=1, optim=optim), task, tmp_path / str(size))
        assert (state.epoch, state.batch) == (1, 0)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name])


class FrozenFirst:
    """Holds the encoder still in the first epoch."""

    def begin_epoch(self, model: nn.Module, epoch: int) -> bool:
        for parameter in model.encoder.parameters():
            parameter.requires_grad_(epoch > 0)
            parameter.grad = None
        return epoch < 2

    def train_mode(self, model: nn.Module) -> None:
        model.train()


def test_frozen_encoder_keeps_its_bits_while_batch_norm_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ToyModel()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = replace(task_for(model), tuning=FrozenFirst())
    fit(model, loader_of(), settings_for(steps=4), task, tmp_path)  # 4 steps: 1 epoch
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("encoder."), name
        assert parameter.grad is None
    assert not torch.equal(model.encoder[1].running_mean, before["encoder.1.running_mean"])
    after = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, loader_of(), settings_for(steps=5), task, tmp_path)
    assert not torch.equal(model.encoder[0].weight, after["encoder.0.weight"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(tmp_path: Path, precision: str) -> None:
    model = train(tmp_path, settings_for(steps=8, precision=precision))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    state = load_checkpoint(tmp_path / "last.pt")["train"]
    assert (state["scaler"] != {}) == (precision == "fp16")
    assert state["state"]["skipped_steps"] == 0


def test_precision_names() -> None:
    assert choose_precision("auto", torch.device("cpu")) == torch.float32
    assert choose_precision("bf16", torch.device("cpu")) == torch.bfloat16


def test_average_is_what_best_holds(tmp_path: Path) -> None:
    model = train(tmp_path, settings_for(ema=0.5))
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert same(best["weights"], last["train"]["average"]["weights"])
    assert same(last["weights"], model.state_dict())
    assert not same(best["weights"], last["weights"])


def test_resume_says_what_changed_and_today_wins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(tmp_path, settings_for(steps=2))
    train(tmp_path, settings_for(steps=3, optim=OptimSettings(lr=0.01, weight_decay=0.5)))
    assert "optim.weight_decay: 0.01 -> 0.5" in caplog.text
    assert "steps: 2 -> 3" in caplog.text
    assert load_checkpoint(tmp_path / "last.pt")["train"]["optimizer"]["param_groups"][0]["weight_decay"] == 0.5


def test_resume_with_other_batches_starts_the_epoch_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, settings_for(steps=2))
    train(tmp_path, settings_for(steps=3), loader=loader_of(3))
    assert "the epoch has 3 batches, it had 4" in caplog.text
    assert load_checkpoint(tmp_path / "last.pt")["train"]["state"]["batch"] == 1


def test_resume_refuses_another_network_optimiser_or_file(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=2))
    with pytest.raises(ValueError, match="another network: size differ; choose another --out"):
        train(tmp_path, settings_for(), {"identity": {"model_config": {"size": 9}}})
    with pytest.raises(ValueError, match=r"trained with optim.name novograd"):
        train(tmp_path, settings_for(optim=OptimSettings("adamw")))
    (tmp_path / "last.pt").write_bytes((tmp_path / "best.pt").read_bytes())
    with pytest.raises(ValueError, match="weights only and no training can continue"):
        train(tmp_path, settings_for())


def test_metrics_of_lost_steps_are_not_there_twice(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=4))
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "train", "step": 6}\n{"kind": "tra')  # a crash after step 6; last.pt is from step 4
    train(tmp_path, settings_for(steps=6))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2, 4, 6]


def test_last_is_saved_by_the_clock(tmp_path: Path) -> None:
    seen = []

    def look(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        seen.append((tmp_path / "last.pt").exists())
        return losses_of(model, batch, generator)

    train(tmp_path, settings_for(steps=3, save_every=1e-9), {"loss": look})
    assert seen == [False, True, True]


def test_fewer_steps_than_done_and_never_evaluated_is_evaluated(tmp_path: Path) -> None:
    def interrupted(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return losses_of(model, batch, generator)

    train(tmp_path / "new", settings_for(), {"loss": interrupted})
    train(tmp_path / "new", settings_for(steps=1))
    assert load_checkpoint(tmp_path / "new" / "best.pt")["score"]["step"] == 1
    train(tmp_path / "tuned", settings_for(keep_best=3), {"loss": interrupted, "evaluate_first": True})
    train(tmp_path / "tuned", settings_for(steps=1, keep_best=3), {"evaluate_first": True})
    assert {path.stem.partition("step")[2] for path in (tmp_path / "tuned").glob("wer*")} == {"0", "1"}


@pytest.mark.parametrize(("batches", "accumulate", "expected"), [(4, 1, 12), (2, 1, 8), (4, 3, 8), (1, 1, 6)])
def test_all_epochs_are_trained_whatever_the_batches_are_now(batches: int, accumulate: int, expected: int) -> None:
    """Four steps are done, which was one of three epochs."""
    settings = settings_for(steps=None, epochs=3, optim=OptimSettings(accumulate=accumulate))
    state = TrainState(step=4, epoch=1, batches_per_epoch=batches)
    assert steps_in_all(state, settings) == expected
    assert steps_in_all(TrainState(step=4, epoch=5, batches_per_epoch=4), settings) == 4


def test_steps_left_in_an_epoch_count_once() -> None:
    settings = settings_for(steps=None, epochs=2, optim=OptimSettings(accumulate=3))
    states = [TrainState(0, 0, 0), TrainState(1, 0, 3), TrainState(2, 0, 6), TrainState(3, 1, 0), TrainState(5, 1, 6)]
    assert [steps_in_all(replace(state, batches_per_epoch=7), settings) for state in states] == [6] * 5


def test_precision_can_change_in_the_middle(tmp_path: Path) -> None:
    for steps, precision in ((2, "fp32"), (4, "fp16"), (6, "bf16"), (8, "fp16")):
        train(tmp_path, settings_for(steps=steps, precision=precision))
    assert load_checkpoint(tmp_path / "last.pt")["train"]["state"]["step"] == 8


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    loader = loader_of()
    loader.batch_sampler.__class__ = type("Empty", (ToySampler,), {"__len__": lambda self: 0})
    with pytest.raises(ValueError, match="not a single batch to train on"):
        train(tmp_path, settings_for(), loader=loader)


def test_settings_of_the_loop_are_checked() -> None:
    with pytest.raises(ValueError, match="evaluate_every, max_bad_steps, keep_best and log_every must be at least 1"):
        TrainSettings(log_every=0)
    with pytest.raises(ValueError, match="evaluate_steps must be at least 1, got 0"):
        TrainSettings(evaluate_steps=0)


def test_of_equal_word_error_rates_the_lower_character_error_rate_is_best(tmp_path: Path) -> None:
    rates = iter([0.9, 0.7, 0.8])

    def score(model: nn.Module, should_stop: object) -> DevResult:
        return DevResult(1.0, 1.0, next(rates), [])

    train(tmp_path, settings_for(steps=6, evaluate_steps=2), {"evaluate": score})
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["score"] == {"wer": 1.0, "step": 4}


def test_what_it_began_with_is_kept_where_no_step_is_better(tmp_path: Path) -> None:
    rates = iter((0.1, 0.3, 0.2))

    def score(model: nn.Module, should_stop: object) -> DevResult:
        wer = next(rates)
        return DevResult(1.0, wer, wer, [])

    torch.manual_seed(0)
    before = ToyModel().state_dict()
    train(tmp_path, settings_for(steps=4, evaluate_steps=2), {"evaluate": score, "evaluate_first": True})
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["score"] == {"wer": 0.1, "step": 0} and same(best["weights"], before)
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [record["step"] for record in records if record["kind"] == "dev"] == [0, 2, 4]
