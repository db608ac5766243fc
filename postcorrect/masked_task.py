"""What the training loop must know of hidden pieces: the losses of a batch, and the score of dev.

    task = masked_task(tokenizer, config, masker, dev, seed, evaluate_first=False)
    fit(model, loader, settings, task, out)                 # quartznet.engine, the loop of the recogniser

A loss belongs to a piece, in nats: -ln P(piece | what is not hidden). Dev is told as two rates besides: guesses that
are wrong, and those where the right piece is not even among the best five.

The surprise: on dev the hidden pieces are drawn as well, and what was drawn would weigh more than what was learnt. So
they are the same in every evaluation, and each sentence of a small dev is asked several times, other pieces hidden.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from data.hashing import stable_hash
from postcorrect.config import CorrectorConfig
from postcorrect.masked_model import MaskedModel
from postcorrect.masking import Masker
from postcorrect.sentences import MaskBatch
from postcorrect.wordpiece import WordPiece
from quartznet import distributed
from quartznet.settings import to_dict
from quartznet.task import DevResult, Task

KIND = "bert"
ASKED = 5000  # pieces of dev that are asked for at least, if that does not take more rounds than
MOST_ROUNDS = 6
BEST = 5  # guesses that a piece should be among


def masked_loss(masker: Masker) -> Callable[[MaskedModel, MaskBatch, torch.Generator], Tensor]:
    """The loss function of training: ``(model, batch, generator)`` -> losses ``(pieces,)``, fp32, text by text."""

    def loss(model: MaskedModel, batch: MaskBatch, generator: torch.Generator) -> Tensor:
        masked = masker(batch.ids, batch.counts, generator)
        scores = model(masked.ids, batch.mask, masked.asked)
        return functional.cross_entropy(scores.float(), batch.ids[masked.asked], reduction="none")

    return loss


def evaluator(
    batches: Sequence[MaskBatch], masker: Masker, tokenizer: WordPiece, seed: int
) -> Callable[[MaskedModel, Callable[[], bool]], DevResult | None]:
    """The evaluation function of training, over the batches of all ranks; each rank does its share."""
    rounds = min(MOST_ROUNDS, max(1, math.ceil(ASKED / max(1, sum(len(batch) for batch in batches)))))
    turns = [(turn, number) for turn in range(rounds) for number in range(len(batches))]

    @torch.no_grad()
    def evaluate(model: MaskedModel, should_stop: Callable[[], bool]) -> DevResult | None:
        sums = torch.zeros(4, dtype=torch.float64)  # pieces, nats, wrong, not among the best
        examples: list[tuple[str, str]] = []
        for turn, number in turns[distributed.rank() :: distributed.world_size()]:
            generator = torch.Generator().manual_seed(stable_hash("dev", seed, turn, number))
            batch = batches[number].to(model.device)
            masked = masker(batch.ids, batch.counts, generator)
            scores = model(masked.ids, batch.mask, masked.asked).float()
            targets = batch.ids[masked.asked]
            best = scores.topk(min(BEST, scores.shape[1])).indices
            right = best == targets[:, None]
            found = (targets.numel(), functional.cross_entropy(scores, targets, reduction="sum"))
            sums += torch.tensor([*map(float, found), float((~right[:, 0]).sum()), float((~right.any(1)).sum())])
            if not examples:
                examples = _examples(batch, masked.asked, best[:, 0], tokenizer)
            if should_stop():
                break
        gathered = distributed.gather((sums.tolist(), should_stop()))
        if any(stopped for _, stopped in gathered):
            return None
        pieces, nats, wrong, outside = (sum(values) for values in zip(*(part for part, _ in gathered), strict=True))
        return DevResult(nats / pieces, wrong / pieces, outside / pieces, examples)

    return evaluate


def _examples(batch: MaskBatch, asked: Tensor, guesses: Tensor, tokenizer: WordPiece) -> list[tuple[str, str]]:
    """A few sentences, and what becomes of them with the guesses in their places."""
    guessed = batch.ids.masked_scatter(asked, guesses)
    rows = zip(batch.ids[-5:].tolist(), guessed[-5:].tolist(), strict=True)
    return [(tokenizer.decode(row), tokenizer.decode(guess)) for row, guess in rows]


def masked_task(
    tokenizer: WordPiece,
    config: CorrectorConfig,
    masker: Masker,
    dev: Sequence[MaskBatch],
    seed: int,
    lang: str,
    evaluate_first: bool,
) -> Task:
    """All that the loop must know; ``evaluate_first`` where the weights bring something."""
    identity = {"kind": KIND, "model_config": to_dict(config), "tokenizer": tokenizer.to_json(), "lang": lang}
    return Task(
        loss=masked_loss(masker),
        evaluate=evaluator(dev, masker, tokenizer, seed),
        seconds=lambda batch: batch.tokens,
        identity=identity,
        evaluate_first=evaluate_first,
        unit="tokens",
        measures=("wrong", "not among 5"),
        is_speech=False,
    )
