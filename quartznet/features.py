"""Waveform -> log-mel features, equal to NeMo's to 1e-5; always in fp32, also under autocast.

Dither, pre-emphasis ``y[t] = x[t] - 0.97 x[t-1]``, STFT (window 320 in 512, hop 160), power, Slaney mel bands,
``log(. + 2^-24)``, and per utterance and band ``(x - mean) / (std + 1e-5)`` with the unbiased std over real frames.

The surprise: "NeMo's front end" is three. ``FeatureConfig.rule`` names the one that a checkpoint was trained with:

| rule  | NeMo versions     | frames of L samples | edges of the STFT | samples beyond L                        |
|-------|-------------------|---------------------|-------------------|-----------------------------------------|
| 0.x   | 0.8 to 1.0.0rc1   | ceil(L / 160)       | reflected         | the first is -0.97 x[L-1], then zero    |
| 1.x   | 1.0.0 to 2.4      | floor(L / 160) + 1  | reflected         | the same                                |
| 2.5   | since 2.5         | floor(L / 160)      | zeros             | all zero                                |

They differ by one frame at most, and a wrong rule costs accuracy without any message. By the older two rules only the
longest row of a batch has its own audio reflected at its end; the last frames of the others, and through the mean all
frames of theirs, depend on the batch. ``forward`` repeats that; ``each`` computes every clip as if it were alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quartznet.config import FeatureConfig

LOG_GUARD = 2.0**-24  # added before the logarithm
STD_GUARD = 1e-5  # added to the standard deviation, not to the variance


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Slaney's scale: linear (200/3 Hz a mel) below 1 kHz, 27 mels for every factor 6.4 above."""
    linear = hertz * 3.0 / 200.0
    return torch.where(hertz < 1000.0, linear, 15.0 + 27.0 * torch.log(hertz.clamp(min=1e-9) / 1000.0) / math.log(6.4))


def mel_to_hertz(mels: Tensor) -> Tensor:
    """The inverse of ``hertz_to_mel``."""
    return torch.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * torch.exp((mels - 15.0) * math.log(6.4) / 27.0))


def mel_filterbank(config: FeatureConfig) -> Tensor:
    """Triangles of equal area over the STFT bins: ``(mels, fft_size / 2 + 1)``, computed in fp64, kept in fp32."""
    high = config.sample_rate / 2 if config.high_hertz is None else config.high_hertz
    ends = hertz_to_mel(torch.tensor([config.low_hertz, high], dtype=torch.float64))
    points = mel_to_hertz(torch.linspace(ends[0].item(), ends[1].item(), config.mels + 2, dtype=torch.float64))
    bins = torch.arange(config.fft_size // 2 + 1, dtype=torch.float64) * config.sample_rate / config.fft_size
    left, centre, right = points[:-2, None], points[1:-1, None], points[2:, None]
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0.0)
    return (triangles * 2.0 / (right - left)).float()


def frame_counts(signal_lengths: Tensor, config: FeatureConfig) -> Tensor:
    """Real frames ``(batch,)`` of ``signal_lengths`` samples, by the rule of the configuration."""
    if config.rule == "0.x":
        return (signal_lengths + config.hop - 1) // config.hop
    return signal_lengths // config.hop + (1 if config.rule == "1.x" else 0)


