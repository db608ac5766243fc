"""Training of a neural language model: ``python -m quartznet.neural_lm train TEXT... --lang es --out es_lm.pt``.

The text goes through the rules that the transcripts go through, so the letters are the recogniser's. ``--out`` gets the
model that costs the fewest bits a letter on ``--dev``, or on sentences held out of the text. Beside it, in
``es_lm.last.pt``, lies everything that continues the training: the same command again goes on where it stopped, on a
CPU bit for bit. ``python -m quartznet.neural_lm score es_lm.pt TEXT...`` measures a model on another text.

With b bits a letter, the next one is as uncertain as a choice among 2^b. The surprise: text that also holds the
sentences of a test set makes any figure on that set worthless, and no figure shows it. ``--against DATA`` looks for
them, ``--leave-out`` takes them out.
"""

import argparse
import logging
import math
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from quartznet import commandline
from quartznet.checkpoint import random_state, restore_random_state, save_checkpoint
from quartznet.config import OptimSettings, ScheduleSettings
from quartznet.distributed import choose_device
from quartznet.interrupt import Interrupt
from quartznet.letter_lm import LetterLm, read_payload
from quartznet.letter_stream import LetterStream, Segment, hold_out, letter_bits
from quartznet.lm_text import Text, leak_finders, leak_report, rules, without_leaks
from quartznet.optim import build_optimizer
from quartznet.schedules import learning_rate
from quartznet.settings import from_dict, to_dict
from quartznet.step import choose_precision
from quartznet.text import Language
from quartznet.transformer_xl import Memory, TransformerConfig

GRAD_CLIP = 1.0  # largest norm of the gradient
SCHEDULE = ScheduleSettings(name="cosine", warmup_ratio=0.05)
MAY_CHANGE = ("steps", "evaluate_every", "log_every", "device")  # in a run that goes on
SHORT = {name: f"network.{name}" for name in ("layers", "channels", "heads", "memory", "dropout")}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LmSettings:
    """Training of a neural language model."""

    # --- Training
    steps: int = 3000  # updates of the weights
    batch: int = 32  # rows of text that are read side by side
    segment: int = 128  # letters of each row in a step
    lr: float = 0.001  # the highest rate; it rises for 5 % of the steps, then falls as a cosine
    weight_decay: float = 0.01  # pull of every weight towards zero
    evaluate_every: int = 200  # steps between two measurements on dev, each of which saves
    log_every: int = 50  # steps between two lines on the screen
    seed: int = 0  # of weights, order and dropout
    precision: str = "auto"  # auto | fp32 | bf16; auto: bf16 on a GPU that has it
    device: str = "auto"  # auto | cpu | cuda
    network: TransformerConfig = field(default_factory=TransformerConfig)  # The network

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.segment, self.evaluate_every, self.log_every) < 1:
            raise ValueError("steps, batch, segment, evaluate_every and log_every must be 1 or more")
        if self.lr <= 0.0 or self.weight_decay < 0.0:
            raise ValueError(f"lr must be above 0 and weight_decay not below, got {self.lr} and {self.weight_decay}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, got {self.precision!r}")


# ---------------------------------------------------------------------------------------------------------------------
# State of a training


@dataclass
class LmTraining:
    """Everything that the loop changes."""

    model: LetterLm
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = math.inf  # bits a letter on dev
    memory: Memory | None = None

    def save(self, path: Path, identity: dict) -> None:
        """All that ``resume`` needs; atomic."""
        memory = self.memory and {"hidden": list(self.memory.hidden), "sentence": self.memory.sentence}
        train = {
            "identity": identity,
            "step": self.step,
            "best": self.best,
            "memory": memory,
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(torch.Generator()),
        }
        save_checkpoint(path, {**self.model.payload(), "train": train})

    def resume(self, path: Path, identity: dict) -> None:
        """Goes to where the training that wrote ``path`` was.

        Raises:
            ValueError: it is another training, or no training; the message says what differs.
        """
        payload = read_payload(path)
        train = payload.get("train")
        if not isinstance(train, dict):
            raise ValueError(f"{path} holds no training that could go on; delete it, or choose another --out")
        found = train["identity"]
        changed = [name for name in identity if name not in MAY_CHANGE and found.get(name) != identity[name]]
        if changed:
            raise ValueError(
                f"{path} is a training with another {', '.join(changed)}; give what it was begun with, choose another "
                "--out, or delete the file to start again"
            )
        device = self.model.device
        self.model.network.load_state_dict(payload["weights"])
        self.optimizer.load_state_dict(train["optimizer"])
        self.step, self.best = train["step"], train["best"]
        if train["memory"]:
            hidden = tuple(value.to(device) for value in train["memory"]["hidden"])
            self.memory = Memory(hidden, train["memory"]["sentence"].to(device))
        restore_random_state(train["random"], torch.Generator())
        logger.info(f"goes on at step {self.step:,}, best {self.best:.3f} bits a letter")


