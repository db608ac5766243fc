"""A BERT small enough for tests, without transformers: its folder, its corrector."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from postcorrect.bert import weight_table
from postcorrect.checkpoint import identity
from postcorrect.config import CorrectorConfig, DropoutConfig, SpecialTokens, StackConfig
from postcorrect.folder import write_json, write_weights
from postcorrect.model import Corrector
from postcorrect.wordpiece import WordPiece
from quartznet.checkpoint import save_checkpoint

SPECIAL = SpecialTokens(pad=0, unknown=1, begin=2, end=3, mask=4)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ("don", "wor", "the", "coun", "##ry", "##try", *"'-", *LETTERS, *(f"##{letter}" for letter in LETTERS))
TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES)
SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 12}


def tiny_config(vocabulary: int = len(TOKENS), positions: int = 64, layers: int = 2) -> CorrectorConfig:
    """Two heads, eight channels, no dropout."""
    still = DropoutConfig.everywhere(0.0)
    return CorrectorConfig(
        vocabulary, channels=8, heads=2, feed_forward=12, positions=positions, special=SPECIAL,
        encoder=StackConfig(layers, 1e-12, still), decoder=StackConfig(layers, 1e-5, still),
    )  # fmt: skip


def randomise(model: torch.nn.Module, scale: float = 0.5) -> None:
    """Every weight normal: fresh norms and biases do almost nothing and would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)


def tiny_corrector(config: CorrectorConfig | None = None, tokenizer: WordPiece | None = None) -> Corrector:
    """In evaluation mode, all weights random."""
    corrector = Corrector(config or tiny_config(), tokenizer).eval()
    randomise(corrector)
    return corrector


def write_vocabulary(folder: Path, tokens: Sequence[str] = TOKENS, settings: dict | None = None) -> None:
    """``vocab.txt``, and ``tokenizer_config.json`` if there are settings."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def tiny_tokenizer(folder: Path) -> WordPiece:
    """Lower-case letters, and a few longer pieces."""
    write_vocabulary(folder)
    return WordPiece.read(folder)


def bert_weights(vocabulary: int = len(TOKENS)) -> dict[str, Tensor]:
    """Random weights by BertModel's names."""
    return {entry.theirs: torch.randn(entry.shape) for entry in weight_table(tiny_config(vocabulary))}


def write_bert(
    folder: Path, weights: dict[str, Tensor] | None = None, as_pickle: bool = False, **settings: object
) -> None:
    """A folder in Hugging Face's layout; ``settings`` change ``config.json``, None takes one out."""
    write_vocabulary(folder)
    weights = bert_weights() if weights is None else weights
    if as_pickle:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        write_weights(folder, weights)
    table = {"model_type": "bert", "vocab_size": len(TOKENS), "max_position_embeddings": 64, **SIZES, **settings}
    write_json(folder / "config.json", {key: value for key, value in table.items() if value is not None})


def learnt_corrector(
    pairs: dict[str, str], tokenizer: WordPiece, steps: int = 80, positions: int = 64, rate: float = 0.01
) -> Corrector:
    """A corrector that has learnt a few corrections by heart."""
    still = StackConfig(1, 1e-5, DropoutConfig.everywhere(0.0))
    sizes = {"channels": 32, "heads": 2, "feed_forward": 64, "positions": positions}
    config = CorrectorConfig(len(tokenizer), **sizes, encoder=still, decoder=still, special=tokenizer.special)
    torch.manual_seed(0)  # the same whatever ran before: fixtures of modules come before the seed of a test
    corrector = Corrector(config, tokenizer)
    source, mask = tokenizer.encode(list(pairs), positions)
    target, seen = tokenizer.encode(list(pairs.values()), positions)
    wanted = target[:, 1:].masked_fill(~seen[:, 1:], -100)
    optimizer = torch.optim.Adam(corrector.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = corrector(source, mask, target[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
    return corrector.eval()


def write_corrector(folder: Path, corrector: Corrector) -> Path:
    """A run folder with nothing but ``best.pt``."""
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder / "best.pt", {**identity(corrector), "weights": corrector.state_dict()})
    return folder
