"""Losses over sampled paths, against the exact ones of tiny problems."""

import math

import pytest
import torch
from enumeration import all_paths, path_probabilities
from test_sequence import BLANK, FRAMES, cost, exact_gradient, exact_risk, gradient
from torch import Tensor

from quartznet.ctc import greedy_ids
from quartznet.sequence import (
    leave_one_out,
    path_errors,
    path_log_probs,
    path_losses,
    policy_losses,
    sample_paths,
)


def test_path_log_probs_are_sums_over_the_valid_frames() -> None:
    log_probs = torch.randn(2, 5, 4).log_softmax(-1)
    paths = torch.randint(0, 4, (2, 7, 5))
    found = path_log_probs(log_probs, torch.tensor([5, 2]), paths)
    for row, length in ((0, 5), (1, 2)):
        for sample in range(7):
            expected = sum(log_probs[row, time, paths[row, sample, time]].item() for time in range(length))
            assert found[row, sample].item() == pytest.approx(expected, rel=1e-5)


def test_path_errors_read_the_text_of_each_path() -> None:
    paths = torch.tensor([[[1, 1, 0, 2, 2], [3, 3, 3, 3, 3]], [[1, 3, 1, 1, 2], [2, 0, 2, 0, 2]]])
    seen = []

    def errors(index: int, text: list[int]) -> float:
        seen.append((index, text))
        return 10.0 * index + len(text)

    costs = path_errors(paths, torch.tensor([5, 4]), errors, BLANK)
    assert costs.tolist() == [[3, 0], [12, 14]]
    assert seen == [(0, [1, 0, 2]), (0, []), (1, [1, 1]), (1, [2, 0, 2, 0])]


def test_leave_one_out_by_hand() -> None:
    assert leave_one_out(torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])).tolist() == [[4.0, 3.5, 1.5], [4, 4, 4]]


def test_sampled_paths_have_the_frequencies_of_the_network() -> None:
    log_probs = torch.randn(2, 3, 4).log_softmax(-1)
    paths = sample_paths(log_probs, 20_000, torch.Generator().manual_seed(0))
    assert paths.shape == (2, 20_000, 3)
    shares = torch.nn.functional.one_hot(paths, 4).float().mean(dim=1)
    torch.testing.assert_close(shares, log_probs.exp(), rtol=0, atol=4 * math.sqrt(0.25 / 20_000))


def test_the_expected_gradient_with_the_greedy_baseline_is_exact() -> None:
    """The expectation is summed over all 1024 paths, each weighted by its probability."""
    logits = torch.randn(5, 4)
    paths = all_paths(5, 4).unsqueeze(1)  # (1024, 1 sample, 5): an utterance for each path
    rows = logits.expand(1024, 5, 4)
    lengths = torch.full((1024,), 5)
    advantages = path_errors(paths, lengths, cost, BLANK) - cost(0, greedy_ids(logits[None], FRAMES, BLANK)[0])
    weights = path_probabilities(logits, paths.squeeze(1)).unsqueeze(1).unsqueeze(2)
    each = gradient(lambda log_probs: path_losses(log_probs, lengths, paths, advantages), rows)
    torch.testing.assert_close((weights * each).sum(dim=0), exact_gradient(logits), rtol=0, atol=1e-6)


def test_the_expected_gradient_with_leave_one_out_is_exact() -> None:
    """The expectation is summed over all 64 x 64 pairs of paths that two samples may be."""
    logits = torch.randn(3, 4)
    paths = all_paths(3, 4)
    first, second = torch.cartesian_prod(torch.arange(64), torch.arange(64)).T
    pairs = torch.stack([paths[first], paths[second]], dim=1)  # (4096, 2, 3)
    lengths = torch.full((4096,), 3)
    costs = path_errors(pairs, lengths, cost, BLANK)
    probabilities = path_probabilities(logits, paths)
    weights = (probabilities[first] * probabilities[second]).unsqueeze(1).unsqueeze(2)
    rows = logits.expand(4096, 3, 4)
    each = gradient(lambda x: path_losses(x, lengths, pairs, costs - leave_one_out(costs)), rows)
    torch.testing.assert_close((weights * each).sum(dim=0), exact_gradient(logits), rtol=0, atol=1e-6)


@pytest.mark.parametrize("baseline", ["leave-one-out", "greedy"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampled_gradients_agree_within_their_standard_error(baseline: str, temperature: float) -> None:
    logits = torch.randn(5, 4)
    draws = 4000
    rows, lengths = logits.expand(draws, 5, 4), torch.full((draws,), 5)
    generator = torch.Generator().manual_seed(1)
    each = gradient(
        lambda x: policy_losses(x, lengths, cost, BLANK, generator, 4, temperature, baseline), rows
    )  # (draws, 5, 4)
    sharp = (logits.double() / temperature).requires_grad_()
    exact_risk(sharp).backward()
    expected = sharp.grad.float() / temperature
    errors = each.std(dim=0) / math.sqrt(draws)
    z = (each.mean(dim=0) - expected) / errors
    assert errors.max() < 0.1 * expected.abs().max()  # else the test would say nothing
    assert z.abs().max() < 4  # of 20 numbers; by chance in 1 of 800 seeds


@pytest.mark.parametrize("baseline", ["leave-one-out", "greedy"])
def test_equal_errors_give_no_gradient(baseline: str) -> None:
    def losses(log_probs: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return policy_losses(log_probs, torch.tensor([5, 3]), lambda *_: 0.7, BLANK, generator, 4, 1.0, baseline)

    found = gradient(losses, torch.randn(2, 5, 4))
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-6)


def test_baselines_make_the_gradient_less_noisy() -> None:
    logits, lengths = torch.randn(1, 5, 4).expand(500, 5, 4), torch.full((500,), 5)
    paths = sample_paths(logits.log_softmax(-1), 4, torch.Generator().manual_seed(2))
    costs = path_errors(paths, lengths, cost, BLANK)
    greedy = cost(0, greedy_ids(logits[:1], FRAMES, BLANK)[0])
    bare, other, against_greedy = (
        gradient(lambda log_probs, base=base: path_losses(log_probs, lengths, paths, costs - base), logits)
        .var(dim=0)
        .sum()
        .item()
        for base in (0.0, leave_one_out(costs), greedy)
    )
    assert other < 0.7 * bare and against_greedy < 0.7 * bare, (bare, other, against_greedy)


def test_the_same_generator_draws_the_same_paths() -> None:
    log_probs = torch.randn(2, 5, 4).log_softmax(-1)
    lengths = torch.tensor([5, 4])
    values = [policy_losses(log_probs, lengths, cost, BLANK, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_baselines_that_cannot_be() -> None:
    log_probs = torch.randn(1, 5, 4).log_softmax(-1)
    with pytest.raises(ValueError, match="baseline must be leave-one-out or greedy, got 'mean'"):
        policy_losses(log_probs, FRAMES, cost, BLANK, torch.Generator(), baseline="mean")
    with pytest.raises(ValueError, match="leave-one-out compares samples and needs at least 2, got 1"):
        policy_losses(log_probs, FRAMES, cost, BLANK, torch.Generator(), samples=1)
    assert policy_losses(log_probs, FRAMES, cost, BLANK, torch.Generator(), 1, 1.0, "greedy").shape == (1,)
