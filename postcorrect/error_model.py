"""How a recogniser errs, as counts out of its decodes; JSON in and out.

    python -m postcorrect.error_model result.json --out errors.json      what evaluate.py --json wrote, or pairs

    model = estimate(pairs)                                     # save_errors(path, model), read_errors(path)

A language with an hour of speech and a million sentences of text gets a million pairs so. What is counted, over the
aligned runs of ``postcorrect.errors``: how often each letter becomes which other or none (a space that is lost joins
two words), which letters come after it that nobody said (a space splits a word), and which words are dropped, by their
length, or added. ``postcorrect.mishearing`` writes text by these counts.

The surprise: an utterance that went wrong altogether teaches nothing. Its alignment is an accident, and its confusions
would swamp those of the others; so pairs with a word error rate above 0.5 are left out here as they are in training.
"""

import json
import logging
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from postcorrect.errors import Run, find_runs
from postcorrect.mishearing import Counts, ErrorModel, ErrorSampler, Exposures, chances, common_words, length_of
from postcorrect.pairs import MOST_WER, Pair, read_jsonl, read_part, word_error_rates
from quartznet import commandline
from quartznet.audit import audit, visible
from quartznet.checkpoint import replace_atomically
from quartznet.lm import REFUSED
from quartznet.metrics import ErrorCounts, error_counts, total
from quartznet.significance import read_result
from quartznet.text import find_language

FORMAT = "postcorrect-errors-1"
FEW = 200  # errors; fewer say little
FITTED = 20_000  # words that ``together`` is fitted on
TURNS = 4

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------------------------------
# Estimation


class _Count:
    """Counts over sentences, one after the other; ``common`` are the words that are not rare."""

    def __init__(self, common: frozenset[str]) -> None:
        self.common = common
        self.lengths, self.dropped, self.added = Counter(), Counter(), Counter()
        self.changed: dict[str, Counter[str]] = {}
        self.inserted: dict[str, Counter[str]] = {}
        self.words: list[tuple[str, bool]] = []  # those that were not dropped, with the space behind; is it common?
        self.bad: list[bool] = []  # of each of them: its letters are wrong
        self.wrong: list[tuple[int, int]] = []  # of each sentence: words whose letters are wrong, words

    def add(self, said: str, heard: str) -> None:
        """One sentence."""
        words, runs = said.split(), find_runs(said, heard)
        gone = {run.place + number for run in runs if run.kind == "dropped" for number in range(len(run.said))}
        wrong = {place for run in runs if run.said and run.heard for place in self._add_letters(run)}
        self.lengths.update(map(length_of, words))
        self.dropped.update(length_of(words[place]) for place in gone)
        self.added.update(word for run in runs if run.kind == "added" for word in run.heard)
        left = [place for place in range(len(words)) if place not in gone]
        spaces = [" " * (place + 1 < len(words)) for place in left]
        self.words += [(words[p] + space, words[p] in self.common) for p, space in zip(left, spaces, strict=True)]
        self.bad += [place in wrong for place in left]
        self.wrong.append((len(wrong), len(left)))

    def _add_letters(self, run: Run) -> set[int]:
        """The letters of a run; returns the places of its words that are wrong, the space behind each being its own."""
        wrong, word, before, inserted = set(), run.place, " ", ""
        for said, heard in [*run.letters(), ("end", "end")]:
            if not said:
                inserted += heard
                continue
            if inserted:
                self.inserted.setdefault(before, Counter())[inserted] += 1
                wrong.add(word)
                inserted = ""
            if said != heard:
                self.changed.setdefault(said, Counter())[heard] += 1
                wrong.add(word)
            word, before = word + (said == " "), said
        return wrong

    def kinds(self) -> tuple[int, int]:
        """Numbers of common and of rare words."""
        common = sum(is_common for _, is_common in self.words)
        return common, len(self.words) - common

    def rarity(self) -> float:
        """Odds of wrong rare words / odds of wrong common ones, half a word being added to each of the four counts."""
        common, rare = self.kinds()
        bad = sum(bad for bad, (_, is_common) in zip(self.bad, self.words, strict=True) if is_common)
        odds = [(wrong + 0.5) / (words - wrong + 0.5) for wrong, words in ((bad, common), (sum(self.bad) - bad, rare))]
        return odds[1] / odds[0] if common and rare else 1.0

    def exposures(self, rarity: float, together: float) -> tuple[float, dict[str, float]]:
        """Of the starts of words and of the letters."""
        common, rare = self.kinds()
        usual, often = (chance / together for chance in chances(together, rarity, rare / (common + rare)))
        found: dict[str, float] = {}
        for word, is_common in self.words:
            for letter in word:
                found[letter] = found.get(letter, 0.0) + (usual if is_common else often)
        return common * usual + rare * often, {letter: found[letter] for letter in sorted(found)}


