"""Which clips share a batch: clips of similar length, as many as fill ``batch_seconds``, in a new order every epoch.

Clips are sorted by duration and cut into buckets whose longest clip is at most 15 % longer than the shortest (more in a
small corpus, so that a bucket holds at least two batches). All batches of a bucket have the same size,

    size = floor(batch_seconds / (longest clip of the bucket * longest_speed_factor)), between 1 and max_batch

but the last, which takes what remains; the size is then lowered as far as the number of batches stays the same, so
that 27 clips at 26 a batch become 14 and 13 and not 26 and 1. Few sizes times few lengths means few shapes, and a CPU
compiles for each shape.

The surprise: the order of an epoch is a function of (seed, epoch) alone. Nothing is drawn while iterating, so a run
that stops in the middle of an epoch continues with ``set_epoch(e)``, ``start_at(batch)``, at once and bit for bit.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from data.hashing import stable_hash

SIMILAR = 1.15  # longest over shortest clip of a bucket
FULL_BATCHES = 2  # that a bucket holds at least; wins over SIMILAR


class BucketSampler(Sampler[list[int]]):
    """A batch sampler: yields lists of indices into ``durations``.

    With several processes every one gets the same number of batches: the list of all batches is dealt out in turns, and
    where it does not come out even the first batches of the epoch are dealt once more (at most ``world_size - 1``).
    Nothing is left out, and in a single process nothing comes twice.

    Args:
        durations: seconds of each clip.
        batch_seconds: seconds of audio in a batch, padding counted. ``data.collate`` may add 1/16 to round a length up.
        max_batch: clips in a batch at most.
        seed: of the order; ``shuffle=False`` goes from short to long and ignores it.
        rank, world_size: which of how many processes this is.
        longest_speed_factor: how much longer speed perturbation may make a clip, 1 / slowest speed.
    """

    def __init__(
        self,
        durations: Sequence[float],
        batch_seconds: float,
        max_batch: int = 128,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        longest_speed_factor: float = 1.0,
    ) -> None:
        super().__init__()
        if not durations:
            raise ValueError("no clips to make batches of; see the messages about clips left out")
        for index, duration in enumerate(durations):
            if not 0 < duration < math.inf:
                raise ValueError(f"clip {index} has duration {duration}; every clip needs more than 0 seconds")
        if not (batch_seconds > 0 and max_batch >= 1 and longest_speed_factor > 0):
            raise ValueError("batches need batch_seconds > 0, max_batch >= 1 and longest_speed_factor > 0")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.epoch = 0
        self.start = 0
        seconds = [duration * longest_speed_factor for duration in durations]
        self.buckets = make_buckets(seconds, batch_seconds, max_batch)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration runs epoch ``epoch`` from its first batch."""
        self.epoch = epoch
        self.start = 0

    def start_at(self, batch_index: int) -> None:
        """The next iterations leave out the first ``batch_index`` batches of this process, until ``set_epoch``."""
        if not 0 <= batch_index <= len(self):
            raise ValueError(f"cannot start at batch {batch_index} of an epoch of {len(self)} batches")
        self.start = batch_index

    def __len__(self) -> int:
        """Batches of a whole epoch of this process, whatever ``start_at`` says."""
        return math.ceil(sum(math.ceil(len(clips) / size) for clips, size in self.buckets) / self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._all_batches()
        for turn in range(self.start, len(self)):
            yield batches[(turn * self.world_size + self.rank) % len(batches)]

    def _all_batches(self) -> list[list[int]]:
        """The epoch's batches of all processes, in order."""
        generator = torch.Generator().manual_seed(stable_hash("batches", self.seed, self.epoch))
        batches = []
        for clips, size in self.buckets:
            order = torch.randperm(len(clips), generator=generator).tolist() if self.shuffle else range(len(clips))
            chosen = [clips[index] for index in order]
            batches += [chosen[start : start + size] for start in range(0, len(chosen), size)]
        if not self.shuffle:
            return batches
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def make_buckets(seconds: Sequence[float], batch_seconds: float, max_batch: int) -> list[tuple[list[int], int]]:
    """Indices of similar length and the batch size of each such bucket, from short to long."""

    def size(longest: float) -> int:
        return max(1, min(max_batch, math.floor(batch_seconds / longest)))

    buckets: list[tuple[list[int], int]] = []
    clips: list[int] = []
    for index in sorted(range(len(seconds)), key=lambda index: (seconds[index], index)):
        if clips:
            longest = seconds[clips[-1]]
            if seconds[index] > SIMILAR * seconds[clips[0]] and len(clips) >= FULL_BATCHES * size(longest):
                buckets.append((clips, size(longest)))
                clips = []
        clips.append(index)
    buckets.append((clips, size(seconds[clips[-1]])))
    return [(clips, math.ceil(len(clips) / math.ceil(len(clips) / most))) for clips, most in buckets]
