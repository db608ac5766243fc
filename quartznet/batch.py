"""What a loader hands to the network: several utterances, padded to one length, with their true lengths beside them.

``Batch`` is the only shape in which clips travel from data/ to the training loop, so both sides can change freely. It
checks its own shapes when it is made: a mistake in a collate function shows here and not as a wrong loss later.

A batch also says what is still to be done to it: with ``speeds``, ``at_speed`` plays its clips faster or slower on the
device where they are. Its lengths are known on the host as well, so nobody has to wait for a GPU to be told them.

The surprise: a batch also carries the clips that are *not* in it. ``skipped`` holds one message for each clip that did
not load, because a loader process has no other way to report them, and a batch may even consist of such messages only.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from quartznet.lengths import changed_length, speed_ratio
from quartznet.speed import change_speeds


@dataclass
class Batch:
    """Utterances of one training or evaluation step; every list and every first dimension has the same length.

    Raises:
        ValueError: when shapes, types or lengths contradict each other.
    """

    signal: Tensor  # (batch, samples) float32 in [-1, 1], zero after each clip's end
    signal_lengths: Tensor  # (batch,) int64, samples
    targets: Tensor  # (batch, letters) int64, 0 after each text's end
    target_lengths: Tensor  # (batch,) int64, letters
    texts: list[str]  # the normalised transcripts
    names: list[str]  # which clip this is, for messages: path, or file:line
    skipped: list[str] = field(default_factory=list)  # one message for each clip left out while loading
    speeds: tuple[float, ...] | None = None  # at which each clip is still to be played; None: it is as it should be
    host_lengths: tuple[int, ...] | None = None  # signal_lengths as numbers; None: read from them, once

    def __post_init__(self) -> None:
        size = len(self.texts)
        for name in ("signal_lengths", "target_lengths"):
            lengths = getattr(self, name)
            if lengths.shape != (size,) or lengths.dtype != torch.int64:
                raise ValueError(f"{name} must be int64 of shape ({size},), got {lengths.dtype} {tuple(lengths.shape)}")
        for name in ("signal", "targets"):
            rows = getattr(self, name)
            if rows.dim() != 2 or len(rows) != size:
                raise ValueError(f"{name} must have two dimensions and {size} rows, got shape {tuple(rows.shape)}")
        if len(self.names) != size:
            raise ValueError(f"a batch of {size} texts needs {size} names, got {len(self.names)}")
        if self.speeds is not None and len(self.speeds) != size:
            raise ValueError(f"a batch of {size} texts needs {size} speeds or None, got {len(self.speeds)}")
        if self.host_lengths is None or self.signal_lengths.device.type == "cpu":
            self.host_lengths = tuple(self.signal_lengths.tolist())
        if len(self.host_lengths) != size:
            raise ValueError(f"a batch of {size} texts needs {size} host_lengths, got {len(self.host_lengths)}")

    def __len__(self) -> int:
        """Number of utterances; 0 when every clip was skipped."""
        return len(self.texts)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on ``device``; copies from pinned memory do not wait for the device."""
        return self._with([tensor.to(device, non_blocking=True) for tensor in self._tensors()])

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; ``DataLoader(pin_memory=True)`` calls this by its name."""
        return self._with([tensor.pin_memory() for tensor in self._tensors()])

    def at_speed(self) -> "Batch":
        """The batch with every clip at its speed, where it is and without waiting; itself where that is done.

        The signal is then padded to ``rounded_length`` of its longest clip, as if the loader had changed the speeds.
        """
        if self.speeds is None or all(speed_ratio(speed) == (1, 1) for speed in self.speeds):
            return self if self.speeds is None else replace(self, speeds=None)
        signal, lengths = change_speeds(self.signal, self.host_lengths, self.speeds)
        heard = self._heard_lengths()
        return replace(self, signal=signal, signal_lengths=lengths, speeds=None, host_lengths=heard)

    def seconds(self, sample_rate: int) -> float:
        """Seconds of audio in the batch at the speeds at which it will be heard, padding not counted."""
        return sum(self._heard_lengths()) / sample_rate

    def _heard_lengths(self) -> tuple[int, ...]:
        if self.speeds is None:
            return self.host_lengths
        return tuple(map(changed_length, self.host_lengths, self.speeds))

    def _tensors(self) -> list[Tensor]:
        return [self.signal, self.signal_lengths, self.targets, self.target_lengths]

    def _with(self, tensors: list[Tensor]) -> "Batch":
        signal, signal_lengths, targets, target_lengths = tensors
        return replace(
            self, signal=signal, signal_lengths=signal_lengths, targets=targets, target_lengths=target_lengths
        )
