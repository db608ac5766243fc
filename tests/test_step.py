"""When a step is left out; the rest of a step is tested with the loop."""

import math

import torch

from quartznet.step import find_problem


def test_every_rank_sees_the_same_problem() -> None:
    """A rank without clips, while the others have some whose losses happen to sum to zero, is no problem."""
    nothing = torch.zeros(0)
    assert find_problem(nothing, 0.0, 3.0, [], 1.0, 1.0) == ("", [])
    assert find_problem(nothing, 0.0, 0.0, [], 0.0, 1.0) == ("no clip could be loaded", [])
    assert find_problem(nothing, math.nan, 3.0, [], 1.0, 1.0) == ("the loss is nan", [])


def test_the_clips_to_blame_are_named() -> None:
    losses = torch.tensor([1.0, math.inf])
    assert find_problem(losses, math.inf, 2.0, ["a", "b"], 1.0, 1.0) == ("the loss is inf", ["b"])
    assert find_problem(losses, 1.0, 2.0, ["a", "b"], math.nan, 1.0) == ("the norm of the gradient is nan", ["a", "b"])


def test_the_loss_scale_may_fall_but_not_for_ever() -> None:
    losses = torch.ones(1)
    assert find_problem(losses, 1.0, 1.0, ["a"], math.inf, 65536.0) == ("", [])
    assert find_problem(losses, 1.0, 1.0, ["a"], math.inf, 0.5)[0] == "the norm of the gradient is inf"
