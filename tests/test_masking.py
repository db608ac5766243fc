"""Hidden pieces: by hand, as many as promised, whole words, never what is special."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bert import SPECIAL, TOKENS, tiny_tokenizer, write_vocabulary
from torch import Tensor

from postcorrect.masking import Masked, Masker, MaskSettings
from postcorrect.wordpiece import WordPiece, pad_rows

TEXTS = ["the country", "don't worry", "abc the don the wor the", "b", "the cat sat on the mat and ate a rat"]
ALL_MASKS = MaskSettings(masks=1.0, others=0.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> WordPiece:
    return tiny_tokenizer(tmp_path_factory.mktemp("vocabulary"))


def rows_of(tokenizer: WordPiece, texts: list[str]) -> Tensor:
    return pad_rows(tokenizer.ids(texts), SPECIAL.pad)[0]


def apply(masker: Masker, ids: Tensor, seed: int = 0) -> Masked:
    return masker(ids, masker.counts(ids), torch.Generator().manual_seed(seed))


def words_of(row: Tensor) -> list[list[int]]:
    """Places of each word."""
    found: list[list[int]] = []
    for place, number in enumerate(row.tolist()):
        if TOKENS[number].startswith("##"):
            found[-1].append(place)
        elif number > SPECIAL.mask:
            found.append([place])
    return found


def test_by_hand(tokenizer: WordPiece) -> None:
    masker = Masker(tokenizer, ALL_MASKS)
    ids = rows_of(tokenizer, ["the", "the country"])  # [CLS] the [SEP]; [CLS] the coun ##try [SEP]
    assert masker.counts(ids).tolist() == [1, 1]
    masked = apply(masker, ids)
    assert masked.ids[0].tolist() == [SPECIAL.begin, SPECIAL.mask, SPECIAL.end, SPECIAL.pad, SPECIAL.pad]
    assert masked.asked[0].tolist() == [False, True, False, False, False]
    found = set()
    for seed in range(30):
        masked = apply(masker, ids, seed)
        found.add((tuple((masked.ids[1] == SPECIAL.mask).tolist()), masked.asked[1].nonzero().item()))
    the, country = (False, True, False, False, False), (False, False, True, True, False)
    assert found == {(the, 1), (country, 2), (country, 3)}  # of "country", one piece is asked for, both are hidden


def test_counts(tokenizer: WordPiece) -> None:
    ids = rows_of(tokenizer, ["a " * 10, "a " * 9, "a " * 17, "a", "§ §", ""])
    assert Masker(tokenizer, MaskSettings()).counts(ids).tolist() == [2, 1, 3, 1, 0, 0]
    assert Masker(tokenizer, MaskSettings(share=0.9)).counts(ids).tolist() == [9, 8, 15, 1, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text("abdehnortuwy ' ", max_size=40), min_size=1, max_size=6),
    share=st.floats(0.01, 0.99),
    whole=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_invariants(tokenizer: WordPiece, texts: list[str], share: float, whole: bool, seed: int) -> None:
    ids = rows_of(tokenizer, [*texts, "§"])
    masker = Masker(tokenizer, MaskSettings(share, 1.0, 0.0, whole))
    masked = apply(masker, ids, seed)
    hidden = masked.ids == SPECIAL.mask
    assert masked.asked.sum(1).tolist() == masker.counts(ids).tolist()
    assert torch.equal(masked.ids[~hidden], ids[~hidden])
    assert hidden[masked.asked].all() and (ids[hidden] > SPECIAL.mask).all()
    if not whole:
        assert torch.equal(hidden, masked.asked)
    for row, is_hidden, asked in zip(ids, hidden, masked.asked, strict=True):
        if whole:
            partly = 0
            for word in words_of(row):
                assert is_hidden[word].all() or not is_hidden[word].any()
                partly += bool(is_hidden[word].any() and not asked[word].all())
            assert partly <= 1


def test_rates(tokenizer: WordPiece) -> None:
    masker = Masker(tokenizer, MaskSettings())
    ids = rows_of(tokenizer, TEXTS * 1000)
    masked = apply(masker, ids)
    hidden = apply(Masker(tokenizer, ALL_MASKS), ids).ids == SPECIAL.mask  # the same draws
    before, after = ids[hidden], masked.ids[hidden]
    is_mask, is_same = after == SPECIAL.mask, after == before
    assert is_mask.float().mean() == pytest.approx(0.8, abs=0.015)
    assert is_same.float().mean() == pytest.approx(0.1 + 0.1 / (len(TOKENS) - 5), abs=0.015)
    others = after[~is_mask & ~is_same]
    assert set(others.tolist()) == set(range(5, len(TOKENS)))
    assert torch.equal(masked.ids[~hidden], ids[~hidden])
    share = masked.asked.sum() / (ids > SPECIAL.mask).sum()
    assert 0.15 < share < 0.25  # short texts are asked for one piece at least


def test_every_word_is_hidden_as_often(tokenizer: WordPiece) -> None:
    ids = rows_of(tokenizer, ["the country don worry"] * 4000)
    asked = apply(Masker(tokenizer, MaskSettings()), ids).asked.float().mean(0).tolist()
    the, coun, ntry, don, wor, ry = asked[1:7]
    assert (the, coun + ntry, don, wor + ry) == pytest.approx((0.25,) * 4, abs=0.03)
    assert (coun, wor) == pytest.approx((ntry, ry), abs=0.02)


def test_the_generator_alone_decides(tokenizer: WordPiece) -> None:
    masker, ids = Masker(tokenizer, MaskSettings()), rows_of(tokenizer, TEXTS)
    first = apply(masker, ids, 1)
    torch.rand(3)
    again, other = apply(masker, ids, 1), apply(masker, ids, 2)
    assert torch.equal(first.ids, again.ids) and torch.equal(first.asked, again.asked)
    assert not torch.equal(first.ids, other.ids)


def test_a_word_cut_in_two_begins_with_its_rest(tokenizer: WordPiece) -> None:
    ids = torch.tensor([[SPECIAL.begin, TOKENS.index("##ry"), TOKENS.index("##try"), TOKENS.index("a"), SPECIAL.end]])
    for seed in range(20):
        hidden = apply(Masker(tokenizer, ALL_MASKS), ids, seed).ids[0] == SPECIAL.mask
        assert hidden.tolist() in ([False, True, True, False, False], [False, False, False, True, False])


def test_unused_tokens_are_no_pieces(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [*TOKENS, "[unused1]"])
    ordinary, continues = WordPiece.read(tmp_path).pieces()
    assert [number for number, token in enumerate(TOKENS) if not ordinary[number]] == [0, 1, 2, 3, 4]
    assert not ordinary[len(TOKENS)] and continues.sum() == 28


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 0.0}, "share must be above 0 and below 1"),
        ({"masks": 0.95, "others": 0.1}, "at most 1 in all, got 0.95 and 0.1"),
        ({"others": -0.1}, "masks and others must be shares"),
    ],
)
def test_impossible_settings(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskSettings(**values)


def test_a_vocabulary_without_pieces(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, TOKENS[:5])
    with pytest.raises(ValueError, match="the vocabulary has special tokens only"):
        Masker(WordPiece.read(tmp_path), MaskSettings())
