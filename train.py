"""Trains or fine-tunes a recogniser: settings -> data -> text rules -> model -> ``quartznet.engine.fit``.

    python train.py --init nemo_en.nemo --lang es --data corpora/es         # jump-start from an English checkpoint
    python train.py --from-scratch --lang es --preset 5x5                   # without --data: the embedded default
    torchrun --nproc_per_node=4 train.py --init nemo_en.nemo --lang es ...  # several GPUs

The same command run again continues where the run stopped. ``--help`` lists every setting; ``--find-lr`` does not train
but tests which ``--optim.lr`` is good.

The surprise: with ``--init`` the architecture *and* the front end come from the checkpoint, and so do the rows of the
output layer that fit the new letters (``quartznet.head``); ``--preset`` then has no say.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from data.dataset import normalised, usable
from data.loaders import evaluation_loader, training_loader
from data.manifest import Utterance, read_manifest
from data.source import fill_durations, open_source
from data.splits import Splits, with_held_out
from data.synthetic import default_folder, embedded_default
from quartznet import commandline, distributed, load_model
from quartznet.audit import audit
from quartznet.checkpoint import is_checkpoint
from quartznet.config import ModelConfig, TrainSettings, preset_blocks
from quartznet.engine import Task, choose_precision, fit
from quartznet.find_lr import curve_table, find_rate
from quartznet.head import plan_head, transfer_head
from quartznet.model import QuartzNet
from quartznet.nemo import read_nemo
from quartznet.recognition import evaluator, recognise, recognition_loss, summarise
from quartznet.runstate import TrainState
from quartznet.settings import from_dict, to_dict
from quartznet.text import Language, find_language, language_from_texts
from quartznet.waveform import fastest_factor

SHORT_NAMES = {"data": "data.source", "train": "data.train", "dev": "data.dev", "warmup-ratio": "schedule.warmup_ratio"}
USAGE = """python train.py (--init CHECKPOINT | --from-scratch) --lang CODE
                       [--data PATH | --train A,B --dev C] ..."""


# ---------------------------------------------------------------------------------------------------------------------
# Settings


def read_settings(arguments: Sequence[str] | None) -> TrainSettings:
    """Command line and ``--config`` as settings; raises ValueError for what is missing, unknown or impossible."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], usage=USAGE, allow_abbrev=False, exit_on_error=False, add_help=False
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings of another run; options here have priority")
    parser.add_argument("--from-scratch", action="store_true", help="random weights in place of --init")
    parser.add_argument("--find-lr", action="store_true", help="no training: test which --optim.lr is good, draw it")
    commandline.add_settings(parser, TrainSettings, SHORT_NAMES)
    options = commandline.parse(parser, arguments)
    mapping = commandline.chosen_settings(options, options.config)
    if options.from_scratch and mapping.get("init"):
        raise ValueError(f"--from-scratch and --init {mapping['init']} contradict each other; leave one out")
    if not options.from_scratch and "init" not in mapping:
        raise ValueError(
            "where shall the weights come from? --init CHECKPOINT takes the encoder of a trained network (an English "
            ".nemo file, or a run folder), --from-scratch starts with random weights of --preset 15x5"
        )
    if mapping.get("init") and not Path(mapping["init"]).exists():
        raise ValueError(f"--init {mapping['init']}: there is no such file or folder")
    if "lang" not in mapping:
        raise ValueError("--lang is missing: the code of the language to learn, such as es, it, ru, de or fr")
    if not mapping.get("out"):
        stem = Path(mapping["init"]).stem if mapping.get("init") else "scratch"
        mapping["out"] = f"runs/{mapping['lang']}-{stem}"
    if Path(mapping["out"]).exists() and not Path(mapping["out"]).is_dir():
        raise ValueError(f"--out {mapping['out']} is a file; the run needs a folder of its own")
    return from_dict(TrainSettings, mapping)


# ---------------------------------------------------------------------------------------------------------------------
# Data


def read_data(settings: TrainSettings) -> Splits:
    """Manifests, a corpus, or the embedded default; held-out clips where there is no dev part."""
    data = settings.data
    if data.train:
        skipped: list[str] = []
        parts = [[clip for path in paths for clip in read_manifest(path, skipped)] for paths in (data.train, data.dev)]
        return with_held_out(Splits(parts[0], parts[1], [], skipped, f"manifests {', '.join(data.train + data.dev)}"))
    if data.dev:
        raise ValueError("--dev without --train; name the training manifests too, or one corpus with --data")
    if data.source:
        return open_source(data.source)
    logging.warning("no --data: this trains on synthetic speech, made into %s", default_folder(settings.lang))
    try:
        return embedded_default(settings.lang)
    except ValueError as error:
        raise ValueError(f"{error} with --data PATH") from error


