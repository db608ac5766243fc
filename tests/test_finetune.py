"""quartznet.finetune: what must hold still does so bit for bit, and the rest moves."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_model import small_model

from quartznet.batch import Batch
from quartznet.config import AugmentSettings, BlockConfig, OptimSettings, ScheduleSettings, TrainSettings
from quartznet.engine import fit
from quartznet.finetune import Tuning, batch_norms, parameter_groups, plain
from quartznet.model import QuartzNet
from quartznet.optim import build_optimizer
from quartznet.recognition import recognition_loss
from quartznet.task import Task
from quartznet.tune_config import TuneSettings

FOUR = (
    BlockConfig(16, 11, stride=2),
    BlockConfig(16, 11, repeat=2, residual=True),
    BlockConfig(16, 13, residual=True),
    BlockConfig(24, 1, separable=False),
)


def batch_of(model: QuartzNet) -> Batch:
    generator = torch.Generator().manual_seed(5)
    signal = torch.randn(3, 8000, generator=generator) * 0.1
    lengths, target_lengths = torch.tensor([8000, 7000, 6500]), torch.tensor([3, 2, 3])
    targets = torch.randint(0, len(model.config.labels), (3, 3), generator=generator)
    return Batch(signal, lengths, targets, target_lengths, ["", "", ""], ["a", "b", "c"], [])


def steps(model: QuartzNet, tuning: Tuning, epoch: int, count: int = 3, optim: OptimSettings | None = None) -> None:
    """``count`` optimiser steps as the loop does them, with a decay that would move whatever is not frozen."""
    groups = parameter_groups(model, tuning.settings.layer_decay)
    optimizer = build_optimizer(groups, optim or OptimSettings(lr=0.01, weight_decay=0.1))
    loss = recognition_loss(AugmentSettings(cutout_masks=0))
    tuning.begin_epoch(model, epoch)
    tuning.train_mode(model)
    for _ in range(count):
        loss(model, batch_of(model), torch.Generator().manual_seed(0)).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def moved(model: QuartzNet, before: dict) -> set[str]:
    return {
        name
        for name, value in model.state_dict().items()
        if not name.startswith("front_end") and name in before and not torch.equal(value, before[name])
    }


def trained(settings: TuneSettings, epoch: int = 0, freeze: int = 0, optimizer: str = "novograd") -> tuple[set, dict]:
    """What ``steps`` moved, and the parameters and statistics before."""
    model = small_model(FOUR)
    tuning = Tuning(settings, freeze)
    tuning.insert(model)
    before = copy.deepcopy(model.state_dict())
    steps(model, tuning, epoch, optim=OptimSettings(name=optimizer, lr=0.01, weight_decay=0.1))
    return moved(model, before), before


def statistics(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}


def scale_and_shift(names: set[str]) -> set[str]:
    return {name for name in names if ".norm." in name and name.endswith(("weight", "bias"))}


HEAD = {"decoder.weight", "decoder.bias"}


@pytest.mark.parametrize("optimizer", ["novograd", "adamw"])
@pytest.mark.parametrize(
    "train, blocks",
    [("all", {0, 1, 2, 3}), ("top-2", {2, 3}), ("top-4", {0, 1, 2, 3}), ("head", set()), ("bn", set())],
)
def test_what_learns_moves_and_nothing_else_does(train: str, blocks: set[int], optimizer: str) -> None:
    names, before = trained(TuneSettings(train), optimizer=optimizer)
    parameters = names - statistics(names)
    expected = {name for name in before if name.startswith("encoder.") and int(name.split(".")[2]) in blocks}
    expected -= statistics(expected)
    if train == "bn":
        expected = scale_and_shift(set(before))
    assert parameters == expected | HEAD
    assert statistics(names) == statistics(set(before))  # they move everywhere


@pytest.mark.parametrize("kind, part", [("lora", ".low_rank."), ("adapters", ".adapter.")])
def test_insertions_learn_and_the_base_holds_still(kind: str, part: str) -> None:
    names, before = trained(TuneSettings(kind, lora_rank=2, adapter_size=3))
    assert names - statistics(names) == {name for name in before if part in name} | HEAD


@pytest.mark.parametrize(
    "mode, affine, moves",
    [("full", True, True), ("affine", True, False), ("stats", False, True), ("frozen", False, False)],
)
@pytest.mark.parametrize("train", ["all", "head", "top-1", "lora"])
def test_the_four_modes_of_batch_norm(train: str, mode: str, affine: bool, moves: bool) -> None:
    names, before = trained(TuneSettings(train, batchnorm=mode, lora_rank=2))
    assert scale_and_shift(names) == (scale_and_shift(set(before)) if affine else set())
    assert statistics(names) == (statistics(set(before)) if moves else set())
    assert names >= HEAD


def test_frozen_for_the_first_epochs() -> None:
    for train in ("all", "bn", "lora", "adapters"):
        names, before = trained(TuneSettings(train, lora_rank=2, adapter_size=2), epoch=1, freeze=2)
        assert names - statistics(names) == HEAD and statistics(names) == statistics(set(before))
        names, _ = trained(TuneSettings(train, lora_rank=2, adapter_size=2), epoch=2, freeze=2)
        assert names - statistics(names) > HEAD
    names, before = trained(TuneSettings(batchnorm="full"), epoch=0, freeze=2)  # the published schedule
    assert names - statistics(names) == HEAD | scale_and_shift(set(before))


def test_gradual_unfreezing_goes_from_the_top() -> None:
    tuning = Tuning(TuneSettings(unfreeze_every=2, unfreeze_blocks=3), freeze_encoder=1)
    assert [tuning.blocks_that_learn(8, epoch) for epoch in range(8)] == [0, 3, 3, 6, 6, 8, 8, 8]
    limited = Tuning(TuneSettings("top-4", unfreeze_every=1))
    assert [limited.blocks_that_learn(8, epoch) for epoch in range(6)] == [1, 2, 3, 4, 4, 4]
    names, _ = trained(TuneSettings(unfreeze_every=1), epoch=1)
    assert {int(name.split(".")[2]) for name in names - statistics(names) - HEAD} == {2, 3}


def test_freezing_again_drops_the_gradient() -> None:
    model, tuning = small_model(FOUR), Tuning(TuneSettings(), freeze_encoder=1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert tuning.begin_epoch(model, 0)
    assert not tuning.begin_epoch(model, 0)  # nothing changed
    assert all(p.grad is None for p in model.encoder.parameters()) and model.decoder.bias.grad is not None
    assert tuning.begin_epoch(model, 1) and all(p.requires_grad for p in model.parameters())


def test_statistics_hold_still_after_an_evaluation_too(tmp_path: Path) -> None:
    """The loop evaluates in the middle of an epoch and goes on; frozen statistics must stay frozen."""
    model = small_model(FOUR)
    tuning = Tuning(TuneSettings(batchnorm="frozen"))
    before = copy.deepcopy(model.state_dict())
    settings = TrainSettings(
        steps=4,
        evaluate_steps=1,
        tune=tuning.settings,
        optim=OptimSettings(lr=0.01),
        schedule=ScheduleSettings("constant", 0.0),
    )
    fit(model, Endless(batch_of(model)), settings, task_of(model, tuning), tmp_path)
    names = moved(model, before)
    assert (
        not statistics(names) and not scale_and_shift(names) and "encoder.blocks.0.layers.0.pointwise.weight" in names
    )


class Endless(torch.utils.data.DataLoader):
    """The same batch again and again, two to an epoch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        super().__init__([0, 1], batch_sampler=EverySecond(), collate_fn=lambda _: batch)


