"""Language models for decoding: open one, see whether it fits an alphabet; and the command that builds them.

    python -m quartznet.lm build TEXT... --lang es --order 5 --out es.arpa      n-grams out of text
    python -m quartznet.lm perplexity es.arpa TEXT... --lang es                 how well it knows other text

    model = open_language_model("es.arpa")
    score, state = model.score(model.start(), "hola")                           # ln P(hola | <s>)

KenLM reads the files where it is installed, else our own reader (``quartznet.arpa``), with equal scores.

The surprise: a model of the wrong alphabet makes no noise. Words in capitals, or of another script, are words that the
network cannot write, every hypothesis is then unknown to the model, and its scores only get in the way.
"""

import logging
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel, is_binary, read_arpa
from quartznet.kenlm_model import KenlmModel, has_kenlm

logger = logging.getLogger(__name__)

REFUSED, WARNED = 0.5, 0.01  # shares of a vocabulary that the network cannot write


def open_language_model(path: str | Path) -> LanguageModel:
    """The model of an ARPA file (also .gz) or a KenLM binary.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, with its line; or a binary, and the package kenlm is not installed or too old.
    """
    path = Path(path)
    if not (path.is_file() and has_kenlm()):
        return read_arpa(path)
    try:
        return KenlmModel(path)
    except (OSError, UnicodeDecodeError) as error:  # the second where KenLM quotes bytes of the file
        if is_binary(path):
            raise ValueError(f"{path} is no KenLM binary that the installed kenlm reads: {error}") from error
        model = read_arpa(path)  # says in which line the fault is
        logger.warning("%s is read without KenLM, which refuses it: %s", path, error)
        return model


def check_alphabet(model: LanguageModel, alphabet: Alphabet, name: str = "the language model") -> float | None:
    """The share of the model's words that the network cannot write; None: the model cannot list its words.

    A share above 1 % is a warning, and so are letters that no word of the model holds.

    Raises:
        ValueError: it is above one half, so the model is of another alphabet, or in capitals.
    """
    words = model.vocabulary()
    if words is None:
        logger.warning("%s cannot list its words, so they are not compared with the alphabet; give the ARPA file", name)
        return None
    words, letters = list(words), set(alphabet.labels) - {" "}
    foreign = [word for word in words if not letters.issuperset(word)]
    share = len(foreign) / max(1, len(words))
    if share > WARNED:
        message = f"{name}: {share:.1%} of its {len(words):,} words cannot be written in the network's letters"
        message += f", such as {', '.join(islice(foreign, 3))} ({_strange(foreign, letters)})"
        in_lower_case = sum(not letters.issuperset(word.lower()) for word in foreign) / len(words)
        if in_lower_case < share / 2:
            message += f"; in lower case only {in_lower_case:.1%}"
        if share > REFUSED:
            raise ValueError(f"{message}; build it from text by the rules of the language: lm build --lang")
        logger.warning("%s", message)
    if unused := sorted(letters.difference(*words)):
        logger.warning("%s: no word holds %s; is it of this language?", name, " ".join(unused))
    return share


def _strange(words: list[str], letters: set[str]) -> str:
    """The most frequent characters of the words that are no letters of the network."""
    counts = Counter(character for word in words for character in word if character not in letters)
    return " ".join(character for character, _ in counts.most_common(8))


if __name__ == "__main__":
    from quartznet.lm_command import main

    sys.exit(main())
