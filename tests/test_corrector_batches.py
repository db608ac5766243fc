"""Pairs -> batches of tokens: what is left out and why, padding, lengths, budgets."""

from pathlib import Path

import pytest
import torch
from tiny_bert import SPECIAL, tiny_tokenizer

from postcorrect.batches import Collate, LeftOut, Row, encode_pairs, pair_loader
from postcorrect.pairs import Pair

GOOD = Pair("the contry", "the country", "a.mp3")


def test_a_batch_by_hand() -> None:
    rows = [Row(GOOD, [2, 9, 10, 3], [2, 9, 3]), Row(Pair("b", "b", "b.mp3"), [2, 8, 3], [2, 8, 7, 6, 3])]
    batch = Collate(pad=0)(rows)
    assert batch.source.tolist() == [[2, 9, 10, 3], [2, 8, 3, 0]]
    assert batch.target_mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert len(batch) == 2 + 4 and batch.names == ["a.mp3"] * 2 + ["b.mp3"] * 4 and batch.skipped == []
    assert batch.tokens == 4 + 3 + 3 + 5
    assert [row.tokens for row in rows] == [8, 10]
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.target, batch.target) and moved.names == batch.names


def test_what_cannot_be_learnt_from_is_counted(tmp_path: Path) -> None:
    pairs = [GOOD, Pair("", "a"), Pair("a", ""), Pair("a " * 20, "a"), Pair("a", "ñ"), Pair("ñ", "a"), GOOD, GOOD]
    rows, left = encode_pairs(pairs, tiny_tokenizer(tmp_path), limit=15)
    assert [row.pair for row in rows] == [GOOD] * 3
    assert (left.given, left.empty, left.long, left.strange, left.count) == (8, 2, 1, 2, 5)
    assert str(left) == ("5 of 8 pairs left out: 2 empty, 1 too long, 2 not in the vocabulary's letters, such as 'ñ'")
    assert str(LeftOut(3, 0, 0, 0)) == ""
    assert rows[0].source[0] == SPECIAL.begin and rows[0].target[-1] == SPECIAL.end


def test_a_vocabulary_that_cannot_write_most_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot write 2 of 3 pairs, such as 'ñandú'; take a BERT of this language"):
        encode_pairs([Pair("nandu", "ñandú"), Pair("Aé", "aé"), GOOD], tiny_tokenizer(tmp_path), limit=99)


def test_batches_hold_all_pairs_once_within_the_budget(tmp_path: Path) -> None:
    texts = ["a" * length for length in range(1, 41)]
    rows, _ = encode_pairs([Pair(text, text[1:] or "b") for text in texts], tiny_tokenizer(tmp_path), limit=64)
    loader = pair_loader(rows, pad=0, batch_tokens=200)
    seen = [name for batch in loader for name in batch.source.tolist()]
    assert sorted(sum(bool(token) for token in row) for row in seen) == sorted(len(row.source) for row in rows)
    assert all(batch.source.numel() + batch.target.numel() <= 200 for batch in loader)
    first = [row.shape for row in (batch.source for batch in loader)]
    loader.batch_sampler.set_epoch(1)
    assert [batch.source.shape for batch in loader] != first
