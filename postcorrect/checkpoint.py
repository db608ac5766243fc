"""A trained corrector on the disk: the project's checkpoint, with the tokenizer in it.

    corrector = postcorrect.load("runs/es-corrector")           # a run folder (its best.pt) or a file
    corrector.correct(["the contry"])

    {"format": "quartznet-1", "kind": "corrector", "model_config": {...}, "tokenizer": "{...}", "weights": {...}, ...}

One file is all there is: it needs no folder of the BERT that it began with. Like a recogniser's it holds tensors and
plain values only, so a foreign file cannot run code. The surprise: the tokenizer is part of the weights, for a row of
the table of tokens means nothing without it; so a run never goes on with another one.
"""

import reprlib
from pathlib import Path

import torch

from postcorrect.config import CorrectorConfig
from postcorrect.model import Corrector, check_tokenizer
from postcorrect.wordpiece import WordPiece
from quartznet.checkpoint import fill, find_checkpoint, load_checkpoint
from quartznet.settings import from_dict, to_dict

KIND = "corrector"


def identity(corrector: Corrector, lang: str | None = None) -> dict:
    """What rebuilds a corrector, without its weights; part of every checkpoint of a run.

    Raises:
        ValueError: it has no tokenizer.
    """
    if corrector.tokenizer is None:
        raise ValueError("a corrector without a tokenizer cannot be saved; make it with postcorrect.from_bert")
    config, tokenizer = to_dict(corrector.config), corrector.tokenizer.to_json()
    return {"kind": KIND, "model_config": config, "tokenizer": tokenizer, "lang": lang}


def check_sizes(config: CorrectorConfig, weights: object, path: str | Path) -> None:
    """Before memory is taken: a small file may ask for a network of 16 GB.

    Raises:
        ValueError: a weight is missing, or has another size than ``config`` says; the message names ``path``.
    """
    with torch.device("meta"):  # shapes alone
        wanted = Corrector(config).state_dict()
    given = weights if isinstance(weights, dict) else {}
    shapes = {name: getattr(given.get(name), "shape", None) for name in wanted}
    wrong = [name for name, value in wanted.items() if shapes[name] != value.shape]
    if wrong:
        found = "is missing" if shapes[wrong[0]] is None else f"has shape {tuple(shapes[wrong[0]])}"
        raise ValueError(
            f"{path}: weights and model_config contradict each other: {wrong[0]} {found}, asked for is "
            f"{tuple(wanted[wrong[0]].shape)} (of {len(wrong)} such)"
        )


def load(run: str | Path) -> Corrector:
    """The corrector of a run folder or file, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no checkpoint.
        ValueError: the file is damaged, holds something else, or contradicts itself.
    """
    path = find_checkpoint(run)
    payload = load_checkpoint(path)
    if payload.get("kind") != KIND:
        kind = {"None": "a recogniser", "bert": "a BERT in training"}.get(str(payload.get("kind")), "something else")
        raise ValueError(f"{path} holds {kind} and no corrector; python -m postcorrect.train makes one")
    missing = [key for key in ("model_config", "tokenizer", "weights") if key not in payload]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}, so no corrector can be built from it")
    if not isinstance(payload["tokenizer"], str):
        raise ValueError(
            f"{path}: tokenizer must be text, got {reprlib.repr(payload['tokenizer'])}; the file is broken"
        )
    try:
        config = from_dict(CorrectorConfig, payload["model_config"], "model_config.")
        tokenizer = WordPiece.from_json(payload["tokenizer"], config.special)
        check_tokenizer(tokenizer, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    check_sizes(config, payload["weights"], path)
    corrector = Corrector(config, tokenizer)
    fill(corrector, payload["weights"], path)
    return corrector.eval()
