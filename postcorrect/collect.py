"""Collects pairs of recognised and true sentences, from which a corrector learns what a recogniser gets wrong.

    python -m postcorrect.collect --checkpoint runs/es --data prepared/es --out pairs/es --nbest 4 --dropout-seeds 3
    python -m postcorrect.collect --checkpoint runs/es --data prepared/es --out pairs/es --folds 5 -- --init en.nemo \\
        --lang es --epochs 30                           cross-decoding: options of train.py after --
    python -m postcorrect.collect --text sentences.txt --errors result.json --lang es --out pairs/es      no audio

Ways add up, and ``--text`` to clips too. The folder gets train, dev and test as ``.pred`` and ``.real`` (plain text)
and ``.jsonl``, report.txt, and with ``--text`` errors.json. What is decoded stays in parts/: the same command goes on
where it was stopped, and one that asks for more decodes what is new.

Dev and test are those of the corpus (or held out), greedy, by ``--checkpoint``, and nothing is taken out of them; no
sentence of theirs is in train. The surprise: a network errs least on the clips that it was trained on. Where train is
decoded much better than dev, that is said: then ``--folds`` or dropout bring out the errors of new speech.
"""

import argparse
import functools
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.dataset import normalised
from data.hashing import stable_hash
from data.manifest import Utterance
from data.noisy import conditions
from data.source import fill_durations, open_source
from data.splits import sentence_key
from postcorrect.error_model import estimate, lang_of, read_errors, save_errors
from postcorrect.folds import check_options, make_folds, train_fold
from postcorrect.hearing import PLAIN, Collection, Hearing, Way
from postcorrect.mishearing import ErrorModel, ErrorSampler
from postcorrect.pairs import IDENTICAL, MOST_WER, PARTS, Pair, clean, part_chooser, write_part
from postcorrect.pairs_report import report
from quartznet import commandline, load_model
from quartznet.claim import claimed
from quartznet.decoding import network_hash
from quartznet.distributed import choose_device
from quartznet.lm_text import Text, rules
from quartznet.model import QuartzNet
from quartznet.text import Language
from quartznet.writing import choose_language

UNKNOWN_LETTERS = 0.02  # share of a text's letters that an error model may never have seen
RATIOS = (20.0, 10.0, 5.0)  # dB
TEXT = "text"  # source of pairs that nobody said

Parts = dict[str, list[Pair]]


def numbers(text: str) -> tuple[float, ...]:
    """``0.9,1.1`` -> (0.9, 1.1)."""
    return tuple(dict.fromkeys(float(part) for part in text.split(",")))


