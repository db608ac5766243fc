"""The ways to train the same network that are measured against each other, and the step that all of them take.

A ``Way`` makes, out of a ``QuartzNet``, the network that is trained in its place: itself with other kernels, a twin
with the same weights, NeMo's encoder. Everything else is what ``train.py`` does: waveforms in page-locked memory, front
end, SpecCutout, network, CTC, NovoGrad, by ``quartznet.step.train_step`` itself.

The first part is all that knows how the product is told to be fast; whoever changes that changes it there alone.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks import gpu_clock
from benchmarks.gpu_clock import Timing
from quartznet import engine
from quartznet.batch import Batch
from quartznet.config import AugmentSettings, ModelConfig, OptimSettings, TrainSettings, preset_blocks
from quartznet.ctc import ctc_losses, greedy_decode
from quartznet.model import QuartzNet
from quartznet.optim import build_optimizer
from quartznet.recognition import recognition_loss
from quartznet.runstate import Training, TrainState
from quartznet.step import LossModule, train_step

ENGLISH = tuple(" abcdefghijklmnopqrstuvwxyz'")
PRECISIONS = ("fp32", "tf32", "bf16")


class NotOffered(Exception):
    """A way that the product refuses, as kernels of one type of numbers for another; said in the table."""


@contextmanager
def refusals() -> Iterator[None]:
    """A ValueError of the product, while a network is prepared, is no failure; why, without advice, fits into a row."""
    try:
        yield
    except ValueError as error:
        raise NotOffered(str(error).removeprefix("kernels triton cannot be used: ").split(";")[0]) from error


@dataclass(frozen=True)
class Way:
    """One way to train; ``prepare`` gets a fresh network on its device and may change it."""

    name: str
    prepare: Callable[[QuartzNet], nn.Module]
    kernels: str = "plain"
    graphs: bool = False  # the step, and the answer to a clip, are recorded for each shape and replayed


# ---------------------------------------------------------------------------------------------------------------------
# What knows the product

OURS = {
    "plain": Way("plain", lambda model: with_kernels(model, "plain")),
    "triton": Way("triton", lambda model: with_kernels(model, "triton"), "triton"),
    "graphs": Way("graphs", lambda model: with_kernels(model, "triton"), "triton", graphs=True),
}


def with_kernels(model: QuartzNet, kernels: str) -> QuartzNet:
    """The network told which kernels to use."""
    return model.use_kernels(kernels)


def our_ways(device: torch.device) -> list[Way]:
    """Ours as it is and, on a GPU, with Triton kernels and with graphs besides, where it has them."""
    names = ["plain"]
    if device.type == "cuda":
        names += ["triton", "graphs"]
    return [OURS[name] for name in names]


def ctc_of(model: nn.Module) -> Callable[..., Tensor]:
    """CTC by a kernel where kernels compute the network, else PyTorch's."""
    if not getattr(model, "fused", False):
        return ctc_losses
    from quartznet import ctc_kernel  # needs Triton

    return ctc_kernel.ctc_losses


def loss_of(model: nn.Module, augment: AugmentSettings) -> Callable[[nn.Module, Batch, torch.Generator], Tensor]:
    """The loss of training."""
    return recognition_loss(augment, ctc=ctc_of(model))


