"""Clips played faster or slower by resampling: one, or a whole batch at different speeds, on whatever device it is.

At the speed ``faster / slower`` (``quartznet.lengths``) every ``slower`` samples that come out read the same windows of
the signal, each window ``faster`` samples further, with a windowed sinc for each fraction of a sample between:

    y[slower n + j] = sum_i x[faster n + i - width] K[i, j]         x    [-------------]
                                                                          >faster> [-------------]
    (rows, n, taps) windows times (taps, slower) weights K          y    [s l o w e r][s l o w e r]

That is one strided convolution, written as one matrix product. K is torchaudio's (a sinc of 6 zero crossings on either
side under a Hann window, 0.99 of the lower Nyquist frequency), computed once for each speed.

The surprise: ``torchaudio.functional.resample`` itself belongs on a CPU. On a GPU it waits for the device each time,
and its convolution rounds to TF32 (PyTorch's default for convolutions, not for products) or to autocast's bf16. And
everywhere its length, computed in fp32, is a sample short now and then from 16 s on, at speeds such as 0.97.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from quartznet.lengths import changed_length, rounded_length, speed_ratio
from quartznet.prefetch import sent


@lru_cache(maxsize=256)
def _weights(faster: int, slower: int, device: torch.device) -> tuple[Tensor, int]:
    """K, ``(taps, slower)`` fp32, and how many of its taps lie before a window's first sample."""
    made = torchaudio.transforms.Resample(faster, slower, dtype=torch.float64)
    return made.kernel[:, 0].T.float().contiguous().to(device), made.width


def at_one_speed(signal: Tensor, speed: float) -> Tensor:
    """``(rows, samples)`` float -> ``(rows, ceil(samples / speed))``; the signal itself at 1.0. 1.1 is shorter.

    Raises:
        ValueError: as ``speed_ratio``.
    """
    faster, slower = speed_ratio(speed)
    if faster == slower:
        return signal
    weights, width = _weights(faster, slower, signal.device)
    with torch.autocast(signal.device.type, enabled=False):
        windows = F.pad(signal, (width, width + faster)).unfold(1, len(weights), faster)  # (rows, n, taps)
        changed = windows @ weights.to(signal.dtype)
    return changed.flatten(1)[:, : changed_length(signal.shape[1], speed)]


def change_speed(signal: Tensor, speed: float) -> Tensor:
    """Plays a waveform faster or slower by resampling, so that pitch and length change together.

    ``speed`` 1.1 is faster, higher and shorter: (samples,) becomes (ceil(samples / speed),). NeMo's rate means the
    opposite: there 1.1 is *longer*. Speeds count in hundredths, which keeps the resampling filter small; 1.0 returns
    the signal itself.

    Raises:
        ValueError: for a speed that is not positive, or too far from 1 to leave speech (outside 0.1 to 10).
    """
    return signal if speed_ratio(speed) == (1, 1) else at_one_speed(signal[None], speed)[0]


def change_speeds(signal: Tensor, lengths: Sequence[int], speeds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """``change_speed`` for each row of a padded batch, without waiting for its device.

    Rows are sorted by speed, so that those of one speed lie together and are resampled as one; then they are put back.

    Args:
        signal: (batch, samples) float, zeros beyond each length.
        lengths: samples of each row, as numbers: how long the result is must be known on the host.
        speeds: of each row.

    Returns:
        signal (batch, ``rounded_length`` of the longest), zeros beyond each length; lengths (batch,) int64,
        ``ceil(length / speed)``. Both on the signal's device.

    Raises:
        ValueError: for another number of lengths or speeds than rows, or as ``speed_ratio``.
    """
    rows, device = len(signal), signal.device
    if len(lengths) != rows or len(speeds) != rows:
        raise ValueError(f"{rows} rows need as many lengths and speeds, got {len(lengths)} and {len(speeds)}")
    after = [changed_length(samples, speed) for samples, speed in zip(lengths, speeds, strict=True)]
    order = sorted(range(rows), key=lambda row: speeds[row])
    back = sorted(range(rows), key=lambda place: order[place])
    sorting, putting_back, ends = sent(torch.tensor([order, back, after], dtype=torch.int64), device)
    sorted_rows = signal.index_select(0, sorting)
    changed = signal.new_zeros(rows, rounded_length(max(after, default=0)))
    first = 0
    for speed, members in groupby(order, key=lambda row: speeds[row]):
        members = list(members)
        last, longest = first + len(members), max(lengths[row] for row in members)
        part = at_one_speed(sorted_rows[first:last, :longest], speed)
        changed[first:last, : part.shape[1]] = part
        first = last
    changed = changed.index_select(0, putting_back)
    is_padding = torch.arange(changed.shape[1], device=device) >= ends[:, None]  # where the filter's tail rings
    return changed.masked_fill_(is_padding, 0.0), ends
