"""The network over a recording of any length, window by window, equal to one pass over all of it.

An output frame depends on ``context`` feature frames on either side and on nothing beyond: each convolution reaches
dilation (k - 1) / 2 frames to both sides, times the strides before it, and the reaches add up; 15x5 sees 40 s each way.
So a window reads ``context`` more on both sides than it keeps, and what it keeps joins without a seam:

    window n reads     |--- context ---|------ kept ------|--- context ---|
    window n + 1                               |--- context ---|------ kept ------|--- context ---|

The normalisation does reach beyond: mean and deviation of each band are those of the whole recording, as the network
knows it from training. They come from a first pass that decodes the sound and stops before the network, which costs
little beside it. ``LocalNormalizer`` takes those of the neighbourhood instead; that is for sound without an end.

The surprise: full context is not worth its price. Far frames hardly matter, and with ``CONTEXT`` seconds no probability
differed by more than 0.0004 (``docs/results.md``). With a context of None, all that the network sees, it is equal.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from quartznet.audio import audio_blocks
from quartznet.config import BlockConfig
from quartznet.feature_blocks import FeatureStream, Statistics
from quartznet.layers import same_padding
from quartznet.model import QuartzNet

KEPT = 40.0  # s that a window contributes
CONTEXT = 10.0  # s that it reads beyond, on either side
HELD = 60.0  # s of features that are kept from the first pass to the second


def full_context(blocks: Sequence[BlockConfig]) -> int:
    """Feature frames on either side of an output frame's own that it depends on."""
    reach, stride = 0, 1
    for block in blocks:
        for _ in range(block.repeat):
            reach += same_padding(block.kernel_size, block.dilation) * stride
            stride *= block.stride
    return reach


@dataclass(frozen=True)
class Window:
    """Features that go through the network together, and which of its output frames are kept."""

    features: Tensor  # (mels, frames), normalised
    skip: int  # output frames before the kept ones
    keep: int | None  # None: all that follow
    is_last: bool


@dataclass(frozen=True)
class Windows:
    """How recordings are cut, in feature frames, all of them multiples of the network's stride."""

    keep: int
    before: int  # context to the left
    after: int  # and to the right
    stride: int

    def cut(self, blocks: Iterable[Tensor]) -> Iterator[Window]:
        """Windows of the features (mels, frames) that ``blocks`` are when joined; holds one window, not more.

        Yields a window as soon as its right context is there. The last one has what is left, perhaps nothing new.
        """
        held, left = None, 0  # features from ``left`` frames before the next kept one
        for block in blocks:
            held = block if held is None else torch.cat([held, block], dim=1)
            while held.shape[1] >= left + self.keep + self.after:
                read = held[:, : left + self.keep + self.after]
                yield Window(read, left // self.stride, self.keep // self.stride, False)
                start = max(0, left + self.keep - self.before)
                held, left = held[:, start:], left + self.keep - start
        if held is not None:
            yield Window(held, left // self.stride, None, True)


def windows_for(
    model: QuartzNet, keep: float = KEPT, before: float | None = CONTEXT, after: float | None = CONTEXT
) -> Windows:
    """Seconds -> frames that fit the network; a context of None, or a larger one, is all that the network sees.

    Raises:
        ValueError: keep is not above 0, or a context is negative.
    """
    if keep <= 0 or min(before or 0.0, after or 0.0) < 0:
        raise ValueError(f"a window keeps more than 0 s and its context is not negative, got {keep}, {before}, {after}")
    config = model.config.features
    stride, rate, full = (
        model.samples_per_output // config.hop,
        config.sample_rate / config.hop,
        full_context(model.config.blocks),
    )

    def whole(frames: float) -> int:
        return -(-round(frames) // stride) * stride

    left, right = (whole(full if seconds is None else min(full, seconds * rate)) for seconds in (before, after))
    return Windows(max(stride, whole(keep * rate)), left, right, stride)


def feature_blocks(model: QuartzNet, signals: Iterable[Tensor]) -> Iterator[Tensor]:
    """Waveform blocks -> features (mels, frames), not normalised."""
    stream = FeatureStream(model.front_end)
    for signal in signals:
        yield stream.push(signal)
    yield stream.finish()


def normalized_file(model: QuartzNet, path: str | Path) -> Iterator[Tensor]:
    """Features of a file, (mels, frames) by the block, normalised over all of it.

    A file of more than ``HELD`` seconds is decoded twice; the features of a shorter one wait in memory.

    Raises:
        FileNotFoundError, ValueError: as ``read_audio``, and for a file too short for the front end; named.
    """
    config, statistics, held = model.config.features, Statistics(model.config.features), []
    try:
        for block in feature_blocks(model, audio_blocks(path, config.sample_rate)):
            statistics.add(block)
            fits = held is not None and statistics.count * config.hop <= HELD * config.sample_rate
            held = [*held, block] if fits else None
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}; leave it out") from error
    again = feature_blocks(model, audio_blocks(path, config.sample_rate)) if held is None else held
    yield from (statistics.normalize(block) for block in again)


@torch.inference_mode()
def run_windows(model: QuartzNet, windows: Sequence[Window]) -> list[Tensor]:
    """The kept log-probabilities (time, labels + 1) of each window, all of them in one batch, on the CPU."""
    lengths = torch.tensor([window.features.shape[1] for window in windows], device=model.device)
    longest = max(window.features.shape[1] for window in windows)
    features = torch.stack([pad(window.features, (0, longest - window.features.shape[1])) for window in windows])
    log_probs, frames = model.forward_features(features.to(model.device), lengths)
    kept = []
    for row, window, count in zip(log_probs.cpu(), windows, frames.tolist(), strict=True):
        end = count if window.keep is None else window.skip + window.keep
        kept.append(row[window.skip : end].clone())
    return kept
