"""How log_probs become text: greedy or by beam search, with a language model and custom words or without.

    --lm es.arpa --beam 64 --hotwords words.txt          options of evaluate.py and quartznet.transcribe

``tuned_file`` beside the language model (``es.arpa.tuned.yaml``) holds what ``python -m quartznet.lm tune`` found, an
entry for each network: the settings of the search, or that greedy decoding is better. An entry is found by the
network's hash, so a network that was trained further is not decoded with weights of its former self in silence.

The surprise: a language model may be given and not used. Where it was measured to do no good, it does not decode;
``--alpha`` or ``--beta`` insist on it.
"""

import argparse
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from pathlib import Path

import yaml
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.beam import BeamDecoder, BeamSettings
from quartznet.checkpoint import fingerprint, replace_atomically
from quartznet.ctc import greedy_decode
from quartznet.hotword_spots import greedy_with_hotwords
from quartznet.hotwords import HotWord, HotWords, read_hotwords
from quartznet.lm import check_alphabet, open_language_model
from quartznet.model import QuartzNet
from quartznet.settings import from_dict
from quartznet.text import Language
from quartznet.words import Word, align_words

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heard:
    """The text of an utterance."""

    letters: str  # in the letters of the alphabet
    shown: str  # with custom words as they are written


Decode = Callable[[Tensor, Tensor], list[Heard]]  # log_probs (batch, time, labels + 1), lengths (batch,)


@dataclass(frozen=True)
class Tuned:
    """What was found for one network and one language model."""

    language_model: str  # SHA-256 of its file
    helps: bool  # False: greedy decoding is as good or better
    settings: BeamSettings  # the best place of the search, used if it helps
    data: str  # the dev set
    greedy_wer: float  # on the dev set, fractions
    searched_wer: float


def tuned_file(language_model: str | Path) -> Path:
    """Where the weights for a language model lie."""
    return Path(f"{language_model}.tuned.yaml")


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network_hash(model: QuartzNet) -> str:
    """SHA-256 of what a network computes: of ``fingerprint``, which leaves the output layer out, and that layer."""
    digest = hashlib.sha256(fingerprint(model.config, model.state_dict()).encode())
    digest.update("".join(model.config.labels).encode())
    for value in model.decoder.state_dict().values():
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_tuned(language_model: str | Path) -> dict[str, Tuned]:
    """All entries by the network's hash; none where nothing was tuned.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = tuned_file(language_model)
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {str(network): from_dict(Tuned, entry) for network, entry in found.items()}
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is not what quartznet.lm tune wrote ({reason}); delete it and tune again") from error


def save_tuned(language_model: str | Path, network: str, tuned: Tuned) -> Path:
    """Adds or replaces the entry of a network, whose hash is ``network``; returns the file."""
    entries = {**read_tuned(language_model), network: tuned}
    text = "# python -m quartznet.lm tune; an entry for each network\n" + yaml.safe_dump(
        {name: asdict(entry) for name, entry in entries.items()}, sort_keys=False, allow_unicode=True
    )
    path = tuned_file(language_model)
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def chosen_settings(
    language_model: str | Path, network: str, beam: int | None, alpha: float | None, beta: float | None
) -> BeamSettings | None:
    """What decodes with a language model: tuned for this network, or the defaults; None: greedy. Says which.

    Args:
        network: its hash.
        beam, alpha, beta: what the user asked for; None: not said.
    """
    asked = {name: value for name, value in (("beam", beam), ("alpha", alpha), ("beta", beta)) if value is not None}
    entries = read_tuned(language_model)
    tuned = entries.get(network)
    if tuned is None:
        other = "was tuned for other networks only" if entries else "was not tuned"
        logger.warning(
            "%s %s; weights are %s: run python -m quartznet.lm tune --checkpoint ... --data DEV --lm %s",
            *(language_model, other, "guesses" if len(asked) < 3 else "yours", language_model),
        )
        return replace(BeamSettings(), **asked)
    if tuned.language_model != file_hash(language_model):
        logger.warning("%s has changed since it was tuned; tune it again", language_model)
    if not tuned.helps and alpha is None and beta is None:
        logger.warning(
            "%s did not help on %s (%.2f %% greedy, %.2f %% with it), so decoding is greedy; --alpha %g insists on it",
            *(language_model, tuned.data, 100 * tuned.greedy_wer, 100 * tuned.searched_wer, tuned.settings.alpha),
        )
        return None
    found = replace(tuned.settings, **asked)
    logger.info(
        "%s: alpha %g, beta %g, beam %d%s, tuned on %s",
        *(language_model, found.alpha, found.beta, found.beam, " (as asked)" if asked else "", tuned.data),
    )
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Options


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--lm`` and what belongs to it."""
    group, plain = parser.add_argument_group("decoding (greedy without --lm or --beam)"), BeamSettings()
    group.add_argument("--lm", metavar="FILE", help="n-gram model (ARPA or KenLM binary) for a beam search")
    group.add_argument("--beam", type=int, metavar="N", help=f"texts kept by the search (tuned, or {plain.beam})")
    group.add_argument("--alpha", type=float, help=f"weight of the language model (tuned, or {plain.alpha:g})")
    group.add_argument("--beta", type=float, help=f"nats for each word (tuned, or {plain.beta:g})")
    group.add_argument("--closed", action="store_true", help="write words of the language model only")
    group.add_argument("--hotwords", metavar="FILE", help="words to prefer: phrase, tab, weight, tab, sounds like")


