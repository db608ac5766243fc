"""Losses on the expected error rate against the exact one, summed over every path of tiny problems."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from enumeration import all_paths, collapse, path_probabilities, text_probabilities
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.config import BlockConfig, ModelConfig
from quartznet.ctc import ctc_losses
from quartznet.metrics import error_counts
from quartznet.model import QuartzNet
from quartznet.sequence import (
    best_texts,
    error_rate,
    mwer_losses,
    policy_losses,
    sequence_losses,
    split_units,
    split_words,
    text_log_probs,
)
from quartznet.tune_config import SequenceSettings

ALPHABET = Alphabet((" ", "a", "b"))
BLANK = 3
REFERENCE = [1, 0, 2]  # "a b"
FRAMES = torch.tensor([5])


def cost(index: int, text: list[int] | tuple[int, ...]) -> float:
    """The error rate in characters against ``REFERENCE``."""
    return error_rate(REFERENCE, text, "character", 0)


def exact_risk(logits: Tensor, blank: int = BLANK, errors: Callable[[int, tuple], float] = cost) -> Tensor:
    """sum over all paths of p(path) W, differentiable; logits (time, labels)."""
    paths = all_paths(*logits.shape)
    costs = torch.tensor([errors(0, collapse(tuple(path), blank)) for path in paths.tolist()], dtype=logits.dtype)
    return (path_probabilities(logits, paths) * costs).sum()


def exact_gradient(logits: Tensor) -> Tensor:
    logits = logits.detach().double().requires_grad_()
    exact_risk(logits).backward()
    return logits.grad.float()


def gradient(losses: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Of the summed ``losses(log_probs)`` with respect to ``logits``."""
    logits = logits.detach().clone().requires_grad_()
    losses(logits.log_softmax(-1)).sum().backward()
    return logits.grad


# ---------------------------------------------------------------------------------------------------------------------
# Errors


def test_units_by_hand() -> None:
    assert split_words([0, 1, 2, 0, 0, 1, 0], 0) == [(1, 2), (1,)]
    assert split_words([], 0) == split_words([0, 0], 0) == []
    assert split_units([0, 1, 2, 0, 0, 1, 0], "character", 0) == [1, 2, 0, 1]
    assert split_units([2, 1], "character", None) == [2, 1] and split_units([], "character", None) == []


def test_error_rates_by_hand() -> None:
    assert error_rate([1, 0, 2], [1, 0, 1], "word", 0) == 0.5
    assert error_rate([1, 0, 2], [1, 0, 1], "character", 0) == pytest.approx(1 / 3)
    assert error_rate([1, 0, 2], [], "word", 0) == 1.0
    assert error_rate([1], [1, 0, 1, 0, 1], "word", 0) == 2.0
    assert error_rate([], [], "word", 0) == 0.0
    assert error_rate([], [1, 2, 0, 1], "word", 0) == 2.0 and error_rate([0], [1, 2], "character", 0) == 2.0


@pytest.mark.parametrize("unit", ["word", "character"])
def test_error_rates_are_those_of_evaluation(unit: str) -> None:
    draw = random.Random(0)
    pairs = [["".join(draw.choices("  ab", k=draw.randrange(1, 15))) for _ in range(2)] for _ in range(100)]
    for said, heard in pairs:
        [counts] = error_counts([said], [heard], unit)
        expected = counts.errors / max(1, counts.reference_length)
        assert error_rate(ALPHABET.encode(said), ALPHABET.encode(heard), unit, 0) == pytest.approx(expected)


def test_units_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="unit must be word or character, got 'phone'"):
        error_rate([1], [1], "phone", 0)
    with pytest.raises(ValueError, match="words need a space among the labels to end them; use unit character"):
        error_rate([1], [1], "word", None)


# ---------------------------------------------------------------------------------------------------------------------
# MWER


