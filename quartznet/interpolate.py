"""Between the base and the tuned network: one line of weights, scored at several places (WiSE-FT, arXiv:2109.01903).

    python -m quartznet.interpolate runs/es --data es --watch en=english/test.jsonl --out es-half.pt

    w(alpha) = (1 - alpha) w_base + alpha w_tuned

alpha = 0 is the network before fine-tuning, its output layer carried over to the new letters (``quartznet.head``),
alpha = 1 the tuned one, both bit for bit. In between the new language often loses little while the old one comes back.

The surprise: averaged batch-norm statistics fit neither network, because the activations of averaged weights are not
the average of activations. So for every alpha in between they are measured anew on training clips; not where
both ends have the same, because batch norm was frozen.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.clips import read_other
from data.loaders import evaluation_loader
from data.source import read_source
from quartznet import commandline, load_model
from quartznet.alphabet import Alphabet
from quartznet.batch import Batch
from quartznet.checkpoint import load_checkpoint, save_checkpoint
from quartznet.config import TrainSettings
from quartznet.distributed import choose_device
from quartznet.finetune import batch_norms, plain
from quartznet.head import plan_head, transfer_head
from quartznet.initial import Base, read_base
from quartznet.model import QuartzNet
from quartznet.old_speech import watched_sets
from quartznet.recognition import recognise, summarise
from quartznet.settings import to_dict
from quartznet.text import Language, find_language, language_from_texts
from quartznet.tune_config import KeepSettings
from quartznet.watch import WatchedSet, watcher


def interpolated(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """``(1 - alpha) base + alpha tuned`` for every floating-point tensor; others, and all at alpha 1, are the tuned.

    Raises:
        ValueError: the two have not the same tensors.
    """
    different = [name for name in {*base, *tuned} if name not in base or name not in tuned]
    different += [name for name in base if name in tuned and base[name].shape != tuned[name].shape]
    if different:
        raise ValueError(f"base and tuned network differ in more than values: {', '.join(sorted(different)[:3])}")
    if alpha in (0.0, 1.0):
        return {name: (base if alpha == 0.0 else tuned)[name].clone() for name in tuned}
    return {
        name: torch.lerp(base[name], value, alpha) if value.is_floating_point() else value.clone()
        for name, value in tuned.items()
    }


@torch.no_grad()
def measure_batch_norm(model: QuartzNet, batches: Iterable[Batch]) -> None:
    """Sets every batch norm's running mean and variance to their averages over ``batches``, each batch alike.

    Raises:
        ValueError: there is no batch with a clip in it.
    """
    norms = [norm for _, norm in batch_norms(model)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of all batches
    model.eval()
    for norm in norms:
        norm.train()  # and nothing else: no dropout, no dither
    seen = 0
    for batch in batches:
        if len(batch):
            batch = batch.to(model.device)
            model.encode(*model.front_end.each(batch.signal, batch.signal_lengths))
            seen += 1
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    model.eval()
    if not seen:
        raise ValueError("no training clip could be loaded, so batch norm cannot be measured")


def base_for(tuned: QuartzNet, base: Base) -> dict[str, Tensor]:
    """The base's weights with its output layer carried over to the letters of ``tuned``."""
    if "decoder.weight" not in base.weights:
        raise ValueError(f"{base.path} has no output layer, so there is nothing to interpolate it with")
    carried = transfer_head(base.weights, plan_head(base.config.labels, tuned.config.labels))
    return {**base.weights, **carried}


def batches_of(path: str, split: str, model: QuartzNet, language: Language, seconds: float) -> Iterable[Batch]:
    """Batches of one part of a corpus, about ``seconds`` of it at most, spread evenly."""
    clips, skipped = read_other(path, language.restricted_to(model.config.labels), split)
    if skipped:
        print(f"{len(skipped)} clips of {path} left out; the first: {skipped[0]}")
    total = sum(clip.duration for clip in clips)
    clips = clips[:: max(1, math.ceil(total / seconds))]
    rate, shortest = model.config.features.sample_rate, model.front_end.shortest
    return evaluation_loader(clips, Alphabet(model.config.labels), rate, 80.0, shortest=shortest)


