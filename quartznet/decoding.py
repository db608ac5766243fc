"""How log_probs become text: greedy or by beam search, with language models and custom words or without.

    --lm es.arpa --beam 64 --hotwords words.txt          options of evaluate.py and quartznet.transcribe
    --lm es.arpa --neural es_lm.pt                       the texts that the search found are weighed once more

The weights are those that ``python -m quartznet.lm tune`` left beside the n-gram model (``quartznet.tuned``), which may
say that a model does no good. The surprise: a neural model gives no text of its own. It is asked about those that the
search found, so it needs ``--lm`` or ``--beam``, and a wider beam shows it more of them.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import accumulate, pairwise

from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.beam import BeamDecoder, BeamSettings
from quartznet.ctc import greedy_decode
from quartznet.hotword_spots import greedy_with_hotwords
from quartznet.hotwords import HotWord, HotWords, read_hotwords
from quartznet.letter_lm import LetterLm, load_for
from quartznet.lm import check_alphabet, open_language_model
from quartznet.model import QuartzNet
from quartznet.rescore import TEXTS, Weights, neural_scores, rescore
from quartznet.text import Language
from quartznet.tuned import ALONE, BESIDE, chosen_settings, chosen_weights, network_hash
from quartznet.words import Word, align_words


@dataclass(frozen=True)
class Heard:
    """The text of an utterance."""

    letters: str  # in the letters of the alphabet
    shown: str  # with custom words as they are written


Decode = Callable[[Tensor, Tensor], list[Heard]]  # log_probs (batch, time, labels + 1), lengths (batch,)


# ---------------------------------------------------------------------------------------------------------------------
# Options


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--lm`` and what belongs to it."""
    group, plain = parser.add_argument_group("decoding (greedy without --lm or --beam)"), BeamSettings()
    group.add_argument("--lm", metavar="FILE", help="n-gram model (ARPA or KenLM binary) for a beam search")
    group.add_argument("--beam", type=int, metavar="N", help=f"texts kept by the search (tuned, or {plain.beam})")
    group.add_argument("--alpha", type=float, help=f"weight of the language model (tuned, or {plain.alpha:g})")
    group.add_argument("--beta", type=float, help=f"nats for each word (tuned, or {plain.beta:g})")
    group.add_argument(
        "--neural", metavar="FILE", help="neural model (quartznet.neural_lm) that chooses among the texts"
    )
    group.add_argument(
        "--gamma", type=float, help=f"weight of the neural model (tuned; {BESIDE:g}, {ALONE:g} without --lm)"
    )
    group.add_argument("--closed", action="store_true", help="write words of the language model only")
    group.add_argument("--hotwords", metavar="FILE", help="words to prefer: phrase, tab, weight, tab, sounds like")


def check_options(options: argparse.Namespace) -> None:
    """Raises ValueError for options that would have no effect, and for a beam that cannot be."""
    if options.beam is not None:
        BeamSettings(options.beam)  # better now than when the network is there
    if options.neural is not None and options.lm is None and options.beam is None:
        raise ValueError("--neural chooses among the texts that a search found; add --lm FILE or --beam N")
    if options.gamma is not None and options.neural is None:
        raise ValueError("--gamma is about a neural language model; give one with --neural FILE")
    for name in ("alpha", "beta", "closed"):
        value = getattr(options, name)
        has_effect = options.lm is not None or (name == "beta" and options.neural is not None)
        if value is not None and value is not False and not has_effect:
            raise ValueError(f"--{name} is about a language model; give one with --lm FILE")


def described(options: argparse.Namespace) -> str:
    """What was asked for, in one line: ``--lm es.arpa --beam 64``; "greedy" for nothing."""
    names = ("lm", "beam", "alpha", "beta", "neural", "gamma", "closed", "hotwords")
    asked = {name: getattr(options, name) for name in names}
    words = [
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in asked.items()
        if value is not None and value is not False  # 0 is a value, and equal to False
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


def _searched(decoder: BeamDecoder, judge: tuple[LetterLm, Weights] | None = None) -> Decode:
    """The best text of the beam; with a judge and its weights the best of all its texts by what that says too."""

    def decode(log_probs: Tensor, lengths: Tensor) -> list[Heard]:
        nbest = decoder(log_probs, lengths)
        if judge is not None:
            model, weights = judge
            model.network.to(log_probs.device)
            nbest = rescore(nbest, neural_scores(nbest, decoder.alphabet, model), weights, decoder.alphabet)
        return [Heard(decoder.alphabet.decode(texts[0].ids), texts[0].text) for texts in nbest]

    return decode


def _choose_judge(
    options: argparse.Namespace, model: QuartzNet, language: Language | None
) -> tuple[LetterLm, Weights] | None:
    """The neural model and how much its word counts; None: there is none, or it is not asked."""
    if options.neural is None:
        return None
    neural = load_for(options.neural, model.alphabet, language and language.code)
    asked = (options.alpha, options.beta, options.gamma)
    weights = chosen_weights(options.neural, options.lm, network_hash(model), *asked)
    return (neural, weights) if weights and weights.gamma else None


def _choose_search(
    options: argparse.Namespace,
    model: QuartzNet,
    hotwords: HotWords | None,
    judge: tuple[LetterLm, Weights] | None,
) -> Decode | None:
    """The search with its language model, if there is one, and the judge; None: decoding stays greedy."""
    settings, language_model = BeamSettings(), None
    if options.lm is None:
        settings = replace(settings, beam=options.beam)
    else:
        language_model = open_language_model(options.lm)
        check_alphabet(language_model, model.alphabet, options.lm)
        asked = (options.beam, options.alpha, options.beta)
        settings = chosen_settings(options.lm, network_hash(model), *asked, is_needed=judge is not None)
        if settings is None:
            return None
        settings = replace(settings, closed=options.closed or settings.closed)
    if judge is not None:
        settings = replace(settings, count=TEXTS)
    return _searched(BeamDecoder(model.alphabet, settings, language_model, hotwords), judge)


def choose_decode(
    options: argparse.Namespace, model: QuartzNet, language: Language | None
) -> tuple[Decode | None, Sequence[HotWord]]:
    """What the options ask for, None for plain greedy decoding, and the custom words.

    Raises:
        ValueError, FileNotFoundError: a file is missing, damaged, or of another alphabet or language.
    """
    entries = read_hotwords(options.hotwords, model.alphabet, language) if options.hotwords else []
    hotwords, decode = HotWords(entries, model.alphabet) if entries else None, None
    if options.lm is not None or options.beam is not None:
        decode = _choose_search(options, model, hotwords, _choose_judge(options, model, language))
    if decode is None and hotwords is not None:
        decode = greedy(model, hotwords)
    return decode, entries


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
