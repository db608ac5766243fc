"""Trains a corrector: pairs of recognised and true sentences, a BERT to begin with -> a run folder.

    python -m postcorrect.train --data pairs/es --bert bert-es --out runs/es-corrector
    python -m postcorrect.train --data pairs/es --bert bert-es --out runs/random --start none       for comparison
    torchrun --nproc_per_node=2 -m postcorrect.train ...                                            several GPUs

The loop is the recogniser's (``quartznet.engine``): the same command again goes on where it stopped, ``best.pt`` has
the lowest WER on dev, ``metrics.jsonl`` and TensorBoard tell the course. While it trains, dev is corrected greedily
and without a gate.

The surprise: a corrector that only copied would already have the recogniser's WER, and most of them are worse for
long. So the WER before correction is what to look at first, and is told with every evaluation's.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.hashing import stable_hash
from postcorrect.batches import PairBatch, Row, encode_pairs, pair_loader
from postcorrect.bert import from_bert
from postcorrect.checkpoint import identity
from postcorrect.config import DropoutConfig
from postcorrect.loss import token_losses
from postcorrect.model import Corrector
from postcorrect.pairs import Pair, read_part
from postcorrect.search import Written, greedy
from postcorrect.train_config import CorrectorTraining
from quartznet import commandline, distributed
from quartznet.claim import claimed
from quartznet.engine import fit
from quartznet.metrics import error_counts, total
from quartznet.runstate import TrainState, rank_of
from quartznet.settings import from_dict
from quartznet.step import choose_precision
from quartznet.task import DevResult, Task

SHORT_NAMES = {"data": "data.folder"}
EXTRA_TOKENS = 10  # that a text may be longer than its source while training; a network that knows nothing never ends
FEW_STEPS = 100  # of an epoch; with fewer, steps are made of fewer batches
WARMUP_SHARE = 8  # the warm-up takes at most one of so many steps

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------------------------------
# Settings


def read_options(arguments: Sequence[str] | None) -> dict:
    """What was chosen, as nested dictionaries; raises ValueError for what is missing or unknown."""
    parser = commandline.Parser(
        prog="python -m postcorrect.train", description=__doc__.split("\n")[0], add_help=False, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings of another run; options here have priority")
    commandline.add_settings(parser, CorrectorTraining, SHORT_NAMES)
    options = commandline.parse(parser, arguments)
    chosen = commandline.chosen_settings(options, options.config)
    if not chosen.get("bert"):
        raise ValueError(
            "--bert is missing: a folder with a BERT in Hugging Face's layout; python -m postcorrect.pretrain makes one"
        )
    if not isinstance(data := chosen.get("data"), dict) or not data.get("folder"):
        raise ValueError("--data is missing: a folder with train and dev; python -m postcorrect.collect makes it")
    return chosen


def _is_chosen(chosen: dict, *path: str) -> bool:
    for name in path:
        if not isinstance(chosen, dict) or name not in chosen:
            return False
        chosen = chosen[name]
    return True


def fitted(settings: CorrectorTraining, chosen: dict, batches: int) -> CorrectorTraining:
    """The settings for a corpus of ``batches``: small ones get smaller steps and a shorter warm-up, which is said.

    What was chosen stays.
    """
    optim, schedule = settings.optim, settings.schedule
    if not _is_chosen(chosen, "optim", "accumulate"):
        optim = replace(optim, accumulate=max(1, min(optim.accumulate, batches // FEW_STEPS)))
    most = max(1, replace(settings, optim=optim).total_steps(batches) // WARMUP_SHARE)
    if not _is_chosen(chosen, "schedule", "warmup_steps") and (schedule.warmup_steps or 0) > most:
        schedule = replace(schedule, warmup_steps=most)
    for name, before, now in (
        ("optim.accumulate", settings.optim.accumulate, optim.accumulate),
        ("schedule.warmup_steps", settings.schedule.warmup_steps, schedule.warmup_steps),
    ):
        if before != now:
            logger.info("%s %s in place of %s, for %d batches an epoch", name, now, before, batches)
    return replace(settings, optim=optim, schedule=schedule)


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def rates(pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """WER and CER of (said, heard) texts, as fractions."""
    wer, cer = (total(error_counts(*zip(*pairs, strict=True), unit)).rate for unit in ("word", "character"))
    return wer, cer


def written_for(corrector: Corrector, batch: PairBatch) -> list[Written]:
    """What the corrector writes; raises ValueError with the remedy where its weights are past help."""
    try:
        return greedy(corrector, batch.source, batch.source_mask, EXTRA_TOKENS)
    except ValueError as error:
        raise ValueError(f"{error}; the training diverged: start again with a lower rate (--optim.lr)") from error


def evaluator(
    rows: Sequence[Row], others: Sequence[Pair], pad: int, batch_tokens: int
) -> Callable[[Corrector, Callable[[], bool]], DevResult | None]:
    """Losses without smoothing, WER and CER of what the corrector writes for dev; all ranks share the work.

    Args:
        rows: dev pairs that can be corrected.
        others: those that stay as they are.
    """
    own = range(distributed.rank(), len(rows), distributed.world_size())
    loader = pair_loader([rows[place] for place in own], pad, batch_tokens, shuffle=False) if own else None

    @torch.no_grad()
    def evaluate(corrector: Corrector, should_stop: Callable[[], bool]) -> DevResult | None:
        written: dict[int, str] = {}
        losses: list[Tensor] = [torch.zeros(0)]
        for places in loader.batch_sampler if loader else ():
            batch = loader.collate_fn([loader.dataset[place] for place in places]).to(corrector.device)
            parts = batch.source, batch.source_mask, batch.target, batch.target_mask
            losses.append(token_losses(corrector, *parts, smoothing=0.0).cpu())
            texts = written_for(corrector, batch)
            for place, text in zip((own[place] for place in places), texts, strict=True):
                written[place] = corrector.tokenizer.decode(text.ids, like=rows[place].pair.recognised)
            if should_stop():
                break
        gathered = distributed.gather((written, torch.cat(losses).tolist(), should_stop()))
        if any(stopped for _, _, stopped in gathered):
            return None
        texts = {place: text for part, _, _ in gathered for place, text in part.items()}
        every = [loss for _, part, _ in gathered for loss in part]
        pairs = [(row.pair.said, texts[place]) for place, row in enumerate(rows)]
        scores = rates([*pairs, *((pair.said, pair.recognised) for pair in others)])
        return DevResult(sum(every) / len(every), *scores, pairs[:5])

    return evaluate


# ---------------------------------------------------------------------------------------------------------------------
# The run


def read_dev(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """Up to ``most`` pairs, chosen by the hash of their texts, 0: all; raises ValueError where there are none."""
    spoken = [pair for pair in pairs if pair.said]
    if not spoken:
        raise ValueError("dev has no pairs, so nothing says when the corrector is good; collect some")
    chosen = sorted(spoken, key=lambda pair: (stable_hash(pair.recognised, pair.said), pair.utterance))
    return chosen[: most or None]


def assemble(
    corrector: Corrector, settings: CorrectorTraining, chosen: dict, device: torch.device
) -> tuple[DataLoader, Task, CorrectorTraining, tuple[float, float]]:
    """Batches of train, what the loop must know, the settings that fit them, and WER and CER of dev as it is."""
    tokenizer, data = corrector.tokenizer, settings.data
    limit = min(data.longest, corrector.config.positions)
    pairs = read_part(data.folder, "train")
    rows, left_out = encode_pairs(pairs, tokenizer, limit)
    if not rows:
        raise ValueError(f"no pair of {data.folder} can be learnt from: {str(left_out) or 'train is empty'}")
    dev = read_dev(read_part(data.folder, "dev"), data.dev_pairs)
    dev_rows, dev_left = encode_pairs(dev, tokenizer, limit)
    for name, found in (("train", left_out), ("dev", dev_left)):
        if found.count:
            logger.info("%s: %s", name, found)
    if not dev_rows:
        raise ValueError(f"no pair of dev in {data.folder} can be corrected: {dev_left}")
    able = {id(row.pair) for row in dev_rows}
    others = [pair for pair in dev if id(pair) not in able]
    loader = pair_loader(
        rows,
        tokenizer.special.pad,
        data.batch_tokens,
        settings.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        pin_memory=device.type == "cuda",
    )
    settings = fitted(settings, chosen, len(loader.batch_sampler))

    def loss(model: Corrector, batch: PairBatch, generator: torch.Generator) -> Tensor:
        parts = batch.source, batch.source_mask, batch.target, batch.target_mask
        return token_losses(model, *parts, settings.label_smoothing)

    task = Task(
        loss=loss,
        evaluate=evaluator(dev_rows, others, tokenizer.special.pad, data.batch_tokens),
        seconds=lambda batch: batch.tokens,
        identity=identity(corrector),
        unit="tokens",
        is_speech=False,
    )
    before = rates([(pair.said, pair.recognised) for pair in dev])
    logger.info("data      train %s pairs; dev %s", f"{len(rows):,}", f"{len(dev):,}")
    logger.info("dev now   WER %.2f %%, CER %.2f %%: what it costs to correct nothing", *(100 * x for x in before))
    return loader, task, settings, before


def build(settings: CorrectorTraining) -> Corrector:
    """The corrector before its first step: sizes and vocabulary of the BERT, and the weights that ``start`` names."""
    own = None if settings.encoder_dropout is None else DropoutConfig.everywhere(settings.encoder_dropout)
    return from_bert(
        settings.bert,
        encoder=settings.start in ("encoder", "both"),
        decoder=settings.start in ("decoder", "both"),
        encoder_dropout=own,
        decoder_dropout=DropoutConfig.everywhere(settings.dropout),
    )


def print_plan(corrector: Corrector, settings: CorrectorTraining, batches: int, device: torch.device) -> None:
    """What is about to happen."""
    optim, config = settings.optim, corrector.config
    logger.info(
        "network   %s, %s parameters; starts from the BERT: %s",
        f"{config.encoder.layers} + {config.decoder.layers} blocks of {config.channels} channels",
        f"{sum(parameter.numel() for parameter in corrector.parameters()):,}",
        settings.start,
    )
    logger.info(
        "steps     %s, each of %d batches of up to %d tokens; %d batches an epoch",
        f"{settings.total_steps(batches):,}", optim.accumulate, settings.data.batch_tokens, batches,
    )  # fmt: skip
    logger.info("optimiser %s, rate %g, %s schedule", optim.name, optim.lr, settings.schedule.name)
    precision = str(choose_precision(settings.precision, device)).removeprefix("torch.")
    logger.info(
        "device    %s, %s, %d process(es); run folder %s", device, precision, distributed.world_size(), settings.out
    )


def print_results(state: TrainState, settings: CorrectorTraining, before: tuple[float, float]) -> None:
    """The final table, and what to do next."""
    best = min(state.history, key=rank_of)
    print(f"\n{'':18}{'WER':>9}{'CER':>10}")
    print(f"{'dev, as heard':18}{100 * before[0]:>7.2f} %{100 * before[1]:>8.2f} %")
    print(f"{'dev, corrected':18}{100 * best['wer']:>7.2f} %{100 * best['cer']:>8.2f} %   step {best['step']}, no gate")
    if best["wer"] > before[0]:
        print(
            "it makes more errors than it repairs; a gate may still pick the good ones, more pairs or steps help more"
        )
    print(f"\ncheckpoint  {Path(settings.out) / 'best.pt'}")
    print(f"gate        python -m postcorrect.tune_gate --corrector {settings.out} --data {settings.data.folder}")
    print(f"correct     python -m postcorrect.correct --corrector {settings.out} texts.txt")


def train(chosen: dict) -> int:
    """One whole run; returns the exit status."""
    settings = from_dict(CorrectorTraining, chosen)
    device = distributed.choose_device(settings.device)
    out = Path(settings.out)
    with distributed.processes(device), claimed(out):
        if not distributed.is_main():
            logging.getLogger().setLevel(logging.WARNING)
        torch.manual_seed(settings.seed)
        corrector = build(settings).to(device)
        loader, task, settings, before = assemble(corrector, settings, chosen, device)
        print_plan(corrector, settings, len(loader.batch_sampler), device)
        state, signal = fit(corrector, loader, settings, task, out)
        is_main = distributed.is_main()
    if signal is not None:
        if is_main:
            print(f"stopped at step {state.step}; the same command continues", file=sys.stderr)
        return 128 + signal
    if is_main:
        print_results(state, settings, before)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 128 + n stopped by signal n."""
    return commandline.run(
        lambda: train(read_options(arguments)),
        memory="--data.batch-tokens and raise --optim.accumulate",
        stopped="aborted; what was saved before is untouched: the same command continues",
    )


if __name__ == "__main__":
    distributed.leave(main())
