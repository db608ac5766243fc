"""``python -m quartznet.lm tune``: hears a dev set once, tries weights of a language model on it, keeps the best.

    python -m quartznet.lm tune --checkpoint runs/es --data corpora/es --lm es.arpa

The searches are those of ``quartznet.tune_lm``; the result lies beside the language model (``quartznet.decoding``).

The surprise: nothing here can tell whether the model was built from the dev sentences, because n-grams hold no whole
text. A model that learnt them by heart gets a large weight and fails on everything else; ``lm build --against`` looks.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from data.dataset import normalised
from data.loaders import evaluation_loader
from data.source import fill_durations, read_source
from quartznet import load_model
from quartznet.arpa import LanguageModel
from quartznet.beam import BeamSettings
from quartznet.decoding import Tuned, file_hash, network_hash, save_tuned
from quartznet.distributed import choose_device
from quartznet.lm import check_alphabet, open_language_model
from quartznet.metrics import total
from quartznet.model import QuartzNet
from quartznet.tune_lm import Clips, Tuning, surface_table, tune, verdict
from quartznet.writing import choose_language


def add_tune(commands: argparse._SubParsersAction) -> None:
    """The subcommand and its options."""
    parser = commands.add_parser(
        "tune", help="how much a model shall count", description="Tries weights of a language model on a dev set."
    )
    parser.add_argument("--checkpoint", required=True, help="file or run folder (its best) that hears")
    parser.add_argument("--data", required=True, help="what evaluate.py reads; its dev part is used")
    parser.add_argument("--split", choices=("train", "dev", "test", "all"), default="dev", help="another part (dev)")
    parser.add_argument("--lm", required=True, metavar="FILE", help="the language model")
    parser.add_argument("--lang", help="text rules; the checkpoint's language when left out")
    parser.add_argument("--beam", type=int, default=BeamSettings().beam, help="of the grids (64); twice and four times")
    parser.add_argument("--closed", action="store_true", help="write words of the language model only")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--batch-seconds", type=float, default=120.0, help="audio in a batch, padding counted (120)")
    parser.set_defaults(run=run_tune)


@torch.inference_mode()
def hear(model: QuartzNet, options: argparse.Namespace) -> tuple[Clips, list[str]]:
    """What the network makes of the dev set, and messages about clips that were left out."""
    clips, skipped, _ = read_source(options.data, options.split)
    texts = [clip.text for clip in clips]
    language = choose_language(options.lang, options.checkpoint, model.config.labels, texts)
    clips, emptied = normalised(clips, language)
    clips, problems = fill_durations(clips)
    fast = model.to(choose_device(options.device)).for_inference()
    rate, references, rows = model.config.features.sample_rate, [], []
    loader = evaluation_loader(clips, model.alphabet, rate, options.batch_seconds, shortest=model.front_end.shortest)
    failed: Sequence[str] = []
    for batch in tqdm(loader, desc="hearing", unit="batch", disable=None):
        failed = [*failed, *batch.skipped]
        if len(batch):
            batch = batch.to(fast.device)
            log_probs, lengths = fast.forward_features(*fast.front_end.each(batch.signal, batch.signal_lengths))
            references += batch.texts
            rows += [row[:length].float().cpu() for row, length in zip(log_probs, lengths.tolist(), strict=True)]
    return Clips(tuple(references), tuple(rows)), [*skipped, *emptied, *problems, *failed]


def search(model: QuartzNet, clips: Clips, language_model: LanguageModel, start: BeamSettings) -> Tuning:
    """The best weights, with a bar of the searches."""
    with tqdm(desc="searches", unit="", disable=None) as bar:

        def tell(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        return tune(clips, model.alphabet, language_model, start, tell)


def run_tune(options: argparse.Namespace) -> None:
    """Raises ValueError, OSError for what the user can put right."""
    if not Path(options.lm).is_file():  # better said before the network has heard an hour, as all that is wrong with it
        raise FileNotFoundError(f"there is no language model {options.lm}; python -m quartznet.lm build makes one")
    start = replace(BeamSettings(), beam=options.beam, closed=options.closed)
    model, language_model = load_model(options.checkpoint), open_language_model(options.lm)
    check_alphabet(language_model, model.alphabet, options.lm)
    network = network_hash(model)
    clips, skipped = hear(model, options)
    if skipped:
        print(f"{len(skipped)} clips left out; the first: {skipped[0]}")
    tuning = search(model, clips, language_model, start)
    print(f"word error rate in %, {len(clips.references)} clips, beam {options.beam}\n{surface_table(tuning)}")
    print(verdict(tuning))
    greedy, searched = (total(counts).rate for counts in (tuning.greedy, tuning.searched))
    place = f"{options.data}, {options.split}"
    tuned = Tuned(file_hash(options.lm), tuning.helps, tuning.settings, place, greedy, searched)
    print(f"{save_tuned(options.lm, network, tuned)}: evaluate.py --lm {options.lm} finds it there")
