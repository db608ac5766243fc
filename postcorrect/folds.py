"""Recognisers that have not learnt what they decode: K trainings, each on all folds but one.

A network knows its training clips by heart and errs on them far less than on new ones, so what it makes of them teaches
a corrector nothing. With K folds every clip is decoded by a network that was trained without it (and without any clip
of the same sentence: a corrector sees text). ``train.py`` is called as a process, with the user's own options.

The surprise: an interrupted training must end by itself, or the next command would find half of it. The process gets
the signal that we got, saves, and is waited for.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.hashing import stable_hash
from data.manifest import Utterance, write_manifest
from data.splits import sentence_key
from quartznet.interrupt import Interrupt

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
OURS = ("--data", "--data.source", "--data.train", "--dev", "--data.dev", "--out")


@dataclass(frozen=True)
class Fold:
    """One of the trainings, and the clips that are left to decode."""

    number: int  # from 1
    folder: Path  # called after clips and options: changed ones make another training
    learnt: tuple[Utterance, ...]
    decoded: tuple[Utterance, ...]

    @property
    def run(self) -> Path:
        """The run folder of the training."""
        return self.folder / "run"


def check_options(train_options: Sequence[str]) -> None:
    """Raises ValueError where there are none, or one that only we can give."""
    if not train_options:
        raise ValueError(
            "--folds trains recognisers; give the options of train.py after --, such as: -- --init en.nemo --lang es"
        )
    for option in train_options:
        if option.split("=")[0] in OURS:
            raise ValueError(f"{option.split('=')[0]} after --: which clips are learnt and where the run lies is ours")


def make_folds(clips: Sequence[Utterance], count: int, folder: Path, train_options: Sequence[str]) -> list[Fold]:
    """``count`` folds of equally many different sentences; the clips of a sentence stay together.

    Raises:
        ValueError: fewer than two folds, or fewer sentences than folds.
    """
    if count < 2:
        raise ValueError(f"--folds must be at least 2, got {count}: each is decoded by a training on the others")
    sentences = sorted({sentence_key(clip.text) for clip in clips}, key=lambda key: (stable_hash(key), key))
    if len(sentences) < count:
        raise ValueError(f"{len(sentences)} different sentences cannot make {count} folds; give a lower --folds")
    fold_of = {sentence: place % count + 1 for place, sentence in enumerate(sentences)}
    found = []
    for number in range(1, count + 1):
        learnt = tuple(clip for clip in clips if fold_of[sentence_key(clip.text)] != number)
        decoded = tuple(clip for clip in clips if fold_of[sentence_key(clip.text)] == number)
        told = stable_hash(*train_options, *(f"{clip.name} {clip.text}" for clip in learnt))
        found.append(Fold(number, folder / f"fold-{number}-of-{count}-{told:016x}", learnt, decoded))
    return found


def train_fold(fold: Fold, dev: Sequence[Utterance], train_options: Sequence[str]) -> None:
    """Trains, or goes on with, the recogniser of a fold.

    Raises:
        ValueError: train.py ended with an error; its own messages are on the screen.
        KeyboardInterrupt: it was asked to stop, and has saved.
    """
    if (fold.folder / "done.json").is_file():
        return
    fold.folder.mkdir(parents=True, exist_ok=True)
    write_manifest(fold.folder / "train.jsonl", fold.learnt)
    write_manifest(fold.folder / "dev.jsonl", dev)
    ours = ["--train", fold.folder / "train.jsonl", "--dev", fold.folder / "dev.jsonl", "--out", fold.run]
    command = [sys.executable, str(TRAIN), *train_options, *map(str, ours)]
    status = run(command)
    if status > 128 or status < 0:
        raise KeyboardInterrupt
    if status:
        raise ValueError(
            f"the training of fold {fold.number} ended with status {status}, see above; the same command goes on"
        )
    (fold.folder / "done.json").write_text(json.dumps({"command": command}, indent=1) + "\n", encoding="utf-8")


def run(command: Sequence[str]) -> int:
    """Exit status of a process; Ctrl-C and SIGTERM are handed on to it, and it is waited for."""
    with Interrupt() as interrupt:
        process = subprocess.Popen(command, start_new_session=True)  # or a terminal would send Ctrl-C to both
        is_told = False
        try:
            while process.poll() is None:
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    if interrupt.requested() and not is_told:
                        process.send_signal(interrupt.signal)
                        is_told = True
        finally:
            if process.poll() is None:  # a second Ctrl-C
                process.kill()
                process.wait()
    return 128 + interrupt.signal if interrupt.requested() else process.returncode
