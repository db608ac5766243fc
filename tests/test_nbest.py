"""The n best texts against the sum over every path, and against a plain search without short cuts."""

import math
import time

import pytest
import torch
from enumeration import text_probabilities
from torch import Tensor

from quartznet.ctc import ctc_losses
from quartznet.nbest import nbest

EVERYTHING = 10_000  # a beam that no tiny problem fills


def one(log_probs: Tensor, blank: int, beam: int = 8, count: int | None = None) -> list[tuple[list[int], float]]:
    """The texts of one utterance (time, labels)."""
    return nbest(log_probs.unsqueeze(0), torch.tensor([len(log_probs)]), blank, beam, count or beam)[0]


def plain_search(log_probs: Tensor, blank: int, beam: int) -> dict[tuple[int, ...], float]:
    """Prefix beam search as it is in the books: every text times every label, then the best ``beam``."""
    probabilities = log_probs.double().exp().tolist()
    states = {(): (1.0, 0.0)}
    for frame in probabilities:
        following: dict[tuple[int, ...], list[float]] = {}
        for text, (in_blank, in_letter) in states.items():
            for label, probability in enumerate(frame):
                if label == blank:
                    following.setdefault(text, [0.0, 0.0])[0] += (in_blank + in_letter) * probability
                elif text and label == text[-1]:
                    following.setdefault(text, [0.0, 0.0])[1] += in_letter * probability
                    following.setdefault((*text, label), [0.0, 0.0])[1] += in_blank * probability
                else:
                    following.setdefault((*text, label), [0.0, 0.0])[1] += (in_blank + in_letter) * probability
        best = sorted(following, key=lambda text: -sum(following[text]))[:beam]
        states = {text: (following[text][0], following[text][1]) for text in best}
    return {text: sum(state) for text, state in states.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Against enumeration


@pytest.mark.parametrize(("frames", "labels", "blank"), [(1, 2, 1), (5, 4, 3), (5, 4, 0), (6, 3, 1), (7, 2, 1)])
def test_a_beam_without_bounds_finds_every_text_with_its_probability(frames: int, labels: int, blank: int) -> None:
    logits = torch.randn(frames, labels, dtype=torch.float64)
    expected = text_probabilities(logits, blank)
    found = one(logits.log_softmax(-1), blank, EVERYTHING)
    assert {tuple(text) for text, _ in found} == set(expected) and len(found) == len(expected)
    for text, score in found:
        assert math.exp(score) == pytest.approx(expected[tuple(text)], rel=1e-12)
    assert sum(math.exp(score) for _, score in found) == pytest.approx(1.0)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)


def test_148_texts_of_5_frames_and_3_letters() -> None:
    assert len(one(torch.randn(5, 4).log_softmax(-1), 3, EVERYTHING)) == 148


def test_scores_are_those_of_ctc() -> None:
    log_probs = torch.randn(6, 4).log_softmax(-1)
    for text, score in one(log_probs, 3, EVERYTHING)[:20]:
        loss = ctc_losses(
            log_probs.unsqueeze(0), torch.tensor([6]), torch.tensor([[*text, 0]]), torch.tensor([len(text)]), 3
        )
        assert -loss.item() == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("sharpness", [0.5, 2.0, 6.0])
def test_a_small_beam_equals_the_plain_search(beam: int, sharpness: float) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        logits = sharpness * torch.randn(25, 6, generator=generator, dtype=torch.float64)
        logits[:, 5] += sharpness
        log_probs = logits.log_softmax(-1)
        expected = plain_search(log_probs, 5, beam)
        found = one(log_probs, 5, beam)
        assert [tuple(text) for text, _ in found] == sorted(expected, key=lambda text: -expected[text])
        assert [math.exp(score) for _, score in found] == pytest.approx(
            [expected[tuple(text)] for text, _ in found], rel=1e-9
        )


def test_a_small_beam_never_claims_more_than_there_is() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64)
    exact = text_probabilities(logits, 3)
    found = one(logits.log_softmax(-1), 3, 4)
    assert all(math.exp(score) <= exact[tuple(text)] * (1 + 1e-12) for text, score in found)
    assert any(math.exp(score) < exact[tuple(text)] * (1 - 1e-6) for text, score in found)


# ---------------------------------------------------------------------------------------------------------------------
# By hand


def test_the_best_text_is_not_that_of_the_best_path() -> None:
    log_probs = torch.tensor([[0.4, 0.6], [0.4, 0.6]]).log()  # a, blank; the best path is _ _ with 0.36
    found = one(log_probs, 1)
    assert [text for text, _ in found] == [[0], []]  # aa, a_, _a: 0.16 + 0.24 + 0.24
    assert [math.exp(score) for _, score in found] == pytest.approx([0.64, 0.36])