def make_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        usage="python -m postcorrect.collect [options] [-- options of train.py]",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--out", help="folder of the pairs")
    parser.add_argument("--lang", help="text rules; the language of checkpoint or errors when left out")
    parser.add_argument("--seed", type=int, default=0, help="of all that chance decides (0)")
    parser.add_argument("--most-wer", type=float, default=MOST_WER, help="of a pair in train, a fraction (0.5)")
    parser.add_argument(
        "--identical", type=float, default=IDENTICAL, help="share of right pairs in train, 1: all (0.2)"
    )
    clips = parser.add_argument_group("clips")
    clips.add_argument("--checkpoint", help="file or run folder (its best): ours, .nemo, .ckpt, .pt pair")
    clips.add_argument("--data", help="manifest, Common Voice folder or archive, or any corpus that train.py reads")
    clips.add_argument(
        "--folds", type=int, metavar="K", help="train K recognisers, each decodes what it has not learnt"
    )
    clips.add_argument("--nbest", type=int, default=1, metavar="N", help="texts of each hearing, of a beam search (1)")
    clips.add_argument("--beam", type=int, default=64, help="texts that the search keeps (64)")
    clips.add_argument("--dropout-seeds", type=int, default=0, metavar="N", help="hearings with dropout (0)")
    clips.add_argument("--dropout", type=float, default=0.02, metavar="RATE", help="of these (0.02)")
    clips.add_argument("--speeds", type=numbers, default=(), metavar="A,B", help="a hearing at each speed: 0.9,1.1")
    clips.add_argument("--noise", metavar="PATH", help="hearings with noise: folder of recordings, or one of them")
    clips.add_argument("--rir", metavar="PATH", help="a hearing in a room: folder of impulse responses, or one")
    clips.add_argument("--snr", type=numbers, metavar="DB,DB", help="speech to noise, in dB (20,10,5)")
    clips.add_argument("--device", default="auto", help="auto, cpu or cuda")
    clips.add_argument("--batch-seconds", type=float, default=120.0, help="audio in a batch, padding counted (120)")
    clips.add_argument("--workers", type=int, default=0, help="loader processes (0: none)")
    text = parser.add_argument_group("text alone")
    text.add_argument("--text", nargs="+", type=Path, default=[], metavar="FILE", help="sentences to get wrong")
    text.add_argument("--errors", type=Path, metavar="FILE", help="errors.json, evaluate.py --json, or pairs")
    text.add_argument("--error-rate", type=float, metavar="WER", help="a fraction (that of the errors)")
    text.add_argument("--copies", type=int, default=1, help="times that each sentence is got wrong (1)")
    return parser


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what stands after ``--`` is in ``train_options``. Raises ValueError for what is impossible."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    place = given.index("--") if "--" in given else len(given)
    options = commandline.parse(make_parser(), given[:place])
    options.train_options = given[place + 1 :]
    if options.out is None:
        raise ValueError("--out is missing: the folder that the pairs go to")
    if (options.checkpoint is None) != (options.data is None):
        missing = "data" if options.data is None else "checkpoint"
        raise ValueError(f"--{missing} is missing: clips are decoded by --checkpoint C --data PATH")
    if options.checkpoint is None and not options.text:
        raise ValueError("nothing to collect from: give --checkpoint C --data PATH, or --text FILE --errors FILE")
    _check_effect(options)
    Hearing(options.nbest, options.beam)  # these two raise for impossible values, now and not after hours
    clean([], most_wer=options.most_wer, identical=options.identical)
    if options.error_rate is not None and not 0.0 < options.error_rate <= 1.0:
        raise ValueError(f"--error-rate must be above 0 and at most 1, got {options.error_rate}")
    if min(options.copies, options.dropout_seeds + 1) < 1:
        raise ValueError("--copies must be at least 1 and --dropout-seeds at least 0")
    return options


def _check_effect(options: argparse.Namespace) -> None:
    """Raises ValueError for options that would have no effect."""
    has_clips, is_ways = options.checkpoint is not None, ("folds", "dropout_seeds", "speeds", "noise", "rir")
    needs = [
        *((name, has_clips, "--checkpoint and --data") for name in is_ways),
        ("snr", options.noise is not None, "--noise PATH"),
        ("train_options", options.folds is not None, "--folds K"),
        *((name, bool(options.text), "--text FILE") for name in ("errors", "error_rate")),
    ]
    for name, has_effect, need in needs:
        if getattr(options, name) and not has_effect:
            flag = "options after --" if name == "train_options" else f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} does nothing without {need}; add that, or leave it out")
    if options.folds is not None:
        check_options(options.train_options)
    if options.text and not options.errors and not has_clips:
        raise ValueError("--text needs errors to make: --errors errors.json, a result of evaluate.py --json, or pairs")


# ---------------------------------------------------------------------------------------------------------------------
# Clips


@dataclass
class Found:
    """What was collected, before anything is taken out."""

    parts: Parts = field(default_factory=lambda: {part: [] for part in PARTS})
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    language: Language | None = None  # of the clips


