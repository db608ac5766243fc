"""Trains a BERT of one's own: text, a vocabulary out of it, hidden pieces to guess -> a folder that others read.

    python -m postcorrect.pretrain es.txt more.txt.gz --lang es --out bert-es --against corpora/es --leave-out
    python -m postcorrect.pretrain es.txt --lang es --bert bert-base-multilingual-cased --out bert-es   goes on from one
    torchrun --nproc_per_node=2 -m postcorrect.pretrain ...                                             several GPUs

The text goes through the rules that the transcripts go through, so a BERT learns the letters that a recogniser writes.
The loop is the recogniser's (``quartznet.engine``): the same command again goes on where it stopped. At the end the
weights that guess best on dev, or on sentences held out of the text, lie in ``--out`` in Hugging Face's layout:
``postcorrect.train --bert`` and transformers (BertForMaskedLM) read it.

The surprise: a BERT that has read the sentences of a test set makes a corrector look better than it is, just as a
language model would. ``--against DATA`` looks for them, ``--leave-out`` takes them out.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from postcorrect.bert import masked_from_bert, save_bert
from postcorrect.config import CorrectorConfig, DropoutConfig
from postcorrect.folder import PICKLE, SAFETENSORS
from postcorrect.masked_model import MaskedModel
from postcorrect.masked_task import KIND, masked_task
from postcorrect.masking import Masker
from postcorrect.pretrain_config import DROPOUT, NetworkSettings, PretrainSettings
from postcorrect.sentences import Sentences, dev_batches, frequency_loss, sentence_loader
from postcorrect.wordpiece import WordPiece
from quartznet import commandline, distributed
from quartznet.checkpoint import fill, load_checkpoint
from quartznet.claim import claimed
from quartznet.engine import fit
from quartznet.lm_text import rules
from quartznet.neural_lm import add_text_options, read_both
from quartznet.runstate import TrainState, rank_of
from quartznet.settings import from_dict, to_dict
from quartznet.step import choose_precision

SHORT = {name.replace("_", "-"): f"network.{name}" for name in to_dict(NetworkSettings())}

logger = logging.getLogger(__name__)

# ---------------------------------------------------------------------------------------------------------------------
# Before the first step


def check_folders(options: argparse.Namespace) -> None:
    """Raises ValueError where ``--out`` cannot be written without harm to something else."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; the BERT needs a folder of its own")
    if options.bert and not options.bert.is_dir():
        raise FileNotFoundError(f"there is no folder {options.bert}; --bert takes one in Hugging Face's layout")
    if options.bert and out.resolve() == options.bert.resolve():
        raise ValueError(f"--out {out} is the folder of --bert; what is there must not change, choose another --out")
    strange = [name for name in (SAFETENSORS, PICKLE, "config.json") if (out / name).exists()]
    if strange and not (out / "last.pt").exists():
        raise ValueError(f"--out {out} holds {strange[0]}, which this command did not write; choose another --out")


def check_sizes(chosen: dict, config: CorrectorConfig, folder: Path) -> None:
    """Raises ValueError where other sizes were asked for than the BERT of ``--bert`` has."""
    asked, found = from_dict(NetworkSettings, chosen.get("network", {})), NetworkSettings.of(config)
    for name in chosen.get("network", {}):
        if getattr(asked, name) != getattr(found, name):
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(asked, name)} is asked for, but {folder} has "
                f"{getattr(found, name)}; leave it out, sizes and vocabulary come with the weights"
            )


def read_start(folder: Path, chosen: dict, settings: PretrainSettings) -> tuple[MaskedModel, WordPiece]:
    """The network and the vocabulary of ``--bert``; a head that it does not have is random."""
    torch.manual_seed(settings.seed)
    dropout = None if settings.dropout is None else DropoutConfig.everywhere(settings.dropout)
    model, tokenizer = masked_from_bert(folder, dropout)
    check_sizes(chosen, model.encoder.config, folder)
    return model, tokenizer


def new_start(texts: Sequence[str], settings: PretrainSettings) -> tuple[MaskedModel, WordPiece]:
    """A random network, and a vocabulary out of the text."""
    torch.manual_seed(settings.seed)
    tokenizer = WordPiece.learn(texts, settings.network.vocabulary)
    dropout = DROPOUT if settings.dropout is None else settings.dropout
    return MaskedModel.new(settings.network.config(len(tokenizer), dropout)), tokenizer


def check_vocabulary(tokenizer: WordPiece, out: Path) -> None:
    """Raises ValueError where ``out`` holds a run with another vocabulary: none of its weights would mean the same."""
    if (out / "last.pt").exists():
        found = load_checkpoint(out / "last.pt")
        if found.get("kind") != KIND:
            raise ValueError(f"{out / 'last.pt'} is no training of a BERT; choose another --out")
        if found.get("tokenizer") != tokenizer.to_json():
            raise ValueError(
                f"{out / 'last.pt'} was trained with another vocabulary, so the text or --vocabulary was another; give "
                f"what it was begun with, or choose another --out (--bert {out} goes on from its weights)"
            )


