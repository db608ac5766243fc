"""The ways from an English checkpoint to a new language, one beside the other: prints, runs and tabulates them.

    python benchmarks/methods.py plan  --init en.nemo --corpora corpora --out runs/methods            # every command
    python benchmarks/methods.py run   --init en.nemo --corpora corpora --out runs/methods --languages ru
    python benchmarks/methods.py table --out runs/methods --languages ru                              # markdown
    python benchmarks/methods.py draw  --out runs/methods --languages ru es --png docs/methods.png    # learning curves

Every row of a language has the same updates on the same clips, about 250 steps of up to 40 s, the same optimiser
(AdamW) and the same schedule. Rows differ in their first weights, in what learns, and in the rate, which is larger
where less learns. ``run`` leaves out what is there already, so it can be stopped.

The surprise: at this size words say little. Where one letter in four is wrong, hardly any word is right, and methods
that are far apart in letters all have 95 % of the words wrong. So rows are ordered by letter error rate.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quartznet.report import COLORS

MORE_COLORS = (
    "#8C564B",
    "#7F7F7F",
    "#17BECF",
    "#BCBD22",
    "#7B3F00",
    "#4B0082",
    "#C71585",
    "#2F4F4F",
    "#6B8E23",
    "#A0522D",
    "#008B8B",
    "#556B2F",
)
COMMON = (
    "--precision bf16 --optim.name adamw --optim.weight_decay 0.01 --optim.grad_clip 1 --data.batch_seconds 40 "
    "--data.workers 1 --augment.cutout_masks 2 --keep_best 1"
)


@dataclass(frozen=True)
class Corpus:
    """A language of the table."""

    folder: str
    epochs: int  # about 250 steps; German: 350, English: 140
    frozen: int  # epochs of the output layer alone
    thaw: int  # blocks that each epoch of "gradual" adds
    test: str  # what evaluate.py is given; the German corpus has no test part, so other speakers' clips are taken
    split: str
    rows: tuple[str, ...] | None = None  # None: all but those of a domain


DOMAIN = (
    "copied",
    "copied-lr1e-4",
    "bn-frozen",
    "bn-frozen-low",
    "bn-frozen-least",
    "bn",
    "lora",
    "adapters",
    "auto",
)  # the alphabet is the same, all rows are copied
LANGUAGES = {
    "ru": Corpus("ru_prompts", 12, 4, 3, "ru_prompts", "test"),
    "es": Corpus("es_read", 4, 1, 6, "es_read", "test"),
    "de": Corpus("de_kerstin", 2, 1, 9, "common_voice_sample/de", "all"),
    "en": Corpus("en_kathleen", 1, 0, 0, "en_kathleen", "test", DOMAIN),
}
ROWS = {  # what the row is called -> options; "scratch" rows have no --init
    "scratch": "--from-scratch --optim.lr 0.0005",
    "scratch-5x3": "--from-scratch --preset 5x3 --optim.lr 0.0005",
    "new": "--optim.lr 0.0005 --head new",
    "copied": "--optim.lr 0.0005",
    "copied-lr1e-3": "--optim.lr 0.001",
    "copied-lr1e-4": "--optim.lr 0.0001",
    "bn-frozen": "--optim.lr 0.0005 --batchnorm frozen",
    "bn-frozen-low": "--optim.lr 0.0001 --batchnorm frozen",
    "bn-frozen-least": "--optim.lr 0.00001 --batchnorm frozen",
    "new-bn-frozen": "--optim.lr 0.0005 --batchnorm frozen --head new",
    "frozen-then-full": "--optim.lr 0.0005 --freeze-encoder {frozen}",
    "gradual": "--optim.lr 0.0005 --unfreeze-every 1 --tune.unfreeze-blocks {thaw}",
    "gradual-bn-frozen": "--optim.lr 0.0005 --unfreeze-every 1 --tune.unfreeze-blocks {thaw} --batchnorm frozen",
    "bn": "--optim.lr 0.005 --train bn",
    "lora": "--optim.lr 0.001 --train lora",
    "lora-bn": "--optim.lr 0.001 --train lora --batchnorm full",
    "lora-bn-frozen": "--optim.lr 0.001 --train lora --batchnorm frozen",
    "adapters": "--optim.lr 0.002 --train adapters",
    "auto": "--recipe auto",
}
TITLES = {
    "scratch": "from scratch, 15x5",
    "scratch-5x3": "from scratch, 5x3",
    "new": "encoder only, new output layer",
    "copied": "encoder and copied rows",
    "copied-lr1e-3": "the same, rate 0.001",
    "copied-lr1e-4": "the same, rate 0.0001",
    "bn-frozen": "encoder and copied rows, batch norm frozen",
    "bn-frozen-low": "batch norm frozen, rate 0.0001",
    "bn-frozen-least": "batch norm frozen, rate 0.00001",
    "new-bn-frozen": "new output layer, batch norm frozen",
    "frozen-then-full": "output layer alone first, then all",
    "gradual": "thawed from the top, block by block",
    "gradual-bn-frozen": "thawed from the top, batch norm frozen",
    "bn": "batch norm and output layer only",
    "lora": "LoRA, rank 8",
    "lora-bn": "LoRA, rank 8, and batch norm",
    "lora-bn-frozen": "LoRA, rank 8, batch norm frozen",
    "adapters": "adapters, 32 wide",
    "auto": "--recipe auto",
}


def command(language: str, row: str, init: str, corpora: str, out: str, seed: int) -> list[str]:
    """The words after ``python``."""
    corpus = LANGUAGES[language]
    options = ROWS[row].format(frozen=corpus.frozen, thaw=corpus.thaw).split()
    start = [] if row.startswith("scratch") else ["--init", init]
    common = [] if row == "auto" else [*COMMON.split(), "--recipe", "none"]
    place = ["--data", f"{corpora}/{corpus.folder}", "--out", str(run_folder(out, language, row, seed))]
    return [
        "train.py",
        "--lang",
        language,
        *start,
        *place,
        *options,
        *common,
        "--epochs",
        str(corpus.epochs),
        "--seed",
        str(seed),
    ]


def run_folder(out: str, language: str, row: str, seed: int) -> Path:
    """Where the run lies; the first seed has the plain name."""
    return Path(out) / (f"{language}-{row}" + (f"-seed{seed}" if seed else ""))


def rows_of(language: str, wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that make sense for the language, in the order of ``ROWS``."""
    rows = LANGUAGES[language].rows or [
        row for row in ROWS if row not in ("copied-lr1e-4", "bn-frozen-low", "bn-frozen-least")
    ]
    return [row for row in ROWS if row in rows and row in wanted]