def ways(options: argparse.Namespace, sample_rate: int) -> list[Way]:
    """All ways of hearing that are asked for, the plain one first."""
    dropouts = [
        Way(f"dropout {options.dropout:g} seed {seed}", dropout=options.dropout, seed=stable_hash(options.seed, seed))
        for seed in range(1, options.dropout_seeds + 1)
    ]
    speeds = [Way(f"speed {speed:g}", speed=speed) for speed in options.speeds if speed != 1.0]
    _, *others = conditions(options.noise, options.rir, options.snr or RATIOS, sample_rate, options.seed)
    noisy = [Way(f"noise {c.label}" if c.noise else c.label, condition=c) for c in others]
    return [Way(PLAIN), *dropouts, *speeds, *noisy]


def fold_network(fold: object, dev: Sequence[Utterance], options: argparse.Namespace, labels: set[str]) -> QuartzNet:
    """The network of a fold, trained where that is not done yet."""
    train_fold(fold, dev, options.train_options)
    model = load_model(fold.run).to(choose_device(options.device))
    if set(model.config.labels) != labels:
        raise ValueError(
            f"{fold.run} writes other letters than {options.checkpoint}: a corrector learns from one alphabet; is "
            "--lang after -- that of the checkpoint?"
        )
    return model


def train_parts(
    model: QuartzNet, clips: dict[str, list[Utterance]], raw: dict[str, list[Utterance]], options: argparse.Namespace
) -> Iterator[tuple[str, list[Utterance], str, Callable[[], QuartzNet]]]:
    """Name, clips, key and network of what is decoded for train: all of it, or fold by fold."""
    if options.folds is None:
        yield "train", clips["train"], network_hash(model), lambda: model
        return
    normal = {clip.identity: clip for clip in clips["train"]}
    usable = [clip for clip in raw["train"] if clip.identity in normal]
    for fold in make_folds(usable, options.folds, Path(options.out) / "folds", options.train_options):
        make = functools.cache(
            functools.partial(fold_network, fold, raw["dev"], options, set(model.config.labels)),
        )
        yield f"fold-{fold.number}", [normal[clip.identity] for clip in fold.decoded], fold.folder.name, make


def decode(options: argparse.Namespace) -> Found:
    """The pairs of all clips: train in all ways, dev and test greedily by the checkpoint."""
    found, model = Found(), load_model(options.checkpoint).to(choose_device(options.device))
    chosen = ways(options, model.config.features.sample_rate)
    splits = open_source(options.data)
    print(f"{options.checkpoint} on {splits.description}", flush=True)
    texts = [clip.text for clip in (*splits.train, *splits.dev, *splits.test)]
    found.language = language = choose_language(options.lang, options.checkpoint, model.config.labels, texts)
    raw, clips = {}, {}
    found.skipped += splits.skipped
    for part in PARTS:
        raw[part], unread = fill_durations(getattr(splits, part))
        clips[part], emptied = normalised(raw[part], language)
        found.skipped += [*unread, *emptied]
    hearing = Hearing(options.nbest, options.beam, options.batch_seconds, options.workers)
    store = Collection(Path(options.out) / "parts", hearing)
    plain = Collection(store.folder, replace(hearing, nbest=1))
    for part in ("test", "dev"):  # first: they cost least, and a mistake shows there as well
        found.parts[part] = plain.pairs(part, clips[part], Way(PLAIN), network_hash(model), lambda: model)
    for name, block, key, make in train_parts(model, clips, raw, options):
        for way in chosen:
            found.parts["train"] += store.pairs(name, block, way, key, make)
    found.skipped += [*store.skipped, *plain.skipped]
    if store.reused + plain.reused:
        print(f"{store.reused + plain.reused:,} hearings were decoded by an earlier command")
    if not found.parts["train"]:
        raise ValueError(f"no clip of {options.data} could be decoded; the first problem: {found.skipped[:1]}")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Text


def read_text(options: argparse.Namespace, found: Found) -> list[str]:
    """The different sentences of ``--text`` by the rules of the clips, of ``--lang``, or of the errors."""
    language = found.language
    if language is None:
        lang = options.lang or lang_of(options.errors)
        if not lang:
            raise ValueError("--lang is missing: by the rules of which language is --text written?")
        language = rules(lang, options.text)
    text = Text(options.text, language)
    sentences = list(dict.fromkeys(text.sentences()))
    if not sentences:
        raise text.nothing_left()
    print(text.report())
    if text.empty:
        print(f"{text.empty:,} lines are left out, nothing is left of them")
    return sentences


