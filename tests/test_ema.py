"""Averaged weights, by hand."""

import pytest
import torch
from torch import nn

from quartznet.ema import WeightAverage


def test_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = WeightAverage(model, 0.15)
    nn.init.constant_(model.weight, 1.0)
    average.update(model)  # decay min(0.15, 2 / 11) = 0.15
    assert average.weights["weight"].item() == pytest.approx(0.85)
    early = WeightAverage(model, 0.999)
    nn.init.constant_(model.weight, 12.0)
    early.update(model)  # decay min(0.999, 2 / 11) = 2 / 11
    assert early.weights["weight"].item() == pytest.approx(1 * 2 / 11 + 12 * 9 / 11)


def test_applied_puts_everything_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, 0.9)
    model(torch.randn(8, 2))  # moves the statistics and their counter
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied(model):
        assert model[1].num_batches_tracked == 0
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    average.update(model)
    assert average.weights["1.num_batches_tracked"] == 1


def test_state_comes_back() -> None:
    model = nn.Linear(2, 2)
    average, twin = WeightAverage(model, 0.9), WeightAverage(nn.Linear(2, 2), 0.9)
    average.update(model)
    twin.restore(average.state())
    assert twin.steps == 1 and torch.equal(twin.weights["bias"], average.weights["bias"])


def test_decay_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        WeightAverage(nn.Linear(1, 1), 1.0)