def _spread(wrong: Sequence[tuple[int, int]]) -> float:
    """Variance / mean^2 of a share p that differs between sentences, by the second moment of the counts:

    E (count - mean n)^2 = n mean (1 - mean) + n (n - 1) variance
    """
    mean = sum(count for count, _ in wrong) / max(1, sum(words for _, words in wrong))
    beyond = sum((count - mean * words) ** 2 - words * mean * (1 - mean) for count, words in wrong)
    pairs = sum(words * (words - 1) for _, words in wrong)
    return max(0.0, beyond / (pairs * mean**2)) if pairs and mean else 0.0


def _fit_together(model: ErrorModel, words: Sequence[tuple[str, bool]], wanted: float) -> float:
    """``together`` at which the share of words with an error is ``wanted``, by bisection."""
    rare = sum(not is_common for _, is_common in words) / len(words)
    low, high = wanted, 1.0
    for _ in range(20):
        sampler = ErrorSampler(model, together=(low + high) / 2)
        usual, often = chances(sampler.share, model.rarity, rare)
        wrong = ((usual if is_common else often) * (1 - sampler.chance_right(word)) for word, is_common in words)
        low, high = (sampler.share, high) if sum(wrong) / len(words) < wanted else (low, sampler.share)
    return high


def _sorted(counts: dict[str, Counter[str]]) -> dict[str, Counts]:
    return {letter: dict(sorted(counts[letter].items())) for letter in sorted(counts)}


def estimate(pairs: Sequence[Pair], lang: str = "", text: Sequence[str] = (), most_wer: float = MOST_WER) -> ErrorModel:
    """Counts the errors of pairs; those whose word error rate is above ``most_wer`` are left out, and said.

    Args:
        text: sentences that tell common words from rare ones; without it those of the pairs do.

    Raises:
        ValueError: no pair is left, or none holds an error.
    """
    rates = word_error_rates(pairs)
    used = [pair for pair, rate in zip(pairs, rates, strict=True) if pair.said and rate <= most_wer]
    if not used:
        raise ValueError(
            f"none of {len(pairs)} pairs has a word error rate of {most_wer:g} or less: no errors to count"
        )
    if len(used) < len(pairs):
        logger.info("%d of %d pairs left out: word error rate above %g", len(pairs) - len(used), len(pairs), most_wer)
    said = [pair.said for pair in used]
    sums, counts = total(error_counts(said, [pair.recognised for pair in used])), _Count(common_words(text or said))
    if not sums.errors:
        raise ValueError(f"all {len(used)} pairs are right, so there are no errors to count; give more of them")
    if sums.errors < FEW:
        logger.warning("only %d word errors: they will come again and again; decode more speech", sums.errors)
    for pair in used:
        counts.add(pair.said, pair.recognised)
    return _model_of(counts, lang, len(used), sums)


def _model_of(counts: _Count, lang: str, sentences: int, sums: ErrorCounts) -> ErrorModel:
    """Exposures depend on ``together`` and it on them, so both are found in turns."""
    rarity, together = counts.rarity(), max(1e-3, sum(counts.bad) / max(1, len(counts.bad)))
    plain = [dict(sorted(part.items())) for part in (counts.lengths, counts.dropped, counts.added)]
    nested = [_sorted(counts.changed), _sorted(counts.inserted)]
    numbers = sentences, sums.reference_length, sums.errors
    for _ in range(TURNS):
        starts, letters = counts.exposures(rarity, together)
        shares = together, _spread(counts.wrong), rarity, starts
        model = ErrorModel(lang, *numbers, *shares, letters, *nested, *plain)
        if not any(counts.bad):
            return model
        together = _fit_together(model, counts.words[:FITTED], sum(counts.bad) / len(counts.bad))
    return replace(model, together=together)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def save_errors(path: str | Path, model: ErrorModel) -> None:
    """Writes JSON, complete or not at all."""
    text = json.dumps({"format": FORMAT, **asdict(model)}, ensure_ascii=False, indent=1) + "\n"
    replace_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _is_counts(value: object, kinds: object = int) -> bool:
    """Numbers by texts, none below 0."""
    numbers = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(n, kinds) and not isinstance(n, bool) and 0 <= n < 1e18 for n in numbers)


