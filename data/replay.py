"""Old speech among the new: every epoch a share of its hours comes from corpora that the network must not forget.

    mixture = mix(spanish, [(english, 0.1)], seed=0)       # 10 % of the hours of each epoch are English

Rehearsing a little of the old data is the plainest remedy against forgetting, and hard to beat. An epoch has a *place*
for each new clip, where that clip comes in every epoch, and places for old clips, which take turns there: old clips are
sorted by length and dealt into as many strata as there are places, so the clips of one place are about equally long.

The surprise: a place is as long as the longest clip that may come there. So the sampler cuts the same batches in every
epoch, and its number of batches, on which the schedule and a resumed run rely, does not depend on whose turn it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from data.hashing import stable_hash
from data.manifest import Utterance


@dataclass(frozen=True)
class Mixture:
    """Which clip is heard at which place in which epoch."""

    clips: tuple[Utterance, ...]  # new ones, then old ones
    new: int  # how many are new
    places: tuple[tuple[int, ...], ...]  # for each place the clips that take turns
    seed: int = 0

    def __len__(self) -> int:
        return len(self.places)

    def clip(self, place: int, epoch: int) -> int:
        """The number of the clip whose turn it is; each of a place's n clips once in n epochs, in changing order."""
        turns = self.places[place]
        if len(turns) == 1:
            return turns[0]
        seed = stable_hash("replay", self.seed, place, epoch // len(turns))
        order = torch.randperm(len(turns), generator=torch.Generator().manual_seed(seed))
        return turns[int(order[epoch % len(turns)])]

    def hours(self) -> tuple[float, float]:
        """Of an epoch: the new speech, and the old speech at its mean over epochs."""
        seconds = [math.fsum(self.clips[number].duration for number in place) / len(place) for place in self.places]
        return math.fsum(seconds[: self.new]) / 3600, math.fsum(seconds[self.new :]) / 3600

    def longest(self) -> list[Utterance]:
        """For each place a clip of the longest duration that may come there: what the sampler makes batches of."""
        return [max((self.clips[number] for number in place), key=lambda clip: clip.duration) for place in self.places]


def strata(numbers: Sequence[int], durations: Sequence[float], count: int) -> list[tuple[int, ...]]:
    """``count`` groups of similar length that together hold every one of ``numbers`` as evenly as possible.

    With more groups than clips every clip has groups of its own, alone.
    """
    ordered = sorted(numbers, key=lambda number: (durations[number], number))
    if count >= len(ordered):
        return [(ordered[place * len(ordered) // count],) for place in range(count)]
    bounds = [place * len(ordered) // count for place in range(count + 1)]
    return [tuple(ordered[low:high]) for low, high in pairwise(bounds)]


def mix(new: Sequence[Utterance], old: Sequence[tuple[Sequence[Utterance], float]], seed: int = 0) -> Mixture:
    """New clips together with old ones, each old corpus with its share of the hours of an epoch.

    Args:
        new: clips with durations.
        old: corpora with their shares, each above 0, all together at most 0.9. A corpus at share s gets places
            for ``s / (1 - sum of shares)`` times the new hours; with fewer clips than places they come more than once.

    Raises:
        ValueError: for an old corpus without clips, or shares that leave nothing for the new one.
    """
    shares = [share for _, share in old]
    if any(share <= 0.0 for share in shares) or sum(shares) > 0.9:
        raise ValueError(f"the shares of replay must lie above 0 and add up to 0.9 at most, got {shares}")
    clips, places = list(new), [(number,) for number in range(len(new))]
    seconds = math.fsum(clip.duration for clip in new)
    for corpus, share in old:
        if not corpus:
            raise ValueError("a corpus to replay has no clips left; see the messages about clips left out")
        first = len(clips)
        clips += corpus
        mean = math.fsum(clip.duration for clip in corpus) / len(corpus)
        count = max(1, round(share / (1 - sum(shares)) * seconds / mean))
        places += strata(range(first, len(clips)), [clip.duration for clip in clips], count)
    return Mixture(tuple(clips), len(new), tuple(places), seed)