def test_a_letter_twice_needs_a_blank_between() -> None:
    a, blank = [1.0, 0.0], [0.0, 1.0]
    assert one(torch.tensor([a, a, a]).log(), 1) == [([0], 0.0)]
    assert one(torch.tensor([a, blank, a]).log(), 1) == [([0, 0], 0.0)]
    assert one(torch.tensor([blank, a, a, blank, blank, a]).log(), 1) == [([0, 0], 0.0)]
    unsure = one(torch.tensor([a, [0.7, 0.3], a]).log(), 1)
    assert [text for text, _ in unsure] == [[0], [0, 0]]
    assert [math.exp(score) for _, score in unsure] == pytest.approx([0.7, 0.3])


def test_no_frames_and_nothing_but_blanks() -> None:
    log_probs = torch.tensor([[[0.0, 1.0]] * 3] * 2).log()
    assert nbest(log_probs, torch.tensor([0, 3]), 1, 4, 4) == [[([], 0.0)], [([], 0.0)]]
    assert nbest(log_probs[:0], torch.tensor([], dtype=torch.int64), 1, 4, 4) == []


def test_a_text_comes_back_after_it_left_the_beam() -> None:
    # a b c; with a beam of 2 "a" falls out in the second frame and comes back in the third, where "a b" still is
    frames = [[0.9, 0.0, 0.0, 0.1], [0.0, 0.9, 0.1, 0.0], [0.45, 0.45, 0.0, 0.1], [0.2, 0.2, 0.2, 0.4]]
    log_probs = torch.tensor(frames, dtype=torch.float64).log()
    for beam in (2, 3, 4):
        expected = plain_search(log_probs, 3, beam)
        assert {tuple(text): pytest.approx(math.exp(score)) for text, score in one(log_probs, 3, beam)} == expected


# ---------------------------------------------------------------------------------------------------------------------
# Invariants


def test_count_is_the_head_of_the_list() -> None:
    log_probs = torch.randn(10, 5).log_softmax(-1)
    assert one(log_probs, 4, beam=8, count=3) == one(log_probs, 4, beam=8)[:3]


def test_batch_equals_alone_and_padding_is_not_read() -> None:
    log_probs = torch.randn(3, 12, 5).log_softmax(-1)
    lengths = torch.tensor([12, 7, 0])
    alone = [one(row[:length], 4) if length else [([], 0.0)] for row, length in zip(log_probs, lengths, strict=True)]
    assert nbest(log_probs, lengths, 4, 8, 8) == alone
    padded = torch.cat([log_probs, torch.full((3, 2, 5), math.nan)], dim=1)
    assert nbest(padded, lengths, 4, 8, 8) == alone


def test_very_long_and_very_flat_does_not_run_out_of_numbers() -> None:
    log_probs = torch.zeros(1500, 40).log_softmax(-1)  # one path: 1e-2403
    found = one(log_probs, 39)
    assert len(found) == 8 and all(math.isfinite(score) for _, score in found)
    peaked = torch.full((300, 3), -200.0)
    peaked[:, 2] = 0.0  # letters of probability 1e-87
    assert one(peaked.log_softmax(-1), 2)[0] == ([], pytest.approx(0.0))


def test_needs_no_gradient_and_leaves_its_input() -> None:
    logits = torch.randn(1, 6, 4, requires_grad=True)
    log_probs = logits.log_softmax(-1)
    before = log_probs.detach().clone()
    nbest(log_probs.bfloat16(), torch.tensor([6]), 3)
    nbest(log_probs, torch.tensor([6]), 3)
    assert torch.equal(log_probs, before)


def test_five_seconds_take_milliseconds() -> None:
    logits = torch.randn(1, 250, 29)
    logits[0, :, 28] += 6
    logits[0, 3::4, 5] += 8
    took = []
    for _ in range(5):
        start = time.process_time()
        nbest(logits.log_softmax(-1), torch.tensor([250]), 28, 8, 8)
        took.append(time.process_time() - start)
    assert min(took) < 0.05  # s of this process; 0.004 where this was written


def test_counts_and_frames_that_cannot_be() -> None:
    log_probs = torch.randn(2, 4, 3).log_softmax(-1)
    lengths = torch.tensor([4, 4])
    for count in (0, 9):
        with pytest.raises(ValueError, match=rf"count must be from 1 to beam \(8\), got {count}"):
            nbest(log_probs, lengths, 2, 8, count)
    for value in (math.nan, -math.inf):
        log_probs[1, 2] = value
        with pytest.raises(ValueError, match="utterance 1 has no probable label in frame 2; log_probs must be"):
            nbest(log_probs, lengths, 2)
