"""The smoothed loss: by hand, against NeMo's formula written out, against PyTorch's own, and what does not count."""

import math

import pytest
import torch
from tiny_bert import TOKENS, tiny_corrector
from torch.nn import functional

from postcorrect.loss import smoothed_losses, token_losses


def test_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]])  # P = 1/2, 1/4, 1/4
    share = 0.2 * 3 / 2
    mean = (math.log(0.5) + 2 * math.log(0.25)) / 3
    wanted = -((1 - share) * math.log(0.5) + share * mean)
    assert smoothed_losses(logits, torch.tensor([0]), 0.2).item() == pytest.approx(wanted, abs=1e-6)


def test_the_right_token_keeps_one_minus_e_of_the_target() -> None:
    """The gradient by the scores is P - target; NeMo's V / (V - 1) makes the target 1 - e at the right token."""
    logits = torch.randn(1, 11, requires_grad=True)
    smoothed_losses(logits, torch.tensor([4]), 0.1).sum().backward()
    target = logits.detach().softmax(-1) - logits.grad
    assert target[0, 4].item() == pytest.approx(0.9, abs=1e-6)
    assert target[0, :4].tolist() == pytest.approx([0.01] * 4, abs=1e-6)


def test_without_smoothing_it_is_cross_entropy() -> None:
    logits, targets = torch.randn(7, 13), torch.randint(13, (7,))
    plain = functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(smoothed_losses(logits, targets, 0.0), plain)


def test_half_precision_is_computed_in_fp32() -> None:
    logits, targets = torch.randn(7, 13).bfloat16(), torch.randint(13, (7,))
    found = smoothed_losses(logits, targets, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, smoothed_losses(logits.float(), targets, 0.1))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_impossible_smoothing_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label smoothing must be in"):
        smoothed_losses(torch.randn(1, 3), torch.tensor([0]), smoothing)


def test_padding_has_no_loss_and_changes_none() -> None:
    corrector = tiny_corrector()
    source, target = torch.randint(5, len(TOKENS), (1, 6)), torch.randint(5, len(TOKENS), (1, 4))
    alone = token_losses(corrector, source, source > 0, target, target > 0, 0.1)
    assert alone.shape == (3,)
    wide = torch.zeros(2, 9, dtype=torch.long)
    wide[0, :6], wide[1, :9] = source, 7
    long = torch.zeros(2, 8, dtype=torch.long)
    long[0, :4], long[1, :8] = target, 9
    both = token_losses(corrector, wide, wide > 0, long, long > 0, 0.1)
    torch.testing.assert_close(both[:3], alone, atol=1e-5, rtol=1e-5)
    assert both.shape == (3 + 7,)
