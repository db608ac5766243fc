"""A running average of the weights: smoother than the last step, often a little better on the dev set.

``average = d * average + (1 - d) * weights`` after every step, with ``d = min(decay, (1 + n) / (10 + n))`` at step n,
so that the average forgets the random start quickly. Batch-norm statistics are averaged like weights, because they
belong to them; counters are copied. The surprise: the average has no gradient, no optimiser and no influence on
training; it takes the network's place only while it is evaluated or saved.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of ``model``'s state; ``update`` after each optimiser step, ``applied`` to evaluate with it."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """``decay`` in (0, 1): 0.999 remembers about the last 1000 steps."""
        if not 0.0 < decay < 1.0:
            raise ValueError(f"the decay of averaged weights must lie between 0 and 1, got {decay}")
        self.decay = decay
        self.steps = 0
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the present weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        pairs = [(self.weights[name], value) for name, value in model.state_dict().items()]
        floats = [pair for pair in pairs if pair[1].is_floating_point()]
        counters = [pair for pair in pairs if not pair[1].is_floating_point()]
        if floats:  # on a GPU one launch for 64 tensors, not one for each
            torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), 1 - decay)
        if counters:
            torch._foreach_copy_(*map(list, zip(*counters, strict=True)))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside the ``with`` block ``model`` holds the averaged weights; afterwards its own again, bit for bit."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "weights": self.weights}

    def restore(self, state: dict) -> None:
        """Continues from ``state``; the tensors are copied onto the device of the present ones."""
        self.steps = state["steps"]
        for name, value in self.weights.items():
            value.copy_(state["weights"][name])
