"""The command that corrects texts, or measures what correcting does to texts whose truth is known.

    python -m postcorrect.correct --corrector runs/corrector texts.txt > better.txt
    cat texts.txt | python -m postcorrect.correct --corrector runs/corrector - --protect names.txt
    python -m postcorrect.correct --corrector runs/corrector texts.txt --nbest 4         line, gain in nats, text
    python -m postcorrect.correct --corrector runs/corrector --pairs pairs/es --part test
    python -m postcorrect.correct --corrector runs/corrector --result es.json            what evaluate.py --json wrote

One line in, one line out, in the same order (``postcorrect.line_by_line``); what was left alone and why stands on
stderr. Nothing that was corrected is lost (``postcorrect.text_stream``).

The surprise: measuring uses the gate for texts alone, since there is no audio here. ``evaluate.py --corrector`` has the
audio too, and may find other figures for the same sentences.
"""

import argparse
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

import postcorrect
from postcorrect.gate import OPEN, GateSettings
from postcorrect.gate_file import chosen_gate
from postcorrect.line_by_line import Line, Setup, Tally, alternatives, correct
from postcorrect.outcome import outcome
from postcorrect.pairs import PARTS, read_part
from postcorrect.protect import Protected, read_protected
from postcorrect.repair import Repair
from postcorrect.search import SearchSettings
from postcorrect.text_stream import BLOCK, Output, blocks, read_files
from quartznet import commandline
from quartznet.checkpoint import replace_atomically
from quartznet.distributed import choose_device
from quartznet.significance import read_result

