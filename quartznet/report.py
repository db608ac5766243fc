"""Results to read: errors of an evaluation, runs side by side, learning curves.

    python -m quartznet.report runs/fine-tuned runs/scratch --labels fine-tuned,scratch --png curves.png

prints one line for each run and draws training loss, dev loss and dev WER of all runs against the step. Where
``evaluate.py --json RUN/test.json`` has left a result in every run folder, a second table compares these. Every table
fits a terminal of 80 columns. Rates are fractions inside and per cent in what is printed.

The surprise: "best" is the evaluation with the least dev WER, the one that best.pt holds, while "last loss" is the
last evaluation's, so the two differ in a run that went on too long.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quartznet import commandline
from quartznet.metrics import ErrorCounts, aligned_words, bootstrap_interval, error_counts, total

COLUMNS = 80  # of a terminal
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe and Ito: colour-blind safe

# ---------------------------------------------------------------------------------------------------------------------
# One evaluation


@dataclass(frozen=True)
class Utterance:
    """A transcript beside its reference."""

    name: str
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts


@dataclass(frozen=True)
class Evaluation:
    """Corpus counts with 95 % intervals; ``utterances`` in the order of the data."""

    utterances: tuple[Utterance, ...]
    words: ErrorCounts
    characters: ErrorCounts
    wer_interval: tuple[float, float]
    cer_interval: tuple[float, float]
    loss: float | None  # mean over utterances, nats

    def worst(self, count: int) -> list[Utterance]:
        """The utterances that cost the most words, then the most characters; faultless ones are left out."""
        wrong = [utterance for utterance in self.utterances if utterance.characters.errors]
        return sorted(wrong, key=lambda u: (u.words.errors, u.characters.errors), reverse=True)[:count]


def evaluate_texts(
    names: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[str],
    loss: float | None = None,
    seed: int = 0,
) -> Evaluation:
    """Counts the errors of a corpus; ``seed`` draws the bootstrap.

    Raises:
        ValueError: without utterances, or for lists of different lengths.
    """
    if len(names) != len(references):
        raise ValueError(f"{len(names)} names but {len(references)} references; give one for each")
    words = error_counts(references, hypotheses, "word")
    characters = error_counts(references, hypotheses, "character")
    rows = zip(names, references, hypotheses, words, characters, strict=True)
    return Evaluation(
        tuple(Utterance(*row) for row in rows),
        total(words),
        total(characters),
        bootstrap_interval(words, seed),
        bootstrap_interval(characters, seed),
        loss,
    )


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None


def evaluation_json(evaluation: Evaluation) -> dict:
    """Rates as fractions, counts, and every utterance, ready for ``json.dump``; a rate without references is null."""
    result: dict = {"utterances": len(evaluation.utterances), "loss": _finite(evaluation.loss)}
    parts = (
        ("wer", evaluation.words, evaluation.wer_interval),
        ("cer", evaluation.characters, evaluation.cer_interval),
    )
    for name, counts, interval in parts:
        result[name] = counts.rate if counts.reference_length else None
        result[f"{name}_interval"] = [bound if counts.reference_length else None for bound in interval]
        result[f"{name}_counts"] = {
            "substitutions": counts.substitutions,
            "deletions": counts.deletions,
            "insertions": counts.insertions,
            "reference_length": counts.reference_length,
        }
    result["transcripts"] = [
        {"name": u.name, "reference": u.reference, "hypothesis": u.hypothesis, "wer": _finite(u.words.rate)}
        for u in evaluation.utterances
    ]
    return result


def _shorten(text: str, width: int) -> str:
    """The end of ``text``, where file names differ, in at most ``width`` columns."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def align_texts(reference: str, hypothesis: str, width: int = COLUMNS, indent: int = 4) -> str:
    """Reference over hypothesis, word under word, wrapped together; wrong words in capitals, *** for no word.

    ref  la casa VERDE
    hyp  la casa VERDAD
    """
    columns = []
    for said, heard in aligned_words(reference, hypothesis):
        if said != heard:
            said, heard = said.upper() or "***", heard.upper() or "***"
        columns.append((said, heard))
    lines: list[list[str]] = [["", ""]]
    for pair in columns:
        size = max(map(len, pair))
        if lines[-1][0] and len(lines[-1][0]) + size > width - indent - 5:
            lines.append(["", ""])
        for side in (0, 1):
            lines[-1][side] += pair[side].ljust(size) + " "
    margin = " " * indent
    return "\n".join(f"{margin}ref  {said}".rstrip() + f"\n{margin}hyp  {heard}".rstrip() for said, heard in lines)


def _rates(counts: ErrorCounts, interval: tuple[float, float], unit: str) -> str:
    """The rate and its interval in 27 columns, or that there is none."""
    if not counts.reference_length:
        return f"{f'no reference {unit}':>27}"
    low, high = interval
    return f"{100 * counts.rate:>7.2f} %{f'{100 * low:.2f} .. {100 * high:.2f}':>18}"


