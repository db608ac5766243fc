"""A tiny corrector that has learnt a few corrections by heart, and its run folder."""

from pathlib import Path

import torch
from tiny_bert import LETTERS, learnt_corrector, tiny_tokenizer
from tiny_bert import write_corrector as save_run

from postcorrect.model import Corrector

__all__ = ["KNOWN", "POSITIONS", "by_heart", "save_run"]

POSITIONS = 20
KNOWN = {
    "the contry": "the country's",
    "dont worry": "don't worry",
    "a b": "a b",
    "mother in low": "mother-in-law",
    **{f"{letter} q": f"{letter} q" for letter in LETTERS[:8]},
}


def by_heart(folder: Path, steps: int = 35) -> Corrector:
    """Knows ``KNOWN``; its vocabulary lies in ``folder``."""
    with torch.random.fork_rng():
        return learnt_corrector(KNOWN, tiny_tokenizer(folder), steps, POSITIONS, rate=0.02)