def run(words: Sequence[str], test: str, split: str, folder: Path) -> None:
    """Trains and evaluates, unless the result is there; raises CalledProcessError where a command fails."""
    if (folder / "test.json").exists():
        return
    subprocess.run([sys.executable, *words], check=True)
    score = ["evaluate.py", "--checkpoint", str(folder), "--data", test, "--split", split, "--worst", "0"]
    subprocess.run([sys.executable, *score, "--json", str(folder / "test.json")], check=True)


def dev_scores(folder: Path) -> list[dict]:
    """The evaluations of a run."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "dev"]


def line_of(title: str, folder: Path) -> str | None:
    """One line of the table; None where the run has no result."""
    if not (folder / "test.json").exists():
        return None
    test = json.loads((folder / "test.json").read_text(encoding="utf-8"))
    dev = dev_scores(folder)
    best = min(dev, key=lambda record: (record["wer"], record["cer"]))

    def shown(unit: str) -> str:
        low, high = test[f"{unit}_interval"]
        return f"{100 * test[unit]:.1f} % ({100 * low:.1f} to {100 * high:.1f})"

    steps = dev[-1]["step"]
    rates = f"{100 * best['wer']:.1f} % | {100 * best['cer']:.1f} %"
    return f"| {title} | {steps} | {rates} | {shown('wer')} | {shown('cer')} | {dev[-1]['seconds'] / 60:.0f} min |"


def table(language: str, out: str, seeds: Sequence[int]) -> str:
    """Markdown, the rows in the order of ``ROWS``, one for each seed."""
    head = "| | steps | dev WER | dev CER | test WER (95 %) | test CER (95 %) | time |\n|---|---|---|---|---|---|---|"
    rows = []
    for row in rows_of(language, tuple(ROWS)):
        for seed in seeds:
            title = TITLES[row] + (f", seed {seed}" if seed else "")
            rows.append(line_of(title, run_folder(out, language, row, seed)))
    return "\n".join([head, *(row for row in rows if row is not None)])


def spread(heights: Sequence[float], distance: float) -> list[float]:
    """The heights, pushed upwards where two are nearer than ``distance``, so that labels do not lie on each other."""
    places: dict[int, float] = {}
    lowest = -math.inf
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        lowest = places[index] = max(heights[index], lowest + distance)
    return [places[index] for index in range(len(heights))]


def draw(languages: Sequence[str], out: str, path: str) -> None:
    """A PNG: dev letter error rate of every run against the step, a panel for each language."""
    from matplotlib.figure import Figure  # slow to import; a bare Figure draws with Agg and keeps no global state

    figure = Figure(figsize=(6.2 * len(languages), 4.8), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(languages), squeeze=False)[0]
    for panel, language in zip(panels, languages, strict=True):
        folders = {row: run_folder(out, language, row, 0) for row in rows_of(language, tuple(ROWS))}
        found = {row: dev_scores(folder) for row, folder in folders.items() if (folder / "metrics.jsonl").exists()}
        curves = {row: curve for row, curve in found.items() if curve}  # the others have only just begun
        places = spread([100 * curve[-1]["cer"] for curve in curves.values()], 4.0)
        for (row, curve), place in zip(curves.items(), places, strict=True):
            color = (*COLORS, *MORE_COLORS)[list(ROWS).index(row)]
            steps, cer = [record["step"] for record in curve], [100 * record["cer"] for record in curve]
            style = "--" if row.startswith("scratch") else "-"
            panel.plot(steps, cer, style, color=color, marker="o", markersize=3)
            panel.annotate(f" {row} {cer[-1]:.0f}", (steps[-1], place), fontsize=8, color=color, va="center")
        panel.set(title=f"{language}: dev letter error rate", xlabel="optimiser step", ylabel="CER in %")
        panel.margins(x=0.3)
        panel.set_ylim(0, 112)
        panel.set_xlim(left=0)
        panel.grid(color="#DDDDDD", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or an exception of the command that failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("plan", "run", "table", "draw"))
    parser.add_argument("--init", default="quartznet15x5_en.nemo", help="the English checkpoint")
    parser.add_argument("--corpora", default="corpora", help="folder with ru_prompts, es_read ...")
    parser.add_argument("--out", default="runs/methods", help="folder of the runs")
    parser.add_argument("--languages", nargs="+", choices=tuple(LANGUAGES), default=list(LANGUAGES))
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--png", default="docs/methods.png", help="picture of draw")
    options = parser.parse_args(arguments)
    if options.what == "draw":
        draw(options.languages, options.out, options.png)
        return 0
    for language in options.languages:
        if options.what == "table":
            print(f"\n{language}\n\n{table(language, options.out, options.seeds)}")
            continue
        for row in rows_of(language, options.rows):
            for seed in options.seeds:
                words = command(language, row, options.init, options.corpora, options.out, seed)
                print("python", " ".join(words), flush=True)
                if options.what == "run":
                    corpus = LANGUAGES[language]
                    folder = run_folder(options.out, language, row, seed)
                    run(words, f"{options.corpora}/{corpus.test}", corpus.split, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
