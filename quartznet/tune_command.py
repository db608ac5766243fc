"""``python -m quartznet.lm tune``: hears a dev set once, tries weights of language models on it, keeps the best.

    python -m quartznet.lm tune --checkpoint runs/es --data corpora/es --lm es.arpa
    python -m quartznet.lm tune --checkpoint runs/es --data corpora/es --lm es.arpa --neural es_lm.pt

The searches are those of ``quartznet.tune_lm``, the second look that of ``quartznet.tune_neural``; the result lies
beside the n-gram model (``quartznet.tuned``).

The surprise: a model that learnt the dev sentences by heart gets a large weight and fails on everything else. The text
is not here to be looked at, but long n-grams are as good as sentences: those that stand in the model in full are told
(``quartznet.leaks``). A pruned model, one of less than four words and a neural one keep that to themselves.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from data.dataset import normalised
from data.loaders import evaluation_loader
from data.manifest import Utterance
from data.noisy import Condition
from data.source import fill_durations, read_source
from quartznet import load_model
from quartznet.arpa import LanguageModel
from quartznet.beam import BeamSettings
from quartznet.distributed import choose_device
from quartznet.leaks import in_full, in_full_warning
from quartznet.letter_lm import LetterLm, load_for
from quartznet.lm import check_alphabet, open_language_model
from quartznet.metrics import total
from quartznet.model import QuartzNet
from quartznet.text import Language
from quartznet.tune_lm import Clips, Tuning, surface_table, tune, verdict
from quartznet.tune_neural import neural_verdict, tune_neural
from quartznet.tuned import Tuned, TunedNeural, file_hash, network_hash, read_tuned, save_tuned
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
    parser.add_argument(
        "--neural", metavar="FILE", help="neural model that chooses among the texts (quartznet.neural_lm)"
    )
    parser.add_argument("--lang", help="text rules; the checkpoint's language when left out")
    parser.add_argument("--beam", type=int, default=BeamSettings().beam, help="of the grids (64); twice and four times")
    parser.add_argument("--closed", action="store_true", help="write words of the language model only")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--batch-seconds", type=float, default=120.0, help="audio in a batch, padding counted (120)")
    parser.set_defaults(run=run_tune)


@torch.inference_mode()
def hear(
    model: QuartzNet,
    clips: Sequence[Utterance],
    language: Language,
    options: argparse.Namespace,
    condition: Condition | None = None,
) -> tuple[Clips, list[str]]:
    """What the network makes of the clips, and messages about those that were left out.

    Args:
        condition: noise and rooms; None: as they were recorded.
    """
    clips, emptied = normalised(clips, language)
    clips, problems = fill_durations(clips)
    fast = model.to(choose_device(options.device)).for_inference()
    rate, references, rows = model.config.features.sample_rate, [], []
    shortest = model.front_end.shortest
    loader = evaluation_loader(clips, model.alphabet, rate, options.batch_seconds, shortest=shortest, heard=condition)
    failed: Sequence[str] = []
    for batch in tqdm(loader, desc="hearing", unit="batch", disable=None):
        failed = [*failed, *batch.skipped]
        if len(batch):
            batch = batch.to(fast.device)
            log_probs, lengths = fast.forward_features(*fast.front_end.each(batch.signal, batch.signal_lengths))
            references += batch.texts
            rows += [row[:length].float().cpu() for row, length in zip(log_probs, lengths.tolist(), strict=True)]
    return Clips(tuple(references), tuple(rows)), [*emptied, *problems, *failed]


def search(model: QuartzNet, clips: Clips, language_model: LanguageModel, start: BeamSettings) -> Tuning:
    """The best weights, with a bar of the searches."""
    with tqdm(desc="searches", unit="", disable=None) as bar:

        def tell(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        return tune(clips, model.alphabet, language_model, start, tell)


def look_again(
    model: QuartzNet,
    clips: Clips,
    language_model: LanguageModel,
    tuning: Tuning,
    neural: LetterLm,
    options: argparse.Namespace,
) -> TunedNeural:
    """What the neural model is good for among the texts of the best search, with a bar of the clips; says so."""
    neural.network.to(choose_device(options.device))
    without = tuning.searched if tuning.helps else tuning.greedy
    with tqdm(desc="reading", unit="clip", total=len(clips.references), disable=None) as bar:
        found = tune_neural(
            *(clips, model.alphabet, tuning.settings, language_model, neural, without),
            tell=lambda done, of: bar.update(done - bar.n),
        )
    print(neural_verdict(found))
    rates = (total(counts).rate for counts in (found.without, found.chosen))
    return TunedNeural(file_hash(options.neural), found.helps, found.found.weights, *rates)


def run_tune(options: argparse.Namespace) -> None:
    """Raises ValueError, OSError for what the user can put right."""
    if not Path(options.lm).is_file():  # better said before the network has heard an hour, as all that is wrong with it
        raise FileNotFoundError(f"there is no language model {options.lm}; python -m quartznet.lm build makes one")
    start = replace(BeamSettings(), beam=options.beam, closed=options.closed)
    model, language_model = load_model(options.checkpoint), open_language_model(options.lm)
    check_alphabet(language_model, model.alphabet, options.lm)
    network = network_hash(model)
    found, skipped, _ = read_source(options.data, options.split)
    texts = [clip.text for clip in found]
    language = choose_language(options.lang, options.checkpoint, model.config.labels, texts)
    neural = load_for(options.neural, model.alphabet, language.code) if options.neural else None
    before = read_tuned(options.lm).get(network)
    clips, problems = hear(model, found, language, options)
    if skipped := [*skipped, *problems]:
        print(f"{len(skipped)} clips left out; the first: {skipped[0]}")
    if warning := in_full_warning(in_full(language_model, clips.references), options.lm):
        print(warning)
    tuning = search(model, clips, language_model, start)
    print(f"word error rate in %, {len(clips.references)} clips, beam {options.beam}\n{surface_table(tuning)}")
    print(verdict(tuning))
    second = look_again(model, clips, language_model, tuning, neural, options) if neural else None
    if before and before.neural and not second:
        print("a neural model was tuned for the former search; add --neural to tune it again")
    greedy, searched = (total(counts).rate for counts in (tuning.greedy, tuning.searched))
    place = f"{options.data}, {options.split}"
    tuned = Tuned(file_hash(options.lm), tuning.helps, tuning.settings, place, greedy, searched, second)
    more = f" --neural {options.neural}" if options.neural else ""
    print(f"{save_tuned(options.lm, network, tuned)}: evaluate.py --lm {options.lm}{more} finds it there")