def check_options(options: argparse.Namespace) -> None:
    """Raises ValueError for options that would have no effect."""
    for name in ("alpha", "beta", "closed"):
        value = getattr(options, name)  # 0 is a value, and equal to False
        if value is not None and value is not False and options.lm is None:
            raise ValueError(f"--{name} is about a language model; give one with --lm FILE")


def described(options: argparse.Namespace) -> str:
    """What was asked for, in one line: ``--lm es.arpa --beam 64``; "greedy" for nothing."""
    asked = {name: getattr(options, name) for name in ("lm", "beam", "alpha", "beta", "closed", "hotwords")}
    words = [
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in asked.items()
        if value is not None and value is not False
    ]
    return " ".join(words) or "greedy"


def greedy(model: QuartzNet, hotwords: HotWords | None) -> Decode:
    """The best path, with detours through custom words."""
    if hotwords is None:
        return lambda rows, lengths: [Heard(text, text) for text in greedy_decode(rows, lengths, model.alphabet)]
    plain = HotWords([replace(entry, shown=False) for entry in hotwords.entries], model.alphabet)

    def decode(log_probs: Tensor, lengths: Tensor) -> list[Heard]:
        texts = greedy_with_hotwords(log_probs, lengths, model.alphabet, plain)
        return [Heard(text, hotwords.show(text)) for text in texts]

    return decode


def _searched(decoder: BeamDecoder) -> Decode:
    """The best text of the beam."""

    def decode(log_probs: Tensor, lengths: Tensor) -> list[Heard]:
        best = [texts[0] for texts in decoder(log_probs, lengths)]
        return [Heard(decoder.alphabet.decode(text.ids), text.text) for text in best]

    return decode


def choose_decode(
    options: argparse.Namespace, model: QuartzNet, language: Language | None
) -> tuple[Decode | None, Sequence[HotWord]]:
    """What the options ask for, None for plain greedy decoding, and the custom words.

    Raises:
        ValueError, FileNotFoundError: a file is missing, damaged, or of another alphabet.
    """
    entries = read_hotwords(options.hotwords, model.alphabet, language) if options.hotwords else []
    hotwords = HotWords(entries, model.alphabet) if entries else None
    if options.lm is None:
        if options.beam is None:
            return (greedy(model, hotwords) if hotwords else None), entries
        return _searched(BeamDecoder(model.alphabet, BeamSettings(beam=options.beam), None, hotwords)), entries
    language_model = open_language_model(options.lm)
    check_alphabet(language_model, model.alphabet, options.lm)
    settings = chosen_settings(options.lm, network_hash(model), options.beam, options.alpha, options.beta)
    if settings is None:
        return (greedy(model, hotwords) if hotwords else None), entries
    settings = replace(settings, closed=options.closed or settings.closed)
    return _searched(BeamDecoder(model.alphabet, settings, language_model, hotwords)), entries


def _spread(texts: Sequence[str], over: Sequence[Word]) -> list[Word]:
    """Words in the time of others, each for its share of the letters, as sure as the least sure of them."""
    start, length, sure = over[0].start, over[-1].end - over[0].start, min(word.confidence for word in over)
    letters = list(accumulate(map(len, texts), initial=0))
    edges = [start + length * count / letters[-1] for count in letters]
    return [Word(text, *times, sure) for text, times in zip(texts, pairwise(edges), strict=True)]


def shown_words(words: Sequence[Word], shown: str) -> list[Word]:
    """Words in time, with custom words as they are written; where they differ, they share the time of the stretch.

    ``shown`` may have more words than were heard ("bbc" is "B B C"); one without a time of its own shares that of the
    word before it, at the beginning that of the word after it. None is lost.
    """
    texts, wanted, found, waiting = [word.text for word in words], shown.split(), [], []
    for kind, first, last, begin, end in SequenceMatcher(None, texts, wanted, autojunk=False).get_opcodes():
        run, new = list(words[first:last]), wanted[begin:end]
        if not run and found:
            run, new = [found[-1]], [found.pop().text, *new]
        if not run:
            waiting = new
        elif kind == "equal":
            found += (_spread([*waiting, new[0]], run[:1]) if waiting else run[:1]) + run[1:]
            waiting = []
        elif new:
            found += _spread([*waiting, *new], run)
            waiting = []
    return found


def timed(log_probs: Tensor, length: int, heard: Heard, alphabet: Alphabet, frame_seconds: float) -> list[Word]:
    """The words of one utterance (time, labels + 1) in time: the heard letters are aligned with the sound."""
    return shown_words(align_words(log_probs, length, heard.letters, alphabet, frame_seconds), heard.shown)


def in_time(decode: Decode, model: QuartzNet) -> Callable[[Tensor, Tensor], list[list[Word]]]:
    """The same with the times of the words."""
    seconds = model.samples_per_output / model.config.features.sample_rate

    def decode_words(log_probs: Tensor, lengths: Tensor) -> list[list[Word]]:
        rows = zip(log_probs, lengths.tolist(), decode(log_probs, lengths), strict=True)
        return [timed(row, length, text, model.alphabet, seconds) for row, length, text in rows]

    return decode_words
