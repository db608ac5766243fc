"""Trains or fine-tunes a recogniser: settings -> data -> text rules -> model -> ``quartznet.engine.fit``.

    python train.py --init nemo_en.nemo --lang es --data corpora/es         # jump-start from an English checkpoint
    python train.py --from-scratch --lang es --preset 5x5                   # without --data: the embedded default
    torchrun --nproc_per_node=4 train.py --init nemo_en.nemo --lang es ...  # several GPUs

The same command run again continues where the run stopped. ``--help`` lists every setting; ``--find-lr`` does not train
but tests which ``--optim.lr`` is good.

The surprise: with ``--init`` the architecture *and* the front end come from the checkpoint, and so do the rows of the
output layer that fit the new letters (``quartznet.head``); ``--preset`` then has no say.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from data.clips import Clips, choose_language, measured, prepare, read_data, with_replay
from data.loaders import evaluation_loader, training_loader
from data.manifest import Utterance
from data.replay import Mixture
from data.synthetic import default_folder
from quartznet import backend, commandline, distributed, load_model
from quartznet.adapter import save_adapter
from quartznet.audio import read_audio
from quartznet.checkup import check_front_end
from quartznet.claim import claimed
from quartznet.config import TrainSettings
from quartznet.ctc import Losses, ctc_losses
from quartznet.diagnosis import HOPELESS
from quartznet.engine import choose_precision, fit
from quartznet.find_lr import curve_table, find_rate
from quartznet.finetune import Tuning
from quartznet.graphed import TrainGraph
from quartznet.initial import Base, build_model, read_base
from quartznet.model import QuartzNet
from quartznet.old_speech import old_language, remember, watched_sets
from quartznet.options import Options, follow_recipe, read_options
from quartznet.recipes import save_recipe
from quartznet.recognition import evaluator, recognise, recognition_loss, summarise
from quartznet.runstate import TrainState, rank_of
from quartznet.settings import to_dict
from quartznet.task import Task
from quartznet.text import Language
from quartznet.watch import forgetting_table, watcher

SMALL_CHANGE = ("head", "bn", "adapters", "lora")  # methods whose result is a small file beside the base
USAGE = """python train.py (--init CHECKPOINT | --from-scratch) --lang CODE
                       [--data PATH | --train A,B --dev C] ..."""


# ---------------------------------------------------------------------------------------------------------------------
# Data and model


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


def hours(clips: Sequence[Utterance] | Mixture) -> str:
    """``12.3 h, 9,876 clips``, or how much of an epoch is replayed."""
    if isinstance(clips, Mixture):
        new, old = clips.hours()
        return f"{new:.2f} h new and {old:.2f} h replayed ({old / (new + old):.0%}) an epoch"
    return f"{sum(clip.duration for clip in clips) / 3600:.2f} h, {len(clips):,} clips"


def ways(model: QuartzNet, settings: TrainSettings) -> str:
    """How the network is computed, for the plan."""
    if not model.fused:
        return "plain kernels"
    return ", ".join(["fused kernels", *(name for name in ("graphs", "recompute") if getattr(settings, name))])


def print_plan(
    model: QuartzNet, clips: Clips, settings: TrainSettings, batches: int, device: torch.device, tuning: Tuning
) -> None:
    """What is about to happen, in six lines."""
    of_an_epoch = -(-batches // settings.optim.accumulate)
    steps = settings.steps or settings.epochs * of_an_epoch
    encoder, head = tuning.count(model, (steps - 1) // of_an_epoch)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    precision = str(choose_precision(settings.precision, device)).removeprefix("torch.")
    optim = settings.optim
    logging.info("model     %s, %s parameters", settings.init or f"{settings.preset} from scratch", f"{parameters:,}")
    logging.info(
        "learns    %s: %s of the encoder (%.1f %%) and %s of the output layer",
        settings.tune.train,
        f"{encoder:,}",
        100 * encoder / parameters,
        f"{head:,}",
    )
    logging.info("data      train %s; dev %s; test %s", *map(hours, (clips.train, clips.dev, clips.test)))
    logging.info("steps     %s, %d batches an epoch of up to %g s", f"{steps:,}", batches, settings.data.batch_seconds)
    logging.info("optimiser %s, rate %g, %s schedule", optim.name, optim.lr, settings.schedule.name)
    logging.info(
        "device    %s, %s, %s, %d process(es); run folder %s",
        device,
        precision,
        ways(model, settings),
        distributed.world_size(),
        settings.out,
    )


# ---------------------------------------------------------------------------------------------------------------------
# The run


def identity(model: QuartzNet, settings: TrainSettings, base: Base | None) -> dict:
    """What goes into every checkpoint of the run: what rebuilds the network, and where it comes from."""
    entries: dict = {"model_config": to_dict(model.config), "lang": settings.lang}
    if settings.tune.inserted.kind != "none":
        entries["insert"] = to_dict(settings.tune.inserted)
    if base is not None:
        entries |= {"init": base.path, "base_sha256": base.fingerprint}
    return entries


def suspicion(model: QuartzNet, clips: Clips) -> str:
    """What seems wrong with the features of the dev clips, as the checkpoint remembers its own; said at once."""
    chosen = [clip for clip in clips.dev if 0.5 <= clip.duration <= 10.0][:12]
    try:
        rate = model.config.features.sample_rate
        signals = [read_audio(clip.audio_path, rate, clip.offset, clip.duration, clip.span) for clip in chosen]
        finding = check_front_end(model.eval(), signals) if signals else None
    except (OSError, ValueError, RuntimeError) as error:  # an opinion less, and no reason to stop
        logging.warning("the features could not be compared with the checkpoint's: %s", error)
        return ""
    if finding is None or finding.level == "ok":
        return ""
    logging.warning("%s; python -m quartznet.doctor looks closer", finding.text)
    return finding.text


def check_machine(settings: TrainSettings, device: torch.device) -> None:
    """Raises ValueError for what this machine cannot do, before a corpus is read."""
    backend.check_machine(settings.kernels, device, choose_precision(settings.precision, device))
    if settings.graphs and distributed.world_size() > 1:
        raise ValueError("graphs are for one process; leave --graphs out, or train on one GPU")


def choose_kernels(model: QuartzNet, settings: TrainSettings, device: torch.device, tuning: Tuning) -> None:
    """How the network is computed, as the settings say, by all processes alike; also what then has no effect."""
    tuning.train_mode(model)  # batch norms that stand still have kernels of their own, to be tried too
    model.use_kernels(settings.kernels, choose_precision(settings.precision, device))
    fused = distributed.sum_over_ranks([float(model.fused)], device)[0]
    if model.fused and fused < distributed.world_size():
        logging.warning("kernels   plain, which is slower: another process cannot use the fused ones")
        model.fused = False
    model.recompute = settings.recompute
    useless = [f"--{name}" for name in ("recompute", "graphs") if getattr(settings, name) and not model.fused]
    if useless:
        logging.warning("no effect without the fused kernels (docs/gpu.md): %s", ", ".join(useless))


def fast_ctc(model: QuartzNet) -> Losses:
    """What computes CTC: a kernel that never waits for the GPU, where fused ones compute the network."""
    if not model.fused:
        return ctc_losses
    from quartznet import ctc_kernel  # needs Triton

    return ctc_kernel.ctc_losses


def assemble(
    model: QuartzNet,
    clips: Clips,
    settings: TrainSettings,
    device: torch.device,
    base: Base | None,
    tuning: Tuning,
    language: Language,
) -> tuple[DataLoader, Task]:
    """Training batches, and what the loop must know about speech; every process gets its share of both."""
    rank, world = distributed.rank(), distributed.world_size()
    sample_rate, data, pin = model.config.features.sample_rate, settings.data, device.type == "cuda"
    shortest = model.front_end.shortest
    loader = training_loader(
        clips.train,
        model.alphabet,
        settings,
        sample_rate,
        pin,
        rank,
        world,
        shortest,
        model.samples_per_output,
        speed_later=device.type == "cuda",
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
    memory = remember(settings, base, device)
    ctc = fast_ctc(model)
    task = Task(
        loss=recognition_loss(settings.augment, memory, settings.sequence, ctc),
        evaluate=evaluator(dev),
        seconds=lambda batch: batch.seconds(sample_rate),
        identity=identity(model, settings, base),
        tuning=tuning,
        evaluate_first=base is not None or bool(settings.keep.watch),
        suspicion=suspicion(model, clips) if base is not None and distributed.is_main() else "",
        is_ctc=memory is None and settings.sequence.method == "none",
        gradients=TrainGraph(settings.augment, ctc, memory) if settings.graphs and model.fused else None,
        fused_optimizer=model.fused,
        watch=watcher(watched_sets(model, settings, base, language)) if settings.keep.watch else None,
    )
    return loader, task


def print_results(state: TrainState, clips: Clips, settings: TrainSettings, device: torch.device) -> None:
    """The final table: best dev score, test score of that checkpoint, and what to do next."""
    out = Path(settings.out)
    model = load_model(out).to(device)
    best = min(state.history, key=rank_of)
    first = state.history[0]
    print(f"\n{'':12}{'WER':>9}{'CER':>10}")
    if first["step"] == 0:
        print(f"{'dev before':12}{100 * first['wer']:>7.2f} %{100 * first['cer']:>8.2f} %")
    print(f"{'best dev':12}{100 * best['wer']:>7.2f} %{100 * best['cer']:>8.2f} %   step {best['step']}")
    if best is first and first["step"] == 0:
        print("no step made it better: best.pt holds the weights that the run began with")
        if best["wer"] < HOPELESS:  # above it, a cause has been named
            print("try a tenth of --optim.lr")
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
    if state.watched:
        print(f"\n{forgetting_table(state.watched, best['step'])}")
    manifests = settings.data.dev or settings.data.train
    source = manifests[0] if manifests else settings.data.source or default_folder(settings.lang)
    if state.skipped_steps or state.scaler_skips:
        print(f"\nsteps left out: {state.skipped_steps} (metrics.jsonl says why), {state.scaler_skips} by fp16's scale")
    print(f"\ncheckpoint  {out / 'best.pt'}")
    if settings.init and settings.tune.train in SMALL_CHANGE:
        save_adapter(out, out / "adapter.pt")
        size = (out / "adapter.pt").stat().st_size / 1e6
        print(f"small file  {out / 'adapter.pt'}, {size:.1f} MB: what changed in {settings.init}")
    print(f"evaluate    python evaluate.py --checkpoint {out} --data {source}")
    if settings.tune.inserted.kind != "adapters":  # which that file cannot hold
        print(f"to NeMo     python -m quartznet.nemo export {out} {out.name}.nemo")


def train(options: Options) -> int:
    """One whole run, or with ``--find-lr`` a range test of the learning rate; returns the exit status."""
    settings = options.settings()
    device = distributed.choose_device(settings.device)
    out = Path(settings.out)
    with distributed.processes(device), ExitStack() as claims:
        if not distributed.is_main():
            logging.getLogger().setLevel(logging.WARNING)
        check_machine(settings, device)
        torch.manual_seed(settings.seed)
        with distributed.main_first():  # an archive is unpacked, or the embedded default made, once
            splits = read_data(settings)
        logging.info("%s", splits.description)
        if not options.find_lr:
            claims.enter_context(claimed(out))
        if options.recipe:
            splits = measured(splits)
            seconds = [clip.duration for clip in splits.train]
            settings, choices = follow_recipe(options, seconds, device.type, distributed.world_size())
            if distributed.is_main() and not options.find_lr and not (out / "last.pt").exists():
                save_recipe(out / "recipe.yaml", to_dict(settings), choices)
        language = choose_language(splits, settings)
        base = read_base(settings.init) if settings.init else None
        labels = language.labels
        if settings.keep.replay:
            if base is None:
                raise ValueError("--replay keeps what a network of --init knew; from scratch there is nothing to keep")
            known = base.config.labels if "decoder.weight" in base.weights else ()  # an encoder alone has no letters
            labels += tuple(label for label in known if label not in labels)
        model = build_model(settings, labels, base)
        tuning = Tuning(settings.tune, settings.freeze_encoder)
        tuning.insert(model)
        model = model.to(device)
        if settings.sync_batchnorm:
            model = distributed.synchronise_batch_norm(model, device)
        choose_kernels(model, settings, device, tuning)
        frames_per_second = model.config.features.sample_rate / model.samples_per_output
        clips = prepare(splits, language, model.alphabet, frames_per_second, settings)
        if settings.keep.replay:
            clips = with_replay(
                clips, old_language(settings, base, language), model.alphabet, frames_per_second, settings
            )
        report_skipped(clips.skipped, out)
        loader, task = assemble(model, clips, settings, device, base, tuning, language)
        print_plan(model, clips, settings, len(loader), device, tuning)
        if options.find_lr:
            print(curve_table(find_rate(model, loader, settings, task, out), settings.optim.lr))
            return 0
        state, signal = fit(model, loader, settings, task, out)
        is_main = distributed.is_main()
    if signal is not None:
        if is_main:
            saved = f"{out / 'last.pt'} is saved" if state.saved_step is not None else "nothing was to be saved yet"
            print(f"stopped at step {state.step}; {saved}: the same command continues", file=sys.stderr)
        return 128 + signal
    if is_main:
        print_results(state, clips, settings, device)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 128 + n stopped by signal n."""
    return commandline.run(
        lambda: train(read_options(arguments, __doc__.split("\n")[0], USAGE)),
        memory="--data.batch_seconds and raise --optim.accumulate",
        stopped="aborted; what was saved before is untouched: the same command continues",
    )


if __name__ == "__main__":
    distributed.leave(main())
