"""``python -m quartznet.lm``: builds language models out of text and tells how well they know other text.

    python -m quartznet.lm build TEXT... --lang es --order 5 --out es.arpa --prune 0 0 1 --dev dev.txt
    python -m quartznet.lm build TEXT... --lang es --out es.arpa --against es/test.jsonl --leave-out
    python -m quartznet.lm perplexity es.arpa TEXT... --lang es
    python -m quartznet.lm tune --checkpoint runs/es --data corpora/es --lm es.arpa      (quartznet.tune_command)

KenLM's lmplz estimates where it is on the PATH, else ``quartznet.ngram``; the numbers are the same. The surprise: the
sentences of ``--dev`` are looked for in the text as well, since a perplexity of what was learnt by heart says nothing.
"""

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from quartznet import commandline
from quartznet.arpa import read_counts
from quartznet.lm import open_language_model
from quartznet.lm_text import Text, leak_finders, leak_report, rules, without_leaks
from quartznet.lmplz import find_build_binary, pack, run_lmplz
from quartznet.ngram import build_model, check_settings
from quartznet.perplexity import perplexity
from quartznet.text import Language
from quartznet.tune_command import add_tune


def estimate(sentences: Iterator[str], options: argparse.Namespace) -> None:
    """Writes the ARPA file, by lmplz or by ourselves, and says which, how long it took and how large it is."""
    program, begin = None if options.own else shutil.which("lmplz"), time.monotonic()
    try:
        _estimate(program, sentences, options)
    except OSError as error:  # NumPy says of a full disk "816 requested and 0 written"
        if " requested and " not in str(error):
            raise
        raise OSError(f"{options.out} cannot be written: is the disk full? ({error})") from error
    counts = "".join(f"{order:>2}-grams {count:>14,}\n" for order, count in enumerate(read_counts(options.out), 1))
    print(f"{counts}{options.out}: {Path(options.out).stat().st_size / 1e6:.1f} MB, {time.monotonic() - begin:.0f} s")


def _estimate(program: str | None, sentences: Iterator[str], options: argparse.Namespace) -> None:
    """By lmplz, ``program``, or where there is none by ourselves."""
    if program:
        print(f"estimating with {program}", flush=True)
        for line in run_lmplz(program, sentences, options.out, options.order, options.prune):
            print(line)
    else:
        print(f"estimating with quartznet.ngram{'' if options.own else ' (lmplz is not installed)'}", flush=True)
        summary = build_model(sentences, options.out, options.order, options.prune)
        print(f"{summary.sentences:,} sentences, {summary.tokens:,} words, {summary.types:,} different ones")
        if fallback := [str(order.order) for order in summary.orders if order.is_fallback]:
            print(f"too little text for the discounts of order {', '.join(fallback)}: 0.5, 1, 1.5 taken")


def check_out(out: str, texts: Sequence[str]) -> None:
    """Raises ValueError where a model cannot be written, or would take the place of a text."""
    path = Path(out)
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file, such as {path / 'es.arpa'}")
    if any(path.exists() and Path(text).exists() and path.samefile(text) for text in texts):
        raise ValueError(f"--out {out} is one of the texts, which the model would replace; give it another name")


def run_build(options: argparse.Namespace) -> None:
    """Raises ValueError, OSError for what the user can put right; where that can be known, before the work begins."""
    check_settings(options.order, options.prune)
    check_out(options.out, [*options.text, *options.dev, *options.against])
    if options.binary:
        find_build_binary()
    language = rules(options.lang, options.text)
    finders, text = leak_finders(options.against, options.dev, language), Text(options.text, language)
    sentences = without_leaks(text.sentences(), finders, options.leave_out)
    first = next(sentences, None)
    if first is None:
        raise text.nothing_left()
    estimate(tqdm(chain([first], sentences), desc="sentences", unit="", disable=None), options)
    print("\n".join([text.report(), *leak_report(finders, options.leave_out)]))
    if options.binary:
        print(f"{pack(options.out)}: the same for KenLM alone, loads at once")
    for path in options.dev:
        measure(options.out, [path], language)


def measure(model: str, paths: Sequence[str], language: Language | None) -> None:
    """Prints how well a model knows texts."""
    text = Text(paths, language)
    result = perplexity(open_language_model(model), text.sentences())
    print(f"{', '.join(paths)}: {result.table()}")
    if text.problems:
        print(f"lines that could not be read: {len(text.problems):,}; the first: {text.problems[0]}")


def run_perplexity(options: argparse.Namespace) -> None:
    measure(options.model, options.text, rules(options.lang, options.text))


def _add_build(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("build", help="n-grams out of text", description="Estimates a model out of text.")
    parser.add_argument("text", nargs="+", help="one sentence a line (.gz too), a manifest or a table")
    parser.add_argument("--out", required=True, help="the model: x.arpa or x.arpa.gz")
    parser.add_argument("--lang", help="text rules, those of the transcripts; without it lines are taken as they are")
    parser.add_argument("--order", type=int, default=5, help="words of the longest n-grams (5)")
    parser.add_argument(
        "--prune", nargs="+", type=int, default=[], metavar="N", help="leave out what occurs N times or less: 0 0 1"
    )
    parser.add_argument("--dev", nargs="+", default=[], metavar="TEXT", help="other text to measure perplexity on")
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="DATA", help="corpora whose sentences must not be in the text"
    )
    parser.add_argument("--leave-out", action="store_true", help="leave lines out that hold such a sentence")
    parser.add_argument("--binary", action="store_true", help="a KenLM binary as well (needs build_binary)")
    parser.add_argument("--own", action="store_true", help="estimate here even where lmplz is installed")
    parser.set_defaults(run=run_build)


def _add_perplexity(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("perplexity", help="how well a model knows a text")
    parser.add_argument("model", help="ARPA file or KenLM binary")
    parser.add_argument("text", nargs="+", help="one sentence a line (.gz too), a manifest or a table")
    parser.add_argument("--lang", help="text rules; without it lines are taken as they are")
    parser.set_defaults(run=run_perplexity)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""
    parser = commandline.Parser(prog="python -m quartznet.lm", description="Language models for decoding.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_build(commands)
    _add_perplexity(commands)
    add_tune(commands)

    def work() -> None:
        options = commandline.parse(parser, arguments)
        options.run(options)

    return commandline.run(work)
