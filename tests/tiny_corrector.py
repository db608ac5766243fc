"""A tiny corrector that has learnt a few corrections by heart, and its run folder."""

from pathlib import Path

import torch
from tiny_bert import LETTERS, SPECIAL, tiny_tokenizer

from postcorrect.checkpoint import identity
from postcorrect.config import CorrectorConfig, DropoutConfig, StackConfig
from postcorrect.model import Corrector
from quartznet.checkpoint import save_checkpoint

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
    tokenizer, still = tiny_tokenizer(folder), StackConfig(1, 1e-5, DropoutConfig.everywhere(0.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        corrector = Corrector(
            CorrectorConfig(
                len(tokenizer), channels=32, heads=2, feed_forward=64, positions=POSITIONS,
                encoder=still, decoder=still, special=SPECIAL,
            ),
            tokenizer,
        )  # fmt: skip
    source, mask = tokenizer.encode(list(KNOWN), POSITIONS)
    target, seen = tokenizer.encode(list(KNOWN.values()), POSITIONS)
    wanted = target[:, 1:].masked_fill(~seen[:, 1:], -100)
    optimizer = torch.optim.Adam(corrector.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = corrector(source, mask, target[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
    return corrector.eval()


def save_run(folder: Path, corrector: Corrector) -> Path:
    """A run folder that ``postcorrect.load`` reads."""
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder / "best.pt", identity(corrector) | {"weights": corrector.state_dict()})
    return folder
