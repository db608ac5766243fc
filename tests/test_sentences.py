"""Sentences become batches: nothing is lost, nothing is too long, a batch knows how much it will ask for."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_bert import SPECIAL, TOKENS, tiny_tokenizer

from postcorrect.masking import Masker, MaskSettings
from postcorrect.sentences import Sentences, cut, dev_batches, frequency_loss, sentence_loader
from postcorrect.wordpiece import WordPiece

TEXTS = ["the country", "don the wor", "a b c d e f g h", "the", "don't worry the country"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> WordPiece:
    return tiny_tokenizer(tmp_path_factory.mktemp("vocabulary"))


def test_cut_by_hand() -> None:
    continues = [False, False, True]  # pieces 0 and 1 begin a word, 2 goes on with one
    assert cut([0, 1, 0], continues, 3) == [[0, 1, 0]]
    assert cut([0, 1, 2, 2, 0, 1], continues, 3) == [[0], [1, 2, 2], [0, 1]]
    assert cut([0, 2, 2, 2, 2], continues, 2) == [[0, 2], [2, 2], [2]]  # a word that is too long is cut after all
    assert cut([], continues, 3) == [[]]


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 6))
def test_cut_loses_nothing(pieces: list[int], most: int) -> None:
    parts = cut(pieces, [False, False, True], most)
    assert [piece for part in parts for piece in part] == pieces
    assert all(0 < len(part) <= most for part in parts) or not pieces
    for before, part in itertools.pairwise(parts):
        assert part[0] != 2 or len(before) == most


def test_what_becomes_of_a_text(tokenizer: WordPiece) -> None:
    sentences = Sentences([*TEXTS, "§", "the §"], tokenizer, longest=6)
    rows = [[TOKENS[number] for number in sentences[index].ids] for index in range(len(sentences))]
    assert rows[0] == ["[CLS]", "the", "coun", "##try", "[SEP]"]
    assert [row[1:-1] for row in rows[2:4]] == [["a", "b", "c", "d"], ["e", "f", "g", "h"]]
    assert rows[-1] == ["[CLS]", "the", "[UNK]", "[SEP]"]
    assert sentences.lengths == [len(row) for row in rows] and max(sentences.lengths) == 6
    assert sentences[3].text == TEXTS[2] and sentences[0].name == TEXTS[0]
    assert str(sentences) == (
        "7 sentences, 26 pieces, 7.69% unknown, 2 too long, read in parts, 1 left out: nothing in them is known"
    )


def test_frequency_by_hand(tokenizer: WordPiece) -> None:
    learnt, measured = Sentences(["a a b"], tokenizer, 8), Sentences(["a b c"], tokenizer, 8)
    loss, wrong = frequency_loss(learnt, measured)
    assert loss == pytest.approx(-(math.log(3 / 6) + math.log(2 / 6) + math.log(1 / 6)) / 3)
    assert wrong == pytest.approx(2 / 3)


def test_batches(tokenizer: WordPiece) -> None:
    masker = Masker(tokenizer, MaskSettings())
    sentences = Sentences(TEXTS * 20, tokenizer, longest=12)
    loader = sentence_loader(sentences, masker, batch_tokens=64)
    batches = list(loader)
    assert len(batches) == len(loader.batch_sampler)
    assert sum(batch.tokens for batch in batches) == sum(sentences.lengths)
    for batch in batches:
        assert batch.ids.numel() <= 64 and not batch.skipped
        assert torch.equal(batch.mask, batch.ids != SPECIAL.pad)
        assert len(batch) == int(batch.counts.sum()) == len(batch.names)
        assert torch.equal(batch.counts, masker.counts(batch.ids))
        assert set(batch.names) <= set(TEXTS)
        assert batch.to(torch.device("cpu")).ids.shape == batch.ids.shape
    parts = [sentence_loader(sentences, masker, 64, rank=rank, world_size=2) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1])
    assert sum(batch.tokens for part in parts for batch in part) == sum(sentences.lengths)


def test_dev_is_read_once_and_always_alike(tokenizer: WordPiece) -> None:
    masker, sentences = Masker(tokenizer, MaskSettings()), Sentences(TEXTS, tokenizer, 12)
    first, again = (list(dev_batches(sentences, masker, 20)) for _ in range(2))
    assert sum(batch.tokens for batch in first) == sum(sentences.lengths)
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(first, again, strict=True))


def test_a_text_of_another_language_is_refused(tokenizer: WordPiece) -> None:
    with pytest.raises(ValueError, match="does not know 3 of the 4 pieces of the text; take a BERT of this language"):
        Sentences(["§ § §", "a"], tokenizer, 8)


def test_long_sentences_have_short_names(tokenizer: WordPiece, tmp_path: Path) -> None:
    [batch] = dev_batches(Sentences(["the " * 50], tokenizer, 128), Masker(tokenizer, MaskSettings()), 200)
    assert set(batch.names) == {"the the the the the the the the the ..."}