def choose_language(splits: Splits, settings: TrainSettings) -> Language:
    """The text rules, after a table of what they keep and lose; raises ValueError if they lose too much."""
    texts = [clip.text for clip in (*splits.train, *splits.dev)]
    language = find_language(settings.lang)
    if language is None:
        language = language_from_texts(settings.lang, (clip.text for clip in splits.train))
        logging.info("no rules for %r: the alphabet is taken from the training text", settings.lang)
    report = audit(texts, language)
    logging.info("%s", report.table())
    if not settings.allow_char_loss:
        report.check()
    return language


@dataclass(frozen=True)
class Clips:
    """Normalised utterances with durations, ready for loaders."""

    train: list[Utterance]
    dev: list[Utterance]
    test: list[Utterance]
    skipped: list[str]


def prepare(splits: Splits, language: Language, model: QuartzNet, settings: TrainSettings) -> Clips:
    """Normalises texts, measures durations, leaves out what cannot be learnt from; nothing is lost in silence."""
    skipped = list(splits.skipped)
    parts = []
    for clips in (splits.train, splits.dev, splits.test):
        for step in (lambda clips: normalised(clips, language), fill_durations):
            clips, problems = step(clips)
            skipped += problems
        parts.append(clips)
    data = settings.data
    train, problems = usable(
        parts[0],
        model.alphabet,
        data.min_duration,
        data.max_duration,
        frames_per_second=model.config.features.sample_rate / samples_per_output(model),
        fastest_speed=fastest_factor(settings.augment),
    )
    if not train:
        first = (skipped + problems)[:1] or ["the corpus has no training clips"]
        raise ValueError(f"no clip is left to train on; the first problem: {first[0]}")
    if not parts[1]:
        logging.warning("no dev clips: the training clips are scored instead, which says little")
    return Clips(train, parts[1] or train, parts[2], skipped + problems)


def samples_per_output(model: QuartzNet) -> int:
    """How much of the waveform each output of the network stands for: the hop times all strides."""
    return round(model.config.features.hop * 1000 / model.output_length(1000))


def report_skipped(skipped: list[str], out: Path) -> None:
    """All messages to skipped.txt, the first five and their number to the screen."""
    if not distributed.is_main():
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "skipped.txt").write_text("".join(f"{message}\n" for message in skipped), encoding="utf-8")
    for message in skipped[:5]:
        logging.warning("left out: %s", message)
    if skipped:
        logging.warning("%d clips left out; all are listed in %s", len(skipped), out / "skipped.txt")


# ---------------------------------------------------------------------------------------------------------------------
# Model


def read_initial(path: str) -> tuple[ModelConfig, dict]:
    """Configuration and weights of a checkpoint of any kind; of a NeMo encoder without a decoder, those it has."""
    if is_checkpoint(path) or not Path(path).exists():
        model = load_model(path)
        return model.config, model.state_dict()
    try:
        model = load_model(path)
    except ValueError as error:
        checkpoint = read_nemo(path, encoder_only=True)  # raises where the encoder is no better
        logging.warning("only the encoder of %s is used: %s", path, error)
        return dataclasses.replace(checkpoint.config, labels=("",)), checkpoint.weights
    return model.config, model.state_dict()


def build_model(settings: TrainSettings, labels: tuple[str, ...]) -> QuartzNet:
    """A random network, or that of ``--init`` with an output layer for ``labels``, as ``--head`` says."""
    if settings.init is None:
        return QuartzNet(ModelConfig(labels, preset_blocks(settings.preset)))
    config, weights = read_initial(settings.init)
    model = QuartzNet(dataclasses.replace(config, labels=labels))
    if settings.head == "copy" and "decoder.weight" in weights:
        plan = plan_head(config.labels, labels)
        weights |= transfer_head(weights, plan)
        logging.info("%s", plan)
    else:
        weights = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
        logging.info("new output layer for %d labels; the encoder is that of %s", len(labels), settings.init)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = [name for name in missing if not name.startswith(("decoder.", "front_end."))]
    assert not lacking and not unexpected, f"encoder weights missing {lacking}, left over {unexpected}"
    return model


def hours(clips: Sequence[Utterance]) -> str:
    """``12.3 h, 9,876 clips``."""
    return f"{sum(clip.duration for clip in clips) / 3600:.2f} h, {len(clips):,} clips"


