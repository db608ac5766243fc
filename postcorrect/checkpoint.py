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

from postcorrect.config import CorrectorConfig
from postcorrect.model import Corrector
from postcorrect.wordpiece import WordPiece
from quartznet.checkpoint import find_checkpoint, load_checkpoint, not_finite
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


def load(run: str | Path) -> Corrector:
    """The corrector of a run folder or file, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no checkpoint.
        ValueError: the file is damaged, holds something else, or contradicts itself.
    """
    path = find_checkpoint(run)
    payload = load_checkpoint(path)
    if payload.get("kind") != KIND:
        kind = {None: "a recogniser", "bert": "a BERT in training"}.get(payload.get("kind"), "something else")
        raise ValueError(f"{path} holds {kind} and no corrector; python -m postcorrect.train makes one")
    missing = [key for key in ("model_config", "tokenizer", "weights") if key not in payload]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}, so no corrector can be built from it")
    if not isinstance(payload["tokenizer"], str):
        raise ValueError(
            f"{path}: tokenizer must be text, got {reprlib.repr(payload['tokenizer'])}; the file is broken"
        )
    config = from_dict(CorrectorConfig, payload["model_config"], "model_config.")
    corrector = Corrector(config, WordPiece.from_json(payload["tokenizer"], config.special))
    try:
        corrector.load_state_dict(payload["weights"])
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: weights and model_config contradict each other: {reason}") from error
    if broken := not_finite(corrector):
        raise ValueError(f"{path}: {broken[0]} is not finite (of {len(broken)}); file or training is broken")
    return corrector.eval()
