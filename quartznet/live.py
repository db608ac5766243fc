"""Words while somebody still speaks: the network over a stream, chunk by chunk, with a stated delay.

Every ``chunk`` seconds the network reads that chunk, ``behind`` seconds before it and ``ahead`` seconds after it, and
what it says of the chunk is final. So a sound is heard by the network, at the latest,

    latency = chunk + ahead + half an STFT window

after it was made, plus the time that the network needs; each second of sound costs (behind + chunk + ahead) / chunk
seconds of the network's work. Words become final at the next pause, where a decoder with a language model may still
change them; until then the greedy text since the last pause is shown as ``partial``.

The surprise is the normalisation. Mean and deviation of the whole recording are not known, so the whole window is
normalised with those of the last ``MEMORY`` seconds that have come in, its context included. A mean that ran along
frame by frame would let each frame be one of the few that it is measured by, and the first words would suffer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quartznet.ctc import greedy_decode
from quartznet.feature_blocks import FeatureStream, Statistics
from quartznet.model import QuartzNet
from quartznet.recordings import Decode, PieceCutter, decode_pieces, greedy
from quartznet.windows import Window, run_windows, windows_for
from quartznet.words import Word

CHUNK, AHEAD, BEHIND = 1.0, 1.0, 5.0  # s
MEMORY = 20.0  # s of sound that the normalisation is measured on


@dataclass(frozen=True)
class Update:
    """What a chunk brought: words that are final now, each said once, and the text after them as it looks so far."""

    words: tuple[Word, ...]
    partial: str
    seconds: float  # of sound that has been recognised


class LiveRecogniser:
    """``push`` sound as it comes, ``finish`` at its end."""

    def __init__(
        self,
        model: QuartzNet,
        decode: Decode | None = None,
        chunk: float = CHUNK,
        ahead: float = AHEAD,
        behind: float = BEHIND,
    ):
        self.model, self.decode = model, greedy(model) if decode is None else decode
        self.windows = windows_for(model, chunk, behind, ahead)
        self.stream, self.cutter = FeatureStream(model.front_end), PieceCutter(model)
        config = model.config.features
        self.seconds = model.samples_per_output / config.sample_rate
        self.memory = round(MEMORY * config.sample_rate / config.hop / self.windows.stride) * self.windows.stride
        self.held = torch.zeros(config.mels, 0)  # not normalised
        self.next = self.done = 0  # place in ``held`` of the next frame to recognise; output frames recognised

    @property
    def latency(self) -> float:
        """Seconds from a sound to its recognition at the latest, without the time that the network takes."""
        config, windows = self.model.config.features, self.windows
        return ((windows.keep + windows.after) * config.hop + config.fft_size / 2) / config.sample_rate

    def push(self, signal: Tensor) -> list[Update]:
        """(samples,) float32 at the network's rate -> one update for each chunk that is complete with them."""
        self.held = torch.cat([self.held, self.stream.push(signal)], dim=1)
        updates, windows = [], self.windows
        while self.held.shape[1] >= self.next + windows.keep + windows.after:
            updates.append(self._recognise(windows.keep, windows.after, False))
        return updates

    def finish(self) -> Update:
        """What was left.

        Raises:
            ValueError: all that came is too short for the front end.
        """
        self.held = torch.cat([self.held, self.stream.finish()], dim=1)
        return self._recognise(self.held.shape[1] - self.next, 0, True)

    def _recognise(self, keep: int, after: int, is_last: bool) -> Update:
        windows, end = self.windows, self.next + keep + after
        statistics = Statistics(self.model.config.features)
        statistics.add(self.held[:, max(0, end - self.memory) : end])
        start = max(0, self.next - windows.before)
        features = statistics.normalize(self.held[:, start:end])
        count = None if is_last else keep // windows.stride
        window = Window(features, (self.next - start) // windows.stride, count, is_last)
        [log_probs] = run_windows(self.model, [window])
        self.next, self.done = self.next + keep, self.done + len(log_probs)
        drop = max(0, self.next - max(windows.before, self.memory))
        self.held, self.next = self.held[:, drop:], self.next - drop
        pieces = self.cutter.push(log_probs) + (self.cutter.finish() if is_last else [])
        words = [word for row in decode_pieces(pieces, self.decode, self.seconds) for word in row]
        held = self.cutter.held
        [partial] = greedy_decode(held[None], torch.tensor([len(held)]), self.model.alphabet)
        return Update(tuple(words), partial.strip(), self.done * self.seconds)


def recognise_stream(recogniser: LiveRecogniser, signals: Iterable[Tensor]) -> Iterator[Update]:
    """Updates of a stream, as they come; the model's mode is left as it was.

    Raises:
        ValueError: the stream ends before there is enough for the front end.
    """
    was_training = recogniser.model.training
    recogniser.model.eval()
    try:
        for signal in signals:
            yield from recogniser.push(signal)
        yield recogniser.finish()
    finally:
        recogniser.model.train(was_training)