def test_log_probabilities_of_all_texts_sum_to_one() -> None:
    logits = torch.randn(2, 5, 4)
    expected = [text_probabilities(logits[0].double(), BLANK), text_probabilities(logits[1, :3].double(), BLANK)]
    texts = [list(each) for each in expected]
    scores, possible = text_log_probs(logits.log_softmax(-1), torch.tensor([5, 3]), texts, BLANK)
    assert scores.shape == (2, 148) and possible.sum(dim=1).tolist() == [len(each) for each in texts]
    for row in range(2):
        found = scores[row, possible[row]].exp()
        torch.testing.assert_close(found, torch.tensor(list(expected[row].values())).float())


@pytest.mark.parametrize("seed", range(3))
def test_with_every_text_the_gradient_is_that_of_the_exact_risk(seed: int) -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    texts = list(text_probabilities(logits, BLANK))
    costs = [cost(0, text) for text in texts]
    found = gradient(lambda log_probs: mwer_losses(log_probs[None], FRAMES, [texts], [costs], BLANK), logits)
    torch.testing.assert_close(found, exact_gradient(logits), rtol=0, atol=1e-6)
    assert found.abs().max() > 0.01


def test_mwer_by_hand() -> None:
    log_probs = torch.tensor([[[0.2, 0.3, 0.5]]]).log()  # one frame: a, b, blank
    texts, costs = [[[0], [1], []]], [[0.0, 1.0, 2.0]]
    one = torch.tensor([1])
    assert mwer_losses(log_probs, one, texts, costs, 2).item() == pytest.approx(0.3 + 1.0 - 1.0)
    two = mwer_losses(log_probs, one, [texts[0][:2]], [costs[0][:2]], 2)
    assert two.item() == pytest.approx(0.6 - 0.5)
    sharp = mwer_losses(log_probs, one, [texts[0][:2]], [costs[0][:2]], 2, temperature=0.5)
    assert sharp.item() == pytest.approx(9 / 13 - 0.5)  # 0.3 ** 2 against 0.2 ** 2


def test_a_batch_of_lists_of_different_lengths_equals_each_alone() -> None:
    logits = torch.randn(3, 6, 4)
    lengths = torch.tensor([6, 4, 2])
    texts = [[[1], [2, 1], []], [[1, 1]], [[1], [2]]]
    costs = [[0.5, 1.0, 2.0], [3.0], [1.0, 0.0]]
    together = mwer_losses(logits.log_softmax(-1), lengths, texts, costs, BLANK)
    for row in range(3):
        alone = mwer_losses(
            logits[row : row + 1].log_softmax(-1), lengths[row : row + 1], [texts[row]], [costs[row]], BLANK
        )
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize(
    ("texts", "costs"), [([[1, 0, 2]], [0.5]), ([[1], [2], []], [2.0, 2.0, 2.0])], ids=["one text", "equal errors"]
)
def test_no_choice_no_gradient(texts: list[list[int]], costs: list[float]) -> None:
    logits = torch.randn(1, 5, 4)
    found = gradient(lambda log_probs: mwer_losses(log_probs, FRAMES, [texts], [costs], BLANK), logits)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-6)


def test_texts_too_long_for_the_frames_have_no_share() -> None:
    logits = torch.randn(1, 5, 4)
    lengths = torch.tensor([3])
    texts, costs = [[1], [2], [1, 1, 2], [1, 2, 1, 2]], [0.2, 0.6, 9.0, 9.0]  # the last two need 4 frames

    def losses(count: int) -> Callable[[Tensor], Tensor]:
        return lambda log_probs: mwer_losses(log_probs, lengths, [texts[:count]], [costs[:count]], BLANK)

    torch.testing.assert_close(losses(4)(logits.log_softmax(-1)), losses(2)(logits.log_softmax(-1)))
    torch.testing.assert_close(gradient(losses(4), logits), gradient(losses(2), logits))
    impossible = gradient(lambda x: mwer_losses(x, lengths, [texts[2:]], [[1.0, 2.0]], BLANK), logits)
    assert impossible.abs().sum() == 0
    assert mwer_losses(logits.log_softmax(-1), lengths, [texts[2:]], [[1.0, 2.0]], BLANK).item() == 0


