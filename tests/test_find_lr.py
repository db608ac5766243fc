"""The range test: toy problems whose best rate is known, a caller whose model stays as it was, and a whole run."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import test_engine
import tones
import torch
from test_engine import ToyBatch, ToyModel, loader_of, settings_for, task_for
from torch import Tensor, nn

import train
from quartznet import distributed, find_lr
from quartznet.config import OptimSettings, TrainSettings
from quartznet.find_lr import (
    STEPS,
    RateCurve,
    advise,
    curve_table,
    draw_curve,
    find_rate,
    has_exploded,
    rates_to_try,
    steepest_step,
)
from quartznet.task import Task


class Point(nn.Module):
    """A point at ``distance`` from the least loss in each of four directions."""

    def __init__(self, distance: float) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.full((4,), distance))


def square(model: Point, batch: ToyBatch, generator: torch.Generator) -> Tensor:
    return model.place.square().sum().expand(len(batch))


def point_task(loss: object = square) -> Task:
    return Task(loss, lambda model, stop: None, lambda batch: 1.0 * len(batch), {})


def optim(name: str, lr: float = 0.01, **values: object) -> TrainSettings:
    return TrainSettings(device="cpu", optim=OptimSettings(name=name, lr=lr, weight_decay=0.0, **values))


def curve_of(rates: list[float], losses: list[float]) -> RateCurve:
    smoothed = tuple(find_lr.smooth(losses, find_lr.REACH))
    return RateCurve(tuple(rates), tuple(losses), smoothed, advise(rates, losses), "all 100 rates were tried", 0)


def valley(bottom: float) -> tuple[list[float], list[float]]:
    """A loss that is least at the rate ``bottom`` and flat a decade away from it."""
    rates = rates_to_try(0.01)
    return rates, [10.0 - 5.0 * math.exp(-((math.log10(rate / bottom) / 0.4) ** 2)) for rate in rates]


# ---------------------------------------------------------------------------------------------------------------------
# Small parts


def test_rates_by_hand() -> None:
    rates = rates_to_try(0.001)
    assert len(rates) == STEPS == 100
    assert rates[0] == pytest.approx(1e-6) and rates[-1] == pytest.approx(0.1)
    assert rates[50] / rates[49] == pytest.approx(10 ** (5 / 99))


@pytest.mark.parametrize("bottom", [0.0003, 0.002, 0.05])
def test_advice_is_a_tenth_of_the_rate_of_the_least_loss(bottom: float) -> None:
    rates, losses = valley(bottom)
    advice = advise(rates, losses)
    assert bottom / 2 < advice.at_minimum < bottom  # nearly least: the nearer side of a flat bottom
    assert advice.suggestion == pytest.approx(advice.at_minimum / 10, rel=0.05)
    assert advice.steepest < advice.at_minimum and "tenth" in advice.reason
    shifted = advise(rates, [loss - 100.0 for loss in losses])  # losses of sequence training may be negative
    assert (shifted.suggestion, shifted.at_minimum) == (advice.suggestion, advice.at_minimum)


def test_a_flat_bottom_means_its_first_rate() -> None:
    rates = rates_to_try(0.01)
    losses = [10.0] * 40 + [10.0 - 0.2 * step for step in range(1, 21)] + [6.0 - 1e-4 * step for step in range(40)]
    advice = advise(rates, losses)
    assert rates.index(advice.at_minimum) == pytest.approx(60, abs=3)
    assert rates[40] < advice.steepest < rates[60]
    assert steepest_step(rates, losses) == pytest.approx(50, abs=8)


def test_no_advice_without_a_fall() -> None:
    rates = rates_to_try(0.01)
    noise = torch.randn(100, generator=torch.Generator().manual_seed(1)).tolist()
    for losses in ([10.0] * 100, [10.0 + 0.1 * step for step in range(100)], [10.0 + x for x in noise]):
        advice = advise(rates, losses)
        assert advice.suggestion is None and "no rate shows to be good" in advice.reason
    assert "6 steps say nothing" in advise(rates[:6], [1.0] * 6).reason


def test_a_loss_that_still_falls_at_the_end_says_so() -> None:
    rates = rates_to_try(0.01)
    advice = advise(
        rates, [1000.0 / (1 + 1e3 * rate) for rate in rates[:60]] + [1.0 - 5.0 * step for step in range(40)]
    )
    assert "it still falls at the highest rate tried" in advice.reason


def test_explosion_by_hand() -> None:
    assert not has_exploded([5.0])
    assert not has_exploded([5.0, 4.0, 3.0, 2.0, 1.0, 4.0])  # the mean of the last four is 2.5
    assert not has_exploded([10.0, 1.0, 1.0, 1.0, 1.0, 12.0, 12.0])  # 6.5, above four times the best, below the start
    assert has_exploded([10.0, 1.0, 1.0, 1.0, 1.0, 50.0])
    assert not has_exploded([-1.0, -1.1, -1.0, -0.9])  # twice |best| above the best is far from here
    assert has_exploded([-1.0, -1.0, -1.0, 20.0])


# ---------------------------------------------------------------------------------------------------------------------
# Toy problems


@pytest.mark.parametrize("distance", [0.1, 10.0])
@pytest.mark.parametrize(
    ("name", "betas", "length"), [("adamw", (0.0, 0.0), 1.0), ("novograd", (0.0, 0.0), 2.0)], ids=["adamw", "novograd"]
)
def test_a_quadratic_loss_is_least_where_the_steps_add_up_to_the_distance(
    name: str, betas: tuple[float, float], length: float, distance: float, tmp_path: Path
) -> None:
    """Without momentum AdamW moves each weight by the rate, and NovoGrad the whole point (four weights, so half each).

    Rates grow by q = 10^(5/99) a step, so all steps up to rate r add up to r q / (q - 1) = 9.1 r.
    """
    growth = 10 ** (5 / 99)
    expected = length * distance * (growth - 1) / growth
    settings = optim(name, lr=0.1 * distance, betas=betas)
    curve = find_rate(Point(distance), loader_of(), settings, point_task(), tmp_path)
    assert expected / 2 < curve.advice.at_minimum < 2 * expected
    assert expected / 20 < curve.advice.suggestion < expected / 5


def test_a_loss_that_explodes_ends_early(tmp_path: Path) -> None:
    def exploding(model: Point, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        return (0.01 + model.place.square().sum()).expand(len(batch))

    curve = find_rate(Point(0.001), loader_of(), optim("adamw", 0.1, betas=(0.0, 0.0)), point_task(exploding), tmp_path)
    assert 50 < len(curve.rates) < 80 and "the loss exploded at rate" in curve.ended
    assert curve.losses[-1] > 0.04 and "the loss exploded" in curve_table(curve, 0.01)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_test(broken: float, tmp_path: Path) -> None:
    def fragile(model: Point, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        return square(model, batch, generator) + (broken if model.place[0] < 0.5 else 0.0)

    curve = find_rate(Point(1.0), loader_of(), optim("adamw"), point_task(fragile), tmp_path)
    assert 30 < len(curve.rates) < STEPS and curve.ended.startswith(f"the loss is {broken}")
    assert all(map(math.isfinite, curve.losses))
    with pytest.raises(ValueError, match=r"at the first and lowest rate, 1e-05: not the rate is at fault.*clip"):
        find_rate(Point(0.1), loader_of(), optim("adamw"), point_task(fragile), tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# The caller


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_callers_model_and_generators_stay_as_they_were(precision: str, tmp_path: Path) -> None:
    model, settings = ToyModel(), settings_for(precision=precision)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    curves = [find_rate(model, loader_of(), settings, task_for(model), tmp_path) for _ in range(2)]
    assert torch.equal(random_state, torch.get_rng_state())
    assert test_engine.same(before, model.state_dict()) and not model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert curves[0] == curves[1]  # dropout, noise and batches are drawn anew from the seed
    torch.randn(3)
    assert find_rate(model, loader_of(), settings, task_for(model), tmp_path) == curves[0]
    other = find_rate(model, loader_of(), replace(settings, seed=1), task_for(model), tmp_path)
    assert other.losses != curves[0].losses


def test_the_run_after_the_test_is_the_run_without_it(tmp_path: Path) -> None:
    plain = test_engine.train(tmp_path / "plain", settings_for())
    torch.manual_seed(0)
    model, loader = ToyModel(), loader_of()
    find_rate(model, loader, settings_for(), task_for(model), tmp_path / "tested")
    test_engine.fit(model, loader, settings_for(), task_for(model), tmp_path / "tested")
    assert test_engine.same(plain.state_dict(), model.state_dict())


def test_a_frozen_encoder_is_frozen_in_the_copy_too(tmp_path: Path) -> None:
    model = ToyModel()
    settings, task = settings_for(), replace(task_for(model), tuning=test_engine.FrozenFirst())
    training = find_lr.throw_away_training(model, settings, task)
    find_lr.range_test(training, loader_of(), settings, task)
    for name, parameter in training.model.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)) == name.startswith("encoder"), name
    assert not torch.equal(training.model.encoder[1].running_mean, model.encoder[1].running_mean)


def test_groups_with_a_share_of_the_rate_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = ToyModel(), settings_for()
    training = find_lr.throw_away_training(model, settings, task_for(model))
    [whole] = training.optimizer.param_groups
    training.optimizer.param_groups = [
        {**whole, "params": [parameter], "scale": share}
        for parameter, share in zip(whole["params"], (0.0, *[1.0] * 5), strict=True)
    ]
    first = whole["params"][0].clone()
    curve = find_lr.range_test(training, loader_of(), settings, task_for(model))
    assert torch.equal(first, training.optimizer.param_groups[0]["params"][0])
    assert {group["lr"] for group in training.optimizer.param_groups[1:]} == {curve.rates[-1]}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_accumulated_batches_are_one_step(accumulate: int, tmp_path: Path) -> None:
    sizes = []

    def counting(model: Point, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        sizes.append(len(batch))
        return square(model, batch, generator)

    settings = optim("adamw", accumulate=accumulate)
    curve = find_rate(Point(1e6), loader_of(2), settings, point_task(counting), tmp_path)
    assert len(curve.rates) == STEPS
    # seven clips are four batches, 2 2 2 1; a step does not reach over the end of an epoch
    assert sizes == ([2, 2, 2, 1] * 25 if accumulate == 1 else [2, 2, 2, 1] * 50)
    assert curve.losses[0] == pytest.approx(4e12)  # per second, whatever the size


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="--find-lr is for one process; run it without torchrun"):
        find_rate(Point(1.0), loader_of(), optim("adamw"), point_task(), tmp_path)


class Loader:
    """Batches as they are, every epoch the same."""

    dataset = None

    def __init__(self, batches: list[ToyBatch]) -> None:
        self.batches, self.batch_sampler = batches, self

    def set_epoch(self, epoch: int) -> None:
        pass

    def start_at(self, batch: int) -> None:
        pass

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[ToyBatch]:
        return iter(self.batches)


def batch_of(names: list[str], skipped: list[str]) -> ToyBatch:
    return ToyBatch(torch.zeros(len(names), 1, 6), torch.zeros(len(names)), names, skipped)


def test_clips_that_do_not_load_are_counted_or_end_the_test(tmp_path: Path) -> None:
    bad, good = batch_of([], ["a.wav: no sound"]), batch_of(["b"], ["c.wav: no sound"])
    curve = find_rate(Point(1e6), Loader([bad, good]), optim("adamw"), point_task(), tmp_path)
    assert len(curve.rates) == STEPS and curve.clips_left_out == 2 * STEPS
    assert "clips left out because they could not be loaded: 200" in curve_table(curve, 0.01)
    with pytest.raises(ValueError, match=r"of 10 steps in a row no clip could be loaded; the last problem: a\.wav"):
        find_rate(Point(1.0), Loader([bad]), optim("adamw"), point_task(), tmp_path)
    with pytest.raises(ValueError, match="there is not a single batch to train on"):
        find_rate(Point(1.0), Loader([]), optim("adamw"), point_task(), tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# How it looks


def test_table_and_picture(tmp_path: Path) -> None:
    rates, losses = valley(0.002)
    lines = curve_table(curve_of(rates, losses), 0.01).splitlines()
    assert max(map(len, lines)) <= 80 and lines[-1].startswith("try --optim.lr 0.00")
    plot = [line[12:] for line in lines if line[10:12] == " |"]
    assert len(plot) == 12 and plot[0].startswith("*") and sum(":" in row for row in plot) >= 10
    bottom = plot[-1].index("*")
    assert plot[0].index("*") < bottom < max(row.rindex("*") for row in plot)
    for tick in ("1e-05", "1e-04", "1e-03", "1e-02", "1e-01", "1e+00"):
        assert tick in "\n".join(lines)
    draw_curve(curve_of(rates, losses), 0.01, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "losses",
    [
        [5.0],
        [5.0] * 100,
        [0.0] * 50 + [1.0] * 50,
        [10.0] * 99 + [1e30],
        [-1e30] * 50 + [1.0] * 50,
        [-1.0 - 0.01 * step for step in range(100)],
    ],
    ids=["one", "flat", "from zero", "explosion", "huge", "negative"],
)
def test_odd_curves_have_a_picture_too(losses: list[float], tmp_path: Path) -> None:
    curve = curve_of(rates_to_try(0.01)[: len(losses)], losses)
    text = curve_table(curve, 0.01)
    assert max(map(len, text.splitlines())) <= 80 and "*" in text
    assert ("no advice: " in text) == (curve.advice.suggestion is None)
    draw_curve(curve, 0.01, tmp_path / "curve.png")


def test_train_finds_a_rate_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from test_train import english

    init, manifest, out = english(tmp_path / "en.pt"), tones.write_corpus(tmp_path), tmp_path / "run"
    arguments = ["--init", str(init), "--lang", "es", "--train", str(manifest), "--dev", str(manifest)]
    arguments += ["--device", "cpu", "--data.workers", "0", "--out", str(out), "--optim.lr", "0.002"]
    assert train.main([*arguments, "--find-lr"]) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "find_lr.json").read_text(encoding="utf-8"))
    assert f"try --optim.lr {found['advice']['suggestion']:g} (a tenth of" in " ".join(printed.split())
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"]) > 50
    assert found["rates"][0] == pytest.approx(2e-6)
    lines = printed[printed.index("step  10 of 100") :].splitlines()
    assert lines[9].startswith("step 100 of 100") and lines[10].startswith(f"curve: {out / 'find_lr.png'}")
    assert max(map(len, lines[:10] + lines[11:])) <= 80
    assert {path.name for path in out.iterdir()} == {"find_lr.json", "find_lr.png", "skipped.txt"}
    assert train.main([*arguments, "--find-lr", "--optim.lr", "0"]) == 2
