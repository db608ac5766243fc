"""``python -m postcorrect.tune_gate``: proposes corrections for a dev set once, tries gates on it, keeps the best.

    python -m postcorrect.tune_gate --corrector runs/corrector --data pairs/es                          texts alone
    python -m postcorrect.tune_gate --corrector runs/corrector --data corpora/es --checkpoint runs/es   with the audio
    python -m postcorrect.tune_gate ... --noise noise --snr 10                                  also with noise at 10 dB

The first reads the pairs of ``postcorrect.collect``. The second hears the clips itself, decodes them greedily or as
``--lm`` and ``--beam`` say, and finds weight and veto of the sound as well; what it finds holds for that recogniser.
``gate.yaml`` of the corrector's run has both (``postcorrect.gate_file``); ``postcorrect.gate_grid`` chooses and judges.
With ``--noise`` or ``--rir`` the clips are heard again so, which gives the same sentences more errors to judge by; the
gate is one for all of it.

The surprise: the dev set must be new to the recogniser too. On speech that it learnt from it makes fewer mistakes, and
others, and a gate for those is a gate for texts that will not come again.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from data import noisy
from data.noisy import RATIOS, conditions
from data.source import read_source
from postcorrect.gate import Proposal
from postcorrect.gate_file import TunedGate, corrector_hash, gate_file, read_tuned_gates, save_gate
from postcorrect.gate_grid import GateTuning, sentences, tune_gate, verdict
from postcorrect.model import Corrector
from postcorrect.pairs import PARTS, read_part
from postcorrect.repair import propose
from postcorrect.repair_speech import heard_text, sound_of
from quartznet import commandline, decoding, load_model
from quartznet.alphabet import Alphabet
from quartznet.distributed import choose_device
from quartznet.text import Language
from quartznet.tune_command import hear
from quartznet.tune_lm import Clips
from quartznet.tuned import network_hash
from quartznet.writing import choose_language

PORTION = 64  # texts proposed at once, so that the bar moves


@dataclass(frozen=True)
class Recogniser:
    """What is known of the texts of a recogniser."""

    network: str  # its hash
    alphabet: Alphabet
    language: Language
    log_probs: tuple[Tensor, ...]  # of each text: (time, labels + 1)


@dataclass(frozen=True)
class Texts:
    """A dev set."""

    references: Sequence[str]
    recognised: Sequence[str]
    recogniser: Recogniser | None = None  # None: texts alone


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ValueError for what is missing or has no effect."""
    parser = commandline.Parser(
        prog="python -m postcorrect.tune_gate",
        description="Proposes corrections for a dev set once, tries gates on it, keeps the best.",
        allow_abbrev=False,
    )
    parser.add_argument("--corrector", required=True, metavar="RUN", help="run folder or file of postcorrect.train")
    parser.add_argument("--data", required=True, help="folder of pairs; with --checkpoint what evaluate.py reads")
    parser.add_argument("--split", choices=(*PARTS, "all"), default="dev", help="another part (dev)")
    parser.add_argument("--checkpoint", help="recogniser that hears the data: file or run folder (its best)")
    parser.add_argument("--lang", help="text rules; the checkpoint's language when left out")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--batch-seconds", type=float, default=120.0, help="audio in a batch, padding counted (120)")
    noisy.add_options(parser)
    decoding.add_options(parser)
    options = commandline.parse(parser, arguments)
    if options.checkpoint is None:
        asked = (options.lang, options.noise, options.rir, options.snr)
        if asked != (None,) * 4 or decoding.described(options) != "greedy":
            raise ValueError(
                "--lang, noise, rooms and options of decoding are about audio; give its recogniser with --checkpoint"
            )
        if options.split == "all":
            raise ValueError(f"--split all is no part of a folder of pairs; choose among {', '.join(PARTS)}")
    decoding.check_options(options)
    noisy.check_options(options)
    if not 0 < options.batch_seconds < math.inf:
        raise ValueError(f"--batch-seconds must be above 0 and finite, got {options.batch_seconds:g}")
    return options


# ---------------------------------------------------------------------------------------------------------------------
# The dev set


def read_pairs(options: argparse.Namespace) -> Texts:
    """The texts of a folder of pairs; those of which nothing was said are left out, and counted on the screen."""
    try:
        pairs = read_part(options.data, options.split)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{error}; if these are clips, give their recogniser with --checkpoint") from error
    spoken = [pair for pair in pairs if pair.said]
    if not spoken:
        raise ValueError(f"{options.data} has no pairs in its part {options.split}; collect more, or choose another")
    if len(spoken) < len(pairs):
        print(f"{len(pairs) - len(spoken)} pairs left out in which nothing was said")
    return Texts([pair.said for pair in spoken], [pair.recognised for pair in spoken])


