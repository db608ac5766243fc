"""Sentences become streams in which every letter is read once an epoch; some are held out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quartznet.letter_stream import LetterStream, hold_out, letter_bits

SENTENCES = [[0, 1], [2], [3, 4, 3], [1, 1, 1, 1]]


def test_an_epoch_by_hand() -> None:
    stream = LetterStream([[1, 2, 3]], boundary=9, rows=2, segment=1, seed=0)
    assert stream.steps == 2
    first, second = stream.segment_at(0), stream.segment_at(1)
    assert (first.ids.tolist(), first.targets.tolist(), first.is_first) == ([[9], [2]], [[1], [3]], True)
    assert (second.ids.tolist(), second.targets.tolist(), second.is_first) == ([[1], [3]], [[2], [9]], False)


@given(rows=st.integers(1, 7), segment=st.integers(1, 20), seed=st.integers(0, 5))
def test_an_epoch_reads_everything_once(rows: int, segment: int, seed: int) -> None:
    stream = LetterStream(SENTENCES, 9, rows, segment, seed)
    parts = [stream.segment_at(step) for step in range(stream.steps)]
    read = torch.cat([part.ids for part in parts], dim=1).flatten().tolist()
    asked = torch.cat([part.targets for part in parts], dim=1).flatten().tolist()
    assert read[1:] == asked[:-1] and len(read) == 14 // rows * rows
    if len(read) == 14:
        text = "".join(map(str, [*read, asked[-1]]))
        assert sorted(text.strip("9").split("9")) == ["01", "1111", "2", "343"]


def test_epochs_differ_and_are_a_function_of_seed_and_number() -> None:
    def text(seed: int, step: int) -> list[int]:
        return LetterStream(SENTENCES, 9, 1, 14, seed).segment_at(step).ids[0].tolist()

    assert text(0, 3) == text(0, 3)
    assert len({tuple(text(0, step)) for step in range(6)}) > 1
    assert [text(0, step) for step in range(6)] != [text(1, step) for step in range(6)]


def test_steps_may_be_asked_for_in_any_order() -> None:
    stream = LetterStream(SENTENCES, 9, 2, 3, 0)
    first = stream.segment_at(0).ids
    stream.segment_at(stream.steps)  # of the next epoch
    assert torch.equal(stream.segment_at(0).ids, first)


def test_fewer_letters_than_rows() -> None:
    with pytest.raises(ValueError, match="the text has 14 letters for 15 rows"):
        LetterStream(SENTENCES, 9, 15, 4, 0)


def test_held_out_sentences_are_not_learnt_even_where_they_come_twice() -> None:
    sentences = [f"frase {'abcdefghij'[n % 10] * (1 + n // 10)}" for n in range(100)] * 2
    learnt, held = hold_out(sentences)
    assert len(held) == 2 and not set(held) & set(learnt) and len(learnt) == 196
    assert hold_out(sentences[::-1])[1] == held


def test_one_sentence_cannot_be_parted() -> None:
    with pytest.raises(ValueError, match="at least two different sentences"):
        hold_out(["hola", "hola"])


def test_bits_of_letters_alone() -> None:
    assert letter_bits(["a"], ["a"]) == pytest.approx(1.0)  # a and the end, once each
    expected = -(math.log2(2 / 5) + math.log2(1 / 5) + math.log2(2 / 5)) / 3  # a, b that was never seen, the end
    assert letter_bits(["a"], ["ab"]) == pytest.approx(expected)