def evaluation_table(evaluation: Evaluation, worst: int = 10) -> str:
    """Rates, intervals and kinds of error, then the ``worst`` utterances."""
    loss = "" if evaluation.loss is None else f", loss {evaluation.loss:.3f}"
    lines = [_plural(len(evaluation.utterances), "utterance") + loss]
    lines.append(f"{'':5}{'rate':>9}{'95 % interval':>18}{'subst.':>9}{'deleted':>9}{'inserted':>10}{'of':>9}")
    parts = (
        ("WER", evaluation.words, evaluation.wer_interval, "words"),
        ("CER", evaluation.characters, evaluation.cer_interval, "characters"),
    )
    for name, counts, interval, unit in parts:
        kinds = f"{counts.substitutions:>9}{counts.deletions:>9}{counts.insertions:>10}"
        lines.append(f"{name:5}{_rates(counts, interval, unit)}{kinds}{counts.reference_length:>9} {unit}")
    if not evaluation.words.reference_length:
        lines.append(f"{_plural(evaluation.words.insertions, 'word')} heard in silence")
    chosen = evaluation.worst(worst)
    if chosen:
        lines += ["", f"the {len(chosen)} worst (wrong words in capitals, *** where there is no word):"]
    for place, utterance in enumerate(chosen, 1):
        words = utterance.words
        count = f"{_plural(words.errors, 'error')} in {_plural(words.reference_length, 'word')}"
        lines.append(f"{place:>3} {_shorten(utterance.name, COLUMNS - 6 - len(count))}: {count}")
        lines.append(align_texts(utterance.reference, utterance.hypothesis))
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# Runs side by side


@dataclass(frozen=True)
class Run:
    """What a run folder's metrics.jsonl says, in the order of the steps."""

    label: str
    train: tuple[dict, ...]
    dev: tuple[dict, ...]
    skipped_steps: int
    problems: tuple[str, ...]  # lines that could not be read: "file:line: why"
    test: dict | None = None  # test.json, as evaluate.py --json writes it

    @property
    def best(self) -> dict | None:
        """The evaluation with the least WER; the earlier one of two equals."""
        scored = [record for record in self.dev if record.get("wer") is not None]
        return min(scored, key=lambda record: record["wer"]) if scored else None


def read_run(folder: str | Path, label: str | None = None) -> Run:
    """Reads ``folder``/metrics.jsonl, and test.json if there is one; what is broken is kept as ``problems``, not lost.

    Raises:
        FileNotFoundError: without that file.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; give the folder that train.py --out wrote")
    records: dict[str, list[dict]] = {"train": [], "dev": [], "skipped": []}
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records[record["kind"]].append({**record, "step": int(record["step"])})
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{path}:{number}: not a record of a run ({error!r})")
    train, dev = (sorted(records[kind], key=lambda record: record["step"]) for kind in ("train", "dev"))
    test = read_test(Path(folder) / "test.json", problems)
    name = label or Path(folder).resolve().name
    return Run(name, tuple(train), tuple(dev), len(records["skipped"]), tuple(problems), test)


def read_test(path: Path, problems: list[str]) -> dict | None:
    """The rates of an evaluation, or None without the file; a file that is no evaluation is one of the ``problems``."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        result: dict = {"utterances": int(found["utterances"])}
        for name in ("wer", "cer"):
            low, high = found[f"{name}_interval"]
            result |= {name: float(found[name]), f"{name}_interval": [float(low), float(high)]}
    except (ValueError, KeyError, TypeError) as error:
        problems.append(f"{path}:1: not a result of evaluate.py --json ({error!r})")
        return None
    return result


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _cell(record: dict | None, name: str, form: str, scale: float = 1.0) -> str:
    value = None if record is None else record.get(name)
    return "-" if value is None else format(scale * value, form)