def test_candidates_and_errors_must_match() -> None:
    log_probs = torch.randn(2, 5, 4).log_softmax(-1)
    lengths = torch.tensor([5, 5])
    for texts, costs in (([[[1]], []], [[1.0], []]), ([[[1]], [[1], [2]]], [[1.0], [1.0]])):
        with pytest.raises(ValueError, match=r"utterance 1 has \d candidates and \d errors; give one error for each"):
            mwer_losses(log_probs, lengths, texts, costs, BLANK)


def test_the_reference_joins_the_list_once() -> None:
    log_probs = torch.randn(1, 5, 4).log_softmax(-1)
    settings = SequenceSettings("mwer", candidates=3)
    [found] = best_texts(log_probs, FRAMES, [REFERENCE], BLANK, settings)
    assert len(found) == 3 and REFERENCE not in found
    joined = replace(settings, include_reference=True)
    assert best_texts(log_probs, FRAMES, [REFERENCE], BLANK, joined) == [[*found, REFERENCE]]
    assert best_texts(log_probs, FRAMES, [found[1]], BLANK, joined) == [found]


# ---------------------------------------------------------------------------------------------------------------------
# The whole

TARGETS, TARGET_LENGTHS = torch.tensor([REFERENCE]), torch.tensor([3])
MWER = SequenceSettings("mwer", candidates=8, unit="character")
POLICY = SequenceSettings("policy", candidates=8, unit="character")
METHODS = pytest.mark.parametrize(
    "settings",
    [
        MWER,
        replace(MWER, include_reference=True),
        POLICY,
        replace(POLICY, baseline="greedy"),
        replace(MWER, unit="word"),
    ],
    ids=["mwer", "with reference", "policy", "greedy", "words"],
)


def whole(logits: Tensor, settings: SequenceSettings, lengths: Tensor = FRAMES, seed: int = 0) -> Tensor:
    """``sequence_losses`` of logits (batch, time, labels) against ``REFERENCE`` in each row."""
    batch = len(logits)
    return sequence_losses(
        logits.log_softmax(-1),
        lengths,
        TARGETS.expand(batch, 3),
        TARGET_LENGTHS.expand(batch),
        ALPHABET,
        settings,
        torch.Generator().manual_seed(seed),
    )


def test_the_whole_is_the_weighted_sum() -> None:
    logits = torch.randn(1, 5, 4)
    log_probs = logits.log_softmax(-1)
    ctc = ctc_losses(log_probs, FRAMES, TARGETS, TARGET_LENGTHS, BLANK)
    assert torch.equal(whole(logits, SequenceSettings()), ctc)
    texts = best_texts(log_probs, FRAMES, [REFERENCE], BLANK, MWER)
    risk = mwer_losses(log_probs, FRAMES, texts, [[cost(0, text) for text in texts[0]]], BLANK)
    torch.testing.assert_close(whole(logits, replace(MWER, weight=3.0, ctc_weight=0.5)), 0.5 * ctc + 3 * risk)
    risk = policy_losses(log_probs, FRAMES, cost, BLANK, torch.Generator().manual_seed(0), 8)
    torch.testing.assert_close(whole(logits, replace(POLICY, weight=3.0, ctc_weight=0.5)), 0.5 * ctc + 3 * risk)


@METHODS
def test_descending_lowers_the_exact_risk(settings: SequenceSettings) -> None:
    logits = (0.5 * torch.randn(1, 5, 4)).requires_grad_()
    before = exact_risk(logits[0].detach()).item()
    for step in range(60):
        whole(logits, replace(settings, temperature=1.0), seed=step).sum().backward()
        with torch.no_grad():
            logits -= 4.0 * logits.grad
        logits.grad = None
    after = exact_risk(logits[0].detach()).item()
    assert before > 0.6 and after < 0.1, (before, after)


