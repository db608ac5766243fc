"""Batches by seconds: sizes, coverage, order, processes, and going on in the middle of an epoch."""

import itertools
import random

import pytest

from data.samplers import FULL_BATCHES, SIMILAR, WINDOW, BucketSampler, TokenSampler, even, padded_seconds

DURATIONS = [round(random.Random(index).uniform(0.5, 16.0), 3) for index in range(500)]


def flat(batches: list[list[int]]) -> list[int]:
    return sorted(index for batch in batches for index in batch)


def test_by_hand() -> None:
    durations = [2.0, 1.0, 1.1, 1.0, 2.0, 2.0, 1.0, 9.0]
    sampler = BucketSampler(durations, batch_seconds=2.4, shuffle=False)
    assert sampler.windows == [[([1, 3, 6, 2], 2), ([0, 4, 5], 1), ([7], 1)]]
    assert list(sampler) == [[1, 3], [6, 2], [0], [4], [5], [7]]
    assert len(sampler) == 6


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_clip_once_within_the_seconds(shuffle: bool) -> None:
    sampler = BucketSampler(DURATIONS, 60.0, max_batch=20, shuffle=shuffle, longest_speed_factor=1 / 0.9)
    batches = list(sampler)
    assert flat(batches) == list(range(500)) and len(batches) == len(sampler)
    assert all(max(DURATIONS[index] for index in batch) / 0.9 * len(batch) <= 60 for batch in batches)
    assert max(map(len, batches)) == 20


def test_few_shapes_and_little_padding() -> None:
    sampler = BucketSampler(DURATIONS, 20.0)
    for clips, size in sampler.windows[0]:
        seconds = [sampler.seconds[index] for index in clips]
        assert size * max(seconds) <= 20
        full_before_the_last = FULL_BATCHES * int(20 / sorted(seconds)[-2])
        assert max(seconds) <= SIMILAR * min(seconds) or len(clips) <= full_before_the_last
    padded = sum(len(batch) * max(DURATIONS[index] for index in batch) for batch in sampler)
    assert padded < 1.1 * sum(DURATIONS)


def test_the_last_batch_of_a_bucket_is_no_crumb() -> None:
    assert [len(batch) for batch in BucketSampler([1.0] * 27, 27.0, shuffle=False)] == [14, 13]
    assert [len(batch) for batch in BucketSampler([1.0] * 10, 4.1, shuffle=False)] == [4, 4, 2]


def test_padding_counts() -> None:
    """One second is 16,000 samples and padded to 16,384: four of them need 4.096 s."""
    assert [len(batch) for batch in BucketSampler([1.0] * 10, 4.09, shuffle=False)] == [3, 3, 3, 1]
    assert padded_seconds(1.0, 16000) == 1.024 and padded_seconds(1.0, 8000) == 8192 / 8000


def test_the_largest_batches_come_first_in_the_first_epoch() -> None:
    def padded(batch: list[int]) -> float:
        return len(batch) * max(map(sampler.seconds.__getitem__, batch))

    for world_size in (1, 2):
        sampler = BucketSampler(DURATIONS, 60.0, world_size=world_size)
        batches = sampler._all_batches()
        largest = sorted(map(padded, batches))[-world_size:]
        assert sorted(map(padded, batches[:world_size])) == largest
        assert next(iter(sampler)) == batches[0]
        sampler.set_epoch(1)
        assert padded(next(iter(sampler))) < largest[0]


def test_even_by_hand() -> None:
    assert even([[1, 2, 3], [4]], 2) == [[1, 2, 3], [4]]
    assert even([[1, 2, 3], [4, 5]], 3) == [[1], [2, 3], [4, 5]]
    assert even([[1], [2]], 3) == [[1], [2]]


