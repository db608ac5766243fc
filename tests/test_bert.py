"""BERT weights in and out: transformers' own numbers, every key used or named, what is wrong with a folder."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from tiny_bert import SPECIAL, TOKENS, bert_weights, tiny_config, tiny_corrector, tiny_tokenizer, write_bert
from torch import Tensor

import postcorrect
from postcorrect.bert import bert_config, from_bert, read_bert, save_bert, weight_table
from postcorrect.config import DropoutConfig
from postcorrect.folder import read_json

GOLDEN = Path(__file__).parent / "golden" / "bert"


def same_function(first: postcorrect.Corrector, second: postcorrect.Corrector) -> bool:
    """Whether two correctors have the same weights, bit for bit."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------------------------------------
# Parity


def golden() -> dict[str, Tensor]:
    with numpy.load(GOLDEN / "answers.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_both_halves_are_those_of_transformers() -> None:
    corrector, answers = postcorrect.from_bert(GOLDEN), golden()
    mask = answers["mask"].bool()
    hidden = corrector.encode(answers["source"], mask)
    torch.testing.assert_close(hidden[mask], answers["hidden"][mask], rtol=1e-4, atol=1e-5)
    logits = corrector(answers["source"], mask, answers["target"])
    expected = answers["decoded"] @ corrector.encoder.tables.tokens.weight.T
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_parts_of_the_golden_file_that_are_left_out_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        from_bert(GOLDEN)
    [message] = [record.getMessage() for record in caplog.records]
    for name in ("bert.pooler.dense.weight", "cls.predictions.bias", "cls.seq_relationship.weight"):
        assert name in message
    bert = read_bert(GOLDEN, replace(SPECIAL, unknown=2, begin=3, end=4, mask=5))
    assert all(name.startswith(("bert.pooler.", "cls.")) for name in bert.left_out)
    assert len(bert.weights) + len(bert.left_out) == 5 + 2 * 16 + len(bert.left_out)


@pytest.fixture
def their_bert(tmp_path: Path) -> object:
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    config = transformers.BertConfig(len(TOKENS), 24, 3, 4, 40, "gelu_new", max_position_embeddings=30)
    model = transformers.BertForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("safe", [True, False])
def test_any_bert_of_transformers_loads_in_both_formats(tmp_path: Path, their_bert: object, safe: bool) -> None:
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    their_bert.save_pretrained(tmp_path, safe_serialization=safe)
    assert (tmp_path / "pytorch_model.bin").is_file() != safe
    ids, mask = torch.randint(0, len(TOKENS), (3, 9)), torch.arange(9) < torch.tensor([[9], [4], [1]])
    with torch.no_grad():
        expected = their_bert.bert(ids, attention_mask=mask.long()).last_hidden_state
        found = from_bert(tmp_path).encode(ids, mask)
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_transformers_reads_what_is_saved(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    corrector = tiny_corrector()
    save_bert(corrector.encoder, tmp_path, tiny_tokenizer(tmp_path / "vocabulary"))
    model, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert sorted(report["missing_keys"]) == ["pooler.dense.bias", "pooler.dense.weight"]
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    ids, mask = torch.randint(0, len(TOKENS), (2, 9)), torch.arange(9) < torch.tensor([[9], [4]])
    with torch.no_grad():
        expected = model.eval()(ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(corrector.encode(ids, mask)[mask], expected[mask], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Keys


def test_the_table_fills_every_weight_once() -> None:
    config = tiny_config()
    ours = [name for entry in weight_table(config) for name in entry.ours]
    assert len(ours) == len(set(ours))
    assert set(ours) == set(tiny_corrector(config).state_dict()) - {"bias"}


def test_attention_to_the_source_starts_from_attention_to_the_text(tmp_path: Path) -> None:
    weights = bert_weights()
    write_bert(tmp_path, weights)
    corrector = from_bert(tmp_path)
    for number, block in enumerate(corrector.decoder.blocks):
        own, cross = block.attention.state_dict(), block.cross.state_dict()
        assert own.keys() == cross.keys() and all(torch.equal(own[name], cross[name]) for name in own)
        theirs = f"encoder.layer.{number}.attention."
        assert torch.equal(cross["query.weight"], weights[f"{theirs}self.query.weight"])
        assert torch.equal(cross["norm.bias"], weights[f"{theirs}output.LayerNorm.bias"])
        assert block.cross.norm.eps == 1e-5 and corrector.encoder.blocks[number].attention.norm.eps == 1e-12
    tokens = corrector.encoder.tables.tokens.weight
    assert torch.equal(tokens[: len(TOKENS)], weights["embeddings.word_embeddings.weight"])
    assert tokens.shape == (72, 8) and not tokens[len(TOKENS) :].any() and not corrector.bias.any()


SPELLINGS = {
    "bert": lambda key: f"bert.{key}",
    "wrapped": lambda key: f"module.bert.{key}",
    "old": lambda key: f"bert.{key}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"),
}


@pytest.mark.parametrize("as_pickle", [False, True])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_all_spellings_mean_the_same(tmp_path: Path, spelling: str, as_pickle: bool) -> None:
    weights = bert_weights()
    write_bert(tmp_path / "plain", weights)
    renamed = {SPELLINGS[spelling](key): value for key, value in weights.items()}
    extra = {"bert.embeddings.position_ids": torch.arange(64).unsqueeze(0), "cls.predictions.bias": torch.ones(3)}
    write_bert(tmp_path / "other", renamed | extra, as_pickle)
    assert read_bert(tmp_path / "other", SPECIAL).left_out == tuple(extra)
    assert same_function(from_bert(tmp_path / "plain"), from_bert(tmp_path / "other"))


def test_half_precision_becomes_fp32(tmp_path: Path) -> None:
    write_bert(tmp_path, {key: value.half() for key, value in bert_weights().items()})
    assert {value.dtype for value in from_bert(tmp_path).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(("encoder", "decoder"), [(True, False), (False, True), (False, False)])
def test_halves_can_start_at_random(tmp_path: Path, encoder: bool, decoder: bool) -> None:
    write_bert(tmp_path)
    both, other = from_bert(tmp_path).state_dict(), from_bert(tmp_path, encoder, decoder).state_dict()
    for name, value in both.items():
        is_norm = ".norm." in name  # at random they are ones and zeros
        wanted = encoder if name.startswith("encoder.") else decoder
        wanted = (encoder or decoder) if ".tables." in name else wanted
        if name != "bias":
            assert torch.equal(other[name], value) == wanted, (name, is_norm)


def test_dropout_is_as_the_folder_says_and_as_nemo_had_it(tmp_path: Path) -> None:
    write_bert(tmp_path, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3)
    config = from_bert(tmp_path).config
    assert config.encoder.dropout == DropoutConfig(0.2, 0.3, 0.2, 0.2) and config.decoder.dropout == DropoutConfig()
    other = DropoutConfig.everywhere(0.4)
    config = from_bert(tmp_path, encoder_dropout=other, decoder_dropout=other).config
    assert config.encoder.dropout == config.decoder.dropout == other


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    write_bert(tmp_path / "first", hidden_act="relu", layer_norm_eps=1e-7)
    first = from_bert(tmp_path / "first")
    save_bert(first.encoder, tmp_path / "second", first.tokenizer)
    second = from_bert(tmp_path / "second")
    assert same_function(first, second) and second.config == first.config
    save_bert(first.encoder.half(), tmp_path / "third")
    assert not (tmp_path / "third" / "vocab.txt").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "roberta"}, "describes a model of type roberta; only bert can be read"),
        ({"position_embedding_type": "relative_key"}, "has positions relative_key; only absolute ones"),
        ({"hidden_size": None, "num_hidden_layers": None}, "does not say hidden_size, num_hidden_layers; take the one"),
        ({"hidden_act": "silu"}, "describes no BERT that can be read: .*activation must be gelu"),
        ({"num_attention_heads": 3}, r"channels must be a multiple of heads \(3\), got 8"),
        ({"vocab_size": "many"}, "vocabulary must be a whole number, got 'many'"),
        ({"hidden_size": 16}, r"word_embeddings.weight has shape \(65, 8\), but config.json asks for \(65, 16\)"),
        ({"vocab_size": 66}, r"word_embeddings.weight has shape \(65, 8\), but config.json asks for \(66, 8\)"),
        ({"num_hidden_layers": 3}, r"the weights lack encoder.layer.2.attention.self.query.weight, .* and 10 more"),
        ({"num_hidden_layers": 1}, r"parts that config.json does not have: encoder.layer.1.attention.output"),
        ({"vocab_size": 64}, r"asks for \(64, 8\)"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path, settings: dict, message: str) -> None:
    write_bert(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        from_bert(tmp_path)


def test_an_old_configuration_without_type_is_a_bert() -> None:
    table = read_json(GOLDEN / "config.json")
    del table["model_type"], table["max_position_embeddings"]
    assert bert_config(table, SPECIAL).positions == 512


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder.layer.0.output.dense.bias", None, "the weights lack encoder.layer.0.output.dense.bias, which"),
        (
            "encoder.layer.0.crossattention.self.key.bias",
            torch.ones(8),
            "does not have: encoder.layer.0.cross",
        ),
        ("bert.embeddings.LayerNorm.gamma", torch.ones(8), "two keys mean embeddings.LayerNorm.weight, one of them is"),
        ("embeddings.LayerNorm.bias", torch.full((8,), torch.nan), r"must be finite floats \(torch.float32\)"),
        ("embeddings.LayerNorm.bias", torch.ones(8, dtype=torch.int64), r"must be finite floats \(torch.int64\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, key: str, value: Tensor | None, message: str) -> None:
    weights = {**bert_weights(), key: value}
    write_bert(tmp_path, {name: tensor for name, tensor in weights.items() if tensor is not None})
    with pytest.raises(ValueError, match=message):
        from_bert(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_bert(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no .*{name}"):
        from_bert(tmp_path)


def test_a_vocabulary_that_is_too_large_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path)
    with open(tmp_path / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("more\n")
    with pytest.raises(ValueError, match=r"the tokenizer has 66 tokens with .* the network 65 .* the same BERT"):
        from_bert(tmp_path)