def check_letters(sentences: Sequence[str], model: ErrorModel) -> str:
    """What is to be said of letters without errors; raises ValueError where they are another alphabet."""
    text = "".join(sentences).replace(" ", "")
    unknown = "".join(sorted(set(text) - model.letters.keys()))
    share = sum(text.count(letter) for letter in unknown) / max(1, len(text))
    if share > UNKNOWN_LETTERS:
        raise ValueError(
            f"{share:.1%} of the letters of --text were never said where the errors come from ({unknown[:30]}); give "
            "errors of the same language, or of more speech"
        )
    return f"letters that stay right, the errors have none of them: {unknown[:40]}" if unknown else ""


def write_wrong(options: argparse.Namespace, found: Found) -> ErrorModel:
    """Adds the pairs of ``--text``: to train alone where there are clips, else to all three parts. Returns the model.

    The errors are those of ``--errors``, or of the clips of train that were decoded as they are.
    """
    sentences = read_text(options, found)
    if options.errors:
        model = read_errors(options.errors, sentences)
    else:
        plain = [pair for pair in found.parts["train"] if pair.source == PLAIN]
        model = estimate(plain, found.language.code, sentences)
    print(f"errors for the text: {model}", flush=True)
    if note := check_letters(sentences, model):
        found.notes.append(note)
    sampler = ErrorSampler(model, sentences, options.error_rate)
    choose = part_chooser(sentences) if found.language is None else lambda sentence: "train"
    for number, sentence in enumerate(sentences, 1):
        part = choose(sentence)
        for copy in range(options.copies if part == "train" else 1):
            generator = random.Random(stable_hash("text", options.seed, copy, sentence))
            found.parts[part].append(Pair(sampler.mishear(sentence, generator), sentence, f"text:{number}", TEXT))
    return model


# ---------------------------------------------------------------------------------------------------------------------
# The command


def separate(found: Found) -> None:
    """Takes the pairs out of dev whose sentence is in test as well."""
    locked = {sentence_key(pair.said) for pair in found.parts["test"]}
    kept = [pair for pair in found.parts["dev"] if sentence_key(pair.said) not in locked]
    if len(kept) < len(found.parts["dev"]):
        found.notes.append(f"{len(found.parts['dev']) - len(kept)} pairs of dev left out: their sentence is in test")
        found.parts["dev"] = kept


def collect(options: argparse.Namespace) -> None:
    """Everything, from the files to the report."""
    out = Path(options.out)
    found = decode(options) if options.checkpoint else Found()
    if options.text:
        save_errors(out / "errors.json", write_wrong(options, found))
    separate(found)
    held = [pair.said for part in ("dev", "test") for pair in found.parts[part]]
    train, cleaning = clean(found.parts["train"], held, options.most_wer, options.identical, options.seed)
    if not train:
        raise ValueError(f"no pair is left to learn from:\n{cleaning.table()}")
    for part, pairs in (("train", train), ("dev", found.parts["dev"]), ("test", found.parts["test"])):
        write_part(out, part, pairs)
    text = report(found.parts, train, cleaning, found.notes, len(found.skipped), bool(options.folds))
    (out / "report.txt").write_text(f"{text}\n", encoding="utf-8")
    (out / "skipped.txt").write_text("".join(f"{message}\n" for message in found.skipped), encoding="utf-8")
    print(f"\n{text}\n\n{out}: train, dev and test as .pred, .real and .jsonl, report.txt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 130 stopped."""

    def work() -> None:
        options = read_options(arguments)
        with claimed(Path(options.out)):
            collect(options)

    return commandline.run(work, stopped="stopped; what is decoded stays: the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