def comparison_table(runs: Sequence[Run]) -> str:
    """One line for each run: best dev WER with its CER and step, last dev loss, steps, training time, hours heard."""
    heads = ("WER %", "CER %", "at step", "last loss", "steps", "time", "audio h")
    rows = []
    for run in runs:
        records = sorted(run.train + run.dev, key=lambda record: record["step"])
        last = records[-1] if records else None
        seconds = max((record.get("seconds") or 0.0 for record in records), default=0.0)
        last_loss = _cell(run.dev[-1] if run.dev else None, "loss", ".3f")
        scores = [
            _cell(run.best, "wer", ".2f", 100),
            _cell(run.best, "cer", ".2f", 100),
            _cell(run.best, "step", "d", 1),
        ]
        hours = _cell(run.train[-1] if run.train else None, "audio_hours", ".2f")
        rows.append((run.label, *scores, last_loss, _cell(last, "step", "d", 1), _clock(seconds), hours))
    if all(row[-1] == "-" for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    widths = [max(len(head), *(len(row[i]) for row in rows)) + 2 for i, head in enumerate(heads, 1)]
    room = COLUMNS - sum(widths)
    first = min(room, max(len("best dev"), *(len(row[0]) for row in rows)))
    lines = []
    for label, *cells in (("best dev", *heads), *rows):
        lines.append(_shorten(label, first).ljust(first) + "".join(map(str.rjust, cells, widths)))
    return "\n".join(lines)


def held_out_table(runs: Sequence[Run]) -> str:
    """One line for each run: WER and CER of its test.json with 95 % intervals, and how many clips they are from."""
    first = max(len("test"), *(min(len(run.label), COLUMNS - 57) for run in runs))
    lines = [f"{'test':{first}}{'WER %':>9}{'95 %':>16}{'CER %':>9}{'95 %':>16}{'clips':>7}"]
    for run in runs:
        cells = ""
        for name in ("wer", "cer"):
            low, high = (100 * bound for bound in run.test[f"{name}_interval"])
            cells += f"{100 * run.test[name]:9.2f}{f'{low:.2f} - {high:.2f}':>16}"
        lines.append(f"{_shorten(run.label, first):{first}}{cells}{run.test['utterances']:7}")
    return "\n".join(lines)


def smooth(values: Sequence[float], reach: int) -> list[float]:
    """Mean over up to ``reach`` values before and after each; fewer at the ends."""
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _points(records: Sequence[dict], name: str, scale: float = 1.0) -> tuple[list[int], list[float]]:
    """Steps and values, without the evaluations whose value was not a number."""
    known = [record for record in records if record.get(name) is not None]
    return [record["step"] for record in known], [scale * record[name] for record in known]


def spans_decades(values: Sequence[float]) -> bool:
    """True where a few large first losses would press all the others flat against the axis."""
    return bool(values) and max(values) > 50 * min(values) > 0


def draw_curves(runs: Sequence[Run], path: str | Path, title: str = "Learning curves") -> None:
    """Writes a PNG of three panels: training loss, dev loss, dev WER, each of all runs against the step."""
    from matplotlib.figure import Figure  # slow to import; a bare Figure draws with Agg and keeps no global state

    figure = Figure(figsize=(13.5, 4.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold")
    panels = figure.subplots(1, 3)
    names = ("training loss", "dev loss", "dev word error rate")
    for panel, name, unit in zip(panels, names, ("nats per utterance",) * 2 + ("WER in %",), strict=True):
        panel.set_title(name, fontsize=11)
        panel.set_xlabel("optimiser step")
        panel.set_ylabel(unit)
        panel.grid(color="#DDDDDD", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    for index, run in enumerate(runs):
        color = COLORS[index % len(COLORS)]
        steps, losses = _points(run.train, "loss")
        panels[0].plot(steps, losses, color=color, alpha=0.25, linewidth=0.8)
        panels[0].plot(steps, smooth(losses, len(losses) // 50), color=color, linewidth=1.8, label=run.label)
        for panel, name, scale in ((panels[1], "loss", 1.0), (panels[2], "wer", 100.0)):
            panel.plot(*_points(run.dev, name, scale), color=color, linewidth=1.8, marker="o", markersize=3)
        if run.best is not None:
            wer = 100 * run.best["wer"]
            panels[2].plot(run.best["step"], wer, "o", color=color, markersize=8, markerfacecolor="white")
            place = (0, 9 if wer < 90 else -16)  # below the point where the title is above it
            panels[2].annotate(
                f"{wer:.1f} %", (run.best["step"], wer), place, textcoords="offset points", ha="center", color=color
            )
    for panel in panels:
        if panel is not panels[2] and spans_decades([value for line in panel.lines for value in line.get_ydata()]):
            panel.set_yscale("log")
        else:
            panel.set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _show(options: argparse.Namespace) -> None:
    """All that the command line asks for; raises ValueError or OSError for what the user can put right."""
    labels = options.labels.split(",") if options.labels else [None] * len(options.runs)
    if len(labels) != len(options.runs):
        raise ValueError(f"{len(options.runs)} runs but {len(labels)} labels; give one for each")
    runs = [read_run(folder, label) for folder, label in zip(options.runs, labels, strict=True)]
    print(comparison_table(runs))
    if all(run.test is not None for run in runs):
        print(f"\n{held_out_table(runs)}\n")
    for run in runs:
        if run.skipped_steps:
            print(f"{run.label}: {_plural(run.skipped_steps, 'step')} skipped while training")
        if run.problems:
            print(f"{run.label}: {_plural(len(run.problems), 'line')} left out; the first: {run.problems[0]}")
    if options.png:
        draw_curves(runs, options.png, options.title)
        print(f"curves: {options.png}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 130 stopped."""
    parser = commandline.Parser(prog="python -m quartznet.report", description="Compares training runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders that train.py wrote")
    parser.add_argument("--labels", help="names of the runs, separated by commas; else the folders' names")
    parser.add_argument("--png", metavar="FILE", help="draw the learning curves")
    parser.add_argument("--title", default="Learning curves", help="of the picture")
    return commandline.run(lambda: _show(commandline.parse(parser, arguments)))


if __name__ == "__main__":
    sys.exit(main())
