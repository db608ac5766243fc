"""Writes ``nemo_training.npz`` for ``tests/test_nemo_training.py``: what the real NeMo does in ten steps of training.

Run by hand, in the environment of ``make_nemo.py`` and after it, never in a test::

    python tests/golden/make_nemo_training.py

NeMo's model class, Lightning's trainer, NovoGrad, CosineAnnealing and the CTC loss are all the real ones; only the data
is ours: four noisy tones of different lengths, in padded batches that change from step to step. The surprise is the
last clip's text: six letters for seven output frames, but equal neighbours need five blanks between them, so no path
has this text; its loss is infinite, NeMo counts it as zero and still divides by the whole batch.
"""

from pathlib import Path

import lightning.pytorch as pl
import numpy
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import open_dict

FOLDER = Path(__file__).resolve().parent
LENGTHS = numpy.array([8000, 5037, 6500, 2240])  # samples
TARGETS = [[1, 2, 3, 0, 4, 4, 5], [2, 1, 1], [6, 0, 5, 3], [1, 1, 1, 1, 1, 1]]
CASES = {  # model, betas, clips of the batches of step 0, 1, ... in turn, batches in a step
    "plain": ("plain", [0.8, 0.5], [[0, 1, 2], [1, 2, 3], [3, 0, 1]], 1),
    "slow": ("plain", [0.95, 0.25], [[0, 1, 2], [1, 2, 3], [3, 0, 1]], 1),
    "grouped": ("grouped", [0.8, 0.5], [[0, 1], [2, 3], [1, 2], [3, 0]], 2),
}
STEPS = 10  # of the schedule; all of them are run
KEPT = 3  # the weights after this many steps are stored


def signal() -> numpy.ndarray:
    """Four noisy tones as 16-bit integers ``(4, 8000)``, zero beyond each length."""
    time = numpy.arange(8000) / 16000
    noise = numpy.random.default_rng(1).normal(size=(4, 8000))
    waves = numpy.sin(2 * numpy.pi * time * (numpy.array([300, 700, 1500, 2600])[:, None] + 900 * time))
    return ((4000 * waves + 300 * noise) * (numpy.arange(8000) < LENGTHS[:, None])).astype(numpy.int16)


def collate(samples: numpy.ndarray, clips: list[int]) -> tuple[torch.Tensor, ...]:
    """One batch as NeMo's data layer makes it: padded to its own longest clip and text."""
    lengths, texts = torch.tensor(LENGTHS[clips]), [torch.tensor(TARGETS[clip]) for clip in clips]
    rows = torch.tensor(samples[clips, : int(lengths.max())], dtype=torch.float32) / 32768
    counts = torch.tensor([len(text) for text in texts])
    return rows, lengths, torch.nn.utils.rnn.pad_sequence(texts, batch_first=True), counts


class Recorder(pl.Callback):
    """Keeps the loss of every batch, the rate of every step, the first gradient, and the weights after KEPT steps."""

    def __init__(self, model: EncDecCTCModel) -> None:
        self.losses, self.rates, self.gradient, self.state = [], [], {}, {}
        model.loss.register_forward_hook(lambda module, inputs, loss: self.losses.append(loss.item()))

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: EncDecCTCModel, optimizer: object) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        if trainer.global_step == 0:
            self.gradient = {name: value.grad.clone() for name, value in module.named_parameters()}

    def on_train_batch_end(self, trainer: pl.Trainer, module: EncDecCTCModel, *rest: object) -> None:
        if trainer.global_step == KEPT and not self.state:
            weights = module.state_dict().items()
            self.state = {name: value.clone() for name, value in weights if "featurizer" not in name}


def train(model_name: str, betas: list[float], batches: list[tuple[torch.Tensor, ...]], accumulate: int) -> Recorder:
    """Ten steps of the golden model ``model_name`` over ``batches`` in turn."""
    model = EncDecCTCModel.restore_from(str(FOLDER / f"nemo_{model_name}.nemo"), map_location="cpu")
    model.preprocessor.featurizer.dither = 0.0
    with open_dict(model.cfg):
        schedule = {"name": "CosineAnnealing", "warmup_steps": 2, "max_steps": STEPS, "min_lr": 0.0}
        model.cfg.optim = {"name": "novograd", "lr": 0.01, "betas": betas, "weight_decay": 0.001, "sched": schedule}
    recorder = Recorder(model)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder],
        log_every_n_steps=1000,
    )
    model.set_trainer(trainer)
    everything = [batches[index % len(batches)] for index in range(STEPS * accumulate)]
    loader = torch.utils.data.DataLoader(everything, batch_size=None)
    trainer.fit(model.train(), train_dataloaders=loader)
    return recorder


def main() -> None:
    samples = signal()
    targets = numpy.zeros((len(TARGETS), max(map(len, TARGETS))), dtype=numpy.int64)
    for row, text in zip(targets, TARGETS, strict=True):
        row[: len(text)] = text
    counts = numpy.array([len(text) for text in TARGETS])
    arrays = {"signal": samples, "lengths": LENGTHS, "targets": targets, "target_lengths": counts}
    for name, (model, betas, clips, accumulate) in CASES.items():
        recorder = train(model, betas, [collate(samples, batch) for batch in clips], accumulate)
        arrays |= {f"{name}_losses": recorder.losses, f"{name}_rates": recorder.rates, f"{name}_clips": clips}
        arrays |= {f"{name}_gradient_{key}": value for key, value in recorder.gradient.items()}
        arrays |= {f"{name}_state_{key}": value for key, value in recorder.state.items()}
    numpy.savez_compressed(FOLDER / "nemo_training.npz", **{key: numpy.asarray(value) for key, value in arrays.items()})


if __name__ == "__main__":
    main()
