"""Whatever the corpus, the budget and the number of processes: properties of the sampler that must always hold."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.collate import collate
from data.dataset import Item
from data.samplers import BucketSampler

SECONDS = st.lists(st.floats(0.05, 30.0), min_size=1, max_size=60)
BUDGET = st.floats(0.5, 200.0)
PROCESSES = st.integers(1, 9)
SPEED = st.sampled_from([0.8, 0.9, 1.0])
FEW = settings(max_examples=150, deadline=None, derandomize=True)


def shares(seconds: list[float], budget: float, processes: int, **options: object) -> list[list[list[int]]]:
    """The batches of every process."""
    every = [BucketSampler(seconds, budget, rank=rank, world_size=processes, **options) for rank in range(processes)]
    for sampler in every:
        sampler.set_epoch(options.get("seed", 0) % 3)
    return [list(sampler) for sampler in every]


def flat(batches: list[list[int]]) -> list[int]:
    return sorted(index for batch in batches for index in batch)


@FEW
@given(SECONDS, BUDGET, PROCESSES, st.integers(0, 5), st.booleans())
def test_every_clip_once_an_epoch_over_any_number_of_processes(
    seconds: list[float], budget: float, processes: int, seed: int, sharded: bool
) -> None:
    groups = [index // 3 for index in range(len(seconds))] if sharded else None
    found = shares(seconds, budget, processes, seed=seed, groups=groups)
    assert len({len(share) for share in found}) == 1
    batches = [batch for share in found for batch in share]
    if len(seconds) >= len(batches):
        assert flat(batches) == list(range(len(seconds)))
    else:  # not one clip for each batch of each process
        assert set(flat(batches)) == set(range(len(seconds))) and len(batches) < len(seconds) + processes


@FEW
@given(SECONDS, BUDGET, PROCESSES, SPEED, st.sampled_from([8000, 16000]))
def test_no_batch_is_larger_than_the_budget(
    seconds: list[float], budget: float, processes: int, speed: float, rate: int
) -> None:
    """Counted in the padded samples that ``collate`` really makes."""
    for share in shares(seconds, budget, processes, longest_speed_factor=1 / speed, sample_rate=rate):
        for batch in share:
            lengths = [int(seconds[index] * rate / speed) + 1 for index in batch]
            nothing = torch.zeros(0, dtype=torch.int64)
            items = [Item(torch.zeros(1).expand(length), nothing, "", "") for length in lengths]
            padded = collate(items).signal.shape
            assert len(batch) == 1 or padded[0] * padded[1] / rate <= budget * (1 + 1e-9)


@FEW
@given(SECONDS, BUDGET, PROCESSES, st.integers(0, 3), st.data())
def test_resuming_anywhere_gives_the_same_remaining_batches(
    seconds: list[float], budget: float, processes: int, epoch: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, processes - 1))
    whole, resumed = (BucketSampler(seconds, budget, rank=rank, world_size=processes) for _ in range(2))
    whole.set_epoch(epoch)
    batches = list(whole)
    start = data.draw(st.integers(0, len(batches)))
    resumed.set_epoch(epoch)
    resumed.start_at(start)
    assert list(resumed) == batches[start:]
    assert len(resumed) == len(whole) == len(batches)


@FEW
@given(SECONDS, BUDGET)
def test_evaluation_goes_from_short_to_long(seconds: list[float], budget: float) -> None:
    batches = list(BucketSampler(seconds, budget, shuffle=False))
    assert flat(batches) == list(range(len(seconds)))
    order = [seconds[index] for batch in batches for index in batch]
    assert all(left <= right * 17 / 16 + 0.001 for left, right in itertools.pairwise(order))
