"""Scores a checkpoint on a corpus: loss, WER and CER with 95 % intervals, kinds of error, the worst utterances.

    python evaluate.py --checkpoint runs/es --data corpora/es --split test --json result.json
    python evaluate.py --checkpoint runs/es --data corpora/es --by accent,duration      a table for each field
    python evaluate.py --checkpoint runs/es --data corpora/es --noise noise --rir rir   clean, in a room, 20 to 0 dB
    python evaluate.py --checkpoint runs/es --data corpora/es --report es.html --against other.json    a page to read
    python evaluate.py --checkpoint runs/es --data corpora/es --lm es.arpa --hotwords words.txt    beam search
    python evaluate.py --checkpoint runs/es --data corpora/es --corrector runs/es-corrector    texts are repaired

``--checkpoint`` is anything that ``quartznet.load_model`` reads, ``--data`` anything that train.py reads. Decoding is
greedy, unless ``--lm`` or ``--beam`` ask for a search; its weights are those that ``quartznet.lm tune`` found. What
``--corrector`` changes goes through the gate of ``postcorrect.tune_gate``. The surprise: references are normalised by
the language's rules *and* to the labels of the model, so a checkpoint that cannot write a letter is measured on what it
can write; the table of lost letters says how much that is.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from data import noisy
from data.dataset import SpeechDataset, normalised
from data.loaders import evaluation_loader
from data.manifest import Utterance
from data.noisy import RATIOS, Condition, conditions
from data.source import fill_durations, read_source
from postcorrect import repair_speech
from postcorrect.repair_speech import SpeechRepairer
from quartznet import backend, commandline, decoding, load_model
from quartznet.adapter import apply_adapter, read_adapter
from quartznet.audit import audit
from quartznet.breakdown import (
    Clip,
    Group,
    breakdown_table,
    check_fields,
    conditions_json,
    conditions_table,
    groups,
    groups_json,
)
from quartznet.confidence import Calibration, are_right, calibrate
from quartznet.decoding import Heard
from quartznet.distributed import choose_device
from quartznet.exhibits import exhibits
from quartznet.hotword_report import report_hotwords
from quartznet.hotwords import HotWord
from quartznet.initial import read_base
from quartznet.metrics import error_counts
from quartznet.model import QuartzNet
from quartznet.page import Page, write_page
from quartznet.page_figures import fields_worth_showing
from quartznet.page_utterances import worst
from quartznet.recognition import Answer, Decode, Transcript, mean_loss, recognise
from quartznet.report import Evaluation, align_texts, evaluate_texts, evaluation_json, evaluation_table
from quartznet.significance import Comparison, Result, compare, comparison_table, read_result
from quartznet.text import Language
from quartznet.writing import choose_language

Key = tuple[str, str, int]  # of a clip: name, text, and how many before it share both
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def names(text: str) -> tuple[str, ...]:
    """``accent,age`` -> ("accent", "age")."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ValueError for what is missing or unknown."""
    parser = commandline.Parser(description=__doc__.split("\n")[0], allow_abbrev=False, usage="evaluate.py [options]")
    parser.add_argument("--checkpoint", help="file or run folder (its best): ours, .nemo, .ckpt, .pt pair")
    parser.add_argument("--data", help="manifest, Common Voice folder or archive, or folder of clips")
    parser.add_argument("--split", choices=("train", "dev", "test", "all"), help="test, or all of a single manifest")
    parser.add_argument("--adapter", metavar="FILE", help="what a fine-tuning changed in that checkpoint (adapter.pt)")
    parser.add_argument("--lang", help="text rules; the checkpoint's language when left out")
    parser.add_argument("--json", metavar="FILE", help="write rates as fractions, counts and all transcripts")
    parser.add_argument("--report", metavar="FILE", help="write a page (HTML) with figures, confusions, worst sounds")
    parser.add_argument("--against", metavar="FILE", help="a second system: what --json wrote for it; paired bootstrap")
    parser.add_argument("--confidence", action="store_true", help="are words right as often as the network is sure?")
    parser.add_argument(
        "--precision", choices=tuple(DTYPES), default="fp32", help="fp32 (default); bf16 for a fast GPU"
    )
    parser.add_argument("--kernels", choices=backend.CHOICES, default="auto", help=backend.HELP)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--batch-seconds", type=float, default=120.0, help="audio in a batch, padding counted (120)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (0: none)")
    parser.add_argument("--worst", type=int, default=5, help="utterances with most errors to print (5)")
    parser.add_argument("--show", type=int, default=0, help="transcripts to print, spread over the data (0)")
    decoding.add_options(parser)
    repair_speech.add_options(parser)
    group = parser.add_argument_group("tables, noise and rooms")
    group.add_argument("--by", type=names, default=(), help="tables by speaker, duration or any field of the data: a,b")
    noisy.add_options(group)
    group.add_argument("--seed", type=int, default=0, help="which noise and which room each clip gets (0)")
    options = commandline.parse(parser, arguments)
    for name in ("checkpoint", "data"):
        if getattr(options, name) is None:
            raise ValueError(f"--{name} is missing; evaluate.py --checkpoint CHECKPOINT --data PATH")
    decoding.check_options(options)
    repair_speech.check_options(options)
    for name in ("worst", "show", "workers"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} is a number from 0 on, got {getattr(options, name)}")
    if not 0 < options.batch_seconds < math.inf:
        raise ValueError(f"--batch-seconds must be above 0 and finite, got {options.batch_seconds:g}")
    noisy.check_options(options)
    if options.json and options.against and Path(options.json).resolve() == Path(options.against).resolve():
        raise ValueError(f"--json {options.json} would replace the result of --against; name another file")
    for name, file in (("json", options.json), ("report", options.report)):  # better now than after an hour
        if file and not Path(file).absolute().parent.is_dir():
            raise ValueError(f"--{name} {file}: there is no folder {Path(file).parent}; make it first")
        if file and Path(file).is_dir():
            raise ValueError(f"--{name} {file} is a folder; name a file")
    return options


