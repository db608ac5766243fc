"""Writes ``bert/``: a tiny BERT as transformers saves it, and what transformers makes of some texts with it.

Run by hand in an environment with transformers (4.53 was used), from the root::

    python tests/golden/make_bert.py

The decoder's answers are those of transformers' own BERT decoder with cross-attention, which was given the weights of
the encoder as ``postcorrect.bert`` hands them out. The surprise: biases and norms are made random too, because fresh
ones do almost nothing and would hide a mistake.
"""

import json
from pathlib import Path

import numpy
import torch
from torch import Tensor
from transformers import BertConfig, BertForPreTraining, BertModel, BertTokenizer

FOLDER = Path(__file__).resolve().parent / "bert"
PIECES = "don wor the coun country un able ha mana ##ry ##try ##s ##a ##e ##n ##o ##t ##r ##y ##l ##ts ##try ##able"
TOKENS = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"'-,.abcdefghijklmnopqrstuvwxyzñDT"]
TEXTS = ["don't worry", "the country's", "DON'T panic", "la mañana", "un-able. to", "  the \t hats ", "", "日本 x"]


def randomise(model: torch.nn.Module) -> None:
    """Every weight normal, so that norms and biases matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)


def decode(bert: BertModel, target: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """Vectors of a decoder whose attention to the source starts from that of its own text."""
    config = BertConfig(**{**bert.config.to_dict(), "is_decoder": True, "add_cross_attention": True})
    config.layer_norm_eps = 1e-5
    decoder = BertModel(config, add_pooling_layer=False).eval()
    weights = bert.state_dict()
    weights |= {key.replace(".attention.", ".crossattention."): value for key, value in weights.items()}
    missing, unexpected = decoder.load_state_dict(weights, strict=False)
    assert not missing and all("pooler" in key for key in unexpected), (missing, unexpected)
    return decoder(target, encoder_hidden_states=hidden, encoder_attention_mask=mask).last_hidden_state


def main() -> None:
    """Saves the folder, then numbers in and vectors out."""
    torch.manual_seed(0)
    tokens = list(dict.fromkeys([*TOKENS, *PIECES.split()]))
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=20,
    )  # fmt: skip
    model = BertForPreTraining(config).eval()
    randomise(model)
    FOLDER.mkdir(exist_ok=True)
    model.save_pretrained(FOLDER)
    (FOLDER / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (FOLDER / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}) + "\n", encoding="utf-8")
    texts = {}
    for lower in (False, True):
        tokenizer = BertTokenizer(FOLDER / "vocab.txt", do_lower_case=lower)
        texts[str(lower)] = [[text, tokenizer(text)["input_ids"]] for text in TEXTS]
    (FOLDER / "texts.json").write_text(json.dumps(texts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    source, target = torch.randint(6, len(tokens), (2, 7)), torch.randint(6, len(tokens), (2, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])
    with torch.no_grad():
        hidden = model.bert(source, attention_mask=mask).last_hidden_state
        decoded = decode(model.bert, target, hidden, mask)
    arrays = {"source": source, "mask": mask, "target": target, "hidden": hidden, "decoded": decoded}
    numpy.savez_compressed(FOLDER / "answers.npz", **{name: value.numpy() for name, value in arrays.items()})
    print(sorted((path.name, path.stat().st_size) for path in FOLDER.iterdir()))


if __name__ == "__main__":
    main()
