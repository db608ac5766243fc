"""The embedded default corpus: phrases said by espeak-ng in many voices, made on the spot in seconds.

No recording is downloaded and no licence attached: the words come from ``data/phrases.py``, the sound from
``data/espeak.py``. ``corpora/synthetic-es/`` holds 16-bit FLAC at 16 kHz and ``train.jsonl``, ``dev.jsonl``,
``test.jsonl``. No phrase and no voice of one split occurs in another, in any language, so the error rate on ``test``
measures generalisation to unheard speakers; every clip has its own speed, pitch, loudness, pauses and low noise.

The surprise: phrases for test are drawn first, so that a longer or shorter training set leaves the test set as it is.
Synthetic speech is far easier than people: use the figures to compare two trainings, never as a claim about speech.

    python -m data.synthetic --lang es --out corpora/synthetic-es --clips 200 --seed 0
"""

import itertools
import json
import logging
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.transforms import Resample

from data.espeak import Espeak
from data.manifest import Utterance, write_manifest
from data.phrases import PHRASEBOOKS, phrases
from data.source import open_source
from data.splits import Splits
from quartznet.commandline import Parser, parse, run

logger = logging.getLogger(__name__)

CLIPS, HELD_OUT = 200, 100  # of train; of dev and of test: little to learn from, enough to measure
SAMPLE_RATE = 16000  # Hz
MARKER = "synthetic.json"  # written last: a folder that has it is complete
RECIPE = 1  # raise it when the same settings would make other clips

# Voice qualities of espeak-ng, disjoint. Robots, whispers and echoes were left out; so were near twins across splits.
VARIANTS = {
    "train": """m1 m3 m4 m6 m7 m8 f1 f2 f4 Alex Andy Annie Denis Gene Lee Mario Mike antonio aunty belinda ed edward
        grandma klatt3 klatt4 linda max miguel norbert paul pedro rob steph victor""",
    "dev": "m5 f5 Alicia grandpa robert",
    "test": "m2 f3 Andrea Nguyen kaukovalta sandro shelby travis",
}


def say(
    synthesizer: Espeak, resample: Resample, text: str, voice: str, variant: str, draw: random.Random
) -> np.ndarray:
    """``text`` as a clip of float32 ``(samples,)`` at 16 kHz, with what makes recordings differ drawn from ``draw``."""
    speed, pitch = draw.randint(130, 205), draw.randint(35, 65)
    samples, _ = synthesizer.synthesize(text, voice, speed, pitch, variant)
    samples = resample(torch.from_numpy(samples)).numpy()
    pauses = [int(SAMPLE_RATE * draw.uniform(0.05, 0.25)) for _ in range(2)]
    samples = np.pad(samples / np.abs(samples).max(), pauses)
    noise = np.random.default_rng(draw.getrandbits(32)).standard_normal(len(samples), dtype=np.float32)
    loudness, noise_below = draw.uniform(-15, -1), draw.uniform(25, 45)  # dB
    samples += noise * samples.std() * 10 ** (-noise_below / 20)
    return np.clip(samples * 10 ** (loudness / 20), -1, 1)


def make_split(lang: str, split: str, texts: list[str], folder: Path, seed: int) -> list[Utterance]:
    """Says ``texts`` in the voices of ``split``, writes the clips below ``folder`` and the manifest that lists them."""
    draw = random.Random(f"{lang} {split} {seed}")
    synthesizer = Espeak(seed)
    resample = Resample(synthesizer.sample_rate, SAMPLE_RATE)
    (folder / split).mkdir()
    utterances = []
    for index, text in enumerate(texts):
        voice, variant = draw.choice(PHRASEBOOKS[lang].voices), draw.choice(VARIANTS[split].split())
        clip = say(synthesizer, resample, text, voice, variant, draw)
        path = folder / split / f"{index:05d}.flac"
        soundfile.write(path, clip, SAMPLE_RATE, subtype="PCM_16")
        duration = round(len(clip) / SAMPLE_RATE, 4)
        utterances.append(Utterance(path, text, duration, speaker=f"{voice}+{variant}"))
    write_manifest(folder / f"{split}.jsonl", utterances)
    return utterances


