"""Recognised texts repaired while their audio is at hand: the recogniser is asked how probable a correction sounds.

    ln P_ctc(text | audio) = - CTC loss of the text = ln of the summed probability of all paths that read so

``evaluate.py --corrector RUN`` repairs each batch so, after it was decoded by whatever search.

The surprise: the source is not always what CTC finds most probable. It is the text of the most probable path, or what a
language model made of it, so a correction may gain by its sound too.
"""

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from postcorrect.gate import GateSettings
from postcorrect.gate_file import chosen_gate
from postcorrect.model import Corrector
from postcorrect.outcome import outcome
from postcorrect.protect import Protected, read_protected
from postcorrect.repair import Repair, Sound, reasons_table, repair
from quartznet import decoding
from quartznet.alphabet import Alphabet
from quartznet.ctc import ctc_losses
from quartznet.decoding import Heard
from quartznet.distributed import choose_device
from quartznet.model import QuartzNet
from quartznet.recognition import Transcript
from quartznet.text import Language
from quartznet.tuned import network_hash


def ctc_scores(log_probs: Tensor, length: int, texts: Sequence[str], alphabet: Alphabet) -> list[float]:
    """ln P_ctc of each text for one utterance; minus infinity where no path reads so.

    Args:
        log_probs: (time, labels + 1), output of log-softmax.
        length: frames that are real.
    """
    letters = set(alphabet.labels)
    rows = {place: alphabet.encode(text) for place, text in enumerate(texts) if letters.issuperset(text)}
    found = [-math.inf] * len(texts)
    if not rows:
        return found
    targets = torch.zeros(len(rows), max(1, *map(len, rows.values())), dtype=torch.long)
    for number, row in enumerate(rows.values()):
        targets[number, : len(row)] = torch.tensor(row, dtype=torch.long)
    sizes = torch.tensor([len(row) for row in rows.values()])
    lengths = torch.full((len(rows),), length)
    device = log_probs.device
    repeated = log_probs[:length].expand(len(rows), -1, -1)
    parts = (part.to(device) for part in (lengths, targets, sizes))
    losses = ctc_losses(repeated, *parts, alphabet.blank, zero_infinity=False)
    for place, loss in zip(rows, losses.tolist(), strict=True):
        found[place] = -loss
    return found


def sound_of(log_probs: Sequence[Tensor], lengths: Sequence[int], alphabet: Alphabet) -> Sound:
    """``ctc_scores`` of the utterance at a place."""
    return lambda place, texts: ctc_scores(log_probs[place], lengths[place], texts, alphabet)


def heard_text(heard: Heard, language: Language) -> str:
    """What is scored, and corrected, of what was heard: custom words are normalised as references are."""
    return heard.letters if heard.shown == heard.letters else language.normalize(heard.shown)


# ---------------------------------------------------------------------------------------------------------------------
# Options of a command


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--corrector`` and what belongs to it."""
    group = parser.add_argument_group("repairing what was recognised")
    group.add_argument("--corrector", metavar="RUN", help="run folder or file of postcorrect.train")
    group.add_argument(
        "--gate", metavar="FILE", help="another gate.yaml; insist: even if it was no sure help; open: correct all"
    )
    group.add_argument(
        "--protect", metavar="FILE", help="words and phrases that stay as they were recognised, a line each"
    )


def check_options(options: argparse.Namespace) -> None:
    """Raises ValueError for options that would have no effect."""
    for name in ("gate", "protect"):
        if getattr(options, name) is not None and options.corrector is None:
            raise ValueError(f"--{name} is about a corrector; give one with --corrector RUN")


def described(options: argparse.Namespace) -> dict[str, str]:
    """What was asked for, for a file of results; nothing without a corrector."""
    asked = {name: getattr(options, name) for name in ("corrector", "gate", "protect")}
    return {name: value for name, value in asked.items() if value is not None}


# ---------------------------------------------------------------------------------------------------------------------
# Batches


@dataclass(frozen=True)
class SpeechRepairer:
    """A corrector, its gate, and the recogniser's letters and rules."""

    corrector: Corrector
    gate: GateSettings
    protected: Protected | None
    alphabet: Alphabet
    language: Language
    done: list[Repair] = field(default_factory=list)  # all so far, for the count of reasons

    def __call__(self, log_probs: Tensor, lengths: Tensor, heard: Sequence[Heard]) -> tuple[list[Heard], list[str]]:
        """What is shown of a batch now, in the letters of the alphabet, and the texts before.

        Args:
            log_probs: (batch, time, labels + 1).
            lengths: (batch,) valid frames.
        """
        texts = [heard_text(one, self.language) for one in heard]
        sound = sound_of(log_probs, lengths.tolist(), self.alphabet)
        normalise = self.language.normalize
        found = repair(self.corrector, texts, self.gate, None, self.protected, sound, normalise)
        self.done.extend(found)
        rows = zip(heard, found, strict=True)
        return [one if new.text == new.source else Heard(new.text, new.text) for one, new in rows], texts

    def report(self, rows: Sequence[Transcript], condition: str = "") -> dict:
        """Prints what became of the texts since the last report, and what that did to ``rows``; the same as a table.

        Args:
            condition: in which they were heard, where there are several.
        """
        texts = ([getattr(row, name) for row in rows] for name in ("reference", "before", "hypothesis"))
        found = outcome(*texts)
        title = f"repaired, {condition}\n" if condition else ""
        print(f"\n{title}{reasons_table(self.done)}\n\n{found.table()}")
        reasons = dict(Counter(one.reason for one in self.done))
        self.done.clear()
        return {"reasons": reasons, **found.for_json()}


def choose_repairer(options: argparse.Namespace, model: QuartzNet, language: Language) -> SpeechRepairer | None:
    """What repairs the texts of ``model``; None where there is no ``--corrector``.

    Raises:
        ValueError, FileNotFoundError: a file is missing, damaged or of another kind.
    """
    if options.corrector is None:
        return None
    from postcorrect import load  # it stands above all modules of its package

    corrector = load(options.corrector).to(choose_device(options.device))
    asked = options.gate, network_hash(model), decoding.described(options)
    gate = chosen_gate(options.corrector, corrector, *asked)
    protected = read_protected(options.protect) if options.protect else None
    return SpeechRepairer(corrector, gate, protected, model.alphabet, language)


def facts(repaired: dict | None) -> tuple[tuple[str, str], ...]:
    """What the page of ``--report`` says of the repairs, out of ``SpeechRepairer.report``; nothing without them."""
    if repaired is None:
        return ()
    before, after, counts = repaired["wer"]["before"], repaired["wer"]["after"], repaired["sentences"]
    told = f"WER {100 * before:.2f} % before, {100 * after:.2f} % after; {counts['helped']} sentences helped, "
    return (("repaired", f"{told}{counts['harmed']} harmed, of {counts['all']}"),)


def with_before(table: dict, rows: Sequence[Transcript]) -> dict:
    """``evaluation_json`` of the rows with what stood there before, where texts were repaired."""
    before = [{} if row.before is None else {"before": row.before} for row in rows]
    return {**table, "transcripts": [one | more for one, more in zip(table["transcripts"], before, strict=True)]}
