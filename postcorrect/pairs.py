"""Pairs of what was recognised and what was said: their files, and which of them a corrector learns from.

    train.pred  train.real      plain text, one sentence a line; line n of the one belongs to line n of the other
    train.jsonl                 {"recognised": "compell", "said": "compel", "utterance": "a.mp3", "source": "greedy"}

and the same for dev and test. The plain text is what other programs read; the JSON lines say more and are read here
where they are there. The recipe is that of arXiv:1910.10697: duplicates go, and so do pairs whose word error rate is
above 0.5, from which a corrector would learn to invent.

The surprise: the lists must differ in what they hold. A recogniser is right more often than not, and whoever trains on
all of its pairs learns to copy, so in train only a share of those that are right stays. In dev and test nothing is
taken out: there the question is what a corrector makes of all that a recogniser writes.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data.hashing import stable_hash
from data.lines import numbered_lines, shown
from data.splits import sentence_key
from quartznet.checkpoint import replace_atomically
from quartznet.metrics import error_counts

PARTS = ("train", "dev", "test")
EXAMPLE = '{"recognised": "compell", "said": "compel", "utterance": "a.mp3", "source": "greedy"}'
MOST_WER = 0.5  # of a pair that is learnt from
IDENTICAL = 0.2  # share of right pairs among those that are learnt from
HELD_OUT = 0.05  # of the different sentences, for dev and for test each
MOST_HELD_OUT = 2000  # of them


@dataclass(frozen=True)
class Pair:
    """A sentence as it was recognised and as it was said, both in the letters of the recogniser."""

    recognised: str  # "" where nothing was heard
    said: str
    utterance: str = ""  # which clip, or which sentence of a text
    source: str = ""  # greedy, "beam 2", "dropout 0.1 seed 3", "speed 0.9", "noise 10 dB", "fold 4", text, ...

    @property
    def is_identical(self) -> bool:
        return self.recognised == self.said


# ---------------------------------------------------------------------------------------------------------------------
# Files


def read_parallel(recognised: str | Path, said: str | Path) -> list[Pair]:
    """Pairs out of two text files; a line may be empty, and several spaces are one.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: one has more lines than the other, or a line is not UTF-8; the message names the line.
    """
    recognised, said = Path(recognised), Path(said)
    texts = []
    for path in (recognised, said):
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; pairs lie in two files, such as train.pred and train.real")
        texts.append([" ".join(line.split()) for _, line in numbered_lines(path)])
    if len(texts[0]) != len(texts[1]):
        shorter, longer = sorted((len(lines), str(path)) for lines, path in zip(texts, (recognised, said), strict=True))
        raise ValueError(
            f"{longer[1]}:{shorter[0] + 1}: this line has no partner, {shorter[1]} ends after {shorter[0]} lines "
            f"and {longer[1]} after {longer[0]}; line n of one must belong to line n of the other"
        )
    return [Pair(*texts, utterance=str(number)) for number, texts in enumerate(zip(*texts, strict=True), 1)]


def write_parallel(recognised: str | Path, said: str | Path, pairs: Sequence[Pair]) -> None:
    """Two text files, each complete or not at all.

    Raises:
        ValueError: a text holds the end of a line; it names the pair.
    """
    for pair in pairs:
        if len(pair.recognised.splitlines()) > 1 or len(pair.said.splitlines()) > 1:
            raise ValueError(f"{pair.utterance}: a sentence takes one line, got {shown(pair.recognised + pair.said)}")
    for path, texts in ((recognised, [p.recognised for p in pairs]), (said, [p.said for p in pairs])):
        _write(Path(path), texts)


def read_jsonl(path: str | Path) -> list[Pair]:
    """Pairs out of JSON lines; blank lines are passed over, several spaces are one, keys that are not ours are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is broken; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of pairs {path}; its lines are such as {EXAMPLE}")
    return [_pair(line, f"{path}:{number}") for number, line in numbered_lines(path) if line.strip()]


