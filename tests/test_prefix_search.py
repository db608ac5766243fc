"""What the search reads of log_probs, by hand, and its ties; quartznet/nbest.py and beam.py are tested against sums."""

import math

import pytest
import torch

from quartznet.prefix_search import read_frames, search


def frames_of(probabilities: list[list[float]], threshold: float) -> tuple[list, float]:
    log_probs = torch.tensor(probabilities, dtype=torch.float64).log()[None]
    [found] = read_frames(log_probs, torch.tensor([len(probabilities)]), 2, threshold)
    return found


def test_frames_hold_what_is_above_the_threshold_scaled_and_sorted() -> None:
    frames, log_scale = frames_of([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], math.log(0.25))
    assert frames == [(1.0, [(1, pytest.approx(0.6))]), (0.0, [(0, 1.0), (1, pytest.approx(0.5))])]
    assert log_scale == pytest.approx(math.log(0.5 * 0.6))
    frames, _ = frames_of([[0.4, 0.3, 0.3]], 0.0)
    assert frames == [(0.0, [(0, 1.0)])]  # the best stays


def test_runs_of_one_certain_label_are_read_once() -> None:
    a, blank, unsure = [0.9, 0.05, 0.05], [0.05, 0.05, 0.9], [0.5, 0.0, 0.5]
    frames, log_scale = frames_of([blank, blank, a, a, a, blank, unsure, unsure, blank, blank], math.log(0.1))
    assert [(place, len(letters)) for place, letters in frames] == [(1, 0), (0, 1), (1, 0), (1, 1), (1, 1), (1, 0)]
    assert log_scale == pytest.approx(8 * math.log(0.9) + 2 * math.log(0.5))


def test_a_run_ends_with_its_utterance() -> None:
    log_probs = torch.tensor([[[0.0, 0.0, 1.0]] * 3] * 3).log()
    found = list(read_frames(log_probs, torch.tensor([2, 0, 3]), 2, -5.0))
    assert [len(frames) for frames, _ in found] == [1, 0, 1]


def test_ties_do_not_widen_the_beam() -> None:
    log_probs = torch.full((1, 6, 5), 0.2).log()
    [(frames, _)] = read_frames(log_probs, torch.tensor([6]), 4)
    assert len(search(frames, 5, 3)) == 3
    assert [prefix.ids() for _, prefix in search(frames, 5, 3)] == [prefix.ids() for _, prefix in search(frames, 5, 3)]


def test_a_space_after_a_space_is_no_other_text() -> None:
    probabilities = [[0.5, 0.0, 0.5]] * 3  # space, a, blank
    frames, log_scale = frames_of(probabilities, -math.inf)
    assert len(search(frames, 3, 100)) == 3  # none, one and two spaces
    [(score, prefix)] = search(frames, 3, 100, space=0)
    assert prefix.ids() == [] and score + log_scale == pytest.approx(0.0)