def _model(found: dict) -> ErrorModel:
    """The model out of JSON; raises ValueError for whatever is missing or of another kind."""
    for field in fields(ErrorModel):
        value = found.get(field.name)
        nested = field.name in ("changed", "inserted")
        fits = {
            str: isinstance(value, str),
            int: type(value) is int,
            float: isinstance(value, int | float) and not isinstance(value, bool),
            Counts: _is_counts(value),
            Exposures: _is_counts(value, int | float),
        }.get(field.type, nested and isinstance(value, dict) and all(map(_is_counts, value.values())))
        if not fits:
            raise ValueError(f'"{field.name}" is missing or of another kind')
    return ErrorModel(**{field.name: found[field.name] for field in fields(ErrorModel)})


def lang_of(path: Path) -> str:
    """The language that an error model, or a result of evaluate.py, says it is of; "" where none is said."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["lang"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""  # pairs say none; what is broken is said when it is read
    return found if isinstance(found, str) else ""


def read_errors(path: str | Path, text: Sequence[str] = ()) -> ErrorModel:
    """An error model: what ``save_errors`` wrote, or estimated out of decodes.

    Args:
        text: see ``estimate``.
        path: errors.json; what ``evaluate.py --json`` wrote; pairs as JSON lines; or a folder with a train part.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is something else, damaged, or without errors.
    """
    found = _read(Path(path))
    return found if isinstance(found, ErrorModel) else estimate(found, lang_of(Path(path)), text)


def _read(path: Path) -> ErrorModel | list[Pair]:
    """What ``path`` holds: a model, or pairs that one can be estimated from; raises as ``read_errors`` does."""
    if path.is_dir():
        return read_part(path, "train")
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no errors {path}; give errors.json, a result of evaluate.py --json, or pairs"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None  # more than one line, or no JSON at all
    if not isinstance(found, dict) or "recognised" in found:
        return read_jsonl(path)
    if "transcripts" in found:
        return [Pair(heard, said, name) for name, said, heard in read_result(path).rows]
    if found.get("format") != FORMAT:
        raise ValueError(f"{path} is no error model ({FORMAT}) and no result of evaluate.py --json; make it again")
    try:
        return _model(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; make it again with python -m postcorrect.error_model") from error


# ---------------------------------------------------------------------------------------------------------------------
# The command


def losses(found: ErrorModel | Sequence[Pair], lang: str) -> str:
    """What is to be said of the letters that the rules of ``lang`` would lose; "" for nothing.

    They are counted in the true texts; a model has none, so there each of its letters counts once.

    Raises:
        ValueError: more than half of them would be lost, so the texts are of another language.
    """
    language = find_language(lang)
    if language is None:
        return f"no alphabet is written down for {lang}, so it is not compared with the texts"
    is_model = isinstance(found, ErrorModel)
    counted = audit(found.letters if is_model else (pair.said for pair in found), language)
    lost = counted.dropped.total()
    if not lost:
        return ""
    worst = ", ".join(visible(letter) for letter, _ in counted.dropped.most_common(8))
    whose = f"{'different letters' if is_model else 'characters of the texts'} ({counted.letters_lost:.1%})"
    told = f"{lost:,} of {counted.letters:,} {whose} are none of --lang {lang}: {worst}"
    if counted.letters_lost > REFUSED:
        raise ValueError(f"{told}; give the language of the texts")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 130 stopped."""
    parser = commandline.Parser(prog="python -m postcorrect.error_model", description="Counts how a recogniser errs.")
    parser.add_argument("decodes", type=Path, help="what evaluate.py --json wrote, or pairs (.jsonl, or their folder)")
    parser.add_argument("--out", type=Path, required=True, help="the error model, such as errors.json")
    parser.add_argument("--lang", help="code of the language, where the decodes do not say it")

    def work() -> None:
        options = commandline.parse(parser, arguments)
        if options.out.is_dir():
            raise ValueError(f"--out {options.out} is a folder; name a file")
        read = [options.decodes, *(options.decodes / f"train.{kind}" for kind in ("pred", "real", "jsonl"))]
        if options.out.resolve() in [path.resolve() for path in read]:
            raise ValueError(f"--out {options.out} would be written over what is read; name another file")
        found = _read(options.decodes)
        if options.lang and (told := losses(found, options.lang)):
            print(textwrap.fill(told, 79))
        model = found if isinstance(found, ErrorModel) else estimate(found, lang_of(options.decodes))
        model = replace(model, lang=options.lang) if options.lang else model
        save_errors(options.out, model)
        print(f"{model}\n{options.out}: python -m postcorrect.collect --text FILE --errors {options.out} ...")

    return commandline.run(work, stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
