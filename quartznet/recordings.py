"""Sound files of any length -> words with their times, many files at a time, in bounded memory.

    files -> windows of features -> batches of windows, of several files -> log-probabilities -> pieces -> words

Windows of similar length share a batch, as many as fit into ``batch_seconds`` with padding counted, so the longest
files come first. What leaves the network is cut at pauses into pieces, and each is decoded by ``decode``: greedy, or a
beam search, which could not be given an hour at once. A file that fails is reported and the others go on.

The surprise: no search over loudness is needed to find the pauses. The network itself says where nobody speaks, with
half a second or more of blanks and spaces, and a cut there costs no letter.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from quartznet.audio import audio_duration
from quartznet.model import QuartzNet
from quartznet.windows import Window, Windows, normalized_file, run_windows, windows_for
from quartznet.words import Word, words_of

PAUSE = 0.5  # s of blanks and spaces that end a piece
LONGEST = 30.0  # s of a piece; without a pause it is cut at its longest gap

# log_probs (batch, time, labels + 1) and lengths (batch,) of pieces -> their words, seconds from the piece's start
Decode = Callable[[Tensor, Tensor], list[list[Word]]]


@dataclass(frozen=True)
class Recording:
    """What was heard in one file; or ``error`` says why nothing was."""

    path: str | Path
    duration: float  # s
    words: tuple[Word, ...]
    error: ValueError | OSError | None = None

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class Piece:
    """Log-probabilities (time, labels + 1) from one pause to another, and the number of their first frame."""

    log_probs: Tensor
    first: int


class PieceCutter:
    """Log-probabilities in blocks -> pieces that begin and end in a pause, in order, nothing left out."""

    def __init__(self, model: QuartzNet, pause: float = PAUSE, longest: float = LONGEST):
        frames = model.config.features.sample_rate / model.samples_per_output
        self.quiet = torch.tensor([model.alphabet.blank, *(n for n, x in enumerate(model.alphabet.labels) if x == " ")])
        self.pause, self.longest = max(1, round(pause * frames)), max(2, round(longest * frames))
        self.held = torch.zeros(0, model.alphabet.blank + 1)
        self.first = 0

    def push(self, log_probs: Tensor) -> list[Piece]:
        """(time, labels + 1) -> the pieces that ended in them."""
        self.held = torch.cat([self.held, log_probs])
        pieces = []
        while (cut := self._cut()) is not None:
            pieces.append(Piece(self.held[:cut].clone(), self.first))
            self.held, self.first = self.held[cut:], self.first + cut
        return pieces

    def finish(self) -> list[Piece]:
        """What is left."""
        piece = Piece(self.held, self.first)
        self.held, self.first = self.held[:0], self.first + len(self.held)
        return [piece] if len(piece.log_probs) else []

    def _cut(self) -> int | None:
        """The frame before which the first piece ends: amid the first pause after speech, or where one must be."""
        path = self.held.argmax(dim=1)
        is_quiet = torch.isin(path, self.quiet).tolist()
        runs, start = [], 0
        for value, run in groupby(is_quiet):
            end = start + len(list(run))
            runs += [(start, end)] if value else []
            start = end
        for start, end in runs:
            if start > 0 and end - start >= self.pause:
                return (start + end) // 2
        if len(self.held) <= self.longest:
            return None
        inside = [(end - start, (start + end) // 2) for start, end in runs if start > 0 and end <= self.longest]
        if runs and runs[0][0] == 0 and runs[0][1] >= self.pause:
            inside.append((runs[0][1], min(runs[0][1], self.longest) // 2 + 1))  # a long silence before anybody speaks
        if inside:
            return max(inside)[1]
        changes = (path[1:] != path[:-1]).nonzero()[:, 0] + 1  # a cut within a letter would make two of it
        early = changes[changes <= self.longest]
        return int(early[-1]) if len(early) else int(changes[0]) if len(changes) else None


def greedy(model: QuartzNet) -> Decode:
    """The default ``Decode``."""
    seconds = model.samples_per_output / model.config.features.sample_rate
    return lambda log_probs, lengths: words_of(log_probs, lengths, model.alphabet, seconds)


def decode_pieces(pieces: Sequence[Piece], decode: Decode, seconds: float) -> list[list[Word]]:
    """The words of each piece, in seconds from the start of the recording; ``seconds`` is the length of a frame."""
    if not pieces:
        return []
    lengths = torch.tensor([len(piece.log_probs) for piece in pieces])
    rows = decode(pad_sequence([piece.log_probs for piece in pieces], batch_first=True), lengths)
    shifted = []
    for piece, words in zip(pieces, rows, strict=True):
        start = piece.first * seconds
        shifted.append([replace(word, start=start + word.start, end=start + word.end) for word in words])
    return shifted


def batches(windows: Iterable[tuple[int, Window]], most_frames: int) -> Iterator[list[tuple[int, Window]]]:
    """Windows in order; the longest of a batch times its size <= ``most_frames``, or one window alone."""
    batch: list[tuple[int, Window]] = []
    for index, window in windows:
        longest = max(other.features.shape[1] for _, other in [*batch, (index, window)])
        if batch and longest * (len(batch) + 1) > most_frames:
            yield batch
            batch = []
        batch.append((index, window))
    if batch:
        yield batch


class _Recogniser:
    """State of ``recognise``: what has been heard of each file that is being read."""

    def __init__(self, model: QuartzNet, paths: Sequence[str | Path], decode: Decode | None, windows: Windows | None):
        self.model, self.paths = model, paths
        self.decode = greedy(model) if decode is None else decode
        self.windows = windows_for(model) if windows is None else windows
        self.seconds = model.samples_per_output / model.config.features.sample_rate
        self.durations, self.heard = [0.0] * len(paths), 0.0
        self.errors: dict[int, ValueError | OSError] = {}
        self.cutters: dict[int, PieceCutter] = {}
        self.words: dict[int, list[Word]] = {}
        for index, path in enumerate(paths):
            with self._failing(index):
                self.durations[index] = audio_duration(path)

    @contextmanager
    def _failing(self, index: int) -> Iterator[None]:
        """A bad file becomes an entry in ``errors``."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.errors[index] = error

    def all_windows(self) -> Iterator[tuple[int, Window]]:
        """The windows of all files, the longest file first."""
        for index in sorted(range(len(self.paths)), key=lambda index: -self.durations[index]):
            if index not in self.errors:
                self.cutters[index], self.words[index] = PieceCutter(self.model), []
                with self._failing(index):
                    for window in self.windows.cut(normalized_file(self.model, self.paths[index])):
                        yield index, window

    def hear(self, batch: Sequence[tuple[int, Window]]) -> Iterator[int]:
        """Runs a batch; yields the files that end with it."""
        blocks = run_windows(self.model, [window for _, window in batch])
        owners, pieces = [], []
        for (index, window), block in zip(batch, blocks, strict=True):
            cutter = self.cutters[index]
            self.heard += len(block) * self.seconds
            found = cutter.push(block) + (cutter.finish() if window.is_last else [])
            owners += [index] * len(found)
            pieces += found
        for index, words in zip(owners, decode_pieces(pieces, self.decode, self.seconds), strict=True):
            self.words[index] += words
        for index, window in batch:
            if window.is_last:
                yield index

    def result(self, index: int) -> Recording:
        path, duration = self.paths[index], self.durations[index]
        if index in self.errors:
            return Recording(path, duration, (), self.errors[index])
        del self.cutters[index]
        words = [replace(word, end=max(word.start, min(word.end, duration))) for word in self.words.pop(index)]
        return Recording(path, duration, tuple(words))


