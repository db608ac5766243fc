"""Greedy and beam search against plain loops and exhaustive search, alone and in batches.

The random networks are the same in every run: of some thousand one has two texts that are equal to seven digits, and
there rounding decides which of them a beam keeps.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bert import SPECIAL, tiny_config, tiny_corrector
from torch import Tensor

from postcorrect.model import Corrector
from postcorrect.search import SearchSettings, Written, beam_search, greedy

VOCABULARY = 13  # eight of them are text, from number 5 on


def network(seed: int, vocabulary: int = VOCABULARY, positions: int = 64, end_bias: float = 0.0) -> Corrector:
    """Random; ``end_bias`` makes the end more or less probable, so that texts have different lengths."""
    torch.manual_seed(seed)
    corrector = tiny_corrector(tiny_config(vocabulary, positions))
    with torch.no_grad():
        corrector.bias[SPECIAL.end] += end_bias
    return corrector


def sources(*lengths: int) -> tuple[Tensor, Tensor]:
    """Random texts between begin and end, with padding that is no padding token."""
    ids = torch.randint(5, VOCABULARY, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return ids, mask


def next_log_probs(corrector: Corrector, source: Tensor, mask: Tensor, ids: tuple[int, ...]) -> Tensor:
    """(rows,) without a cache, for one source (1, time)."""
    with torch.no_grad():
        logits = corrector(source, mask, torch.tensor([[SPECIAL.begin, *ids]]))
    return logits[0, -1].log_softmax(-1)


def plain_greedy(corrector: Corrector, source: Tensor, mask: Tensor, limit: int) -> tuple[tuple[int, ...], float]:
    """One source, everything computed anew at each step."""
    ids, total = (), 0.0
    while True:
        log_probs = next_log_probs(corrector, source, mask, ids)
        choices = [SPECIAL.end] if len(ids) == limit else [SPECIAL.end, *range(5, corrector.config.vocabulary)]
        best = max(choices, key=lambda token: log_probs[token])
        total += float(log_probs[best])
        if best == SPECIAL.end:
            return ids, total
        ids += (best,)


def assert_same(found: list[Written], expected: list[Written]) -> None:
    """The same texts with the same numbers, the best first; two that are equal to six digits may change places."""
    for name in ("score", "log_prob"):
        numbers = {written.ids: getattr(written, name) for written in expected}
        assert {written.ids: getattr(written, name) for written in found} == pytest.approx(numbers, abs=1e-3)
    scores = [written.score for written in found]
    assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-4) and len(found) == len(expected)


# ---------------------------------------------------------------------------------------------------------------------
# Greedy


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), end_bias=st.sampled_from([-2.0, 0.0, 1.0]))
def test_greedy_is_a_plain_loop_without_cache(seed: int, end_bias: float) -> None:
    corrector = network(seed, end_bias=end_bias)
    source, mask = sources(7, 4, 2)
    found = greedy(corrector, source, mask, extra_tokens=3)
    for row, limit in enumerate((8, 5, 3)):
        time = limit - 1
        ids, total = plain_greedy(corrector, source[row : row + 1, :time], mask[row : row + 1, :time], limit)
        assert found[row].ids == ids and math.isclose(found[row].log_prob, total, abs_tol=1e-3)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), penalty=st.sampled_from([0.0, 0.6, 2.0]), end_bias=st.sampled_from([-2.0, 0.0, 1.0]))
def test_a_beam_of_one_is_greedy(seed: int, penalty: float, end_bias: float) -> None:
    corrector = network(seed, end_bias=end_bias)
    source, mask = sources(7, 4, 2, 5)
    found = beam_search(corrector, source, mask, SearchSettings(1, penalty, extra_tokens=6))
    expected = greedy(corrector, source, mask, extra_tokens=6)
    assert [[written.ids for written in row] for row in found] == [[written.ids] for written in expected]
    assert [row[0].log_prob for row in found] == pytest.approx([one.log_prob for one in expected], abs=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# The beam


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), penalty=st.sampled_from([0.0, 1.0]))
def test_a_beam_that_never_fills_finds_the_best_of_all_texts(seed: int, penalty: float) -> None:
    """Three tokens of text and at most three of them: 40 texts."""
    corrector = network(seed, vocabulary=8)
    source, mask = torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.bool)
    every, totals = [], {(): 0.0}
    for length in range(4):
        for ids in itertools.product((5, 6, 7), repeat=length):
            log_probs = next_log_probs(corrector, source, mask, ids)
            totals |= {(*ids, token): totals[ids] + float(log_probs[token]) for token in (SPECIAL.end, 5, 6, 7)}
            total = totals[*ids, SPECIAL.end]
            every.append(Written(ids, total, total / (length + 1) ** penalty))
    every.sort(key=lambda written: -written.score)
    wide = SearchSettings(200, penalty, extra_tokens=2, count=40)
    assert_same(beam_search(corrector, source, mask, wide)[0], every)
    assert_same(beam_search(corrector, source, mask, replace(wide, count=3))[0], every[:3])


def plain_beam(
    corrector: Corrector, source: Tensor, mask: Tensor, limit: int, options: SearchSettings
) -> list[Written]:
    """One source, lists and loops, nothing stopped early: ended texts compete until all have ended."""
    beams = [((), 0.0, False)]

    def score(ids: tuple[int, ...], total: float) -> float:
        return total / max(len(ids), 1) ** options.length_penalty

    while not all(ended for _, _, ended in beams):
        longer = [beam for beam in beams if beam[2]]
        for ids, total, ended in beams:
            if not ended:
                log_probs = next_log_probs(corrector, source, mask, ids)
                choices = [SPECIAL.end] if len(ids) == limit else [SPECIAL.end, *range(5, corrector.config.vocabulary)]
                longer += [((*ids, token), total + float(log_probs[token]), token == 3) for token in choices]
        beams = sorted(longer, key=lambda beam: -score(*beam[:2]))[: options.beam]
    return [Written(ids[:-1], total, score(ids, total)) for ids, total, _ in beams[: options.count]]


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    penalty=st.sampled_from([0.0, 0.6, 2.0]),
    end_bias=st.sampled_from([-1.0, 0.0, 1.0]),
    count=st.integers(1, 3),
)
def test_a_batch_is_one_by_one_and_as_plain_loops_have_it(
    seed: int, penalty: float, end_bias: float, count: int
) -> None:
    """So the cache, the early stop and the sources that leave the batch change nothing."""
    corrector, options = network(seed, end_bias=end_bias), SearchSettings(3, penalty, extra_tokens=2, count=count)
    lengths = (6, 2, 4, 3)
    source, mask = sources(*lengths)
    together = beam_search(corrector, source, mask, options)
    for row, length in enumerate(lengths):
        one = source[row : row + 1, :length], mask[row : row + 1, :length]
        assert_same(together[row], plain_beam(corrector, *one, length, options))
        assert_same(beam_search(corrector, *one, options)[0], together[row])


def test_a_network_that_never_ends_is_stopped_at_its_limit() -> None:
    corrector = network(0, positions=10, end_bias=-50.0)
    source, mask = sources(8, 5, 2)
    found = beam_search(corrector, source, mask, SearchSettings(4, extra_tokens=2, count=4))
    assert [{len(written.ids) for written in row} for row in found] == [{8}, {5}, {2}]
    found = beam_search(corrector, source, mask, SearchSettings(2))
    assert [len(row[0].ids) for row in found] == [9, 9, 9]  # positions, less that of the beginning
    assert [len(written.ids) for written in greedy(corrector, source, mask)] == [9, 9, 9]
    assert found[0][0].log_prob < -40  # the end that was forced is paid for


def test_tokens_that_are_no_text_are_never_written() -> None:
    corrector = network(0, vocabulary=VOCABULARY, end_bias=-3.0)
    with torch.no_grad():
        corrector.bias[[SPECIAL.pad, SPECIAL.unknown, SPECIAL.begin, SPECIAL.mask, VOCABULARY]] = 30.0
    source, mask = sources(4, 3)
    found = beam_search(corrector, source, mask, SearchSettings(3, extra_tokens=2, count=3))
    written = {token for row in found for one in row for token in one.ids}
    assert written and written <= set(range(5, VOCABULARY))
    assert set(greedy(corrector, source, mask)[0].ids) <= set(range(5, VOCABULARY))


def test_fewer_texts_than_wanted_where_there_are_no_more() -> None:
    corrector = network(0, vocabulary=6)
    source, mask = torch.tensor([[2, 3]]), torch.ones(1, 2, dtype=torch.bool)
    [found] = beam_search(corrector, source, mask, SearchSettings(5, extra_tokens=1, count=5))
    assert {written.ids for written in found} == {(), (5,)}


def test_it_leaves_the_network_as_it_was() -> None:
    corrector = network(0).train()
    source, mask = sources(3)
    found = beam_search(corrector, source, mask)
    assert corrector.training and corrector.bias.requires_grad
    assert_same(beam_search(corrector.eval(), source, mask)[0], found[0])


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


def test_broken_networks_and_settings_are_named() -> None:
    corrector = network(0)
    source, mask = sources(3)
    with torch.no_grad():
        corrector.bias[7] = torch.nan
    for search in (greedy, beam_search):
        with pytest.raises(ValueError, match=r"probabilities that are no numbers \(NaN\)"):
            search(corrector, source, mask)
    with pytest.raises(ValueError, match=r"count must be from 1 to beam \(4\), got 5"):
        SearchSettings(count=5)
    with pytest.raises(ValueError, match="beam can be at most 1000, got 1001"):
        SearchSettings(beam=1001)
    with pytest.raises(ValueError, match="length_penalty must be in"):
        SearchSettings(length_penalty=-1.0)
    with pytest.raises(ValueError, match="extra_tokens must be at least 0, got -1"):
        SearchSettings(extra_tokens=-1)
    with pytest.raises(ValueError, match="a text has 65 tokens, this network has 64 positions"):
        beam_search(corrector, *sources(65))