def decode(clips: Clips, decode: decoding.Decode, language: Language, portion: int = 16) -> list[str]:
    """The texts of clips that the network has heard, normalised as references are."""
    texts: list[str] = []
    for start in range(0, len(clips.references), portion):
        part = Clips(*(rows[start : start + portion] for rows in (clips.references, clips.log_probs)))
        texts += [heard_text(one, language) for one in decode(*part.padded())]
    return texts


def read_audio(options: argparse.Namespace) -> Texts:
    """The texts of clips, as the recogniser hears them; what is left out is counted on the screen."""
    model = load_model(options.checkpoint)
    network = network_hash(model)
    found, skipped, description = read_source(options.data, options.split)
    texts = [clip.text for clip in found]
    language = choose_language(options.lang, options.checkpoint, model.config.labels, texts)
    search, _ = decoding.choose_decode(options, model, language)
    print(f"{options.checkpoint} on {description}")
    heard = conditions(options.noise, options.rir, options.snr or RATIOS, model.config.features.sample_rate)
    parts = []
    for condition in heard:
        clips, problems = hear(model, found, language, options, condition)
        parts.append(clips)
        skipped = [*skipped, *problems]
        if len(heard) > 1:
            print(f"{condition.label}: {len(clips.references)} clips")
    clips = Clips(*(tuple(x for part in parts for x in getattr(part, name)) for name in ("references", "log_probs")))
    if skipped:
        print(f"{len(skipped)} clips left out; the first: {skipped[0]}")
    if not clips.references:
        raise ValueError(f"no clip of {options.data} could be heard; the first problem: {skipped[0]}")
    recognised = decode(clips, search or decoding.greedy(model, None), language)
    return Texts(clips.references, recognised, Recogniser(network, model.alphabet, language, clips.log_probs))


def described(options: argparse.Namespace) -> str:
    """What the gate was tuned on: data, part, noise and rooms."""
    noise = f"noise {options.noise} at {','.join(f'{r:g}' for r in options.snr or RATIOS)} dB" if options.noise else ""
    more = [noise, f"rooms {options.rir}" if options.rir else ""]
    return ", ".join([str(options.data), options.split, *(text for text in more if text)])


# ---------------------------------------------------------------------------------------------------------------------
# Proposals, and the whole


def all_proposals(corrector: Corrector, texts: Texts) -> list[tuple[Proposal, ...]]:
    """What could stand instead of each text, with a bar of the texts; says how many cannot be corrected."""
    found, by = [], texts.recogniser
    with tqdm(desc="proposing", unit="text", total=len(texts.recognised), disable=None) as bar:
        for start in range(0, len(texts.recognised), PORTION):
            part = texts.recognised[start : start + PORTION]
            if by is None:
                found += propose(corrector, part)
            else:
                rows = by.log_probs[start : start + PORTION]
                sound = sound_of(rows, [len(row) for row in rows], by.alphabet)
                found += propose(corrector, part, sound=sound, normalise=by.language.normalize)
            bar.update(len(part))
    if left := sum(one.obstacle == "left alone" for one in found):
        print(f"{left} texts cannot be corrected: empty, too long, or with unknown letters")
    return [one.found for one in found]


def tuned_gate(tuning: GateTuning, corrector: Corrector, options: argparse.Namespace) -> TunedGate:
    """What is kept of it."""
    return TunedGate(
        settings=tuning.settings,
        corrector=corrector_hash(corrector),
        data=described(options),
        decoding=decoding.described(options) if options.checkpoint else "",
        sentences=tuning.sentences,
        words=tuning.before.reference_length,
        errors=tuning.before.errors,
        errors_after=tuning.after.errors,
        errors_held_out=tuning.held_out.errors,
        changed=tuning.changed,
        helped=tuning.helped,
        harmed=tuning.harmed,
        sureness=tuning.sureness,
    )


def tune(options: argparse.Namespace) -> None:
    """Everything, from the files to the gate; raises ValueError, OSError for what the user can put right."""
    from postcorrect import load  # it stands above all modules of its package

    corrector = load(options.corrector).to(choose_device(options.device))
    read_tuned_gates(gate_file(options.corrector))  # a damaged one is better told now than after an hour
    texts = read_audio(options) if options.checkpoint else read_pairs(options)
    proposals = all_proposals(corrector, texts)
    tuning = tune_gate(sentences(texts.references, texts.recognised, proposals), texts.recogniser is not None)
    print(verdict(tuning))
    tuned = tuned_gate(tuning, corrector, options)
    path = save_gate(options.corrector, tuned, texts.recogniser and texts.recogniser.network)
    print(f"{path}: evaluate.py --corrector {options.corrector} finds it there")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""
    return commandline.run(lambda: tune(read_options(arguments)))


if __name__ == "__main__":
    sys.exit(main())
