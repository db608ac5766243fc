"""Any corpus -> manifests that can be trusted, and a report of what is in it and what was left out.

    python -m data.prepare cv-corpus/es prepared/es --lang es --jobs 8
    python train.py --init english.nemo --lang es --data prepared/es

Every clip is decoded once (``data.inspect_clips``), so durations are those of the samples and not of a header; texts
are normalised; what cannot be learnt from is left out. ``prepared/es`` gets ``train.jsonl``, ``dev.jsonl`` and
``test.jsonl``, ``rejected.tsv`` (every clip or line that is left out, and why), ``report.md``, ``report.json`` and
``durations.png``. With ``--shards N`` the clips are copied into N tar files that the manifests then point into
(``data.write_shards``), for corpora of millions of files. The same command again continues where it was stopped, and
changes nothing where nothing has changed.

The surprise: the same sound with two texts says that one of them is wrong, and nobody knows which. Both are left out.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.dataset import normalised, usable
from data.inspect_clips import Inspection, inspect_clips
from data.manifest import Utterance, write_manifest
from data.prepare_report import Report, write_report
from data.source import read_corpus
from data.splits import SHARE, Splits, joined, sentence_key, smart, with_held_out
from data.write_shards import write_shards
from quartznet.alphabet import Alphabet
from quartznet.audit import Audit, audit
from quartznet.commandline import Parser, parse, run
from quartznet.text import Language, find_language, language_from_texts

PARTS = ("test", "dev", "train", "extra")  # what matters most comes first
OUTPUTS_A_SECOND = 50  # of a QuartzNet
FASTEST = 1.1  # the usual speed perturbation
CACHE = "inspected.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rejection:
    """A clip or a line that is left out."""

    where: str  # file, or file:line
    reason: str
    stage: str  # reading | text | sound | length | duplicate | leak


@dataclass
class Clips:
    """A corpus on its way: what is still in it by part, and what is not."""

    parts: dict[str, list[Utterance]]
    found: dict[tuple[str, str], Inspection] = field(default_factory=dict)  # by ``Utterance.identity``
    rejected: list[Rejection] = field(default_factory=list)

    def reject(self, messages: Iterable[str], stage: str) -> None:
        """Messages "where: reason" about lines and files that never became clips."""
        for message in messages:
            where, reason = _parted(message)
            self.rejected.append(Rejection(where, reason or "left out", stage))

    def keep(self, part: str, kept: Sequence[Utterance], messages: Sequence[str], stage: str) -> None:
        """Of a part only ``kept``, in the same order; each of the others has a message "line: reason"."""
        self.reject_clips(left_out(self.parts[part], kept), messages, stage)
        self.parts[part] = list(kept)

    def reject_clips(self, clips: Sequence[Utterance], messages: Sequence[str], stage: str) -> None:
        """A message "line: reason" for each clip; its file is named first, its line behind the reason."""
        for clip, message in zip(clips, messages, strict=True):
            reason = message.removeprefix(f"{clip.origin or clip.name}: ")
            self.rejected.append(Rejection(clip.name, f"{reason} ({clip.origin})" if clip.origin else reason, stage))


def left_out(before: Sequence[Utterance], kept: Sequence[Utterance]) -> list[Utterance]:
    """The clips of ``before`` that are not in ``kept``, in order."""
    there = {clip.identity for clip in kept}
    return [clip for clip in before if clip.identity not in there]


def _parted(message: str) -> tuple[str, str]:
    """``file:line`` and the reason; a path may hold a colon and a space itself."""
    for match in re.finditer(": ", message):
        where = message[: match.start()]
        if os.path.exists(re.sub(r":\d+$", "", where)):
            return where, message[match.end() :]
    where, _, reason = message.partition(": ")
    return where, reason


# ---------------------------------------------------------------------------------------------------------------------
# Stages


def check_out(source: Path, out: Path) -> None:
    """Raises ValueError where writing to ``out`` would destroy what is there, or the next run would read it."""
    here, there = source.absolute().resolve(), out.absolute().resolve()
    if here.is_dir() and (there == here or here in there.parents):
        raise ValueError(f"{out} lies in {source}, where the next run would read it; give an OUT elsewhere")
    foreign = [there / f"{part}.jsonl" for part in ("train", "dev", "test") if (there / f"{part}.jsonl").exists()]
    if foreign and not (there / CACHE).exists():
        raise ValueError(f"{foreign[0]} was not written by data.prepare and would be overwritten; give another OUT")


def read(source: Path, include_other: bool) -> tuple[Clips, Splits]:
    """The corpus as it lies there."""
    splits = read_corpus(source)
    extra = [*splits.extra, *(splits.other if include_other else [])]
    clips = Clips({"train": splits.train, "dev": splits.dev, "test": splits.test, "extra": extra})
    clips.reject(splits.skipped, "reading")
    return clips, splits


def choose_language(code: str, clips: Clips) -> tuple[Language, Audit]:
    """The rules of ``code``, or an alphabet from the training texts; and what they do to all texts."""
    texts = [clip.text for part in PARTS for clip in clips.parts[part]]
    language = find_language(code)
    if language is None:
        language = language_from_texts(code, (clip.text for name in ("train", "extra") for clip in clips.parts[name]))
        logger.info("no rules for %r: the alphabet is taken from the texts", code)
    return language, audit(texts, language)


def normalise_texts(clips: Clips, language: Language) -> None:
    """Texts by the rules of the language; the text as it was stays beside it where it differs."""
    for part in PARTS:
        before = [replace(clip, raw_text=clip.raw_text or clip.text) for clip in clips.parts[part]]
        kept, messages = normalised(before, language)
        same = [replace(clip, raw_text="" if clip.raw_text == clip.text else clip.raw_text) for clip in kept]
        clips.keep(part, same, messages, "text")


def listen(clips: Clips, cache: Path, jobs: int) -> None:
    """Decodes everything; durations become the true ones, and clips that do not decode are left out."""
    everything = [clip for part in PARTS for clip in clips.parts[part]]
    for clip, found in zip(everything, inspect_clips(everything, cache, jobs), strict=True):
        clips.found[clip.identity] = found
    for part in PARTS:
        kept = []
        for clip in clips.parts[part]:
            found = clips.found[clip.identity]
            if found.problem:
                reason = found.problem.removeprefix(f"{clip.audio_path} ").removeprefix(f"{clip.name}: ")
                clips.rejected.append(Rejection(str(clip.audio_path), f"{reason} ({clip.origin})", "sound"))
            else:
                kept.append(replace(clip, duration=found.duration))
        clips.parts[part] = kept


def check_lengths(clips: Clips, alphabet: Alphabet) -> list[str]:
    """Leaves out texts that have no path through their clip; returns those that have none at the fastest speed."""
    too_fast: list[str] = []
    for part in PARTS:
        kept, messages = usable(clips.parts[part], alphabet, 0, float("inf"), OUTPUTS_A_SECOND, fastest_speed=1.0)
        clips.keep(part, kept, messages, "length")
        too_fast += usable(kept, alphabet, 0, float("inf"), OUTPUTS_A_SECOND, FASTEST)[1]
    return too_fast


def remove_duplicates(clips: Clips) -> None:
    """The same sound with the same text stays once, in the part that matters most; with other texts not at all."""
    texts: dict[str, set[str]] = {}
    for part in PARTS:
        for clip in clips.parts[part]:
            texts.setdefault(clips.found[clip.identity].fingerprint, set()).add(sentence_key(clip.text))
    first: dict[str, Utterance] = {}
    for part in PARTS:
        kept = []
        for clip in clips.parts[part]:
            fingerprint = clips.found[clip.identity].fingerprint
            earlier = first.setdefault(fingerprint, clip)
            if len(texts[fingerprint]) > 1:
                other = "another text" if earlier is clip else f"another text, {earlier.text[:60]!r} of {earlier.name}"
                reason = f"the same sound has {other}; only one can be right ({clip.text[:60]!r})"
            elif earlier is not clip:
                reason = f"the same sound and text as {earlier.name}"
            else:
                kept.append(clip)
                continue
            clips.rejected.append(
                Rejection(clip.name, f"{reason} ({clip.origin})" if clip.origin else reason, "duplicate")
            )
        clips.parts[part] = kept


def split(clips: Clips, description: str, how: str, share: float) -> Splits:
    """``official``, ``smart`` or ``ratio``, as ``--split`` says; ``auto`` is smart where there are such parts.

    Raises:
        ValueError: official or smart for a corpus without official dev and test parts.
    """
    parts = clips.parts
    splits = Splits(parts["train"], parts["dev"], parts["test"], [], description, extra=parts["extra"])
    official = bool(splits.dev or splits.test)
    if how in ("official", "smart") and not official:
        raise ValueError(f"{description}: it has no official dev or test part; use --split ratio")
    if how == "official":
        left = [f"{clip.origin or clip.name}: in no official part; --split smart uses it" for clip in splits.extra]
        done = replace(splits, extra=[], skipped=left)
    elif how == "smart" or (how == "auto" and official):
        done = with_held_out(smart(splits), share)
    else:
        done = with_held_out(joined(splits), share)
    of_line = {clip.origin or clip.name: clip for clips_of_part in parts.values() for clip in clips_of_part}
    for message in done.skipped:
        ends = (match.start() for match in re.finditer(": ", message))
        clip = next(of_line[message[:end]] for end in ends if message[:end] in of_line)
        clips.reject_clips([clip], [message], "leak" if how != "official" else "split")
    return done


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def write_rejected(rejected: Sequence[Rejection], path: Path) -> None:
    """A table of file and reason, sorted; tabs and line ends inside become spaces."""
    rows = sorted((" ".join(one.where.split()), " ".join(one.reason.split())) for one in rejected)
    partial = path.with_name(path.name + ".tmp")
    with open(partial, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write("file\treason\n")
        file.writelines(f"{where}\t{reason}\n" for where, reason in rows)
    os.replace(partial, path)


def prepare(
    source: Path,
    out: Path,
    lang: str,
    how: str = "auto",
    jobs: int = 2,
    share: float = SHARE,
    include_other: bool = False,
    shards: int = 0,
) -> Report:
    """Everything; see the module's docstring.

    Raises:
        FileNotFoundError, ValueError: nothing at ``source``, no corpus, no language, no clip left, no such split, or no
            folder ``out``.
    """
    check_out(source, out)
    clips, corpus = read(source, include_other)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out} cannot be made ({error.strerror}); OUT is the folder for the result") from error
    official_hours_of = {clip.identity for clip in corpus.train}
    language, counted = choose_language(lang, clips)
    raw_texts = [clip.text for part in PARTS for clip in clips.parts[part]]
    normalise_texts(clips, language)
    listen(clips, out / CACHE, jobs)
    too_fast = check_lengths(clips, Alphabet(language.labels))
    remove_duplicates(clips)
    if not any(clips.parts.values()):
        first = clips.rejected[0]
        raise ValueError(f"no clip of {source} is left; the first problem: {first.where}: {first.reason}")
    official_hours = sum(
        clip.duration
        for clip in clips.parts["train"]
        if clip.identity in official_hours_of and (corpus.dev or corpus.test)
    )
    splits = split(clips, corpus.description, how, share)
    if not splits.train:
        write_rejected(clips.rejected, out / "rejected.tsv")
        raise ValueError(
            f"no clip is left to train on, see {out / 'rejected.tsv'}; where all of them share a speaker or a sentence "
            "with dev or test, --split official keeps the corpus's own parts"
        )
    for name, part in (("train", splits.train), ("dev", splits.dev), ("test", splits.test)):
        if shards:  # dev and test, which are read in one order, get one each
            part = write_shards(part, out / "shards", name, shards if name == "train" else 1)
        write_manifest(out / f"{name}.jsonl", part)
    write_rejected(clips.rejected, out / "rejected.tsv")
    report = Report(
        source=str(source),
        out=out,
        splits=splits,
        found=clips.found,
        rejected=[(one.where, one.reason, one.stage) for one in clips.rejected],
        audit=counted,
        raw_texts=raw_texts,
        too_fast=too_fast,
        official_hours=official_hours / 3600,
        unused={"other": 0 if include_other else len(corpus.other), "invalidated": len(corpus.invalidated)},
    )
    write_report(report)
    return report


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ValueError for what is missing, unknown or impossible."""
    parser = Parser(prog="python -m data.prepare", description="Checks a corpus and writes manifests and a report.")
    parser.add_argument("source", type=Path, help="folder, archive or manifest")
    parser.add_argument("out", type=Path, help="folder for the manifests and the report")
    parser.add_argument("--lang", required=True, help="code of the language, such as es")
    parser.add_argument(
        "--split",
        choices=("official", "smart", "ratio"),
        default="auto",
        help="official: the corpus's own parts; smart: its dev and test, and all else that shares no speaker and no "
        "sentence with them to train on; ratio: new parts, disjoint. Left out: smart where there are official parts",
    )
    parser.add_argument("--ratio", type=float, default=SHARE, help=f"share of dev and of test in new parts ({SHARE})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that decode (all cores)")
    parser.add_argument("--shards", type=int, default=0, help="also copy the clips into as many tar files (WebDataset)")
    parser.add_argument("--include", choices=("other",), help="Common Voice: also clips without enough votes")
    parser.add_argument("--allow-char-loss", action="store_true", help="exit status 0 though letters are lost")
    options = parse(parser, arguments)
    if not 0.0 < options.ratio < 0.5 or min(options.jobs, options.shards) < 0:
        given = f"{options.ratio:g}, {options.jobs} and {options.shards}"
        raise ValueError(f"--ratio must lie between 0 and 0.5, --jobs and --shards from 0 on, got {given}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 done but too many letters are lost, 2 something to correct, 130 stopped by Ctrl-C."""

    def work() -> int:
        options = read_options(arguments)
        report = prepare(
            options.source.expanduser(),
            options.out,
            options.lang,
            options.split,
            options.jobs,
            options.ratio,
            options.include == "other",
            options.shards,
        )
        print(report.summary())
        try:
            report.audit.check()
        except ValueError as error:
            print(f"warning: {error}", file=sys.stderr)
            return 0 if options.allow_char_loss else 1
        return 0

    return run(work, stopped=f"stopped; OUT/{CACHE} keeps what was decoded: the same command continues")


if __name__ == "__main__":
    sys.exit(main())