Block = tuple[str, int, list[str]]  # file, number of the first line, lines


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ValueError for what is missing or has no effect."""
    parser = commandline.Parser(prog="python -m postcorrect.correct", description="Corrects texts.", allow_abbrev=False)
    parser.add_argument("texts", nargs="*", help="text files, a sentence a line (UTF-8); - is standard input")
    parser.add_argument("--corrector", metavar="RUN", help="run folder or file of postcorrect.train")
    parser.add_argument("--pairs", metavar="FOLDER", help="measure it on pairs of postcorrect.collect")
    parser.add_argument("--part", choices=PARTS, help="of the pairs (test)")
    parser.add_argument("--result", metavar="FILE", help="measure it on what evaluate.py --json wrote")
    parser.add_argument("--out", metavar="FILE", help="write the texts here, not on the screen")
    parser.add_argument(
        "--json", metavar="FILE", help="write what became of each line and why; or all that is measured"
    )
    parser.add_argument("--nbest", type=int, metavar="N", help="print N alternatives of each line: line, gain, text")
    parser.add_argument("--beam", type=int, default=4, help="texts that the search keeps (4; 1: greedy)")
    parser.add_argument(
        "--gate", metavar="FILE", help="another gate.yaml; insist: if it was no sure help too; open: take all"
    )
    parser.add_argument("--protect", metavar="FILE", help="words and phrases that stay as they are, a line each")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = commandline.parse(parser, arguments)
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    if options.corrector is None:
        raise ValueError("--corrector is missing: a run folder of postcorrect.train")
    given = [bool(options.texts), options.pairs is not None, options.result is not None]
    if sum(given) != 1:
        several = "only one of these at a time" if any(given) else "nothing to correct"
        raise ValueError(f"{several}: give files of text, - for standard input, --pairs FOLDER or --result FILE")
    if options.part is not None and options.pairs is None:
        raise ValueError("--part is a part of --pairs FOLDER")
    if options.beam < 1:
        raise ValueError(f"--beam must be 1 or more, got {options.beam}")
    if options.nbest is not None:
        if not options.texts:
            raise ValueError("--nbest shows alternatives of files of text; leave it out where correcting is measured")
        if options.nbest < 1:
            raise ValueError(f"--nbest must be 1 or more, got {options.nbest}")
        if options.gate or options.json:
            raise ValueError("--nbest shows what is there before the gate decides; leave --gate and --json out")
    if options.texts.count("-") > 1:
        raise ValueError("standard input (-) can be read only once")
    _check_files(options)


def _check_files(options: argparse.Namespace) -> None:
    """Better now than after an hour."""
    for name, file in (("out", options.out), ("json", options.json)):
        if file is None:
            continue
        if not file or Path(file).is_dir():
            raise ValueError(f"--{name} {file} is a folder; name a file")
        if not Path(file).absolute().parent.is_dir():
            raise ValueError(f"--{name} {file}: there is no folder {Path(file).parent}; make it first")
        if Path(file).resolve() in [path.resolve() for path in _read(options)]:
            raise ValueError(f"--{name} {file} would be written over what is read; name another file")
        if not os.access(Path(file).absolute().parent, os.W_OK):
            raise ValueError(f"--{name} {file}: nothing can be written to {Path(file).absolute().parent}")
    if options.out and options.json and Path(options.out).resolve() == Path(options.json).resolve():
        raise ValueError(f"--out and --json are the same file {options.out}; name two")


def _read(options: argparse.Namespace) -> list[Path]:
    """All files that the command line names to read."""
    part = f"{options.pairs}/{options.part or 'test'}"
    pairs = [f"{part}.{kind}" for kind in ("pred", "real", "jsonl")] if options.pairs else []
    named = [options.result, options.protect, options.gate]
    return [Path(name) for name in (*options.texts, *pairs, *filter(None, named))]


def prepare(options: argparse.Namespace) -> Setup:
    """Corrector, gate and protected words; says which gate."""
    beam = max(options.beam, options.nbest or 1)
    search = SearchSettings(beam, count=beam)
    protected = read_protected(options.protect) if options.protect else Protected()
    corrector = postcorrect.load(options.corrector)
    gate = OPEN if options.nbest else chosen_gate(options.corrector, corrector, options.gate)
    corrector = corrector.to(choose_device(options.device))
    return Setup(corrector, gate, search, protected)


def _table(one: Repair | GateSettings) -> dict:
    """Its fields; JSON has no infinity, which becomes null."""
    infinite = [name for name, value in vars(one).items() if isinstance(value, float) and not math.isfinite(value)]
    return asdict(one) | dict.fromkeys(infinite)


def as_json(line: Line, file: str, number: int) -> dict:
    """What became of a line."""
    told = {"file": file, "line": number, "source": line.source, "text": line.text, "reason": line.outcome}
    return told | {"pieces": [_table(one) for one in line.pieces]}


def write_json(path: str, content: dict) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write = {"encoding": "utf-8", "errors": "backslashreplace"}  # names of files may be no UTF-8; JSON reads it so
    replace_atomically(Path(path), lambda temporary: temporary.write_text(text, **write))


# ---------------------------------------------------------------------------------------------------------------------
# Correcting, measuring


def _bar(size: int | None, is_seen: bool = True) -> tqdm:
    """Lines done, on stderr where that is a terminal; not between lines that are written there too."""
    return tqdm(total=size, unit=" lines", leave=False, disable=not is_seen or not sys.stderr.isatty())


def correct_texts(options: argparse.Namespace) -> None:
    """Files and standard input, line by line."""
    files = read_files(options.texts)
    setup, output, tally, told = prepare(options), Output(options.out), Tally(), []
    start = time.perf_counter()
    size = None if "-" in options.texts else sum(len(files[path]) for path in options.texts)
    try:
        with _bar(size, is_seen=bool(options.out)) as bar:
            for path in options.texts:
                for block in blocks(path, files):
                    output.write(_corrected(setup, block, tally, told if options.json else None))
                    bar.update(tally.lines - bar.n)
                output.save()
    finally:
        output.save_rest()
        if options.json:
            write_json(options.json, {"corrector": options.corrector, "gate": _table(setup.gate), "lines": told})
        if tally.lines:
            print(f"{tally.table()}\n{_speed(tally.lines, time.perf_counter() - start)}", file=sys.stderr)


def _corrected(setup: Setup, block: Block, tally: Tally, told: list[dict] | None) -> Iterator[str]:
    """Corrects a block, counts what was done; ``told`` gets all of it."""
    name, number, texts = block
    for place, line in enumerate(correct(setup, texts), number):
        tally.add(line, f"{name}:{place}")
        if told is not None:
            told.append(as_json(line, name, place))
        yield line.text


def show_alternatives(options: argparse.Namespace) -> None:
    """``line<tab>gain<tab>text``, lines counted over all files."""
    files = read_files(options.texts)
    setup, output, number = prepare(options), Output(options.out), 0
    try:
        for path in options.texts:
            for _, _, texts in blocks(path, files):
                found = alternatives(setup, texts, options.nbest)
                output.write(
                    f"{place}\t{one.gain:.3f}\t{one.text}"
                    for place, some in enumerate(found, number + 1)
                    for one in some
                )
                number += len(texts)
            output.save()
    finally:
        output.save_rest()


def _speed(lines: int, seconds: float) -> str:
    return f"{seconds:.1f} s, {lines / max(seconds, 1e-9):,.1f} lines a second"


def known_texts(options: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """Names, true texts and recognised texts of ``--pairs`` or ``--result``."""
    if options.result is not None:
        return tuple(map(list, zip(*read_result(options.result).rows, strict=True)))
    part = options.part or "test"
    pairs = read_part(options.pairs, part)
    if not pairs:
        raise ValueError(f"{options.pairs} has no pairs in its part {part}; collect more, or choose another")
    return [p.utterance for p in pairs], [p.said for p in pairs], [p.recognised for p in pairs]


def measure(options: argparse.Namespace) -> None:
    """Corrects texts whose truth is known, and prints what that did."""
    names, references, before = known_texts(options)
    setup, output, tally = prepare(options), Output(options.out), Tally()
    start, lines = time.perf_counter(), []
    with _bar(len(before)) as bar:
        for begin in range(0, len(before), BLOCK):
            lines += correct(setup, before[begin : begin + BLOCK])
            bar.update(len(lines) - bar.n)
    seconds = time.perf_counter() - start
    for name, line in zip(names, lines, strict=True):
        tally.add(line, name)
    found = outcome(references, before, [line.text for line in lines])
    print(f"{found.table()}\n\n{tally.table()}\n{_speed(len(lines), seconds)}")
    if options.out:
        output.write(line.text for line in lines)
        output.save()
    if options.json:
        rows = zip(names, references, lines, strict=True)
        transcripts = [
            {"name": name, "reference": said, "hypothesis": line.text, "before": line.source, "reason": line.outcome}
            for name, said, line in rows
        ]
        settings = {"corrector": options.corrector, "gate": _table(setup.gate)}
        write_json(options.json, settings | found.for_json() | {"transcripts": transcripts})


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 130 stopped."""

    def work() -> None:
        options = read_options(arguments)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # as the texts are, whatever the terminal says; names of files may be no UTF-8
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        try:
            (show_alternatives if options.nbest else correct_texts if options.texts else measure)(options)
        except BrokenPipeError:  # whoever reads has enough, such as head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return commandline.run(work, memory="--beam", log=sys.stderr, stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