def answer(
    log_probs: Tensor, length: int, heard: Heard, model: QuartzNet, language: Language, is_timed: bool
) -> Answer:
    """What is scored of an utterance: custom words are normalised as references are, words are those of the text."""
    is_plain, text = heard.shown == heard.letters, repair_speech.heard_text(heard, language)
    if not is_timed:
        return Answer(text)
    seconds = model.samples_per_output / model.config.features.sample_rate
    try:
        words = decoding.timed(log_probs, length, heard, model.alphabet, seconds)
    except ValueError:  # no path reads so; such texts are counted where words are asked for
        return Answer(text)
    if not is_plain:
        words = [replace(word, text=part) for word in words for part in language.normalize(word.text).split()]
    return Answer(text, tuple(words) if [word.text for word in words] == text.split() else ())


def decoder(
    options: argparse.Namespace, model: QuartzNet, language: Language
) -> tuple[Decode | None, Sequence[HotWord], SpeechRepairer | None]:
    """What is heard in a batch, None for greedy texts alone, the custom words, and what repairs the texts."""
    decode, hotwords = decoding.choose_decode(options, model, language)
    repairer = repair_speech.choose_repairer(options, model, language)
    hear, is_timed = decode or decoding.greedy(model, None), bool(options.report or options.confidence)

    def answers(log_probs: Tensor, lengths: Tensor) -> list[Answer]:
        heard, befores = hear(log_probs, lengths), [None] * len(lengths)
        if repairer:
            heard, befores = repairer(log_probs, lengths, heard)
        rows = zip(log_probs, lengths.tolist(), heard, strict=True)
        found = [answer(row, length, text, model, language, is_timed) for row, length, text in rows]
        return [replace(one, before=before) for one, before in zip(found, befores, strict=True)]

    return (None if decode is None and not is_timed and repairer is None else answers), hotwords, repairer


def transcribe_clips(
    model: QuartzNet,
    clips: Sequence[Utterance],
    options: argparse.Namespace,
    condition: Condition,
    decode: Decode | None = None,
) -> tuple[list[Transcript], list[str]]:
    """Transcripts in the order of the clips as ``condition`` changes them, and messages about those that failed."""
    sample_rate, device = model.config.features.sample_rate, choose_device(options.device)
    fast = model.to(device).for_inference(DTYPES[options.precision], options.kernels)
    loader = evaluation_loader(
        clips,
        model.alphabet,
        sample_rate,
        options.batch_seconds,
        workers=options.workers,
        pin_memory=device.type == "cuda",
        shortest=model.front_end.shortest,
        heard=condition,
    )
    rows, skipped = recognise(fast, loader, decode=decode)
    place = {clip.name: number for number, clip in enumerate(clips)}
    return sorted(rows, key=lambda row: place[row.name]), skipped


