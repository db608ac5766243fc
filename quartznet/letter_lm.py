"""A neural language model: how probable a text is, letter by letter, and the one file that holds it.

    ln P(text) = sum over its letters of ln P(letter | those before) + ln P(end | all of them)

``LetterLm`` is an alphabet and a ``TransformerXL``. Its tokens are the letters of the recogniser, not words or word
pieces: the texts of a small language are a few megabytes, in which most words are rare and every letter is frequent;
nothing is out of the vocabulary, whatever the recogniser spells; and a memory of 256 letters reaches back some 50
words, further than any n-gram. Words are what the n-gram beside it is for, and the two err in different places.

A file is ``{"format": "neural-lm-1", "labels": [...], "lang": "es", "config": {...}, "weights": {...}}``, tensors and
plain values only, written atomically. The surprise: the network is built without memory for its weights first, so a
file that claims a billion channels fails on the shapes of what it holds, and not by filling the machine.
"""

import math
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from quartznet.alphabet import Alphabet
from quartznet.checkpoint import not_finite, save_checkpoint
from quartznet.settings import from_dict, to_dict
from quartznet.transformer_xl import TransformerConfig, TransformerXL

FORMAT = "neural-lm-1"

# ---------------------------------------------------------------------------------------------------------------------
# How well it predicts


@dataclass(frozen=True)
class Surprise:
    """How many bits some texts cost, ends included; words are counted with their ends, as n-gram tools do."""

    nats: float  # -ln P of all texts
    letters: int  # spaces included
    words: int
    texts: int

    @property
    def bits_per_letter(self) -> float:
        return self.nats / math.log(2) / (self.letters + self.texts)

    @property
    def bits_per_word(self) -> float:
        """2 to the power of this is the perplexity that an n-gram of words reports, for one without unknown words."""
        return self.nats / math.log(2) / (self.words + self.texts)

    def __str__(self) -> str:
        return f"{self.bits_per_letter:.3f} bits a letter, {self.bits_per_word:.2f} a word"


def surprise_of(texts: Sequence[str], scores: Sequence[float]) -> Surprise:
    """Of normalised texts and their ln P; raises ValueError without texts."""
    if not texts:
        raise ValueError("there is no text to measure a language model on")
    return Surprise(-math.fsum(scores), sum(map(len, texts)), sum(len(text.split()) for text in texts), len(texts))


# ---------------------------------------------------------------------------------------------------------------------
# The model


def _batches(texts: Sequence[str], letters: int) -> Iterator[list[str]]:
    """The different texts, of like length together, as many as have ``letters`` with padding, but at least one."""
    batch: list[str] = []
    for text in sorted(set(texts), key=lambda text: (len(text), text)):
        if batch and (len(batch) + 1) * (len(text) + 1) > letters:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