@METHODS
def test_padded_frames_get_no_gradient_and_change_nothing(settings: SequenceSettings) -> None:
    logits = torch.randn(2, 5, 4)
    padded = torch.cat([logits, 50 * torch.randn(2, 3, 4)], dim=1).requires_grad_()
    losses = whole(padded, settings, torch.tensor([5, 4]))
    losses.sum().backward()
    assert padded.grad[0, 5:].abs().sum() == 0 and padded.grad[1, 4:].abs().sum() == 0
    assert padded.grad[:, :4].isfinite().all() and padded.grad[:, :4].abs().sum() > 0
    if settings.method == "mwer":  # policy draws other paths where there are more frames
        torch.testing.assert_close(losses, whole(logits, settings, torch.tensor([5, 4])))


@METHODS
def test_utterances_shorter_than_their_text_or_without_frames(settings: SequenceSettings) -> None:
    logits = torch.randn(3, 5, 4, requires_grad=True)
    losses = whole(logits, settings, torch.tensor([2, 0, 5]))
    losses.sum().backward()
    assert losses.isfinite().all() and logits.grad.isfinite().all()
    assert logits.grad[0, 2:].abs().sum() == 0 and logits.grad[1].abs().sum() == 0


@METHODS
def test_a_diverged_network_has_a_loss_of_nan_and_stops_no_search(settings: SequenceSettings) -> None:
    logits = torch.randn(2, 5, 4)
    logits[1, 2, 0] = math.nan
    losses = whole(logits, settings, torch.tensor([5, 5]))
    assert losses[0].isfinite() and losses[1].isnan()


def test_half_precision_is_lifted_to_fp32() -> None:
    log_probs = torch.randn(1, 5, 4).log_softmax(-1).bfloat16()
    for settings in (MWER, POLICY):
        losses = sequence_losses(
            log_probs, FRAMES, TARGETS, TARGET_LENGTHS, ALPHABET, settings, torch.Generator().manual_seed(0)
        )
        assert losses.dtype == torch.float32


def test_words_need_a_space() -> None:
    log_probs = torch.randn(1, 5, 4).log_softmax(-1)
    arguments = (log_probs, FRAMES, TARGETS, TARGET_LENGTHS, Alphabet(("c", "a", "b")))
    with pytest.raises(ValueError, match="words need a space among the labels"):
        sequence_losses(*arguments, SequenceSettings("mwer"), torch.Generator())
    assert sequence_losses(*arguments, MWER, torch.Generator()).isfinite().all()


@METHODS
def test_a_small_network_learns_through_it(settings: SequenceSettings) -> None:
    model = QuartzNet(ModelConfig(ALPHABET.labels, (BlockConfig(8, 5, stride=2), BlockConfig(8, 1, separable=False))))
    signal = torch.randn(3, 8000)
    log_probs, lengths = model(signal, torch.tensor([8000, 6000, 3000]))
    targets, letters = torch.tensor([[1, 0, 2], [2, 1, 0], [1, 0, 0]]), torch.tensor([3, 2, 1])
    losses = sequence_losses(log_probs, lengths, targets, letters, ALPHABET, settings, torch.Generator().manual_seed(0))
    assert losses.shape == (3,) and losses.isfinite().all()
    losses.mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(each is not None and each.isfinite().all() for each in gradients)
    assert sum(each.abs().sum().item() for each in gradients) > 0


# ---------------------------------------------------------------------------------------------------------------------
# Settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "mmi"}, "method must be none, mwer or policy, got 'mmi'"),
        ({"unit": "phone"}, "unit must be word or character, got 'phone'"),
        ({"baseline": "mean"}, "baseline must be leave-one-out or greedy, got 'mean'"),
        ({"weight": 0.0}, "weight > 0, ctc_weight >= 0 and temperature > 0, got 0, 0.01 and 1"),
        ({"ctc_weight": -0.1}, "got 1, -0.1 and 1"),
        ({"temperature": 0.0}, "got 1, 0.01 and 0"),
        ({"candidates": 1}, "candidates are compared and must be at least 2, got 1"),
        ({"method": "mwer", "candidates": 9}, "beam 8 cannot give 9 candidates; make it at least as large"),
    ],
)
def test_settings_that_cannot_be(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceSettings(**values)


def test_the_beam_is_mwers_alone() -> None:
    assert SequenceSettings("policy", candidates=9).beam == 8