def last_path(out: Path) -> Path:
    """``es_lm.last.pt`` of ``es_lm.pt``."""
    return out.with_name(f"{out.stem}.last{out.suffix}")


def start(labels: Sequence[str], lang: str, settings: LmSettings) -> LmTraining:
    """A training that has not begun, on its device."""
    torch.manual_seed(settings.seed)
    model = LetterLm.new(labels, settings.network, lang)
    model.network.to(choose_device(settings.device)).train()
    optim = OptimSettings(name="adamw", lr=settings.lr, weight_decay=settings.weight_decay)
    return LmTraining(model, build_optimizer(model.network.parameters(), optim))


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def train_step(training: LmTraining, segment: Segment, precision: str) -> Tensor:
    """One update of the weights; returns the mean loss of a letter, in nats.

    Raises:
        ValueError: loss or gradient is not finite; the weights are those of the step before.
    """
    network, device = training.model.network, training.model.device
    dtype = choose_precision(precision, device)
    ids, targets = segment.ids.to(device), segment.targets.to(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        scores, memory = network(ids, None if segment.is_first else training.memory)
    loss = functional.cross_entropy(scores.float().flatten(0, 1), targets.flatten())
    loss.backward()
    norm = clip_grad_norm_(network.parameters(), GRAD_CLIP)
    if not torch.isfinite(norm + loss):
        raise ValueError(f"the training diverged at step {training.step}, loss {loss.item():g}; try a lower --lr")
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.memory = memory
    return loss.detach()


def evaluate(training: LmTraining, dev: Sequence[str], out: Path, steps: int) -> None:
    """Measures the model on dev, and saves it where it is the best one so far."""
    result = training.model.surprise(dev)
    is_best = result.bits_per_letter < training.best
    if is_best:
        training.best = result.bits_per_letter
        training.model.save(out)
    saved = f", saved {out.name}" if is_best else ", not better"
    logger.info(f"step {training.step:,} of {steps:,}: dev {result}{saved}")


def fit(training: LmTraining, stream: LetterStream, dev: Sequence[str], settings: LmSettings, out: Path) -> bool:
    """Trains to ``settings.steps``, or until it is asked to stop; True if it was.

    Raises:
        ValueError: the training diverged, or ``last_path(out)`` is another training.
    """
    last = last_path(out)
    text = zlib.crc32(b"".join(ids.tobytes() for ids in stream.sentences))
    identity = {**to_dict(settings), "text": text, "labels": list(training.model.alphabet.labels)}
    if last.exists():
        training.resume(last, identity)
    since, began, losses = training.step, time.monotonic(), []

    with Interrupt() as interrupt:
        while training.step < settings.steps and not interrupt.requested():
            # schedule
            for group in training.optimizer.param_groups:
                group["lr"] = learning_rate(training.step, settings.steps, SCHEDULE, settings.lr)

            # step
            losses.append(train_step(training, stream.segment_at(training.step), settings.precision))
            training.step += 1

            # log
            if training.step % settings.log_every == 0:
                bits = torch.stack(losses).mean().item() / math.log(2)
                letters = (training.step - since) * stream.rows * stream.segment / (time.monotonic() - began)
                logger.info(f"step {training.step:,}: {bits:.3f} bits a letter, {letters:,.0f} letters/s")
                since, began, losses = training.step, time.monotonic(), []

            # evaluate, save
            if training.step % settings.evaluate_every == 0 or training.step == settings.steps:
                evaluate(training, dev, out, settings.steps)
                training.save(last, identity)
        stopped = interrupt.requested()
        if stopped:
            training.save(last, identity)
    return stopped


# ---------------------------------------------------------------------------------------------------------------------
# The command


def read_sentences(name: str, text: Text) -> list[str]:
    """All sentences of a text, with a report of what became of it; raises ValueError where there is none."""
    sentences = list(text.sentences())
    if not sentences:
        raise text.nothing_left()
    logger.info(f"{name}: {len(sentences):,} sentences, {sum(map(len, sentences)):,} letters\n{text.report()}")
    return sentences


def read_both(options: argparse.Namespace, language: Language) -> tuple[list[str], list[str]]:
    """The sentences to learn from, without leaks if so asked, and those to measure on."""
    finders = leak_finders(options.against, options.dev, language)
    sentences = list(without_leaks(read_sentences("text", Text(options.texts, language)), finders, options.leave_out))
    for line in leak_report(finders, options.leave_out):
        logger.info(line)
    if options.dev:
        return sentences, read_sentences("dev", Text(options.dev, language))
    sentences, dev = hold_out(sentences)
    logger.info(f"no --dev: {len(dev):,} different sentences are held out of the text")
    return sentences, dev


def train(options: argparse.Namespace, settings: LmSettings) -> None:
    """Reads, trains, reports."""
    language = rules(options.lang, options.texts)
    sentences, dev = read_both(options, language)
    training = start(language.labels, options.lang, settings)
    network = training.model.network
    encoded = (training.model.encode(text) for text in sentences)
    stream = LetterStream(encoded, network.boundary, settings.batch, settings.segment, settings.seed)
    weights = sum(parameter.numel() for parameter in network.parameters())
    logger.info(f"{weights:,} weights on {training.model.device}; an epoch is {stream.steps:,} steps")
    logger.info(f"dev by the frequency of letters alone: {letter_bits(sentences, dev):.3f} bits a letter")
    if fit(training, stream, dev, settings, options.out):
        logger.info(f"stopped at step {training.step:,}; the same command goes on")
    else:
        logger.info(f"{options.out}: {training.best:.3f} bits a letter on dev")


def score(options: argparse.Namespace) -> None:
    """Prints how many bits a text costs."""
    model = LetterLm.load(options.model)
    model.network.to(choose_device(options.device))
    language = rules(model.lang, options.texts).restricted_to(model.alphabet.labels)
    logger.info(str(model.surprise(read_sentences("text", Text(options.texts, language)))))


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """What ``read_both`` asks of a command that learns from text, and the language that names its rules."""
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help="text, one sentence a line, or manifests")
    parser.add_argument("--lang", required=True, help="code of the language, such as es or pt-BR")
    parser.add_argument(
        "--dev", nargs="+", default=[], type=Path, metavar="TEXT", help="text to measure on; else 2 %% are held out"
    )
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="DATA", help="corpora whose sentences must not be in the text"
    )
    parser.add_argument("--leave-out", action="store_true", help="leave lines out that hold such a sentence")


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``settings:...`` are those of ``LmSettings``."""
    parser = commandline.Parser(prog="python -m quartznet.neural_lm", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="train | score")
    learn = commands.add_parser("train", add_help=False, allow_abbrev=False, help="a language model out of text")
    add_text_options(learn)
    learn.add_argument("--out", required=True, type=Path, help="the model's file, such as es_lm.pt")
    commandline.add_settings(learn, LmSettings, SHORT)
    measure = commands.add_parser("score", help="bits a letter and a word of a text")
    measure.add_argument("model", type=Path, help="file of train")
    measure.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help="text, one sentence a line, or manifests")
    measure.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return commandline.parse(parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""

    def work() -> None:
        options = read_options(arguments)
        if options.command == "train":
            train(options, from_dict(LmSettings, commandline.chosen_settings(options, None)))
        else:
            score(options)

    return commandline.run(work)


if __name__ == "__main__":
    sys.exit(main())
