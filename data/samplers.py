"""Which clips share a batch: clips of similar length, as many as fill ``batch_seconds``, in a new order every epoch.

Clips are sorted by duration and cut into buckets whose longest clip is at most 15 % longer than the shortest (more in a
small corpus, so that a bucket holds at least two batches). All batches of a bucket have the same size,

    size = floor(batch_seconds / padded seconds of the bucket's longest clip at its slowest), between 1 and max_batch

but the last, which takes what remains; the size is then lowered as far as the number of batches stays the same, so
that 27 clips at 26 a batch become 14 and 13 and not 26 and 1. Few sizes times few lengths means few shapes, and a CPU
compiles for each shape. The first batches of the first epoch are the largest: if memory is too small, it shows at once.

The surprise: the order of an epoch is a function of (seed, epoch) alone. Nothing is drawn while iterating, so a run
that stops in the middle of an epoch continues with ``set_epoch(e)``, ``start_at(batch)``, at once and bit for bit.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from data.hashing import stable_hash
from quartznet.lengths import rounded_length

SIMILAR = 1.15  # longest over shortest clip of a bucket
FULL_BATCHES = 2  # that a bucket holds at least; wins over SIMILAR
WINDOW = 8  # shards that are read at the same time
SPARE = 2  # samples that rounding may add to a clip when it is resampled and its speed is changed

Bucket = tuple[list[int], int]  # clips, and how many of them make a batch


class LengthSampler(Sampler[list[int]]):
    """What samplers of speech and of text have in common: each makes one with the sizes of its items.

    With several processes every one gets the same number of batches and no item comes twice: the batches are dealt out
    in turns, and where they do not come out even the largest are halved until they do. (Only where there are not even
    enough items for that, fewer than a batch for each process, do the first batches come once more.)

    Args:
        sizes: of the items, with what padding adds to one alone.
        most: of a batch: items times the largest of their sizes. No batch exceeds it but one of a single item.
        max_batch: items in a batch at most.
        seed: of the order; ``shuffle=False`` goes from short to long and ignores it.
        rank, world_size: which of how many processes this is.
        groups: the number of the shard that each item lies in; see ``BucketSampler``.
    """

    def __init__(
        self,
        sizes: Sequence[float],
        most: float,
        max_batch: int,
        seed: int,
        shuffle: bool,
        rank: int,
        world_size: int,
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
        if groups is not None and len(groups) != len(sizes):
            raise ValueError(f"{len(sizes)} clips but {len(groups)} groups; give one for each")
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.epoch = 0
        self.start = 0
        self.sizes = list(sizes)
        members = windows(groups) if groups is not None and shuffle else [list(range(len(sizes)))]
        self.windows = [make_buckets(self.sizes, most, max_batch, items) for items in members]

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
        batches = sum(math.ceil(len(clips) / size) for buckets in self.windows for clips, size in buckets)
        return math.ceil(batches / self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._all_batches()
        for turn in range(self.start, len(self)):
            yield batches[(turn * self.world_size + self.rank) % len(batches)]

    def _all_batches(self) -> list[list[int]]:
        """The epoch's batches of all processes, in order."""
        generator = torch.Generator().manual_seed(stable_hash("batches", self.seed, self.epoch))
        epoch = [self._of_window(buckets, generator) for buckets in self.windows]
        if len(epoch) > 1:
            epoch = [epoch[index] for index in torch.randperm(len(epoch), generator=generator).tolist()]
        batches = even([batch for window in epoch for batch in window], self.world_size)
        if self.shuffle and self.epoch == 0:
            largest = sorted(range(len(batches)), key=lambda index: -self._padded(batches[index]))[: self.world_size]
            batches = [batches[i] for i in largest] + [batch for i, batch in enumerate(batches) if i not in largest]
        return batches

    def _of_window(self, buckets: list[Bucket], generator: torch.Generator) -> list[list[int]]:
        """The batches of some buckets, shuffled within the buckets and among each other."""
        batches = []
        for clips, size in buckets:
            order = torch.randperm(len(clips), generator=generator).tolist() if self.shuffle else range(len(clips))
            chosen = [clips[index] for index in order]
            batches += [chosen[start : start + size] for start in range(0, len(chosen), size)]
        if not self.shuffle:
            return batches
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]

    def _padded(self, batch: list[int]) -> float:
        """Size of a batch with its padding."""
        return len(batch) * max(self.sizes[index] for index in batch)