def optimizer_of(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """NovoGrad, as two kernels where kernels compute the network."""
    return build_optimizer(model.parameters(), settings, getattr(model, "fused", False))


def gradients_of(way: Way, model: nn.Module, augment: AugmentSettings) -> dict:
    """What ``train_step`` is told of graphs."""
    if not way.graphs:
        return {}
    from quartznet.graphed import TrainGraph

    return {"gradients": TrainGraph(augment, ctc_of(model))}


def recogniser(way: Way, model: QuartzNet, dtype: torch.dtype) -> Callable[[Batch], list[str]]:
    """A batch on the host -> its texts; ``model`` is in evaluation mode."""
    if way.graphs:
        from quartznet.graphed import GraphedRecogniser

        with refusals():
            graphed = GraphedRecogniser(model, dtype)
        return lambda batch: graphed(batch.signal, batch.signal_lengths)
    fast = for_inference(way, model, dtype)

    @torch.inference_mode()
    def answer(batch: Batch) -> list[str]:
        signal, lengths = (x.to(fast.device, non_blocking=True) for x in (batch.signal, batch.signal_lengths))
        return greedy_decode(*fast(signal, lengths), fast.alphabet)

    return answer


def for_inference(way: Way, model: QuartzNet, dtype: torch.dtype) -> QuartzNet:
    """The network in its form for inference."""
    with refusals():
        return model.for_inference(dtype, way.kernels)


def checkpointed(model: nn.Module) -> nn.Module | None:
    """The same network, computing activations again in its backward pass; None where it cannot."""
    if not getattr(model, "fused", False):
        return None
    model.recompute = True
    return model


def batches_of(loader: DataLoader, device: torch.device) -> Iterator[Batch]:
    """One after the other, as the training loop reads them."""
    for [batch] in engine.groups(loader, 1, device):
        yield batch


class Stepper:
    """One training: called with a batch, it takes one step and returns the mean loss of its utterances."""

    def __init__(self, way: Way, model: nn.Module, settings: TrainSettings, seed: int = 0):
        torch.manual_seed(seed)
        self.settings, self.rate = settings, model.config.features.sample_rate
        self.training = Training(
            model=model.train(),
            optimizer=optimizer_of(model, settings.optim),
            scaler=torch.amp.GradScaler(model.device.type, enabled=False),
            average=None,
            generator=torch.Generator().manual_seed(seed),
            state=TrainState(),
        )
        self.wrapped = LossModule(model, loss_of(model, settings.augment))
        self.gradients = gradients_of(way, model, settings.augment)

    def __call__(self, batch: Batch) -> float:
        """Raises RuntimeError for a step that was left out."""
        report = train_step(self.training, self.wrapped, [batch], self.settings, lambda batch: 0.0, lambda: [0.0, 0.0])
        if report.problem:
            raise RuntimeError(f"a step was left out: {report.problem}")
        return report.loss_sum / report.utterances

    def set_rate(self, rate: float) -> None:
        for group in self.training.optimizer.param_groups:
            group["lr"] = rate


@contextmanager
def precision(name: str) -> Iterator[str]:
    """Matrix units for fp32 as ``name`` says, and back; yields the setting of training.

    ``fp32``: none. ``tf32``: for matrix products and convolutions. ``bf16``: autocast, and PyTorch's defaults for what
    stays in fp32. The default of cuDNN is TF32, so ``train.py`` in "fp32" is in between.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    wanted = {"fp32": ("highest", False), "tf32": ("high", True), "bf16": ("highest", True)}[name]
    try:
        torch.set_float32_matmul_precision(wanted[0])
        torch.backends.cudnn.allow_tf32 = wanted[1]
        yield "bf16" if name == "bf16" else "fp32"
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


# ---------------------------------------------------------------------------------------------------------------------
# Random networks


@torch.no_grad()
def with_statistics(model: QuartzNet, batch: Batch) -> QuartzNet:
    """The network in evaluation mode with the batch norms' statistics of ``batch``.

    Those that a random network begins with let a signal vanish on its way: it would answer the same to everything, and
    two such networks would look equal whatever they compute.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(batch.signal, batch.signal_lengths)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return model.eval()


@torch.no_grad()
def speaking(model: QuartzNet, batch: Batch) -> QuartzNet:
    """``with_statistics``, and a bias of the blank with which three frames of four are blank, as in speech."""
    log_probs, _ = with_statistics(model, batch)(batch.signal, batch.signal_lengths)
    lead = log_probs[..., :-1].amax(2) - log_probs[..., -1]
    model.decoder.bias[-1] += lead.flatten().quantile(0.75)
    return model


# ---------------------------------------------------------------------------------------------------------------------
# What all sections share

WAYS = "plain: PyTorch's layers; triton: fused kernels; graphs: these, and CUDA graphs (all; without a GPU plain)"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    clips: tuple[float, ...] = (2.0, 7.0, 16.7)  # s
    padded: tuple[float, ...] = (160.0, 640.0, 2560.0)  # s of a training batch
    most_padded: float = 100_000.0  # s, where the search for the largest batch ends
    copy: int = 2**31  # bytes of the measured copy
    matrix: int = 8192  # rows and columns of the measured product
    rows: tuple[int, ...] = (1, 4, 16, 64, 256)  # clips in a batch of inference
    answers: int = 200  # measured answers to one clip
    recording: float = 600.0  # s of the long file
    dev: int = 500  # clips scored at most
    epoch: float = 36_000.0  # s of audio in the epoch of the real loader, the clips repeated
    patience: float = 40.0  # s after which that epoch ends early


SMALL = Sizes((0.3, 0.6), (0.6, 1.2), 2.4, 2**20, 64, (1, 2), 3, 2.0, 20, 0.0, 10.0)


@dataclass(frozen=True)
class Bench:
    """What every section is handed."""

    device: torch.device
    presets: tuple[str, ...]
    sizes: Sizes
    ways: tuple[Way, ...]
    repeat: int  # measured calls at most
    seconds: float  # that one figure may take
    steps: int  # of the training on real clips
    compiler: str  # of torch.compile; "off": not measured
    full: bool  # every combination
    data: Path | None
    init: Path | None
    lang: str
    workers: int

    def model(self, preset: str) -> QuartzNet:
        """A network with random weights, the same ones each time."""
        torch.manual_seed(0)
        return QuartzNet(ModelConfig(ENGLISH, preset_blocks(preset))).to(self.device)

    def stepper(self, way: Way, preset: str, dtype: str) -> Stepper:
        """A training that has not begun; ``dtype``: what ``precision`` yields. Raises NotOffered."""
        with refusals():
            model = way.prepare(self.model(preset))
        return Stepper(way, model, TrainSettings(precision=dtype))

    def batches(self, clip: float, padded: float, host: bool = True) -> tuple[Batch, Batch]:
        """Two that take turns."""
        labels = len(ENGLISH)
        first, second = (
            gpu_clock.random_batch(clip, padded, labels, self.device, seed, host=host)
            for seed in torch.randint(2**31, (2,)).tolist()
        )
        return first, second

    def measure(self, call: gpu_clock.Call) -> Timing:
        return gpu_clock.measure(call, self.device, self.repeat, self.seconds)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that make a ``Bench``."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="on a CPU sizes are tiny")
    parser.add_argument(
        "--preset",
        nargs="+",
        default=["15x5", "5x3"],
        metavar="NAME",
        help="networks (15x5 5x3); most is measured of the first",
    )
    parser.add_argument("--ways", nargs="+", choices=tuple(OURS), metavar="WAY", help=WAYS)
    parser.add_argument("--repeat", type=int, default=20, help="measured calls of each figure at most (20)")
    parser.add_argument("--cell-seconds", type=float, default=1.5, help="that one figure may take, or 3 calls (1.5)")
    parser.add_argument("--batches", type=int, default=200, help="steps on real clips (200)")
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile, or off (inductor)")
    parser.add_argument("--full", action="store_true", help="every combination of precision, clip and batch")
    parser.add_argument("--data", type=Path, help="real clips to train on: a manifest or a corpus")
    parser.add_argument("--init", type=Path, help="checkpoint that the training on real clips begins with")
    parser.add_argument("--lang", default="en", help="whose text rules the clips have (en)")
    parser.add_argument("--workers", type=int, default=14, help="processes that load real clips (14)")


def bench_of(options: argparse.Namespace, device: torch.device) -> Bench:
    """Raises ValueError for an unknown preset, counts below 1, or data without a checkpoint; FileNotFoundError."""
    for preset in options.preset:
        preset_blocks(preset)
    if min(options.repeat, options.batches) < 1 or options.cell_seconds <= 0 or options.workers < 0:
        raise ValueError("--repeat and --batches must be at least 1, --cell-seconds above 0, --workers not negative")
    if (options.data is None) != (options.init is None):
        raise ValueError("--data and --init belong together: real clips, and the network that learns from them")
    for name, path in (("data", options.data), ("init", options.init)):
        if path is not None and not path.exists():  # better now than when the other sections are done
            raise FileNotFoundError(f"--{name} {path}: there is no such file or folder; correct the path")
    return Bench(
        device,
        tuple(options.preset),
        Sizes() if device.type == "cuda" else SMALL,
        tuple(OURS[name] for name in options.ways) if options.ways else tuple(our_ways(device)),
        options.repeat,
        options.cell_seconds,
        options.batches,
        options.compiler,
        options.full,
        options.data,
        options.init,
        options.lang,
        options.workers,
    )