def recognise(
    model: QuartzNet,
    paths: Sequence[str | Path],
    decode: Decode | None = None,
    windows: Windows | None = None,
    batch_seconds: float = 120.0,
    progress: Callable[[float, float], None] | None = None,
) -> Iterator[tuple[int, Recording]]:
    """(index, what was heard) of each file, as they end: the longest first, those that fail last.

    Args:
        decode: pieces -> words; greedy if left out. ``timed`` makes one out of a function that returns texts.
        windows: from ``windows_for``.
        batch_seconds: sound in a batch, padding counted; a window is never split.
        progress: called with the seconds of sound that went through the network so far, and with those of all files.

    Raises:
        ValueError: ``batch_seconds`` is not positive.
    """
    if not 0 < batch_seconds < math.inf:
        raise ValueError(f"batch_seconds must be above 0 and finite, got {batch_seconds}")
    state, config = _Recogniser(model, paths, decode, windows), model.config.features
    was_training = model.training
    model.eval()
    try:
        for batch in batches(state.all_windows(), round(batch_seconds * config.sample_rate / config.hop)):
            for index in state.hear(batch):
                yield index, state.result(index)
            if progress is not None:
                progress(state.heard, sum(state.durations))
        for index in sorted(state.errors):
            yield index, state.result(index)
    finally:
        model.train(was_training)


def transcribe(model: QuartzNet, paths: Sequence[str | Path], batch_seconds: float = 120.0) -> list[str]:
    """Greedy transcripts of ``paths``, in their order; the model's mode is left as it was.

    Raises:
        ValueError: ``batch_seconds`` is not positive, or a file cannot be decoded or is shorter than the front end
            needs (some 0.02 s); the message names the file.
        FileNotFoundError: a file is not there.
    """
    if isinstance(paths, str | Path):
        raise ValueError(f"give a list of paths, not one path: [{str(paths)!r}]")
    texts = [""] * len(paths)
    for index, recording in recognise(model, paths, batch_seconds=batch_seconds):
        if recording.error is not None:
            raise recording.error
        texts[index] = recording.text
    return texts