class BucketSampler(LengthSampler):
    """A batch sampler of clips: yields lists of indices into ``durations``.

    Args:
        durations: seconds of each clip.
        batch_seconds: seconds of audio in a batch, padding counted, that no batch exceeds but one of a single clip.
        max_batch: clips in a batch at most.
        seed, shuffle, rank, world_size: see ``LengthSampler``.
        longest_speed_factor: how much longer augmentation may make a clip, 1 / slowest speed.
        sample_rate: of the signals, Hz; lengths are rounded up in samples (``data.collate``).
        groups: the number of the shard that each clip lies in. Then batches are made of clips from a few neighbouring
            shards, and one such window of shards after the other is read, in an order that changes with the epoch.
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
        sample_rate: int = 16000,
        groups: Sequence[int] | None = None,
    ) -> None:
        if not durations:
            raise ValueError("no clips to make batches of; see the messages about clips left out")
        for index, duration in enumerate(durations):
            if not 0 < duration < math.inf:
                raise ValueError(f"clip {index} has duration {duration}; every clip needs more than 0 seconds")
        if not (batch_seconds > 0 and max_batch >= 1 and longest_speed_factor > 0):
            raise ValueError("batches need batch_seconds > 0, max_batch >= 1 and longest_speed_factor > 0")
        self.seconds = [padded_seconds(duration * longest_speed_factor, sample_rate) for duration in durations]
        super().__init__(self.seconds, batch_seconds, max_batch, seed, shuffle, rank, world_size, groups)


class TokenSampler(LengthSampler):
    """A batch sampler of texts: yields lists of indices into ``lengths``.

    Args:
        lengths: tokens of each text, or of both texts of a pair.
        tokens: in a batch, padding counted; no batch exceeds it but one of a single text.
        seed, shuffle, rank, world_size: see ``LengthSampler``.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not lengths or min(lengths) < 1:
            raise ValueError("batches need texts, each of at least one token")
        if tokens < 1:
            raise ValueError(f"a batch must have at least one token, got {tokens}")
        super().__init__(lengths, tokens, len(lengths), seed, shuffle, rank, world_size)


def padded_seconds(duration: float, sample_rate: int) -> float:
    """What a clip of this duration takes in a batch of its own, rounded up as ``data.collate`` does."""
    return rounded_length(math.ceil(duration * sample_rate) + SPARE) / sample_rate


def even(batches: list[list[int]], world_size: int) -> list[list[int]]:
    """Halves the largest batches until their number is a multiple of ``world_size``, if there are clips enough."""
    batches = list(batches)
    while len(batches) % world_size and max(map(len, batches)) > 1:
        place = max(range(len(batches)), key=lambda index: len(batches[index]))
        middle = len(batches[place]) // 2
        batches[place : place + 1] = [batches[place][:middle], batches[place][middle:]]
    return batches


def windows(groups: Sequence[int]) -> list[list[int]]:
    """The clips of each ``WINDOW`` neighbouring shards, by index."""
    order = {group: place for place, group in enumerate(sorted(set(groups)))}
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(order[group] // WINDOW, []).append(index)
    return [members[window] for window in sorted(members)]


def make_buckets(
    seconds: Sequence[float], batch_seconds: float, max_batch: int, members: Sequence[int] | None = None
) -> list[Bucket]:
    """Indices of similar length and the batch size of each such bucket, from short to long; of all, or of some."""

    def size(longest: float) -> int:
        return max(1, min(max_batch, math.floor(batch_seconds / longest)))

    members = range(len(seconds)) if members is None else members
    buckets: list[Bucket] = []
    clips: list[int] = []
    for index in sorted(members, key=lambda index: (seconds[index], index)):
        if clips:
            longest = seconds[clips[-1]]
            if seconds[index] > SIMILAR * seconds[clips[0]] and len(clips) >= FULL_BATCHES * size(longest):
                buckets.append((clips, size(longest)))
                clips = []
        clips.append(index)
    buckets.append((clips, size(seconds[clips[-1]])))
    return [(clips, math.ceil(len(clips) / math.ceil(len(clips) / most))) for clips, most in buckets]
