"""Training equals NeMo's: losses, rates, gradients and weights of ten steps of the real NeMo from the same weights.

The golden file comes from ``golden/make_nemo_training.py``: padded batches that change in every step, batch norm in
training mode, a text that does not fit its frames, and in the case ``grouped`` two batches in a step. Here the loss and
the step of ``train.py`` are run, without dither and augmentation.
"""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from quartznet.batch import Batch
from quartznet.config import AugmentSettings, OptimSettings, ScheduleSettings, TrainSettings
from quartznet.model import QuartzNet
from quartznet.nemo import load_nemo
from quartznet.nemo_keys import weight_table
from quartznet.optim import build_optimizer
from quartznet.recognition import recognition_loss
from quartznet.runstate import Training, TrainState
from quartznet.schedules import learning_rate
from quartznet.step import LossModule, add_gradients, train_step
from quartznet.task import Task

GOLDEN = Path(__file__).parent / "golden"
SCHEDULE = ScheduleSettings(warmup_steps=2)
STEPS, KEPT = 10, 3  # of the schedule; after how many the weights were stored
CASES = {  # model, betas, batches in a step
    "plain": ("plain", (0.8, 0.5), 1),
    "slow": ("plain", (0.95, 0.25), 1),
    "grouped": ("grouped", (0.8, 0.5), 2),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, numpy.ndarray]:
    with numpy.load(GOLDEN / "nemo_training.npz") as arrays:
        return dict(arrays)


def cut(golden: dict[str, numpy.ndarray], clips: list[int]) -> Batch:
    """The batch of ``clips``, padded to its own longest clip and text."""
    lengths, counts = (torch.tensor(golden[name][clips]) for name in ("lengths", "target_lengths"))
    signal = torch.tensor(golden["signal"][clips]).float()[:, : int(lengths.max())] / 32768
    targets = torch.tensor(golden["targets"][clips])[:, : int(counts.max())]
    return Batch(signal, lengths, targets, counts, [""] * len(clips), [f"clip {clip}" for clip in clips])


def make_training(case: str) -> tuple[Training, TrainSettings, Task]:
    """A run from the same NeMo file, at its start."""
    name, betas, accumulate = CASES[case]
    optim = OptimSettings(lr=0.01, betas=betas, weight_decay=0.001, accumulate=accumulate)
    settings = TrainSettings(optim=optim, schedule=SCHEDULE, precision="fp32", device="cpu")
    model = load_nemo(GOLDEN / f"nemo_{name}.nemo").train()
    model.front_end.config = replace(model.front_end.config, dither=0.0)
    loss = recognition_loss(AugmentSettings(cutout_masks=0, speeds=()))
    task = Task(loss, lambda model, stop: None, lambda batch: batch.seconds(16000), {})
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer = build_optimizer(model.parameters(), optim)
    return Training(model, optimizer, scaler, None, torch.Generator(), TrainState()), settings, task


def batches_of(golden: dict[str, numpy.ndarray], case: str, step: int) -> list[Batch]:
    clips, accumulate = golden[f"{case}_clips"].tolist(), CASES[case][2]
    return [cut(golden, clips[index % len(clips)]) for index in range(step * accumulate, (step + 1) * accumulate)]


def run_step(training: Training, settings: TrainSettings, task: Task, batches: list[Batch], step: int) -> float:
    """One step as in ``fit``; returns the mean loss."""
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(step, STEPS, settings.schedule, settings.optim.lr)
    wrapped = LossModule(training.model, task.loss)
    report = train_step(training, wrapped, batches, settings, task.seconds, lambda: [0.0, 0.0])
    assert not report.problem
    return report.loss_sum / report.utterances


def assert_equal_tensors(
    model: QuartzNet, ours: dict[str, Tensor], golden: dict[str, numpy.ndarray], prefix: str, tolerance: float
) -> None:
    """Every tensor of NeMo's under ``prefix`` has one of ``ours`` within ``tolerance`` of its largest number."""
    entries = [entry for entry in weight_table(model.config) if entry.ours in ours]
    assert {prefix + entry.theirs for entry in entries} == {name for name in golden if name.startswith(prefix)}
    for entry in entries:
        expected = torch.tensor(golden[prefix + entry.theirs])
        found = ours[entry.ours].reshape(entry.their_shape)
        limit = tolerance * expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=limit, msg=lambda text, n=entry.theirs: f"{n}: {text}")


@pytest.mark.parametrize("case", CASES)
def test_first_gradient(golden: dict[str, numpy.ndarray], case: str) -> None:
    training, _, task = make_training(case)
    batches = batches_of(golden, case, 0)
    losses, _ = add_gradients(
        training, LossModule(training.model, task.loss), batches, torch.float32, sum(map(len, batches))
    )
    expected = golden[f"{case}_losses"][: len(batches)].mean()
    assert losses.mean().item() == pytest.approx(expected, rel=5e-6)
    # Seen: 5e-6. CTC adds and subtracts logarithms as large as the loss (30), each rounded to 2^-24 of itself.
    gradients = {name: parameter.grad for name, parameter in training.model.named_parameters()}
    assert_equal_tensors(training.model, gradients, golden, f"{case}_gradient_", 2e-5)


@pytest.mark.parametrize("case", CASES)
def test_ten_steps(golden: dict[str, numpy.ndarray], case: str) -> None:
    training, settings, task = make_training(case)
    losses = golden[f"{case}_losses"].reshape(STEPS, -1).mean(1)  # over the batches of a step, which are equally large
    for step in range(STEPS):
        loss = run_step(training, settings, task, batches_of(golden, case, step), step)
        assert loss == pytest.approx(losses[step], rel=5e-6), f"step {step}"  # seen: 1.1e-6 in fp32, and it grows
        assert training.optimizer.param_groups[0]["lr"] == pytest.approx(golden[f"{case}_rates"][step], rel=1e-12)
        if step + 1 == KEPT:
            state = {name: value for name, value in training.model.state_dict().items() if "front_end" not in name}
            # Weights, running means, running variances and counters; seen: 3.6e-7, a few roundings of fp32.
            assert_equal_tensors(training.model, state, golden, f"{case}_state_", 4e-6)


def test_the_text_without_a_path_costs_nothing_but_counts(golden: dict[str, numpy.ndarray]) -> None:
    training, _, task = make_training("plain")
    batch = cut(golden, [1, 2, 3])
    losses = LossModule(training.model, task.loss)(batch, training.generator)
    assert losses[2] == 0 and (losses[:2] > 5).all()
