"""The network that guesses hidden pieces: transformers' own numbers, the head in and out of a folder."""

from pathlib import Path

import pytest
import torch
from tiny_bert import SPECIAL, TOKENS, bert_weights, randomise, tiny_config, tiny_tokenizer, write_bert

from postcorrect.bert import from_bert, masked_from_bert, read_bert, save_bert, weight_table
from postcorrect.config import DropoutConfig
from postcorrect.folder import read_json, read_weights
from postcorrect.masked_model import MaskedModel
from postcorrect.wordpiece import WordPiece


def tiny_model() -> MaskedModel:
    model = MaskedModel.new(tiny_config()).eval()
    randomise(model)
    return model


def texts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and places of three texts."""
    ids, mask = torch.randint(5, len(TOKENS), (3, 9)), torch.arange(9) < torch.tensor([[9], [4], [2]])
    places = torch.zeros(3, 9, dtype=torch.bool)
    places[0, [1, 5]] = places[1, 2] = places[2, 0] = True
    return ids, mask, places


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def test_what_is_not_asked_for_is_not_computed() -> None:
    model, (ids, mask, places) = tiny_model(), texts()
    hidden = model.encoder(ids, mask)
    torch.testing.assert_close(model.encoder(ids, mask, places), hidden[places])
    scores = model(ids, mask, places)
    assert scores.shape == (4, len(TOKENS))
    everywhere = model.head(hidden.flatten(0, 1), model.encoder.tables.tokens.weight).unflatten(0, ids.shape)
    torch.testing.assert_close(scores, everywhere[places])


def test_the_output_is_the_table_of_tokens() -> None:
    model, (ids, mask, places) = tiny_model(), texts()
    names = dict(model.named_parameters())
    assert not any(
        name.startswith("head.") and len(value.shape) > 1 and "dense" not in name for name, value in names.items()
    )
    model(ids, mask, places).logsumexp(1).sum().backward()
    grad = names["encoder.tables.tokens.weight"].grad
    assert grad[: len(TOKENS)].any(1).all() and not grad[len(TOKENS) :].any()


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    config = transformers.BertConfig(len(TOKENS), 24, 3, 4, 40, "gelu", max_position_embeddings=30)
    theirs = transformers.BertForMaskedLM(config).eval()
    randomise(theirs, 0.3)
    write_bert(tmp_path)
    theirs.save_pretrained(tmp_path)
    ours, _ = masked_from_bert(tmp_path)
    ids, mask, places = texts()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long()).logits[places]
        torch.testing.assert_close(ours(ids, mask, places), expected, rtol=1e-5, atol=1e-5)


def test_transformers_guesses_with_what_is_saved(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    model, tokenizer = tiny_model(), tiny_tokenizer(tmp_path / "vocabulary")
    save_bert(model.encoder, tmp_path, tokenizer, model.head)
    theirs, report = transformers.BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    fill = transformers.pipeline(
        "fill-mask", theirs.eval(), tokenizer=transformers.BertTokenizer.from_pretrained(tmp_path)
    )
    [guess] = fill("the [MASK] don", top_k=1)
    ids = torch.tensor([[SPECIAL.begin, TOKENS.index("the"), SPECIAL.mask, TOKENS.index("don"), SPECIAL.end]])
    with torch.no_grad():
        scores = model(ids, torch.ones(1, 5, dtype=torch.bool), ids == SPECIAL.mask)
    assert guess["token"] == scores.argmax().item()
    assert guess["score"] == pytest.approx(scores.softmax(1).max().item(), rel=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_the_table_fills_every_weight_once() -> None:
    ours = [entry.ours[0] for entry in weight_table(tiny_config(), head=True)]
    assert len(ours) == len(set(ours)) and set(ours) == set(tiny_model().state_dict())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(tmp_path / "vocabulary")
    with torch.no_grad():
        model.encoder.tables.tokens.weight[len(TOKENS) :] = 0.0  # rows too many are not written
    save_bert(model.encoder, tmp_path, tokenizer, model.head)
    assert read_json(tmp_path / "config.json")["architectures"] == ["BertForMaskedLM"]
    assert {key.partition(".")[0] for key in read_weights(tmp_path)} == {"bert", "cls"}
    again, same = masked_from_bert(tmp_path)
    assert same.to_json() == WordPiece.read(tmp_path / "vocabulary").to_json()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_corrector_leaves_the_head_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(tmp_path / "vocabulary")
    save_bert(model.encoder, tmp_path, tokenizer, model.head)
    with caplog.at_level("INFO"):
        corrector = from_bert(tmp_path)
    assert "left out" in caplog.text and "cls.predictions.bias" in caplog.text
    assert torch.equal(corrector.encoder.norm.weight, model.encoder.norm.weight)


def test_without_a_head_it_starts_at_random(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_bert(tmp_path, hidden_dropout_prob=0.2)
    with caplog.at_level("INFO"):
        model, _ = masked_from_bert(tmp_path)
    assert "has no head that guesses hidden pieces" in caplog.text
    assert not model.head.bias.any() and model.head.dense.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert model.encoder.config.encoder.dropout.feed_forward == 0.2
    other, _ = masked_from_bert(tmp_path, DropoutConfig.everywhere(0.0))
    assert other.encoder.config.encoder.dropout == DropoutConfig.everywhere(0.0)
    assert torch.equal(other.encoder.tables.types.weight, model.encoder.tables.types.weight)


def test_a_head_with_a_table_of_its_own_is_left_out(tmp_path: Path) -> None:
    model = tiny_model()
    save_bert(model.encoder, tmp_path, tiny_tokenizer(tmp_path / "vocabulary"), model.head)
    write_bert(tmp_path, read_weights(tmp_path), tie_word_embeddings=False)
    assert len(read_bert(tmp_path, SPECIAL, head=True).left_out) == 5
    write_bert(tmp_path, read_weights(tmp_path))
    assert not read_bert(tmp_path, SPECIAL, head=True).left_out


def test_a_head_in_pieces_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path, bert_weights() | {"cls.predictions.bias": torch.zeros(len(TOKENS))})
    with pytest.raises(ValueError, match=r"the weights lack cls.predictions.transform.dense.weight, .*LayerNorm.bias"):
        masked_from_bert(tmp_path)


def test_a_vocabulary_that_is_too_large_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path)
    with open(tmp_path / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("more\n")
    with pytest.raises(ValueError, match=r"the tokenizer has 66 tokens with .* the network 65"):
        masked_from_bert(tmp_path)
