"""Files of a BERT on the disk, in the layout of Hugging Face: ``config.json`` and the weights beside it.

Weights are ``model.safetensors`` (a JSON table of names, shapes and places, then the numbers) or, in older folders,
``pytorch_model.bin``, a pickle. Nothing in either can run code: the first holds none, and the second is read with
``weights_only=True``, which refuses all but tensors. Where both are there, the first is taken, as transformers does.

The surprise: a vocabulary and weights are often copied without the ``config.json`` that belongs to them. Sizes could be
guessed from the weights, but not the number of heads, which changes every answer; so that file is needed.
"""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from quartznet.checkpoint import replace_atomically

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"


def read_json(path: str | Path) -> dict:
    """A file that holds one JSON table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or no table.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path.name} in {path.parent}; give a folder in Hugging Face's layout")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{path} is not valid JSON, the file may be damaged: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold a JSON table, got {reprlib.repr(table)}")
    return table


def write_json(path: str | Path, table: dict) -> None:
    """Writes a table, atomically, for people to read too."""
    text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
    replace_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Names as they stand in the file, tensors on the CPU.

    Raises:
        FileNotFoundError: the folder has no file of weights.
        ValueError: the file is damaged, or holds something else than tensors.
    """
    folder = Path(folder)
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return _read_file(folder / name)
    parts = [name for name in (SAFETENSORS, PICKLE) if (folder / f"{name}.index.json").is_file()]
    if parts:
        raise FileNotFoundError(
            f"the weights in {folder} are in several parts; join them with transformers: "
            "BertModel.from_pretrained(folder).save_pretrained(other, max_shard_size='100GB')"
        )
    raise FileNotFoundError(f"there is no {SAFETENSORS} and no {PICKLE} in {folder}; download one of them")


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.name == SAFETENSORS:
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails anywhere inside zipfile, pickle and safetensors
        reason = " ".join(str(error).split(". ")[0].split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read, it may be damaged or no file of weights: {reason}") from error
    is_weights = isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())
    if not is_weights:
        raise ValueError(f"{path} must hold names and tensors only, got {reprlib.repr(weights)}")
    return weights


def write_weights(folder: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Writes ``model.safetensors``, atomically; transformers asks for the word "pt" in it."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    replace_atomically(Path(folder) / SAFETENSORS, lambda temporary: save_file(plain, temporary, {"format": "pt"}))
