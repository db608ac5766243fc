"""Keeping what the network knew: a pull towards the old weights, and the old answers as a second teacher.

L2-SP (arXiv:1802.01483) adds to every utterance's CTC loss, over the encoder's weights w and those at the start w0,

    l2sp / 2 * ||w - w0||^2

Learning without forgetting (arXiv:1606.09282) keeps the old output layer beside the new one. On the *new* audio the old
network says softmax(z0 / T) for each frame, and the tuned encoder under the old output layer should go on saying so:

    lwf * T^2 * sum over frames of KL(softmax(z0 / T) || softmax(z / T))

Both are nats for a whole utterance, as CTC is. Frames can be compared one by one because both networks have the same
stride. ``with_head`` puts the old output layer on the present encoder: so the old language is scored after the
alphabet has changed, and what it loses is the encoder's forgetting alone.

The surprise: the old output layer is never trained. If it were, it could follow the encoder wherever it drifts, and
agree with the old answers while the features for the old language are gone.
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quartznet.alphabet import Alphabet
from quartznet.layers import time_mask
from quartznet.model import Decoder, QuartzNet


def frozen_head(weights: Mapping[str, Tensor]) -> Decoder:
    """The output layer of a network's weights, which will not learn."""
    weight = weights["decoder.weight"]
    head = Decoder(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": weights["decoder.bias"]})
    return head.requires_grad_(False)


def with_head(model: QuartzNet, head: Decoder, labels: tuple[str, ...]) -> QuartzNet:
    """A second view of ``model``: the same front end and encoder, another output layer and its alphabet."""
    view = copy.copy(model)
    view._modules = {**model._modules, "decoder": head.to(model.device)}
    view.alphabet = Alphabet(labels)
    return view


def distance_loss(encoder: nn.Module, start: Mapping[str, Tensor]) -> Tensor:
    """``||w - w0||^2 / 2`` over the parameters that learn and have a beginning; a scalar, fp32."""
    total = next(encoder.parameters()).new_zeros(())
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad and name in start:
            total = total + (parameter - start[name]).square().sum()
    return total / 2


def divergence_loss(log_probs: Tensor, old_log_probs: Tensor, lengths: Tensor, temperature: float) -> Tensor:
    """``T^2 sum_t KL(old || new)`` of each utterance.

    Args:
        log_probs, old_log_probs: (batch, time, labels), log-softmax of the tuned and of the old network.
        lengths: (batch,) valid frames; later ones do not count.

    Returns:
        (batch,) in nats.
    """
    new, old = ((values / temperature).log_softmax(2) for values in (log_probs, old_log_probs))
    frames = F.kl_div(new, old, reduction="none", log_target=True).sum(2)  # (batch, time)
    valid = time_mask(lengths, frames.shape[1], frames.dtype)[:, 0, 0]
    return temperature**2 * (frames * valid).sum(1)


class Memory:
    """What a training remembers of the network that it began with, as an addition to its losses."""

    def __init__(self, base: QuartzNet, l2sp: float = 0.0, lwf: float = 0.0, temperature: float = 1.0) -> None:
        """``base`` is kept as it is; it should be on the device of the network that will be trained.

        Raises:
            ValueError: for negative weights or a temperature of 0 or less.
        """
        if min(l2sp, lwf) < 0 or temperature <= 0:
            raise ValueError(
                f"l2sp and lwf cannot be negative, temperature must be above 0: {l2sp}, {lwf}, {temperature}"
            )
        self.l2sp, self.lwf, self.temperature = l2sp, lwf, temperature
        self.base = base.eval().requires_grad_(False)
        self.start = dict(base.encoder.named_parameters())

    def losses(self, model: QuartzNet, encoded: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
        """What to add to the CTC losses.

        Args:
            model: in training.
            encoded: (batch, channels, 1, time), its encoder's output.
            features: (batch, mels, frames), what that was computed from, masks of augmentation included.
            lengths: (batch,) frames of the features that are real.

        Returns:
            (batch,), or a scalar where only L2-SP is on.
        """
        total = encoded.new_zeros((), dtype=torch.float32)
        if self.l2sp:
            total = total + self.l2sp * distance_loss(model.encoder, self.start)
        if self.lwf:
            with torch.no_grad():
                old, output_lengths = self.base.forward_features(features, lengths)
            new = self.base.decoder(encoded)[:, : old.shape[1]]
            total = total + self.lwf * divergence_loss(new, old, output_lengths, self.temperature)
        return total