class EverySecond:
    def set_epoch(self, epoch: int) -> None: ...

    def start_at(self, batch: int) -> None:
        self.start = batch

    def __len__(self) -> int:
        return 2

    def __iter__(self):
        return iter([[0], [1]][self.start :])


def task_of(model: QuartzNet, tuning: Tuning) -> Task:
    from quartznet.task import DevResult

    return Task(
        loss=recognition_loss(AugmentSettings(cutout_masks=0)),
        evaluate=lambda model, stop: DevResult(1.0, 1.0, 1.0, []),
        seconds=lambda batch: batch.seconds(16000),
        identity={"model_config": {}},
        tuning=tuning,
    )


def test_rates_fall_with_depth(tmp_path: Path) -> None:
    model = small_model(FOUR)
    groups = parameter_groups(model, 0.5)
    assert [group["scale"] for group in groups] == [1.0, 0.5, 0.25, 0.125]
    by_scale = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    assert len(by_scale) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        block = 3 if name.startswith("decoder.") else int(name.split(".")[2])
        assert by_scale[id(parameter)] == 0.5 ** (3 - block)
    assert [group["scale"] for group in parameter_groups(model, 1.0)] == [1.0]
    tuning = Tuning(TuneSettings(layer_decay=0.5))
    optim = OptimSettings(lr=0.01, weight_decay=0.0)
    settings = TrainSettings(steps=1, tune=tuning.settings, optim=optim, schedule=ScheduleSettings("constant", 0.0))
    before = copy.deepcopy(model.state_dict())
    fit(model, Endless(batch_of(model)), settings, task_of(model, tuning), tmp_path)
    for block, scale in ((0, 0.125), (3, 1.0)):  # the first NovoGrad step has length lr
        name = f"encoder.blocks.{block}.layers.0.{'conv' if block == 3 else 'pointwise'}.weight"
        assert (model.state_dict()[name] - before[name]).norm().item() == pytest.approx(0.01 * scale, rel=1e-4)
    with pytest.raises(ValueError, match=r"was trained with tune.layer_decay 0.5, which cannot change now"):
        fit(model, Endless(batch_of(model)), replace(settings, tune=TuneSettings()), task_of(model, tuning), tmp_path)


