"""Padding by hand, lengths in use, and batches in which clips failed."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from data.collate import collate
from data.dataset import Item
from quartznet.lengths import rounded_length


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


def test_signals_are_padded_to_few_lengths() -> None:
    assert collate([item([0.0] * 1001, [], "a")]).signal.shape == (1, rounded_length(1001))


def test_speeds_that_are_still_to_come() -> None:
    items = [replace(item([1] * 40, [], name), speed=speed) for name, speed in (("a", 0.9), ("b", 1.1))]
    batch = collate([items[0], broken("x"), items[1]])
    assert batch.speeds == (0.9, 1.1) and batch.host_lengths == (40, 40) and len(batch.skipped) == 1
    assert collate([item([1], [], "a")]).speeds is None
    assert collate([broken("a")]).at_speed().speeds is None
    with pytest.raises(ValueError, match="1 of 2 items are still to be played at a speed; give it to all or none"):
        collate([items[0], item([1], [], "b")])