def _pair(line: str, where: str) -> Pair:
    try:
        entry = json.loads(line)
        found = {field.name: entry.get(field.name, field.default) for field in fields(Pair)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON object ({error}); a line is such as {EXAMPLE}") from error
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise ValueError(f'{where}: "{wrong[0]}" is missing or is no text; a line is such as {EXAMPLE}')
    try:
        "".join(found.values()).encode()
    except UnicodeEncodeError as error:  # "\\ud800" is valid JSON, and no letter
        raise ValueError(f"{where}: half a letter, which no text can hold ({error}); correct this line") from error
    return Pair(**found | {name: " ".join(found[name].split()) for name in ("recognised", "said")})


def write_jsonl(path: str | Path, pairs: Iterable[Pair]) -> None:
    """JSON lines, complete or not at all."""
    _write(Path(path), [json.dumps(asdict(pair), ensure_ascii=False) for pair in pairs])


def _write(path: Path, lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_part(folder: str | Path, part: str, pairs: Sequence[Pair]) -> None:
    """``part``.pred, .real and .jsonl of a folder, which is made."""
    folder = Path(folder)
    write_parallel(folder / f"{part}.pred", folder / f"{part}.real", pairs)
    write_jsonl(folder / f"{part}.jsonl", pairs)


def read_part(folder: str | Path, part: str) -> list[Pair]:
    """The pairs of a part: its JSON lines, or the two texts where there are none.

    Raises:
        FileNotFoundError: the folder has neither.
        ValueError: a file is broken, or texts and JSON lines contradict each other; the message names the line.
    """
    folder = Path(folder)
    lines, texts = folder / f"{part}.jsonl", (folder / f"{part}.pred", folder / f"{part}.real")
    if not lines.is_file():
        if not all(path.is_file() for path in texts):
            raise FileNotFoundError(
                f"{folder} has no {part}.jsonl and not both of {part}.pred and {part}.real; "
                "python -m postcorrect.collect makes them"
            )
        return read_parallel(*texts)
    pairs = read_jsonl(lines)
    if all(path.is_file() for path in texts):
        plain = read_parallel(*texts)
        for number in range(1, max(len(pairs), len(plain)) + 1):
            told = [[(p.recognised, p.said) for p in found[number - 1 : number]] for found in (pairs, plain)]
            if told[0] != told[1]:
                raise ValueError(f"{lines} and {texts[0]} differ at line {number}; delete the older one")
    return pairs


# ---------------------------------------------------------------------------------------------------------------------
# Cleaning


@dataclass(frozen=True)
class Cleaning:
    """What became of the pairs of train."""

    given: int
    silent: int  # nothing was said
    leaks: int  # the sentence is in dev or test
    duplicates: int
    bad: int  # above ``most_wer``
    copies: int  # right ones beyond the share
    identical: int  # right ones that stay
    kept: int
    most_wer: float = MOST_WER

    def table(self) -> str:
        """What was taken out and why, for a terminal."""
        rows = (
            ("pairs collected", self.given),
            ("- nothing was said", self.silent),
            ("- the sentence is in dev or test", self.leaks),
            ("- duplicates", self.duplicates),
            (f"- word error rate above {self.most_wer:g}", self.bad),
            ("- right ones beyond their share", self.copies),
            ("pairs to learn from", self.kept),
            ("  of these right already", self.identical),
        )
        return "\n".join(f"{name:<36}{count:>10,}" for name, count in rows)


def word_error_rates(pairs: Sequence[Pair]) -> list[float]:
    """WER of each pair, a fraction; infinite where something was heard and nothing said."""
    return [counts.rate for counts in error_counts([p.said for p in pairs], [p.recognised for p in pairs])]


def clean(
    pairs: Sequence[Pair],
    held_out: Iterable[str] = (),
    most_wer: float = MOST_WER,
    identical: float = IDENTICAL,
    seed: int = 0,
) -> tuple[list[Pair], Cleaning]:
    """The pairs that a corrector learns from, in their order, and what became of the others.

    The right ones that stay are those with the least hash of seed and sentence: at most

        identical / (1 - identical) times the wrong ones

    Args:
        held_out: sentences of dev and test; compared by their letters alone.
        most_wer: the highest word error rate, a fraction.
        identical: share of right pairs among the result, 0 to 1; 1: all of them stay.

    Raises:
        ValueError: for a share outside 0 to 1 or a negative rate.
    """
    if not 0.0 <= identical <= 1.0:
        raise ValueError(f"the share of right pairs must be in [0, 1], got {identical}")
    if not most_wer >= 0.0:
        raise ValueError(f"the highest word error rate must be 0 or more, got {most_wer}")
    locked = {sentence_key(text) for text in held_out}
    spoken = [pair for pair in pairs if pair.said]
    allowed = [pair for pair in spoken if sentence_key(pair.said) not in locked]
    first: dict[tuple[str, str], Pair] = {}
    for pair in allowed:
        first.setdefault((pair.recognised, pair.said), pair)
    different = list(first.values())
    rates = word_error_rates(different)
    good = [pair for pair, rate in zip(different, rates, strict=True) if rate <= most_wer]
    right = sorted((pair for pair in good if pair.is_identical), key=lambda p: (stable_hash(seed, p.said), p.said))
    most = math.inf if identical == 1.0 else identical / (1 - identical) * (len(good) - len(right))
    surplus = {pair.said for place, pair in enumerate(right) if place + 1 > most + 1e-9}
    kept = [pair for pair in good if not (pair.is_identical and pair.said in surplus)]
    counts = Cleaning(
        given=len(pairs),
        silent=len(pairs) - len(spoken),
        leaks=len(spoken) - len(allowed),
        duplicates=len(allowed) - len(different),
        bad=len(different) - len(good),
        copies=len(surplus),
        identical=len(right) - len(surplus),
        kept=len(kept),
        most_wer=most_wer,
    )
    return kept, counts


# ---------------------------------------------------------------------------------------------------------------------
# Parts


def part_chooser(sentences: Iterable[str], share: float = HELD_OUT, most: int = MOST_HELD_OUT) -> Callable[[str], str]:
    """A function that says of each of ``sentences`` to which part it belongs; equal sentences go to the same part.

    Sentences count as equal where their letters are. Those with the least hashes are held out, so neither the order nor
    the number of times that a sentence comes matters.

    Args:
        share: of the different sentences that dev and test get each, at least one.
        most: sentences that they get at most.

    Raises:
        ValueError: there are fewer than three different sentences, or the share leaves nothing to learn from.
    """
    if not 0.0 < share < 0.5:
        raise ValueError(f"the share of dev and of test must be above 0 and below 0.5, got {share}")
    order = sorted({sentence_key(text) for text in sentences}, key=lambda key: (stable_hash(key), key))
    if len(order) < 3:
        raise ValueError(f"only {len(order)} different sentences; train, dev and test need at least one each")
    size = min(most, max(1, int(share * len(order))))
    part_of = dict.fromkeys(order[:size], "test") | dict.fromkeys(order[size : 2 * size], "dev")
    return lambda sentence: part_of.get(sentence_key(sentence), "train")