class LetterLm:
    """An alphabet and the network that knows how its letters follow each other."""

    def __init__(self, alphabet: Alphabet, network: TransformerXL, lang: str) -> None:
        self.alphabet, self.network, self.lang = alphabet, network, lang

    @classmethod
    def new(cls, labels: Sequence[str], config: TransformerConfig, lang: str) -> Self:
        """With random weights, from torch's global generator."""
        return cls(Alphabet(tuple(labels)), TransformerXL(len(labels), config), lang)

    @property
    def device(self) -> torch.device:
        return self.network.output.bias.device

    def encode(self, text: str) -> list[int]:
        """Numbers of letters, without boundaries.

        Raises:
            ValueError: for a character that it does not know; the text was not normalised or is in another language.
        """
        unknown = sorted(set(text).difference(self.alphabet.labels))
        if unknown:
            raise ValueError(
                f"this language model ({self.lang}) has no {', '.join(map(repr, unknown))}, in {reprlib.repr(text)}; "
                f"its letters are {''.join(self.alphabet.labels)!r}: take one of the recogniser's language"
            )
        return self.alphabet.encode(text)

    @torch.no_grad()
    def score(self, texts: Sequence[str], letters: int = 8192, segment: int = 256) -> list[float]:
        """ln P of each text, its end included, whatever the other texts are; dropout is off.

        Args:
            texts: normalised; the empty text is one that ends at once. Equal ones are computed once.
            letters: of a batch, padding included. What is longer is a batch of its own.
            segment: letters that are computed at once; memory carries the rest, so any length fits.

        Raises:
            ValueError: see ``encode``.
        """
        was_training = self.network.training
        self.network.eval()
        scores = {}
        for batch in _batches(texts, letters):
            scores |= zip(batch, self._score_batch([self.encode(text) for text in batch], segment), strict=True)
        self.network.train(was_training)
        return [scores[text] for text in texts]

    def _score_batch(self, ids: list[list[int]], segment: int) -> list[float]:
        """Padding is boundaries: it comes after all that counts, and no letter sees what comes after it."""
        boundary = self.network.boundary
        rows = [torch.tensor([boundary, *row, boundary]) for row in ids]
        padded = pad_sequence(rows, batch_first=True, padding_value=boundary).to(self.device)
        ends = torch.tensor([len(row) for row in rows], device=self.device).unsqueeze(1)
        found, memory = torch.zeros(len(rows), dtype=torch.float64, device=self.device), None
        for start in range(0, padded.shape[1] - 1, segment):
            targets = padded[:, start + 1 : start + segment + 1]
            scores, memory = self.network(padded[:, start : start + targets.shape[1]], memory)
            place = torch.arange(start + 1, start + 1 + targets.shape[1], device=self.device)
            chosen = scores.float().log_softmax(-1).gather(2, targets.unsqueeze(2)).squeeze(2)
            found += chosen.double().masked_fill(place >= ends, 0.0).sum(1)
        return found.tolist()

    def surprise(self, texts: Sequence[str]) -> Surprise:
        """Bits that the texts cost; raises what ``score`` raises, and ValueError without texts."""
        return surprise_of(texts, self.score(texts))

    # -----------------------------------------------------------------------------------------------------------------
    # On the disk

    def payload(self) -> dict:
        """All of it, as a checkpoint holds it."""
        return {
            "format": FORMAT,
            "labels": list(self.alphabet.labels),
            "lang": self.lang,
            "config": to_dict(self.network.config),
            "weights": {name: value.cpu() for name, value in self.network.state_dict().items()},
        }

    def save(self, path: str | Path) -> None:
        """Writes the file, atomically; raises OSError where that is impossible."""
        save_checkpoint(path, self.payload())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The model of a file, on the CPU, in evaluation mode; raises what ``read_payload`` raises."""
        return cls.from_payload(read_payload(path), path)

    @classmethod
    def from_payload(cls, payload: dict, path: str | Path) -> Self:
        """The model of what ``read_payload`` read from ``path``.

        Raises:
            ValueError: its parts contradict each other, or a weight is not finite.
        """
        try:
            labels, config = payload["labels"], from_dict(TransformerConfig, payload["config"], "config.")
            with torch.device("meta"):
                model = cls.new(labels, config, payload["lang"])
            model.network.load_state_dict(_floats(payload["weights"]), assign=True)
        except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: weights, labels and config contradict each other: {_line(error)}") from error
        broken = not_finite(model.network)
        if broken:
            raise ValueError(f"{path}: {broken[0]} is not finite (of {len(broken)}); file or training is broken")
        model.network.eval()
        return model


def load_for(path: str | Path, alphabet: Alphabet, lang: str | None) -> LetterLm:
    """The model of a file, for texts of a recogniser with that alphabet and language; None: nobody knows which.

    Raises:
        FileNotFoundError, ValueError: those of ``LetterLm.load``; and for a model of another language, or one that
            lacks a letter of the alphabet.
    """
    model = LetterLm.load(path)
    if lang is not None and _base(lang) != _base(model.lang):
        raise ValueError(
            f"{path} is a model of language {model.lang}, the network writes {lang}; train one with python -m "
            f"quartznet.neural_lm train --lang {lang}"
        )
    missing = sorted(set(alphabet.labels).difference(model.alphabet.labels))
    if missing:
        raise ValueError(
            f"{path} (language {model.lang}) has no {' '.join(map(repr, missing))}, which the network writes; train "
            "one by the rules of the network's language"
        )
    return model


def _base(lang: str) -> str:
    """``pt`` of ``pt-BR``."""
    return lang.lower().replace("_", "-").partition("-")[0]


def read_payload(path: str | Path) -> dict:
    """What a file of ``LetterLm.save`` holds, on the CPU; nothing in it can run code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no neural language model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no language model {path}; make one with python -m quartznet.neural_lm train")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails anywhere inside zipfile and torch
        raise ValueError(f"{path} cannot be read as a language model, it may be damaged: {_line(error)}") from error
    found = payload.get("format") if isinstance(payload, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} is no neural language model ({FORMAT}), its format is {reprlib.repr(found)}")
    labels = payload.get("labels")
    is_list = isinstance(labels, list) and all(isinstance(label, str) and len(label) == 1 for label in labels)
    if not (is_list and isinstance(payload.get("lang"), str)):
        raise ValueError(f"{path}: lang must be text and labels a list of letters; the file is broken")
    return payload


def _floats(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float().clone() for name, value in weights.items()}


def _line(error: Exception) -> str:
    """An error on one line, without the advice that torch adds."""
    return " ".join(str(error).split(". ")[0].split()) or type(error).__name__