def print_plan(model: QuartzNet, clips: Clips, settings: TrainSettings, batches: int, device: torch.device) -> None:
    """What is about to happen, in five lines."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    steps = settings.steps or settings.epochs * -(-batches // settings.optim.accumulate)
    precision = str(choose_precision(settings.precision, device)).removeprefix("torch.")
    optim = settings.optim
    logging.info("model     %s, %s parameters", settings.init or f"{settings.preset} from scratch", f"{parameters:,}")
    logging.info("data      train %s; dev %s; test %s", *map(hours, (clips.train, clips.dev, clips.test)))
    logging.info("steps     %s, %d batches an epoch of up to %g s", f"{steps:,}", batches, settings.data.batch_seconds)
    logging.info("optimiser %s, rate %g, %s schedule", optim.name, optim.lr, settings.schedule.name)
    logging.info(
        "device    %s, %s, %d process(es); run folder %s", device, precision, distributed.world_size(), settings.out
    )


# ---------------------------------------------------------------------------------------------------------------------
# The run


def assemble(model: QuartzNet, clips: Clips, settings: TrainSettings, device: torch.device) -> tuple[DataLoader, Task]:
    """Training batches, and what the loop must know about speech; every process gets its share of both."""
    rank, world = distributed.rank(), distributed.world_size()
    sample_rate, data, pin = model.config.features.sample_rate, settings.data, device.type == "cuda"
    shortest = model.front_end.shortest
    loader = training_loader(
        clips.train, model.alphabet, settings, sample_rate, pin, rank, world, shortest, samples_per_output(model)
    )
    dev = evaluation_loader(
        clips.dev[rank::world],
        model.alphabet,
        sample_rate,
        data.batch_seconds,
        data.max_batch,
        data.workers,
        pin,
        shortest,
    )
    task = Task(
        loss=recognition_loss(settings.augment),
        evaluate=evaluator(dev),
        seconds=lambda batch: batch.seconds(sample_rate),
        identity={"model_config": to_dict(model.config), "lang": settings.lang},
        encoder=model.encoder,
    )
    return loader, task


def print_results(state: TrainState, clips: Clips, settings: TrainSettings, device: torch.device) -> None:
    """The final table: best dev score, test score of that checkpoint, and what to do next."""
    out = Path(settings.out)
    model = load_model(out).to(device)
    best = min(state.history, key=lambda record: (record["wer"], record["cer"]))
    print(f"\n{'':12}{'WER':>9}{'CER':>10}")
    print(f"{'best dev':12}{100 * best['wer']:>7.2f} %{100 * best['cer']:>8.2f} %   step {best['step']}")
    if clips.test:
        test = evaluation_loader(
            clips.test,
            model.alphabet,
            model.config.features.sample_rate,
            settings.data.batch_seconds,
            workers=settings.data.workers,
            shortest=model.front_end.shortest,
        )
        rows, skipped = recognise(model.for_inference(), test)
        for message in skipped:
            print(f"left out: {message}")
        if rows:
            result = summarise(rows)
            print(f"{'test':12}{100 * result.wer:>7.2f} %{100 * result.cer:>8.2f} %   {len(rows)} clips")
    manifests = settings.data.dev or settings.data.train
    source = manifests[0] if manifests else settings.data.source or default_folder(settings.lang)
    if state.skipped_steps or state.scaler_skips:
        print(f"\nsteps left out: {state.skipped_steps} (metrics.jsonl says why), {state.scaler_skips} by fp16's scale")
    print(f"\ncheckpoint  {out / 'best.pt'}")
    print(f"evaluate    python evaluate.py --checkpoint {out} --data {source}")
    print(f"to NeMo     python -m quartznet.nemo export {out} {out.name}.nemo")


def train(settings: TrainSettings, find_lr: bool = False) -> int:
    """One whole run, or with ``find_lr`` a range test of the learning rate; returns the exit status."""
    device = distributed.choose_device(settings.device)
    out = Path(settings.out)
    with distributed.processes(device):
        if not distributed.is_main():
            logging.getLogger().setLevel(logging.WARNING)
        torch.manual_seed(settings.seed)
        with distributed.main_first():  # an archive is unpacked, or the embedded default made, once
            splits = read_data(settings)
        logging.info("%s", splits.description)
        language = choose_language(splits, settings)
        model = build_model(settings, language.labels).to(device)
        if settings.sync_batchnorm:
            model = distributed.synchronise_batch_norm(model, device)
        clips = prepare(splits, language, model, settings)
        report_skipped(clips.skipped, out)
        loader, task = assemble(model, clips, settings, device)
        print_plan(model, clips, settings, len(loader), device)
        if find_lr:
            print(curve_table(find_rate(model, loader, settings, task, out), settings.optim.lr))
            return 0
        state, signal = fit(model, loader, settings, task, out)
        is_main = distributed.is_main()
    if signal is not None:
        if is_main:
            last = out / "last.pt"
            print(f"stopped at step {state.step}; {last} is saved: the same command continues", file=sys.stderr)
        return 128 + signal
    if is_main:
        print_results(state, clips, settings, device)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 128 + n stopped by signal n."""
    try:
        with commandline.messages_on_screen():
            words = sys.argv[1:] if arguments is None else arguments
            return train(read_settings(words), find_lr="--find-lr" in words)
    except torch.OutOfMemoryError:
        print(
            "error: the GPU's memory is full; lower --data.batch_seconds and raise --optim.accumulate", file=sys.stderr
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("aborted; what was saved before is untouched: the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    distributed.leave(main())
