"""Log-mel features of a sound that comes in blocks, equal to ``LogMel`` on all of it; nothing is held but a tail.

A frame of the STFT reads ``fft_size`` samples around its centre, so a block gives the frames that are complete with it,
and the samples of the next one wait for the next block. Both ends are padded by the rule of the configuration, once.

What cannot come in blocks is the normalisation: the mean and deviation of each band over *all* frames of the
utterance. ``Statistics`` sums them up in a first pass over the sound, and a second pass makes features with them.

    mean, S of two parts     mean = (n m + n' m') / (n + n')     S = s + s' + (m - m')^2 n n' / (n + n')

The surprise: sums of squares are the wrong way to do it. Log-mel values are near -10 with deviations near 3, and over
an hour the difference of two large sums loses digits; the formula above (Chan et al., 1979) does not.
"""

import torch
from torch import Tensor

from quartznet.config import FeatureConfig
from quartznet.features import LOG_GUARD, STD_GUARD, LogMel, frame_counts


class FeatureStream:
    """Waveform blocks in, frames of log-mel features out, not normalised; on the CPU, where sound is decoded.

    ``push`` every block in order, then ``finish`` once; the results, joined, are the frames of the whole.
    """

    def __init__(self, front_end: LogMel):
        self.config, self.shortest = front_end.config, front_end.shortest
        self.window, self.filterbank = front_end.window.float().cpu(), front_end.filterbank.float().cpu()
        self.samples = self.frames = 0  # received, given out
        self.last = torch.zeros(1)  # the sample before the block, for the pre-emphasis; y[0] = x[0] - 0
        self.tail = torch.zeros(0)  # as many of the last samples as the end reflects
        self.has_begun = self.config.rule == "2.5"  # else the beginning waits for the samples that it reflects
        self.waiting = torch.zeros(self._half if self.has_begun else 0)  # from the next frame's first sample on

    @property
    def _half(self) -> int:
        return self.config.fft_size // 2

    def push(self, signal: Tensor) -> Tensor:
        """(samples,) float32 at the network's rate -> (mels, frames), those that became complete; perhaps none."""
        before = torch.cat([self.last, signal])
        self.last, self.samples = before[-1:], self.samples + len(signal)
        emphasised = signal - self.config.preemphasis * before[:-1]
        self.tail = torch.cat([self.tail, emphasised])[-(self._half + 1) :]
        self.waiting = torch.cat([self.waiting, emphasised])
        if not self.has_begun and len(self.waiting) > self._half:
            self.waiting = torch.cat([self.waiting[1 : self._half + 1].flip(0), self.waiting])
            self.has_begun = True
        complete = (len(self.waiting) - self.config.fft_size) // self.config.hop + 1
        return self._frames(min(complete, self.samples // self.config.hop - self.frames) if self.has_begun else 0)

    def finish(self) -> Tensor:
        """(mels, frames): the frames whose right half lies beyond the end.

        Raises:
            ValueError: all that came is too short for one frame, or for the reflection.
        """
        count = int(frame_counts(torch.tensor(self.samples), self.config))
        if self.samples < self.shortest or count < 1:
            raise ValueError(f"{self.samples} samples are too short, the network needs {self.shortest}")
        end = torch.zeros(self._half) if self.config.rule == "2.5" else self.tail[:-1].flip(0)
        self.waiting = torch.cat([self.waiting, end])
        return self._frames(count - self.frames)

    def _frames(self, count: int) -> Tensor:
        """The next ``count`` frames; their samples, but for what the frames after them read too, are dropped."""
        config = self.config
        if count < 1:
            return torch.zeros(config.mels, 0)
        samples = self.waiting[: (count - 1) * config.hop + config.fft_size]
        sizes = (config.fft_size, config.hop, config.window_size)
        spectrum = torch.stft(samples, *sizes, self.window, center=False, return_complex=True)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        self.waiting, self.frames = self.waiting[count * config.hop :], self.frames + count
        return torch.log(self.filterbank @ power + LOG_GUARD)


class Statistics:
    """Mean and deviation of each band over all frames so far, as the configuration wants them for normalisation."""

    def __init__(self, config: FeatureConfig):
        self.kind = config.normalize
        self.count = 0
        self.mean = torch.zeros(config.mels, 1, dtype=torch.float64)
        self.squares = torch.zeros(config.mels, 1, dtype=torch.float64)  # sum of squared distances from the mean

    def add(self, features: Tensor) -> None:
        """(mels, frames), not normalised."""
        if not features.shape[1]:
            return
        frames, count = features.double(), features.shape[1]
        mean = frames.mean(dim=1, keepdim=True)
        apart, both = mean - self.mean, self.count + count
        self.squares += (frames - mean).square().sum(dim=1, keepdim=True) + apart.square() * (self.count * count / both)
        self.mean += apart * (count / both)
        self.count = both

    def normalize(self, features: Tensor) -> Tensor:
        """(mels, frames) -> the same, less the mean and by the deviation; as ``LogMel`` does it for a whole clip."""
        if self.kind == "none" or not self.count:
            return features
        mean, squares, count = self.mean, self.squares, self.count
        if self.kind == "all_features":
            mean = self.mean.mean().expand_as(self.mean)
            squares = (self.squares + count * (self.mean - mean).square()).sum().expand_as(self.squares)
            count *= len(self.mean)
        deviation = (squares / max(1, count - 1)).sqrt()
        return (features - mean.float()) / (deviation.float() + STD_GUARD)