def show(rows: Sequence[Transcript], count: int) -> None:
    """``count`` transcripts under their references, evenly spread over the data."""
    for row in rows[:: max(1, len(rows) // count)][:count]:
        print(f"\n{row.name}\n{align_texts(row.reference, row.hypothesis)}")


def keys(clips: Iterable[tuple[str, str]]) -> Iterator[Key]:
    """A key for each (name, text): cuts that begin together share the name, and may share the text."""
    seen: Counter[tuple[str, str]] = Counter()
    for clip in clips:
        yield (*clip, seen[clip])
        seen[clip] += 1


def evaluated(clips: Sequence[Utterance], rows: Sequence[Transcript]) -> list[Utterance]:
    """The clip of each row."""
    clip_of = dict(zip(keys((clip.name, clip.text) for clip in clips), clips, strict=True))
    return [clip_of[key] for key in keys((row.name, row.reference) for row in rows)]


def scored(clips: Sequence[Utterance], rows: Sequence[Transcript]) -> dict[Key, Clip]:
    """What the tables need to know of each evaluated clip, in the order of the rows."""
    found = evaluated(clips, rows)
    texts = [row.reference for row in rows], [row.hypothesis for row in rows]
    counts = zip(error_counts(*texts, "word"), error_counts(*texts, "character"), strict=True)
    made = [Clip(clip.described, clip.duration, *pair) for clip, pair in zip(found, counts, strict=True)]
    return dict(zip(keys((row.name, row.reference) for row in rows), made, strict=True))


def in_conditions(
    model: QuartzNet,
    clips: Sequence[Utterance],
    clean: dict[Key, Clip],
    others: Sequence[Condition],
    options: argparse.Namespace,
    decode: Decode | None = None,
    repairer: SpeechRepairer | None = None,
) -> tuple[list[Group], dict[str, dict]]:
    """The clips that could be evaluated in every condition, the clean ones first; others are counted on the screen.

    Also what repairing did in each of ``others``, which is printed.
    """
    heard, failed, repaired = {"clean": clean}, [], {}
    for condition in others:
        rows, problems = transcribe_clips(model, clips, options, condition, decode)
        heard[condition.label] = scored(clips, rows)
        if repairer and rows:
            repaired[condition.label] = repairer.report(rows, condition.label)
        failed += problems
    everywhere = [key for key in clean if all(key in found for found in heard.values())]
    if not everywhere:
        raise ValueError(f"no clip could be evaluated in every condition; the first problem: {failed[0]}")
    if len(everywhere) < len(clean):
        print(f"\n{len(clean) - len(everywhere)} clips are left out of the next table; the first: {failed[0]}")
    return [Group(label, tuple(found[key] for key in everywhere)) for label, found in heard.items()], repaired


def tables(clean: Sequence[Clip], heard: Sequence[Group], fields: Sequence[str]) -> dict:
    """Prints a table of the conditions, if there are several, and of each field; the same for ``--json``."""
    result: dict = {}
    if len(heard) > 1:
        print(f"\n{conditions_table(heard)}")
        result["conditions"] = conditions_json(heard)
    for name in fields:
        print(f"\n{breakdown_table(name, clean)}")
        result.setdefault("by", {})[name] = groups_json(groups(name, clean))
    return result


def print_hotwords(hotwords: Sequence[HotWord], rows: Sequence[Transcript], has_space: bool) -> dict:
    """Prints hits, misses and false alarms of the custom words; the same for ``--json``."""
    pairs = [row.reference for row in rows], [row.hypothesis for row in rows]
    found = report_hotwords(hotwords, *pairs, has_space)
    print(f"\n{found}")
    return found.for_json()


def compared(other: Result, result: Evaluation, checkpoint: str) -> Comparison:
    """``--against``: prints the two systems side by side."""
    these = tuple((found.name, found.reference, found.hypothesis) for found in result.utterances)
    against = compare(other, Result(checkpoint, these))
    print(f"\nfirst: {other.label}, second: this evaluation\n{comparison_table(against)}")
    return against


def calibration(rows: Sequence[Transcript], is_asked: bool, is_timed: bool) -> Calibration | None:
    """Whether words are right as often as the network is sure of them; None where their confidence is not known."""
    sure = [word.confidence for row in rows for word in row.words]
    right = [flag for row in rows for flag in are_right(row.reference, [word.text for word in row.words])]
    found = calibrate(sure, right) if sure else None
    if is_asked:
        print(f"\n{found or 'no words were heard, so nothing can be said about how sure they are'}")
    if lost := sum(bool(row.hypothesis) and not row.words for row in rows) if is_timed else 0:
        print(f"{lost} texts have no place in time; their words are in no table of confidence")
    return found


def print_skipped(messages: Sequence[str]) -> None:
    """The first few clips that were left out, and how many there are."""
    for message in messages[:5]:
        print(f"left out: {message}")
    if messages:
        print(f"{len(messages)} clips left out")


def print_impossible(rows: Sequence[Transcript]) -> None:
    """How many references no path can write."""
    too_long = [row.name for row in rows if math.isinf(row.loss)]
    if too_long:
        print(
            f"{len(too_long)} references have more letters than their clips have room for, no loss is finite there; "
            f"do they belong together? The first: {too_long[0]}"
        )


def write_report(
    page: Page,
    model: QuartzNet,
    clips: Sequence[Utterance],
    rows: Sequence[Transcript],
    fields: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """``--report``: the page with a table of each field that divides the clips, and the worst ones to hear and see."""
    sounds = SpeechDataset(clips, model.alphabet, model.config.features.sample_rate)
    chosen = [(index, rows[index].reference, rows[index].words) for index in worst(page.evaluation)]
    shown = exhibits(model.to(choose_device(options.device)).eval(), chosen, sounds.decoded)
    names = tuple(dict.fromkeys((*fields, *fields_worth_showing(page.clips))))
    size = write_page(options.report, replace(page, fields=names, exhibits=shown))
    print(f"\n{options.report}: a page of {size / 1e6:.1f} MB")


def evaluate(options: argparse.Namespace) -> None:
    """Everything, from the files to the table."""
    backend.check_machine(options.kernels, choose_device(options.device), DTYPES[options.precision])
    trained, other = None, read_result(options.against) if options.against else None
    if options.adapter:
        model = apply_adapter(read_base(options.checkpoint), options.adapter)
        trained = read_adapter(options.adapter)["lang"]
    else:
        model = load_model(options.checkpoint)
    sample_rate, wanted = model.config.features.sample_rate, options.snr or RATIOS
    clean, *others = conditions(options.noise, options.rir, wanted, sample_rate, options.seed)
    clips, skipped, description = read_source(options.data, options.split)
    texts = [clip.text for clip in clips]
    language = choose_language(options.lang, options.checkpoint, model.config.labels, texts, trained)
    report = audit(texts, language)
    print(f"{options.checkpoint} on {description}")
    if report.letters_lost:
        print(f"letters outside the model's alphabet, removed from the references:\n{report.table()}")
    decode, hotwords, repairer = decoder(options, model, language)
    clips, emptied = normalised(clips, language)
    clips, problems = fill_durations(clips)
    fields = [name for name in options.by if name != "snr" or not options.noise]
    check_fields(fields, [clip.described for clip in clips])
    started = time.perf_counter()
    rows, failed = transcribe_clips(model, clips, options, clean, decode)
    seconds = time.perf_counter() - started
    skipped = [*skipped, *emptied, *problems, *failed]
    print_skipped(skipped)
    if not rows:
        raise ValueError(f"no clip of {options.data} could be evaluated; the first problem: {skipped[0]}")
    print_impossible(rows)
    result = evaluate_texts(
        *zip(*((row.name, row.reference, row.hypothesis) for row in rows), strict=True), mean_loss(rows)
    )
    audio = sum(clip.duration for clip in evaluated(clips, rows))
    print(f"{audio / 60:.1f} minutes of audio in {seconds:.1f} s ({audio / seconds:.0f} times real time)\n")
    print(evaluation_table(result, options.worst))
    if options.show:
        show(rows, options.show)
    repaired = {"clean": repairer.report(rows, "clean" if others else "")} if repairer else {}
    scores = scored(clips, rows)
    heard, elsewhere = in_conditions(model, clips, scores, others, options, decode, repairer) if others else ([], {})
    more = tables(list(scores.values()), heard, fields)
    if repairer:
        more |= {"repaired": repaired["clean"]} | ({"repaired_in": repaired | elsewhere} if elsewhere else {})
    if hotwords:
        more["hotwords"] = print_hotwords(hotwords, rows, " " in model.config.labels)
    if sure := calibration(rows, options.confidence, bool(options.confidence or options.report)):
        more["confidence"] = sure.for_json()
    against = compared(other, result, options.checkpoint) if other else None
    told = {"checkpoint": options.checkpoint, "adapter": options.adapter, "decoding_asked": decoding.described(options)}
    told |= repair_speech.described(options)
    if options.report:
        facts = tuple((name, text) for name, text in {**told, "data": description}.items() if text)
        facts += repair_speech.facts(repaired.get("clean"))
        title = f"How {Path(options.checkpoint).name} hears {Path(options.data).name}"
        parts = (result, tuple(scores.values()), (), heard, None, against, tuple(skipped), sure)
        page = Page(title, facts, language.code, *parts)
        write_report(page, model, evaluated(clips, rows), rows, fields, options)
    if options.json:
        extra = {**told, "data": options.data, "lang": language.code, "skipped": skipped}
        table = repair_speech.with_before(evaluation_json(result), rows)
        text = json.dumps({**table, **extra, **more}, ensure_ascii=False, indent=1)
        Path(options.json).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""
    return commandline.run(lambda: evaluate(read_options(arguments)))


if __name__ == "__main__":
    sys.exit(main())