@dataclass(frozen=True)
class Line:
    """The two ends and what is measured on the way between them."""

    model: QuartzNet  # filled with the weights of one alpha after the other
    start: dict[str, Tensor]
    end: dict[str, Tensor]
    train: Iterable[Batch]  # for batch norm
    dev: Iterable[Batch]
    watched: list[WatchedSet]

    def go_to(self, alpha: float) -> None:
        """Fills the model; in between the ends its batch norms are measured, unless the tuning left them alone."""
        self.model.load_state_dict(interpolated(self.start, self.end, alpha))
        statistics = [name for name in self.start if name.endswith(("running_mean", "running_var"))]
        have_moved = any(not torch.equal(self.start[name], self.end[name]) for name in statistics)
        if 0.0 < alpha < 1.0 and have_moved:
            measure_batch_norm(self.model, self.train)

    def scores(self) -> tuple[float, float, list[float]]:
        """WER and CER on dev, and the WER of each watched set."""
        rows, skipped = recognise(self.model, self.dev)
        if not rows:
            raise ValueError(f"no dev clip could be loaded; the first problem: {(skipped or ['none'])[0]}")
        result = summarise(rows)
        watched = watcher(self.watched)(self.model, lambda: False) or {}
        return result.wer, result.cer, [wer for wer, _ in watched.values()]


def sweep(line: Line, alphas: Sequence[float]) -> float:
    """Prints a table of all alphas; returns the one with the least dev WER, then CER."""
    names = "".join(f"{watched.name[-15:]:>17}" for watched in line.watched)
    print(f"{'alpha':>6}{'dev WER':>11}{'dev CER':>10}{names}")
    results = []
    for alpha in alphas:
        line.go_to(alpha)
        wer, cer, watched = line.scores()
        rates = "".join(f"{100 * rate:>15.2f} %" for rate in watched)
        print(f"{alpha:>6.2f}{100 * wer:>9.2f} %{100 * cer:>8.2f} %{rates}", flush=True)
        results.append((wer, cer, alpha))
    return min(results)[2]


def open_line(options: argparse.Namespace) -> tuple[Line, str]:
    """The line that the command asks for, and the language."""
    payload = load_checkpoint(options.tuned)
    path = options.base or payload.get("init")
    if path is None:
        raise ValueError(f"{options.tuned} does not say what it began with; name it with --base CHECKPOINT")
    tuned, base = plain(load_model(options.tuned)), read_base(path)
    expected = payload.get("base_sha256")
    if expected not in (None, base.fingerprint):
        raise ValueError(f"{path} is not the network that {options.tuned} began with; name that one with --base")
    lang = options.lang or payload.get("lang")
    if lang is None:
        raise ValueError(f"{options.tuned} does not say its language; give it with --lang")
    end = {name: value.clone() for name, value in tuned.state_dict().items()}
    model = tuned.to(choose_device(options.device))
    texts = [clip.text for clip in read_source(options.data, "train")[0]]
    new = find_language(lang) or language_from_texts(lang, texts)
    train = batches_of(options.data, "train", model, new, 60 * options.minutes)
    dev = batches_of(options.data, "dev", model, new, math.inf)
    settings = TrainSettings(lang=lang, keep=KeepSettings(watch=tuple(options.watch)))
    watched = watched_sets(model, settings, base, new)
    return Line(model, base_for(tuned, base), end, train, dev, watched), lang


def run(options: argparse.Namespace) -> None:
    """Sweeps, and saves the network at the best alpha or the one that was asked for."""
    line, lang = open_line(options)
    best = sweep(line, options.alphas)
    if options.out:
        alpha = best if options.alpha is None else options.alpha
        line.go_to(alpha)
        weights = {name: value.cpu() for name, value in line.model.state_dict().items()}
        save_checkpoint(options.out, {"model_config": to_dict(line.model.config), "weights": weights, "lang": lang})
        print(f"{options.out}: alpha {alpha:g}")


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"alpha goes from 0 (base) to 1 (tuned), got {text}")
    return value


def amount(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"there must be some speech to measure batch norm on, got {text} minutes")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""
    parser = commandline.Parser(prog="python -m quartznet.interpolate", description=__doc__.split("\n")[0])
    parser.add_argument("tuned", help="run folder of train.py --init, or its best.pt")
    parser.add_argument(
        "--data", required=True, help="corpus of the new language: train for batch norm, dev for scores"
    )
    parser.add_argument("--base", help="the checkpoint it began with, where that has moved")
    parser.add_argument("--watch", nargs="+", default=[], metavar="NAME=MANIFEST", help="other sets to score")
    parser.add_argument("--alphas", nargs="+", type=share, default=[i / 5 for i in range(6)], help="0 0.2 ... 1")
    parser.add_argument("--minutes", type=amount, default=5.0, help="training speech for batch norm (5)")
    parser.add_argument("--out", help="save the network with the least dev WER")
    parser.add_argument("--alpha", type=share, help="save this one instead")
    parser.add_argument("--lang", help="text rules; those of the run when left out")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return commandline.run(lambda: run(commandline.parse(parser, arguments)))


if __name__ == "__main__":
    sys.exit(main())