def print_plan(
    model: MaskedModel, settings: PretrainSettings, train: Sentences, dev: Sentences, batches: int, out: Path
) -> None:
    """What is about to happen."""
    config, optim = model.encoder.config, settings.optim
    weights = sum(parameter.numel() for parameter in model.parameters())
    precision = str(choose_precision(settings.precision, model.device)).removeprefix("torch.")
    loss, wrong = frequency_loss(train, dev)
    lines = [
        f"network   {config.encoder.layers} layer(s) of {config.channels} channels, {config.vocabulary:,} tokens, "
        f"{weights:,} weights",
        f"train     {train}",
        f"dev       {dev}",
        f"          guessed by frequency: loss {loss:.4f}, wrong {wrong:.2%}",
        f"steps     {settings.total_steps(batches):,}; an epoch has {batches:,} batches of up to "
        f"{settings.batch_tokens:,} tokens",
        f"optimiser {optim.name}, rate {optim.lr:g}, {settings.schedule.name} schedule",
        f"device    {model.device}, {precision}, {distributed.world_size()} process(es); run folder {out}",
    ]
    for line in lines:
        logger.info(line)


# ---------------------------------------------------------------------------------------------------------------------
# After the last


def export(model: MaskedModel, tokenizer: WordPiece, out: Path) -> bool:
    """Writes the best weights so far in Hugging Face's layout; False where there are none of this network yet."""
    best = load_checkpoint(out / "best.pt") if (out / "best.pt").exists() else {}
    if best.get("model_config") != to_dict(model.encoder.config):
        return False
    fill(model, best.get("weights"), out / "best.pt")
    save_bert(model.encoder, out, tokenizer, model.head)
    return True


def print_results(state: TrainState, out: Path) -> None:
    """The final table, and what to do next."""
    best, first = min(state.history, key=rank_of), state.history[0]
    print(f"\n{'':12}{'loss':>8}{'wrong':>10}{'not among 5':>14}")
    rows = [("dev before", first)] if first["step"] == 0 else []  # a BERT to go on from is measured first
    for name, record in [*rows, ("best dev", best)]:
        rates = f"{100 * record['wer']:>8.2f} %{100 * record['cer']:>12.2f} %"
        print(f"{name:12}{record['loss']:>8.4f}{rates}   step {record['step']}")
    print(f"\nBERT        {out}")
    print(f"corrector   python -m postcorrect.train --data PAIRS --bert {out}")


# ---------------------------------------------------------------------------------------------------------------------
# The command


def pretrain(options: argparse.Namespace) -> int:
    """One whole run; returns the exit status."""
    chosen = commandline.chosen_settings(options, None)
    settings, out = from_dict(PretrainSettings, chosen), options.out
    check_folders(options)
    device = distributed.choose_device(settings.device)
    with distributed.processes(device), claimed(out):
        rank, world = distributed.rank(), distributed.world_size()
        if not distributed.is_main():
            logging.getLogger().setLevel(logging.WARNING)
        start = read_start(options.bert, chosen, settings) if options.bert else None
        texts, dev_texts = read_both(options, rules(options.lang, options.texts))
        model, tokenizer = start or new_start(texts, settings)
        config = model.encoder.config
        check_vocabulary(tokenizer, out)
        settings, model = replace(settings, network=NetworkSettings.of(config)), model.to(device)
        masker = Masker(tokenizer, settings.masks)
        train, dev = (Sentences(part, tokenizer, config.positions) for part in (texts, dev_texts))
        loader = sentence_loader(
            train, masker, settings.batch_tokens, settings.seed, rank, world, device.type == "cuda"
        )
        batches = list(dev_batches(dev, masker, settings.batch_tokens))
        task = masked_task(tokenizer, config, masker, batches, settings.seed, options.lang, bool(options.bert))
        print_plan(model, settings, train, dev, len(loader.batch_sampler), out)
        is_main, is_written = distributed.is_main(), False
        try:
            state, signal = fit(model, loader, settings, task, out)
        finally:
            if is_main:
                is_written = export(model, tokenizer, out)
    if signal is not None:
        if is_main:
            best = f"{out} holds the best BERT so far" if is_written else "no BERT is written yet"
            print(f"stopped at step {state.step}; {best}; the same command continues", file=sys.stderr)
        return 128 + signal
    if is_main:
        print_results(state, out)
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``settings:...`` are those of ``PretrainSettings``."""
    parser = commandline.Parser(
        prog="python -m postcorrect.pretrain", description=__doc__.split("\n")[0], add_help=False, allow_abbrev=False
    )
    add_text_options(parser)
    parser.add_argument(
        "--out", required=True, type=Path, help="run folder, where the BERT is written, such as bert-es"
    )
    parser.add_argument("--bert", type=Path, help="folder of a BERT to go on from: its weights, sizes and vocabulary")
    commandline.add_settings(parser, PretrainSettings, SHORT)
    return commandline.parse(parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 128 + n stopped by signal n."""
    return commandline.run(
        lambda: pretrain(read_options(arguments)),
        memory="--batch-tokens and raise --optim.accumulate",
        stopped="aborted; what was saved before is untouched: the same command continues",
    )


if __name__ == "__main__":
    distributed.leave(main())
