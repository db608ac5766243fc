"""When each word and letter was said, and how sure of it the network is: of its own text, or of any other text.

The network's frame t is centred on sample t S of the waveform, S = ``model.samples_per_output`` = hop 160 x stride 2:

    features   the STFT pads half a window on either side, so its column m is centred on sample m hop
    network    an odd kernel with "same" padding is symmetric, so output t of a stride s is centred on input s t

By all three rules of the front end, since they differ at the end of a clip only. Frame t therefore speaks for the
samples that are nearer to its centre than to another, and its time is

    (t - 1/2) S  to  (t + 1/2) S,  in seconds (t - 1/2) f  to  (t + 1/2) f  with f = S / sample rate = 0.02 s

where the first frame starts at 0. A letter lasts from the first to the last frame of its run on a path, a word from its
first to its last letter. The path is the most probable of all (``words_of``), or the most probable of those that read
as a given text (``align``, Viterbi, by ``torchaudio.functional.forced_align``): so the words of a beam search, of a
corrector and of a human get times as well.

The surprise: those times are those of the network's *evidence*. CTC shows a letter in one or two frames somewhere
within its sound and leaves the rest to the blank, so a word ends up to some hundredths of a second before its sound.
(NeMo 2.x writes other times: it begins each token where the token before it was first seen.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torchaudio
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.confidence import probability, product
from quartznet.ctc import frames_needed

Measure = Callable[[Tensor, Tensor], Tensor]  # log_probs (time, labels + 1), label of each frame (time,) -> (time,)
Join = Callable[[Sequence[float]], float]  # of a word's letters -> of the word


@dataclass(frozen=True)
class Word:
    """A word, or a letter, in seconds from the start of the recording; confidence from 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Span:
    """One letter of a path: its label number and its first and last frame."""

    label: int
    first: int
    last: int


def read_spans(path: Sequence[int], blank: int) -> list[Span]:
    """The letters of a path, which names a label for each frame: equal neighbours are one letter, blanks are none."""
    spans, frame = [], 0
    for label, run in groupby(path):
        count = len(list(run))
        if label != blank:
            spans.append(Span(label, frame, frame + count - 1))
        frame += count
    return spans


def align(log_probs: Tensor, length: int, ids: Sequence[int], blank: int | None = None) -> list[Span]:
    """Where each letter of a given text is on the most probable of the paths that read as it.

    Args:
        log_probs: (time, labels + 1), output of log-softmax.
        length: frames that are real; later ones are not read.
        ids: label numbers of the text.
        blank: None: the last label.

    Returns:
        One span for each of ``ids``, in order; none for an empty text.

    Raises:
        ValueError: the text needs more frames than there are, holds a blank or a label that does not exist, or
            ``log_probs`` is not a single utterance or holds NaN.
    """
    if log_probs.dim() != 2 or not 0 <= length <= len(log_probs):
        raise ValueError(
            "align takes one utterance, log_probs (time, labels), and at most its frames; "
            f"got {tuple(log_probs.shape)} and length {length}"
        )
    blank, ids = log_probs.shape[1] - 1 if blank is None else blank, list(ids)
    if any(not 0 <= label < log_probs.shape[1] or label == blank for label in ids):
        raise ValueError(f"a text to align holds letters 0 to {log_probs.shape[1] - 1} without the blank, got {ids}")
    if frames_needed(ids) > length:
        raise ValueError(
            f"a text of {len(ids)} letters needs {frames_needed(ids)} frames, the recording has {length}; "
            "does the text belong to it?"
        )
    if not ids:
        return []
    rows = log_probs[:length].detach().float().cpu()
    if rows.isnan().any():
        raise ValueError("log_probs holds NaN; was the network trained without a finite loss?")
    targets = torch.tensor([ids], dtype=torch.int32)
    path, _ = torchaudio.functional.forced_align(rows[None].contiguous(), targets, blank=blank)
    return read_spans(path[0].tolist(), blank)


def frame_times(span: Span, frame_seconds: float) -> tuple[float, float]:
    """Start and end of a letter in seconds; see the module's docstring."""
    return max(0.0, (span.first - 0.5) * frame_seconds), (span.last + 0.5) * frame_seconds


def letters(
    spans: Sequence[Span], log_probs: Tensor, alphabet: Alphabet, frame_seconds: float, measure: Measure = probability
) -> list[Word]:
    """The letters of an utterance with their times, spaces too; each is as sure as the surest of its frames.

    Args:
        spans: from ``read_spans`` or ``align``.
        log_probs: (time, labels + 1), those that the spans were found in.
        frame_seconds: ``model.samples_per_output / sample_rate``.
        measure: the confidence of frames; ``quartznet.confidence`` has several.
    """
    if not spans:
        return []
    frames = [frame for span in spans for frame in range(span.first, span.last + 1)]
    labels = [span.label for span in spans for _ in range(span.first, span.last + 1)]
    sure = iter(measure(log_probs[frames].detach().float().cpu(), torch.tensor(labels)).tolist())
    found = []
    for span in spans:
        confidence = max(next(sure) for _ in range(span.first, span.last + 1))
        found.append(Word(alphabet.labels[span.label], *frame_times(span, frame_seconds), confidence))
    return found


def join_letters(letters: Sequence[Word], join: Join = product) -> list[Word]:
    """Words out of letters, cut at spaces; an alphabet without a space makes one word of it all."""
    found = []
    for is_space, run in groupby(letters, key=lambda letter: letter.text == " "):
        if not is_space:
            word = list(run)
            confidence = join([letter.confidence for letter in word])
            found.append(Word("".join(letter.text for letter in word), word[0].start, word[-1].end, confidence))
    return found


def align_words(
    log_probs: Tensor,
    length: int,
    text: str,
    alphabet: Alphabet,
    frame_seconds: float,
    measure: Measure = probability,
    join: Join = product,
) -> list[Word]:
    """The words of a given text with their times; arguments and errors as ``align`` and ``Alphabet.encode``."""
    spans = align(log_probs, length, alphabet.encode(text), alphabet.blank)
    return join_letters(letters(spans, log_probs, alphabet, frame_seconds, measure), join)


def words_of(
    log_probs: Tensor,
    lengths: Tensor,
    alphabet: Alphabet,
    frame_seconds: float,
    measure: Measure = probability,
    join: Join = product,
) -> list[list[Word]]:
    """The words of greedy decoding, with times and confidence.

    Args:
        log_probs: (batch, time, labels + 1), output of log-softmax.
        lengths: (batch,) valid frames; later ones are not read.
        frame_seconds: of one frame of ``log_probs``: ``model.samples_per_output / sample_rate``.
        measure: the confidence of frames.
        join: of a word out of those of its letters.

    Returns:
        For each utterance its words in order of time; their texts, joined by spaces, are what ``greedy_decode`` says.

    Raises:
        ValueError: for a ``frame_seconds`` that is not above 0.
    """
    if not 0.0 < frame_seconds < math.inf:
        raise ValueError(f"frame_seconds must be above 0, got {frame_seconds}")
    paths = log_probs.argmax(dim=-1).cpu()
    found = []
    for row, path, length in zip(log_probs, paths, lengths.tolist(), strict=True):
        spans = read_spans(path[:length].tolist(), alphabet.blank)
        found.append(join_letters(letters(spans, row, alphabet, frame_seconds, measure), join))
    return found
