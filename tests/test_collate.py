"""Padding by hand, lengths in use, and batches in which clips failed."""

import torch
from torch.testing import assert_close

from data.collate import collate, rounded_length
from data.dataset import Item


def item(samples: list[float], letters: list[int], name: str) -> Item:
    signal, target = torch.tensor(samples, dtype=torch.float32), torch.tensor(letters, dtype=torch.int64)
    return Item(signal, target, f"text {name}", name)


def broken(name: str) -> Item:
    return Item(torch.zeros(0), torch.zeros(0, dtype=torch.int64), "", name, f"m:1: {name} is broken")


def test_by_hand() -> None:
    batch = collate([item([1, 2, 3], [5], "a"), broken("b"), item([4], [6, 7], "c")])
    assert_close(batch.signal, torch.tensor([[1.0, 2, 3], [4, 0, 0]]))
    assert_close(batch.targets, torch.tensor([[5, 0], [6, 7]]))
    assert_close(batch.signal_lengths, torch.tensor([3, 1]))
    assert_close(batch.target_lengths, torch.tensor([1, 2]))
    assert (batch.texts, batch.names, batch.skipped) == (["text a", "text c"], ["a", "c"], ["m:1: b is broken"])


def test_everything_failed() -> None:
    batch = collate([broken("a"), broken("b")])
    assert len(batch) == 0 and len(batch.skipped) == 2
    assert batch.signal.shape == batch.targets.shape == (0, 0)


def test_lengths_are_few_and_little_longer() -> None:
    assert [rounded_length(n) for n in (0, 1, 31, 32, 33, 34, 63, 64, 65)] == [0, 1, 31, 32, 34, 34, 64, 64, 68]
    lengths = {n: rounded_length(n) for n in range(8_000, 256_001, 7)}
    assert all(n <= padded <= n * 17 / 16 for n, padded in lengths.items())
    assert len(set(lengths.values())) == 5 * 16 + 1  # 8192 to 262144
    assert collate([item([0.0] * 1001, [], "a")]).signal.shape == (1, rounded_length(1001))
