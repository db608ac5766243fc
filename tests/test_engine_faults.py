"""The training loop when things go wrong: bad clips, dying loaders, divergence, damaged files; nothing good is lost."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_engine import (
    CLIPS,
    ToyBatch,
    ToyData,
    ToyModel,
    ToySampler,
    collate,
    loader_of,
    losses_of,
    same,
    score,
    settings_for,
    train,
)
from torch import Tensor, nn

from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.config import DataSettings
from quartznet.engine import too_many_failures
from quartznet.runstate import TrainState
from quartznet.settings import load_yaml
from quartznet.task import DevResult


def test_a_bad_clip_costs_one_step_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ToyData()
    data.bad = 5
    model = train(tmp_path, settings_for(steps=4), loader=loader_of(2, data))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())  # running statistics too
    assert "the loss is nan; clips: clip5" in caplog.text
    payload = load_checkpoint(tmp_path / "last.pt")
    assert payload["train"]["state"]["skipped_steps"] == 1
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("skipped") == 1


def test_many_bad_steps_stop_the_run_after_saving(tmp_path: Path) -> None:
    def nan(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        return losses_of(model, batch, generator) * float("inf")

    with pytest.raises(ValueError, match=r"3 steps in a row .* lower rate \(--optim.lr 0.005\)"):
        train(tmp_path, settings_for(max_bad_steps=3), {"loss": nan})
    assert load_checkpoint(tmp_path / "last.pt")["train"]["state"]["step"] == 3
    train(tmp_path, settings_for(max_bad_steps=3))  # goes on


def test_infinite_gradient_with_finite_loss_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def steep(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        return (model(batch.signal) * 0).abs().sqrt()  # derivative of the root at 0

    train(tmp_path, settings_for(steps=1), {"loss": steep})
    assert "the norm of the gradient is" in caplog.text


def test_batches_without_a_clip_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def nothing(items: list) -> ToyBatch:
        return ToyBatch(torch.zeros(0, 1, 6), torch.zeros(0), [], [f"clip{index}: broken" for index, _ in items])

    loader = torch.utils.data.DataLoader(ToyData(), batch_sampler=ToySampler(2), collate_fn=nothing)
    model = train(tmp_path, settings_for(steps=5, data=DataSettings(max_failures=1.0)), loader=loader)
    torch.manual_seed(0)
    assert same(model.state_dict(), ToyModel().state_dict())
    assert "no clip could be loaded" in caplog.text
    assert sorted((tmp_path / "skipped.txt").read_text().split("\n"))[1:] == [f"clip{i}: broken" for i in range(7)]


class DeadlyData(ToyData):
    """Its loader process is killed in the second epoch, at the first clip of the third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = torch.zeros((), dtype=torch.int64).share_memory_()

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        self.taken += 1
        if self.taken == CLIPS + 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_killed_loader_process_loses_no_step(tmp_path: Path) -> None:
    def loader(data: ToyData) -> torch.utils.data.DataLoader:
        options = {"batch_sampler": ToySampler(2), "collate_fn": collate, "num_workers": 1, "prefetch_factor": 1}
        return torch.utils.data.DataLoader(data, **options)

    with pytest.raises(
        ValueError, match=r"a loader process was killed .* holds step (4|5|6); the same command"
    ) as error:
        train(tmp_path / "killed", settings_for(), loader=loader(DeadlyData()))
    assert "lower --data.workers" in str(error.value)
    train(tmp_path / "killed", settings_for(), loader=loader(ToyData()))
    train(tmp_path / "whole", settings_for(), loader=loader(ToyData()))
    killed, whole = (load_checkpoint(tmp_path / name / "last.pt")["weights"] for name in ("killed", "whole"))
    assert same(killed, whole)


def test_other_errors_of_the_loop_pass_through(tmp_path: Path) -> None:
    def fails(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train(tmp_path, settings_for(), {"loss": fails})
    assert not (tmp_path / "last.pt").exists()


def test_too_many_clips_that_fail_stop_the_run_and_lose_nothing(tmp_path: Path) -> None:
    """Three of seven fail: the epoch is finished, saved, and then the run stops; more may fail where one says so."""

    def some(items: list) -> ToyBatch:
        good, bad = [item for item in items if item[0] > 2], [f"clip{index}: broken" for index, _ in items if index < 3]
        return replace(collate(good), skipped=bad) if good else ToyBatch(torch.zeros(0, 1, 6), torch.zeros(0), [], bad)

    loader = torch.utils.data.DataLoader(ToyData(), batch_sampler=ToySampler(2), collate_fn=some)
    message = r"3 of 7 clips of this epoch could not be loaded, more than the 1.0% of data.max_failures; .*skipped.txt"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, settings_for(steps=9), loader=loader)
    state = load_checkpoint(tmp_path / "last.pt")["train"]["state"]
    assert (state["step"], state["epoch"], state["batch"]) == (4, 1, 0)
    train(tmp_path, settings_for(steps=9, data=DataSettings(max_failures=0.5)), loader=loader)
    assert load_checkpoint(tmp_path / "last.pt")["train"]["state"]["step"] == 9