def test_shards_are_read_one_window_after_the_other() -> None:
    groups = [index // 10 for index in range(500)]  # 50 shards, windows of 8
    sampler = BucketSampler(DURATIONS, 60.0, groups=groups)
    batches = list(sampler)
    assert flat(batches) == list(range(500)) and len(batches) == len(sampler)
    order = [{groups[index] // WINDOW for index in batch} for batch in batches]
    assert all(len(seen) == 1 for seen in order)
    sequence = [seen.pop() for seen in order][1:]  # the largest batch comes first
    assert sum(left != right for left, right in itertools.pairwise(sequence)) <= 7
    sampler.set_epoch(1)
    assert len(list(sampler)) == len(batches)
    assert [groups[batch[0]] // WINDOW for batch in sampler] != [groups[batch[0]] // WINDOW for batch in batches]


def test_a_small_corpus_still_fills_batches() -> None:
    sampler = BucketSampler(DURATIONS[:40], 160.0)
    assert len(sampler) <= 5


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def epoch(seed: int, number: int) -> list[list[int]]:
        sampler = BucketSampler(DURATIONS, 60.0, seed=seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(0, 3) == epoch(0, 3)
    assert epoch(0, 3) != epoch(0, 4) and epoch(0, 3) != epoch(1, 3)
    assert {tuple(sorted(batch)) for batch in epoch(0, 3)} != {tuple(sorted(batch)) for batch in epoch(0, 4)}
    assert flat(epoch(0, 4)) == list(range(500))


@pytest.mark.parametrize("rank", [0, 1])
def test_resumes_in_the_middle_of_an_epoch(rank: int) -> None:
    whole = BucketSampler(DURATIONS, 60.0, seed=5, rank=rank, world_size=2)
    whole.set_epoch(7)
    batches = list(whole)
    again = BucketSampler(DURATIONS, 60.0, seed=5, rank=rank, world_size=2)
    again.set_epoch(7)
    again.start_at(4)
    assert list(again) == batches[4:] and len(again) == len(batches)
    again.start_at(len(batches))
    assert list(again) == []
    again.set_epoch(7)
    assert list(again) == batches


@pytest.mark.parametrize("world_size", [2, 3, 7, 64])
def test_processes_share_evenly_and_lose_nothing(world_size: int) -> None:
    samplers = [BucketSampler(DURATIONS[:50], 60.0, rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    batches = [tuple(batch) for share in shares for batch in share]
    assert set(flat(batches)) == set(range(50))
    if world_size <= 50:
        assert flat(batches) == list(range(50))  # and nothing comes twice


def test_a_clip_longer_than_the_batch_is_a_batch() -> None:
    assert list(BucketSampler([100.0], 60.0)) == [[0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"durations": []}, "no clips to make batches of"),
        ({"durations": [1.0, 0.0]}, "clip 1 has duration 0.0"),
        ({"durations": [float("nan")]}, "clip 0 has duration nan"),
        ({"batch_seconds": 0.0}, "batch_seconds > 0"),
        ({"max_batch": 0}, "max_batch >= 1"),
        ({"longest_speed_factor": 0.0}, "longest_speed_factor > 0"),
        ({"groups": [1, 2]}, "1 clips but 2 groups"),
        ({"rank": 2, "world_size": 2}, r"rank must lie in \[0, 2\), got 2"),
    ],
)
def test_impossible_settings(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BucketSampler(**{"durations": [1.0], "batch_seconds": 10.0} | change)


def test_impossible_start() -> None:
    with pytest.raises(ValueError, match="cannot start at batch 2 of an epoch of 1 batches"):
        BucketSampler([1.0], 10.0).start_at(2)


def test_batches_of_text_are_full_and_never_too_large() -> None:
    dice = random.Random(1)
    lengths = [dice.randint(3, 60) for _ in range(500)]
    batches = list(TokenSampler(lengths, tokens=256, seed=3))
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    padded = [len(batch) * max(lengths[index] for index in batch) for batch in batches]
    assert max(padded) <= 256 and sum(lengths) > 0.8 * sum(padded)
    assert list(TokenSampler([300], tokens=256)) == [[0]]  # too long for any batch: one of its own


@pytest.mark.parametrize(("lengths", "tokens", "message"), [([], 9, "of at least one token"), ([3], 0, "got 0")])
def test_impossible_batches_of_text_are_refused(lengths: list[int], tokens: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenSampler(lengths, tokens)
