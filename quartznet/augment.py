"""Holes in the spectrogram: training data that differs in every epoch. For the waveform see ``quartznet.waveform``.

SpecCutout (arXiv:1708.04552 on spectrograms) cuts rectangles, SpecAugment (arXiv:1904.08779) whole bands of frames or
of mel bands. Both fill with 0, which after normalisation is the mean of each mel band.

    SpecCutout           SpecAugment            mel bands up, frames to the right
    . . # # . . .        . # # . . . .
    . . # # . . #        # # # # # # #
    . . . . . . #        . # # . . . .

All random numbers are drawn on the CPU from a ``torch.Generator``, so a run does not depend on its device. The
surprise: NeMo 0.x exchanged the two widths of SpecCutout, so its recipe "120 frames, 50 bands" cut tall thin stripes;
``swapped`` repeats that. Here an utterance shorter than the widest rectangle is fine (NeMo 1.x raises an error).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quartznet.config import AugmentSettings
from quartznet.prefetch import sent


def in_spans(starts: Tensor, widths: Tensor, size: int) -> Tensor:
    """(batch, masks) starts and widths -> (batch, masks, size) bool: is start <= position < start + width?"""
    positions = torch.arange(size, device=starts.device)
    starts, widths = starts.unsqueeze(-1), widths.unsqueeze(-1)
    return (positions >= starts) & (positions < starts + widths)


@dataclass(frozen=True)
class SpecCutout:
    """Sets ``masks`` rectangles of each utterance to 0; a rectangle may overlap others or be empty.

    With U uniform in [0, 1) and whole numbers rounded down (NeMo 1.0 to 2.5), positions from the padded length:

        bands   start U (bands - freq_width + 1), width U (freq_width + 1)
        frames  start U (frames - time_width + 1), width U (time_width + 1)

    ``swapped`` (NeMo 0.x): no "+ 1", and U time_width is the width in bands, U freq_width the width in frames.
    """

    masks: int
    time_width: int  # frames
    freq_width: int  # mel bands
    swapped: bool = False

    def __call__(self, features: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """features (batch, mels, frames), lengths (batch,) -> a copy of the same shape. ``generator`` is a CPU one."""
        batch, mels, frames = features.shape
        uniform = sent(torch.rand(4, batch, self.masks, generator=generator), features.device)
        more = 0 if self.swapped else 1  # of the largest number drawn
        longest, tallest = (self.freq_width, self.time_width) if self.swapped else (self.time_width, self.freq_width)
        band_start = (uniform[0] * max(mels - self.freq_width + more, 1)).floor()
        frame_start = (uniform[1] * max(frames - self.time_width + more, 1)).floor()
        bands = in_spans(band_start, (uniform[2] * (tallest + more)).floor(), mels)
        times = in_spans(frame_start, (uniform[3] * (longest + more)).floor(), frames)
        holes = torch.einsum("bmf,bmt->bft", bands.float(), times.float()) > 0  # inside at least one rectangle
        return features.masked_fill(holes, 0.0)


@dataclass(frozen=True)
class SpecAugment:
    """Sets ``time_masks`` bands of frames and ``freq_masks`` bands of mels to 0 (NeMo 2.x's rule).

    With U uniform in [0, 1): width = floor(U W), start = floor(U (size - width)). Over time ``size`` is the utterance's
    own length and W = time_width * size; over frequency ``size`` is the number of mel bands and W = freq_width.

    Adaptive (arXiv:1912.05533): with ``masks_per_frame`` p above 0 an utterance of n frames gets min(time_masks,
    floor(p n)) masks over time, so that a short one keeps its words. As many numbers are drawn either way.
    """

    time_masks: int
    time_width: float  # share of the utterance
    freq_masks: int
    freq_width: int  # mel bands
    masks_per_frame: float = 0.0  # 0: every utterance gets all time_masks

    def __call__(self, features: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """features (batch, mels, frames), lengths (batch,) -> a copy of the same shape. ``generator`` is a CPU one."""
        batch, mels, frames = features.shape
        uniform_time = sent(torch.rand(2, batch, self.time_masks, generator=generator), features.device)
        uniform_freq = sent(torch.rand(2, batch, self.freq_masks, generator=generator), features.device)

        own_length = sent(lengths, features.device).unsqueeze(1)  # (batch, 1)
        width = (uniform_time[0] * (self.time_width * own_length)).floor()
        if self.masks_per_frame > 0:
            number = torch.arange(self.time_masks, device=features.device)
            width = width * (number < (self.masks_per_frame * own_length).floor())
        times = in_spans((uniform_time[1] * (own_length - width)).floor(), width, frames).any(dim=1)

        width = (uniform_freq[0] * min(self.freq_width, mels)).floor()
        bands = in_spans((uniform_freq[1] * (mels - width)).floor(), width, mels).any(dim=1)
        return features.masked_fill(times.unsqueeze(1) | bands.unsqueeze(2), 0.0)


def augment_features(
    features: Tensor, lengths: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> Tensor:
    """Cutout, then SpecAugment, as the settings say; for training only. With no masks at all: ``features`` itself.

    Args:
        features: (batch, mels, frames), normalised; never changed in place.
        lengths: (batch,) valid frames.
        generator: on the CPU.
    """
    if settings.cutout_masks > 0:
        cutout = SpecCutout(settings.cutout_masks, settings.cutout_time, settings.cutout_freq, settings.cutout_swapped)
        features = cutout(features, lengths, generator)
    if settings.time_masks > 0 or settings.freq_masks > 0:
        bands = SpecAugment(
            settings.time_masks,
            settings.time_width,
            settings.freq_masks,
            settings.freq_width,
            settings.masks_per_frame,
        )
        features = bands(features, lengths, generator)
    return features