def test_a_run_from_before_there_were_tune_settings_goes_on(tmp_path: Path) -> None:
    model = small_model(FOUR)
    tuning = Tuning(TuneSettings())
    settings = TrainSettings(steps=1, optim=OptimSettings(lr=0.01), schedule=ScheduleSettings("constant", 0.0))
    fit(model, Endless(batch_of(model)), settings, task_of(model, tuning), tmp_path)
    payload = torch.load(tmp_path / "last.pt", weights_only=True)
    del payload["train"]["settings"]["tune"], payload["train"]["state"]["watched"]
    torch.save(payload, tmp_path / "last.pt")
    state, _ = fit(model, Endless(batch_of(model)), replace(settings, steps=2), task_of(model, tuning), tmp_path)
    assert state.step == 2


def test_another_insertion_cannot_continue_a_run(tmp_path: Path) -> None:
    model = small_model(FOUR)
    tuning = Tuning(TuneSettings())
    settings = TrainSettings(steps=1, optim=OptimSettings(lr=0.01), schedule=ScheduleSettings("constant", 0.0))
    fit(model, Endless(batch_of(model)), settings, task_of(model, tuning), tmp_path)
    other = replace(task_of(model, tuning), identity={"model_config": {}, "insert": {"kind": "lora"}})
    with pytest.raises(ValueError, match=r"has nothing added to the network, this run would have {'kind': 'lora'}"):
        fit(model, Endless(batch_of(model)), replace(settings, steps=2), other, tmp_path)


def test_counts_what_will_learn() -> None:
    model = small_model(FOUR)
    total = sum(parameter.numel() for parameter in model.encoder.parameters())
    head = sum(parameter.numel() for parameter in model.decoder.parameters())
    assert Tuning(TuneSettings(unfreeze_every=3), 5).count(model, 14) == (total, head)
    assert Tuning(TuneSettings("head")).count(model, 9) == (0, head)
    norms = sum(p.numel() for _, norm in batch_norms(model) for p in norm.parameters())
    assert Tuning(TuneSettings("bn")).count(model, 0) == (norms, head)
    assert Tuning(TuneSettings(), 5).count(model, 4) == (0, head)  # a run that ends before the encoder thaws


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(ValueError, match="top-5: the encoder has 4 blocks; use all, or top-1 to top-4"):
        Tuning(TuneSettings("top-5")).insert(small_model(FOUR))


def test_a_network_with_adapters_is_not_plain() -> None:
    model = small_model(FOUR)
    assert plain(model) is model
    Tuning(TuneSettings("adapters")).insert(model)
    with pytest.raises(ValueError, match="adapters after the blocks cannot become part of a plain network"):
        plain(model)