class LogMel(nn.Module):
    """The front end as a module without parameters; ``window`` and ``filterbank`` are buffers that a checkpoint may
    bring along."""

    def __init__(self, config: FeatureConfig):
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.window_size, periodic=config.periodic_window))
        self.register_buffer("filterbank", mel_filterbank(config))

    @property
    def shortest(self) -> int:
        """Samples that a clip of its own must have: what the edges reflect, or one hop where they are zeros."""
        return self.config.hop if self.config.rule == "2.5" else self.config.fft_size // 2 + 1

    @torch.no_grad()
    def forward(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features of a padded batch.

        Args:
            signal: (batch, samples), float in [-1, 1], zeros beyond each length.
            signal_lengths: (batch,), samples.

        Returns:
            features (batch, mels, frames), zero beyond each utterance, ``frames = floor(samples / hop) + 1`` padded to
            a multiple of ``pad_to``; lengths (batch,), the real frames.

        Raises:
            ValueError: for a signal too short for its STFT padding, or a row without a single frame. On a GPU the
                lengths are not looked at, for that would wait until the GPU has done all that it was told: there the
                features of such a row are NaN throughout, and so is every loss that it has a part in, except that the
                fused kernels mask such a row whole. Loaders leave clips below ``shortest`` out.
        """
        lengths = frame_counts(signal_lengths, self.config)
        self._check(signal, signal_lengths, lengths)
        with torch.autocast(signal.device.type, enabled=False):
            power = self._power_spectrum(self._prepare(signal.float(), signal_lengths))
            features = torch.log(self.filterbank.float() @ power + LOG_GUARD)  # (batch, mels, frames)
            features = self._normalize(features, lengths)
        if self.config.pad_to:
            features = F.pad(features, (0, -features.shape[2] % self.config.pad_to))
        return features, lengths

    def each(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` for every clip alone, stacked: the same call and shapes, and nothing depends on the batch.

        For evaluation: an error rate must not change with the batch size.
        """
        if self.config.rule == "2.5" or len(signal) == 0:  # depends on no other row anyway
            return self(signal, signal_lengths)
        samples = signal_lengths.tolist()  # all at once: each look at a GPU's tensor waits for it
        clips = [
            self(row[None, :count], length[None])
            for row, length, count in zip(signal, signal_lengths, samples, strict=True)
        ]
        longest = max(features.shape[2] for features, _ in clips)
        stacked = [F.pad(features, (0, longest - features.shape[2])) for features, _ in clips]
        return torch.cat(stacked), torch.cat([lengths for _, lengths in clips])

    @torch.no_grad()
    def rows(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``each`` in one computation that looks at no value, so that nothing waits and a CUDA graph can hold it.

        Every row's edges are reflected where the row ends: sample ``i - 256`` of the padded row is that at ``|i|``, or,
        from the length L on, at ``2 (L - 1) - i``. The same call and shapes, except that the frames are those of
        ``samples``, not those of the longest row.

        Lengths are not checked either: each must be at least ``shortest``.
        """
        lengths = frame_counts(signal_lengths, self.config)
        with torch.autocast(signal.device.type, enabled=False):
            signal = self._prepare(signal.float(), signal_lengths)
            if self.config.rule != "2.5":
                edge = self.config.fft_size // 2
                index = torch.arange(-edge, signal.shape[1] + edge, device=signal.device).abs()
                last = signal_lengths[:, None] - 1
                signal = signal.gather(1, torch.where(index > last, 2 * last - index, index).clamp(min=0))
            power = self._power_spectrum(signal, center=self.config.rule == "2.5")
            features = self._normalize(torch.log(self.filterbank.float() @ power + LOG_GUARD), lengths)
        return F.pad(features, (0, -features.shape[2] % self.config.pad_to if self.config.pad_to else 0)), lengths

    def _check(self, signal: Tensor, signal_lengths: Tensor, lengths: Tensor) -> None:
        if signal.dim() != 2 or signal_lengths.shape != signal.shape[:1]:
            raise ValueError(
                f"signal must be (batch, samples) and signal_lengths (batch,), got {tuple(signal.shape)} and "
                f"{tuple(signal_lengths.shape)}; give a single clip as signal[None]"
            )
        if len(signal) == 0:
            return
        if self.config.rule != "2.5" and signal.shape[1] < self.shortest:
            raise ValueError(f"a clip of {signal.shape[1]} samples is too short; the front end needs {self.shortest}")
        if lengths.device.type == "cpu" and int(lengths.min()) < 1:
            raise ValueError(f"a clip of {int(signal_lengths.min())} samples has no frame; leave empty clips out")

    def _prepare(self, signal: Tensor, signal_lengths: Tensor) -> Tensor:
        if self.training and self.config.dither > 0:
            signal = signal + self.config.dither * torch.randn_like(signal)
        # Two roundings, as NeMo has them: in one operation (sub with alpha) quiet frames differ ten times as much.
        signal = torch.cat([signal[:, :1], signal[:, 1:] - self.config.preemphasis * signal[:, :-1]], dim=1)
        if self.config.rule == "2.5":
            samples = torch.arange(signal.shape[1], device=signal.device)
            signal.masked_fill_(samples >= signal_lengths[:, None], 0.0)
        return signal

    def _power_spectrum(self, signal: Tensor, center: bool = True) -> Tensor:
        """``(batch, samples)`` -> ``(batch, fft_size / 2 + 1, floor(samples / hop) + 1)``.

        ``center`` False: of samples that have ``fft_size / 2`` more at either end already.
        """
        config = self.config
        edges = "constant" if config.rule == "2.5" else "reflect"
        sizes = (config.fft_size, config.hop, config.window_size)
        if len(signal) == 0:  # torch.stft wants a row
            return signal.new_zeros(0, config.fft_size // 2 + 1, signal.shape[1] // config.hop + 1)
        window = self.window.float()
        spectrum = torch.stft(signal, *sizes, window, center=center, pad_mode=edges, return_complex=True)
        return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)

    def _normalize(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Zero mean and unit deviation over real frames; a lone frame, which has no deviation, becomes zero.

        All of a row without a frame becomes NaN: 0 / 0.
        """
        real = torch.arange(features.shape[2], device=features.device) < lengths[:, None, None]  # (batch, 1, frames)
        beyond = torch.zeros_like(lengths, dtype=features.dtype) / lengths
        if self.config.normalize == "none":
            return torch.where(real, features, beyond[:, None, None])
        axes = (2,) if self.config.normalize == "per_feature" else (1, 2)
        count = lengths[:, None, None] * (1 if len(axes) == 1 else features.shape[1])
        mean = features.masked_fill(~real, 0.0).sum(axes, keepdim=True) / count
        centred = torch.where(real, features - mean, beyond[:, None, None])
        deviation = (centred.square().sum(axes, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        return centred / (deviation + STD_GUARD)
