"""BERT weights in and out: a folder in Hugging Face's layout -> both halves of a corrector, and an encoder -> a folder.

    corrector = from_bert("bert-base-multilingual-cased")
    save_bert(corrector.encoder, "bert-of-mine", corrector.tokenizer)           # BertModel.from_pretrained reads it
    model, tokenizer = masked_from_bert("bert-base-multilingual-cased")         # with the head that guesses

The encoder is the BERT. Block i of the decoder starts from block i of the BERT too: its attention to what is written
from the attention of BERT, its attention to the source from the very same weights, norm included, and its feed-forward
layer from that of BERT, as NeMo's examples/nlp/asr_postprocessor/get_decoder_params_from_bert.py has it. The tables of
tokens, positions and types are shared. The output layer has a bias that BERT has not; it starts at zero.

``weight_table`` is the only place with BERT's names. Each key of a file fills something, or is named in ``left_out``
(pooler, heads of pre-training and of other tasks), or is an error; so is each weight that the file does not have.

The surprise: files older than 2019's end call scale and shift of a norm gamma and beta, as TensorFlow did.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from postcorrect.config import CorrectorConfig, DropoutConfig, SpecialTokens
from postcorrect.folder import read_json, read_weights, write_json, write_weights
from postcorrect.masked_model import MaskedModel, MaskHead
from postcorrect.model import Corrector, Encoder, check_tokenizer
from postcorrect.wordpiece import WordPiece
from quartznet.settings import from_dict

logger = logging.getLogger(__name__)

# config.json's name -> ours; None: needed, else what transformers takes where it is not said
SIZES = {
    "vocab_size": ("vocabulary", None),
    "hidden_size": ("channels", None),
    "num_attention_heads": ("heads", None),
    "intermediate_size": ("feed_forward", None),
    "max_position_embeddings": ("positions", 512),
    "type_vocab_size": ("token_types", 2),
    "hidden_act": ("activation", "gelu"),
}
PARTS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "feed_forward.inner",
    "output.dense": "feed_forward.out",
    "output.LayerNorm": "feed_forward.norm",
}
HEAD = {"cls.predictions.transform.dense": "head.dense", "cls.predictions.transform.LayerNorm": "head.norm"}
TABLES = {"word_embeddings": "tokens", "position_embeddings": "positions", "token_type_embeddings": "types"}
KEY = re.compile(r"(?:(?:module|model)\.)*(?:bert\.)?((?:embeddings|encoder)\..+)")
HEAD_KEY = re.compile(r"(?:(?:module|model)\.)*(cls\.predictions\.(?:bias|transform\..+))")
COUNTERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # 0, 1, 2, ... and 0, 0, 0, ... of some versions

# ---------------------------------------------------------------------------------------------------------------------
# Names and shapes


@dataclass(frozen=True)
class Entry:
    """One weight of a BERT, and all that starts from it."""

    theirs: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]


def weight_table(config: CorrectorConfig, head: bool = False) -> list[Entry]:
    """Every weight of a BERT without pooler, in the order of its file; ``head``: that of ``MaskedModel`` too."""
    channels, rows = config.channels, (config.vocabulary, config.positions, config.token_types)
    table = [
        Entry(f"embeddings.{theirs}.weight", (f"encoder.tables.{ours}.weight",), (count, channels))
        for (theirs, ours), count in zip(TABLES.items(), rows, strict=True)
    ]
    for kind in ("weight", "bias"):
        ours = (f"encoder.norm.{kind}", f"decoder.norm.{kind}")
        table.append(Entry(f"embeddings.LayerNorm.{kind}", ours, (channels,)))
    for layer in range(config.encoder.layers):
        table += _layer(layer, config)
    return [*table, *_head(config)] if head else table


def _head(config: CorrectorConfig) -> Iterator[Entry]:
    """The output layer's weight is the table of tokens, so its key is none of BERT's file."""
    channels = config.channels
    for theirs, ours in HEAD.items():
        for kind in ("weight", "bias"):
            shape = (channels, channels) if (kind, ours) == ("weight", "head.dense") else (channels,)
            yield Entry(f"{theirs}.{kind}", (f"{ours}.{kind}",), shape)
    yield Entry("cls.predictions.bias", ("head.bias",), (config.vocabulary,))


def _layer(layer: int, config: CorrectorConfig) -> Iterator[Entry]:
    for theirs, ours in PARTS.items():
        outputs = config.feed_forward if ours == "feed_forward.inner" else config.channels
        inputs = config.feed_forward if ours == "feed_forward.out" else config.channels
        places = [f"encoder.blocks.{layer}.{ours}", f"decoder.blocks.{layer}.{ours}"]
        if ours.startswith("attention."):
            places.append(f"decoder.blocks.{layer}.cross.{ours.removeprefix('attention.')}")
        for kind in ("weight", "bias"):
            shape = (outputs, inputs) if kind == "weight" and not ours.endswith("norm") else (outputs,)
            yield Entry(f"encoder.layer.{layer}.{theirs}.{kind}", tuple(f"{place}.{kind}" for place in places), shape)


def canonical(key: str, head: bool = False) -> str | None:
    """A key as ``weight_table`` has it; None for what is not in that table."""
    match = KEY.fullmatch(key) or (HEAD_KEY.fullmatch(key) if head else None)
    if not match or match[1] in COUNTERS:
        return None
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", match[1]))


def _listing(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


# ---------------------------------------------------------------------------------------------------------------------
# In


@dataclass(frozen=True)
class Bert:
    """What a folder holds: the configuration of a corrector with it, weights by their names in ``weight_table``."""

    config: CorrectorConfig
    weights: dict[str, Tensor]  # fp32
    left_out: tuple[str, ...]  # keys of the file that a corrector has no use for


def bert_config(table: dict, special: SpecialTokens, path: str | Path = "config.json") -> CorrectorConfig:
    """The configuration of a corrector that starts from the BERT which ``config.json`` describes.

    Raises:
        ValueError: it is another model than BERT, its positions are relative, or sizes are missing or impossible.
    """
    kind = table.get("model_type", "bert")  # the first folders did not say
    if kind != "bert":
        raise ValueError(f"{path} describes a model of type {kind}; only bert can be read")
    if table.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"{path} has positions {table['position_embedding_type']}; only absolute ones can be read")
    needed = [theirs for theirs, (_, default) in SIZES.items() if default is None]
    missing = [key for key in (*needed, "num_hidden_layers") if key not in table]
    if missing:
        raise ValueError(f"{path} does not say {', '.join(missing)}; take the one that belongs to the weights")
    values = {ours: table.get(theirs, default) for theirs, (ours, default) in SIZES.items()}
    hidden, scores = table.get("hidden_dropout_prob", 0.1), table.get("attention_probs_dropout_prob", 0.1)
    dropout = {"embedding": hidden, "attention_scores": scores, "attention_output": hidden, "feed_forward": hidden}
    layers = table["num_hidden_layers"]
    values["encoder"] = {"layers": layers, "norm_epsilon": table.get("layer_norm_eps", 1e-12), "dropout": dropout}
    values |= {"decoder": {"layers": layers}, "special": vars(special)}
    try:
        return from_dict(CorrectorConfig, values)
    except ValueError as error:
        raise ValueError(f"{path} describes no BERT that can be read: {error}") from error


def read_bert(folder: str | Path, special: SpecialTokens, head: bool = False) -> Bert:
    """Configuration and weights of a folder.

    Args:
        head: take the weights of the head too that guesses hidden pieces, if they are there.

    Raises:
        FileNotFoundError: ``config.json`` or the weights are missing.
        ValueError: see ``bert_config``; also for a weight that is missing, unknown, there twice, of another shape than
            the configuration says, not of floats or not finite, and for a damaged file.
    """
    path = Path(folder) / "config.json"
    settings = read_json(path)
    config, head = bert_config(settings, special, path), head and settings.get("tie_word_embeddings") is not False
    named: dict[str, Tensor] = {}
    left_out = []
    for key, value in read_weights(folder).items():
        name = canonical(key, head)
        if name is None:
            left_out.append(key)
        elif name in named:
            raise ValueError(f"{folder}: two keys mean {name}, one of them is {key}; the file mixes two models")
        else:
            named[name] = value
    table = weight_table(config, any(name.startswith("cls.") for name in named))
    _compare(named, table, folder)
    return Bert(config, {entry.theirs: _floats(entry, named[entry.theirs], folder) for entry in table}, tuple(left_out))


def _compare(named: dict[str, Tensor], table: list[Entry], folder: str | Path) -> None:
    wanted = [entry.theirs for entry in table]
    missing = [name for name in wanted if name not in named]
    unknown = sorted(set(named).difference(wanted))
    if missing:
        raise ValueError(f"{folder}: the weights lack {_listing(missing)}, which config.json asks for")
    if unknown:
        raise ValueError(f"{folder}: the weights hold parts that config.json does not have: {_listing(unknown)}")


def _floats(entry: Entry, value: Tensor, folder: str | Path) -> Tensor:
    if tuple(value.shape) != entry.shape:
        found = tuple(value.shape)
        raise ValueError(f"{folder}: {entry.theirs} has shape {found}, but config.json asks for {entry.shape}")
    if not value.is_floating_point() or not torch.isfinite(value).all():
        raise ValueError(f"{folder}: {entry.theirs} must be finite floats ({value.dtype}); the file is broken")
    return value.float()


def from_bert(
    folder: str | Path,
    encoder: bool = True,
    decoder: bool = True,
    encoder_dropout: DropoutConfig | None = None,
    decoder_dropout: DropoutConfig | None = None,
) -> Corrector:
    """A corrector with the tokenizer and the weights of a folder, on the CPU, in evaluation mode.

    Args:
        encoder: whether the encoder starts from BERT; else at random, from torch's global generator.
        decoder: the same of the decoder. The tables that both share start from BERT if one of them does.
        encoder_dropout: None: as ``config.json`` says, which is what NeMo did.
        decoder_dropout: None: 0.25 everywhere, NeMo's.

    Raises:
        FileNotFoundError: the folder lacks ``config.json``, weights or a vocabulary.
        ValueError: see ``read_bert`` and ``WordPiece.read``; also where vocabulary and weights do not fit.
    """
    tokenizer = WordPiece.read(folder)
    bert = read_bert(folder, tokenizer.special)
    if bert.left_out:
        logger.info("%s: left out, a corrector has no use for it: %s", folder, ", ".join(bert.left_out))
    config = _with_dropout(bert.config, encoder_dropout, decoder_dropout)
    corrector = Corrector(config, tokenizer)
    corrector.load_state_dict(corrector.state_dict() | _own_weights(bert, encoder, decoder))
    return corrector.eval()


def masked_from_bert(folder: str | Path, dropout: DropoutConfig | None = None) -> tuple[MaskedModel, WordPiece]:
    """The network that guesses hidden pieces, on the CPU, in evaluation mode, and the tokenizer of a folder.

    Where the folder has no weights for the head, as BertModel saves it, they are random, from torch's global generator.

    Args:
        dropout: None: as ``config.json`` says.

    Raises:
        FileNotFoundError, ValueError: as ``from_bert``.
    """
    tokenizer = WordPiece.read(folder)
    bert = read_bert(folder, tokenizer.special, head=True)
    config = _with_dropout(bert.config, dropout, None)
    check_tokenizer(tokenizer, config)
    model = MaskedModel.new(config)
    has_head = "cls.predictions.bias" in bert.weights
    if not has_head:
        logger.info("%s has no head that guesses hidden pieces; it starts at random", folder)
    model.load_state_dict(model.state_dict() | _own_weights(bert, True, False, has_head))
    return model.eval(), tokenizer


def _with_dropout(config: CorrectorConfig, *dropouts: DropoutConfig | None) -> CorrectorConfig:
    encoder, decoder = (
        replace(stack, dropout=dropout or stack.dropout)
        for stack, dropout in zip((config.encoder, config.decoder), dropouts, strict=True)
    )
    return replace(config, encoder=encoder, decoder=decoder)


def _own_weights(bert: Bert, encoder: bool, decoder: bool, head: bool = False) -> dict[str, Tensor]:
    """Weights by our names, of the parts that are asked for; the table of tokens with rows of zeros at its end."""
    found, wanted = {}, {"encoder": encoder, "decoder": decoder, "head": head}
    for entry in weight_table(bert.config, head):
        for name in entry.ours:
            if (encoder or decoder) if name.startswith("encoder.tables.") else wanted[name.partition(".")[0]]:
                found[name] = bert.weights[entry.theirs]
    tokens = "encoder.tables.tokens.weight"
    if tokens in found:
        found[tokens] = functional.pad(found[tokens], (0, 0, 0, bert.config.rows - bert.config.vocabulary))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Out


def save_bert(
    encoder: Encoder, folder: str | Path, tokenizer: WordPiece | None = None, head: MaskHead | None = None
) -> None:
    """Writes ``config.json`` and ``model.safetensors`` as ``save_pretrained`` does, and the vocabulary.

    The pooler is not written, since an encoder has none; transformers says so and makes a new one.

    Args:
        head: what guesses hidden pieces; with it the folder is a BertForMaskedLM, without it a BertModel.

    Raises:
        OSError: the folder cannot be written.
    """
    config, stack, folder = encoder.config, encoder.config.encoder, Path(folder)
    kind, prefix = ("BertModel", "") if head is None else ("BertForMaskedLM", "bert.")  # of the encoder's keys
    table = {"architectures": [kind], "model_type": "bert", "num_hidden_layers": stack.layers}
    table |= {theirs: getattr(config, ours) for theirs, (ours, _) in SIZES.items()}
    table |= {
        "hidden_dropout_prob": stack.dropout.attention_output,
        "attention_probs_dropout_prob": stack.dropout.attention_scores,
        "layer_norm_eps": stack.norm_epsilon,
        "pad_token_id": config.special.pad,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
    }
    parts = {"encoder": encoder} if head is None else {"encoder": encoder, "head": head}
    weights = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    named = {}
    for entry in weight_table(config, head is not None):
        key = entry.theirs if entry.theirs.startswith("cls.") else f"{prefix}{entry.theirs}"
        named[key] = weights[entry.ours[0]][: entry.shape[0]].float()
    write_weights(folder, named)
    write_json(folder / "config.json", table)
    if tokenizer is not None:
        tokenizer.save(folder)