@pytest.mark.parametrize(
    ("batch", "clips", "failed", "expected"),
    [
        (0, 100, 2, False),  # one or two of a small corpus
        (0, 100, 3, True),
        (0, 300, 3, False),  # exactly the limit
        (5, 100, 9, False),  # in the middle of an epoch: perhaps chance
        (5, 100, 10, True),
        (5, 1000, 10, False),
    ],
)
def test_when_failures_are_too_many(batch: int, clips: int, failed: int, expected: bool) -> None:
    state = TrainState(batch=batch, epoch_clips=clips, epoch_failed=failed)
    assert too_many_failures(state, 0.01) is expected


def diverge(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
    """Losses that are fine while the weights are not: a buffer has overflowed, as a rate far too high does it."""
    if model.training and batch.names[0] != "":
        model.encoder[1].running_mean.fill_(float("inf"))
    return losses_of(model, batch, generator)


def test_broken_weights_never_replace_good_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at step 4 encoder.1.running_mean .*nothing had been saved yet.*lr 0.005"):
        train(tmp_path, settings_for(steps=4), {"loss": diverge})
    assert not list(tmp_path.glob("*.pt"))
    train(tmp_path, settings_for(steps=4))
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=r"the run diverged: at step 8 .*last.pt is from before: .* lower rate"):
        train(tmp_path, settings_for(steps=8), {"loss": diverge})
    assert (tmp_path / "last.pt").read_bytes() == before
    train(tmp_path, settings_for(steps=8))


def test_many_bad_steps_leave_the_last_good_state(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=4))

    def nan(model: nn.Module, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        model.decoder.weight.data.fill_(1e30)  # finite, and of no use
        return losses_of(model, batch, generator) * float("nan")

    with pytest.raises(ValueError, match=r"3 steps in a row .*continues from .*last.pt of step 5, .* past help"):
        train(tmp_path, settings_for(max_bad_steps=3, evaluate_steps=1), {"loss": nan})
    state = load_checkpoint(tmp_path / "last.pt")["train"]["state"]
    assert (state["step"], state["bad_in_a_row"]) == (5, 1)  # one bad step is no reason not to save


def test_what_was_learnt_is_saved_before_an_evaluation_that_fails(tmp_path: Path) -> None:
    def unplugged(model: nn.Module, should_stop: object) -> DevResult:
        raise ValueError("no dev clip could be loaded")

    with pytest.raises(ValueError, match="no dev clip could be loaded"):
        train(tmp_path, settings_for(steps=4), {"evaluate": unplugged})
    assert load_checkpoint(tmp_path / "last.pt")["train"]["state"]["step"] == 4
    for _ in range(2):  # the first makes up for the evaluation and saves that it did
        train(tmp_path, settings_for(steps=4))
        records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [record["step"] for record in records if record["kind"] == "dev"] == [4]
    assert not load_checkpoint(tmp_path / "last.pt")["train"]["state"]["evaluation_due"]


def test_clips_of_the_dev_part_that_fail_are_listed(tmp_path: Path) -> None:
    def lossy(model: nn.Module, should_stop: object) -> DevResult:
        return replace(score(model, should_stop), skipped=["d.jsonl:1: broken"])

    train(tmp_path, settings_for(evaluate_steps=5), {"evaluate": lossy})
    assert (tmp_path / "skipped.txt").read_text() == "d.jsonl:1: broken\n"


def test_a_refused_run_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=2, lang="es"))
    with pytest.raises(ValueError, match="another network"):
        train(tmp_path, settings_for(lang="pt"), {"identity": {"model_config": {"size": 9}}})
    assert load_yaml(tmp_path / "settings.yaml")["lang"] == "es"


def test_a_damaged_or_foreign_last_says_how_to_go_on_and_best_stays(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=2))
    last, best = tmp_path / "last.pt", (tmp_path / "best.pt").read_bytes()
    payload = load_checkpoint(last)
    payload["train"]["state"]["mood"] = "good"
    del payload["train"]["scaler"]
    save_checkpoint(last, payload)
    with pytest.raises(ValueError, match=r"another version of this program: scaler, mood; choose another --out"):
        train(tmp_path, settings_for())
    for damage in (b"", last.read_bytes()[:3000]):
        last.write_bytes(damage)
        with pytest.raises(ValueError, match=r"may be damaged.*or delete .*last.pt.*--init .*best.pt"):
            train(tmp_path, settings_for())
    assert (tmp_path / "best.pt").read_bytes() == best
    last.unlink()
    train(tmp_path, settings_for(steps=2))


def test_a_deleted_best_file_stops_nothing(tmp_path: Path) -> None:
    train(tmp_path, settings_for(steps=2, evaluate_steps=1))
    for path in tmp_path.glob("wer*.pt"):
        path.unlink()
    train(tmp_path, settings_for(steps=8, evaluate_steps=1, keep_best=8))
    assert (tmp_path / "best.pt").exists()