def make_all(lang: str, folder: Path, recipe: dict) -> None:
    """Fills the empty ``folder`` and writes the marker last."""
    started = time.perf_counter()
    stream = phrases(lang, random.Random(f"{lang} phrases {recipe['seed']}"))
    minutes = 0.0
    for split in ("test", "dev", "train"):
        count = recipe["clips"] if split == "train" else recipe["held_out"]
        utterances = make_split(lang, split, list(itertools.islice(stream, count)), folder, recipe["seed"])
        minutes += sum(utterance.duration for utterance in utterances) / 60
    (folder / MARKER).write_text(json.dumps(recipe) + "\n", encoding="utf-8")
    logger.info("said %.1f minutes of %s in %.1f s", minutes, lang, time.perf_counter() - started)


def is_complete(folder: Path, recipe: dict) -> bool:
    """Whether ``folder`` holds the corpus of ``recipe``; raises ``ValueError`` where it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / MARKER
    found = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else "something else"
    if found != recipe:
        raise ValueError(f"{folder} holds {found}, not the corpus {recipe}; remove it or name another folder")
    return True


def make_corpus(lang: str, folder: Path, clips: int = CLIPS, held_out: int = HELD_OUT, seed: int = 0) -> Path:
    """Makes the corpus of ``lang`` in ``folder``, or leaves it alone where the same one is already there.

    It is made in a neighbouring temporary folder and renamed, so that a stop half-way leaves nothing that looks
    complete, and two processes may ask for it at the same time.

    Args:
        clips: clips of ``train``; 200 are about 9 minutes.
        held_out: clips of ``dev`` and of ``test``.

    Raises:
        ValueError: unknown language, impossible counts, or a ``folder`` with other contents.
        FileNotFoundError: espeak-ng is not installed.
    """
    if lang not in PHRASEBOOKS:
        raise ValueError(f"no embedded default in {lang!r}, only in {', '.join(sorted(PHRASEBOOKS))}; name a corpus")
    if clips < 1 or held_out < 1:
        raise ValueError(f"a corpus needs at least one clip in each split, got clips {clips}, held_out {held_out}")
    recipe = {"lang": lang, "clips": clips, "held_out": held_out, "seed": seed, "recipe": RECIPE}
    if is_complete(folder, recipe):
        return folder
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        make_all(lang, temporary, recipe)
        os.replace(temporary, folder)
    except OSError:
        if not is_complete(folder, recipe):  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def default_folder(lang: str) -> Path:
    """``corpora/synthetic-es`` below the current directory."""
    return Path("corpora") / f"synthetic-{lang}"


def embedded_default(lang: str, folder: Path | None = None, clips: int = CLIPS, held_out: int = HELD_OUT) -> Splits:
    """The corpus that training uses when no other is named; made at the first call. See ``make_corpus``."""
    return open_source(make_corpus(lang, folder or default_folder(lang), clips, held_out))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr), 130 stopped."""
    parser = Parser(prog="python -m data.synthetic", description="Makes a corpus of synthetic speech.")
    parser.add_argument("--lang", choices=sorted(PHRASEBOOKS), required=True)
    parser.add_argument("--out", type=Path, help="folder; corpora/synthetic-LANG when left out")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"of the training split ({CLIPS})")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help=f"clips of dev and of test ({HELD_OUT})")
    parser.add_argument("--seed", type=int, default=0, help="another one makes another corpus (0)")

    def work() -> None:
        options = parse(parser, arguments)
        folder = options.out or default_folder(options.lang)
        print(make_corpus(options.lang, folder, options.clips, options.held_out, options.seed))

    return run(work, stopped="stopped; nothing was made")


if __name__ == "__main__":
    sys.exit(main())
