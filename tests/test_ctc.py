"""CTC against the sum over every path, on problems small enough to enumerate them all."""

import itertools
import math

import pytest
import torch

from quartznet.alphabet import Alphabet
from quartznet.ctc import ctc_loss, ctc_losses, frames_needed, greedy_decode, greedy_ids

BLANK = 2


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def loss_by_enumeration(log_probs: torch.Tensor, target: tuple[int, ...], blank: int) -> float:
    """-log of the summed probability of all paths that read as ``target``; log_probs (time, labels)."""
    time, labels = log_probs.shape
    probability = sum(
        math.exp(sum(log_probs[frame, label].item() for frame, label in enumerate(path)))
        for path in itertools.product(range(labels), repeat=time)
        if collapse(path, blank) == target
    )
    return -math.log(probability) if probability > 0 else math.inf


def random_log_probs(batch: int, time: int, labels: int = 3) -> torch.Tensor:
    return torch.randn(batch, time, labels).log_softmax(dim=-1)


@pytest.mark.parametrize("target", [(0,), (1, 0), (0, 0), (1, 1, 0), ()])
def test_loss_is_the_sum_over_all_paths(target: tuple[int, ...]) -> None:
    log_probs = random_log_probs(2, 5)
    lengths = torch.tensor([5, 4])
    targets = torch.tensor([[*target, 0]] * 2)  # one letter of padding
    losses = ctc_losses(log_probs, lengths, targets, torch.tensor([len(target)] * 2), BLANK)
    expected = [loss_by_enumeration(log_probs[row, : lengths[row]], target, BLANK) for row in range(2)]
    torch.testing.assert_close(losses, torch.tensor(expected))


def test_blank_may_be_any_label() -> None:
    log_probs = random_log_probs(1, 4)
    loss = ctc_loss(log_probs, torch.tensor([4]), torch.tensor([[1, 2]]), torch.tensor([2]), blank=0)
    assert loss.item() == pytest.approx(loss_by_enumeration(log_probs[0], (1, 2), 0), rel=1e-5)


def test_mean_over_the_batch_not_over_letters() -> None:
    log_probs = random_log_probs(2, 6)
    lengths, targets, target_lengths = torch.tensor([6, 6]), torch.tensor([[0, 1, 0], [1, 0, 0]]), torch.tensor([3, 1])
    expected = [loss_by_enumeration(log_probs[0], (0, 1, 0), BLANK), loss_by_enumeration(log_probs[1], (1,), BLANK)]
    loss = ctc_loss(log_probs, lengths, targets, target_lengths, BLANK)
    assert loss.item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_impossible_text_is_zero_and_stays_in_the_denominator() -> None:
    logits = torch.randn(2, 3, 3, requires_grad=True)
    lengths, targets, target_lengths = torch.tensor([3, 2]), torch.tensor([[0, 1], [1, 1]]), torch.tensor([2, 2])
    losses = ctc_losses(logits.log_softmax(-1), lengths, targets, target_lengths, BLANK)
    assert losses[0] > 0 and losses[1] == 0
    loss = ctc_loss(logits.log_softmax(-1), lengths, targets, target_lengths, BLANK)
    assert loss.item() == pytest.approx(losses[0].item() / 2)
    loss.backward()
    assert logits.grad[0].abs().sum() > 0 and logits.grad[1].abs().sum() == 0
    strict = ctc_losses(logits.log_softmax(-1), lengths, targets, target_lengths, BLANK, zero_infinity=False)
    assert strict[1] == math.inf


def test_padded_frames_and_letters_never_matter() -> None:
    logits = torch.randn(1, 5, 3, requires_grad=True)
    lengths, target_lengths = torch.tensor([5]), torch.tensor([2])
    loss = ctc_loss(logits.log_softmax(-1), lengths, torch.tensor([[0, 1]]), target_lengths, BLANK)
    loss.backward()
    padded = torch.cat([logits.detach(), 100 * torch.randn(1, 4, 3)], dim=1).requires_grad_()
    padded_loss = ctc_loss(padded.log_softmax(-1), lengths, torch.tensor([[0, 1, 1, 0]]), target_lengths, BLANK)
    padded_loss.backward()
    assert torch.equal(loss, padded_loss)
    assert torch.equal(padded.grad[:, :5], logits.grad)
    assert padded.grad[:, 5:].abs().sum() == 0


def test_half_precision_is_lifted_to_fp32() -> None:
    log_probs = random_log_probs(1, 4).bfloat16()
    loss = ctc_loss(log_probs, torch.tensor([4]), torch.tensor([[0]]), torch.tensor([1]), BLANK)
    assert loss.dtype == torch.float32


def test_gradient_equals_finite_differences() -> None:
    logits = torch.randn(1, 3, 3, dtype=torch.float64)
    lengths, targets, target_lengths = torch.tensor([3]), torch.tensor([[0]]), torch.tensor([1])
    variable = logits.clone().requires_grad_()
    ctc_loss(variable.log_softmax(-1), lengths, targets, target_lengths, BLANK).backward()
    step = 1e-5
    for frame, label in itertools.product(range(3), range(3)):
        shifted = logits.clone()
        shifted[0, frame, label] += step
        up = loss_by_enumeration(shifted.log_softmax(-1)[0], (0,), BLANK)
        shifted[0, frame, label] -= 2 * step
        down = loss_by_enumeration(shifted.log_softmax(-1)[0], (0,), BLANK)
        assert variable.grad[0, frame, label].item() == pytest.approx((up - down) / (2 * step), abs=1e-5)


def test_frames_needed_by_hand() -> None:
    assert [frames_needed(ids) for ids in ([], [4], [4, 5], [4, 4], [1, 1, 1, 2])] == [0, 1, 2, 3, 6]


def test_frames_needed_is_the_shortest_path() -> None:
    for target in [(0,), (0, 0), (0, 1, 1), (0, 0, 0), (1, 0, 1)]:
        shortest = next(
            time
            for time in itertools.count()
            if any(collapse(path, BLANK) == target for path in itertools.product(range(3), repeat=time))
        )
        assert frames_needed(target) == shortest


def test_greedy_by_hand() -> None:
    path = torch.tensor([[2, 0, 0, 2, 0, 1, 1, 2]])
    log_probs = torch.nn.functional.one_hot(path, 3).float()
    assert greedy_ids(log_probs, torch.tensor([8]), BLANK) == [[0, 0, 1]]
    assert greedy_ids(log_probs, torch.tensor([3]), BLANK) == [[0]]
    assert greedy_ids(log_probs, torch.tensor([0]), BLANK) == [[]]


def test_greedy_equals_groupby() -> None:
    log_probs = random_log_probs(50, 30, labels=4)
    lengths = torch.randint(0, 31, (50,))
    for blank in (0, 3):
        expected = [
            list(collapse(tuple(row.argmax(-1).tolist())[:length], blank))
            for row, length in zip(log_probs, lengths.tolist(), strict=True)
        ]
        assert greedy_ids(log_probs, lengths, blank) == expected


def test_greedy_decode_reads_letters() -> None:
    alphabet = Alphabet(("a", "b"))
    path = torch.tensor([[0, 2, 0, 1], [1, 1, 2, 2]])
    log_probs = torch.nn.functional.one_hot(path, 3).float()
    assert greedy_decode(log_probs, torch.tensor([4, 2]), alphabet) == ["aab", "b"]
