"""Losses and scores of hidden pieces, by hand."""

import math
from pathlib import Path

import pytest
import torch
from tiny_bert import SPECIAL, TOKENS, randomise, tiny_config, tiny_tokenizer
from torch import Tensor, nn

from postcorrect.masked_model import MaskedModel
from postcorrect.masked_task import evaluator, masked_loss, masked_task
from postcorrect.masking import Masker, MaskSettings
from postcorrect.sentences import MaskBatch, Sentences, dev_batches
from postcorrect.wordpiece import WordPiece

TEXTS = ["the country", "don the wor", "a b c d e f g h", "the", "don't worry the country"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> WordPiece:
    return tiny_tokenizer(tmp_path_factory.mktemp("vocabulary"))


def batches_of(tokenizer: WordPiece, texts: list[str] = TEXTS) -> list[MaskBatch]:
    return list(dev_batches(Sentences(texts, tokenizer, 12), Masker(tokenizer, MaskSettings()), 24))


def never() -> bool:
    return False


class Guess(nn.Module):
    """Guesses some pieces everywhere, in this order, and nothing else."""

    device = torch.device("cpu")

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.scores = torch.full((len(TOKENS),), -20.0)
        for number, name in enumerate(names):
            self.scores[TOKENS.index(name)] = 10.0 - number

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        return self.scores.expand(int(places.sum()), -1)


def test_a_loss_for_each_piece_that_is_asked_for(tokenizer: WordPiece) -> None:
    model = MaskedModel.new(tiny_config()).eval()
    randomise(model)
    masker = Masker(tokenizer, MaskSettings())
    for batch in batches_of(tokenizer):
        losses = masked_loss(masker)(model, batch, torch.Generator().manual_seed(3))
        assert losses.shape == (len(batch),) and losses.dtype == torch.float32
        masked = masker(batch.ids, batch.counts, torch.Generator().manual_seed(3))
        hidden = model.encoder(masked.ids, batch.mask)
        everywhere = model.head(hidden.flatten(0, 1), model.encoder.tables.tokens.weight).log_softmax(1)
        by_hand = -everywhere.gather(1, batch.ids.flatten()[:, None]).view_as(batch.ids)[masked.asked]
        torch.testing.assert_close(losses, by_hand)


def test_scores_by_hand(tokenizer: WordPiece) -> None:
    """Half of the pieces are "a", half "b", one of each is asked for in every text of two."""
    batches = batches_of(tokenizer, ["a", "b"] * 50)
    masker = Masker(tokenizer, MaskSettings())
    evaluate = evaluator(batches, masker, tokenizer, seed=0)
    result = evaluate(Guess("a", "b"), never)
    assert (result.wer, result.cer) == (0.5, 0.0)
    assert result.loss == pytest.approx(math.log(math.exp(10) + math.exp(9)) - 9.5, abs=1e-4)
    result = evaluate(Guess("a", "c", "d", "e", "f", "b"), never)
    assert (result.wer, result.cer) == (0.5, 0.5)
    assert result.examples[0] in (("a", "a"), ("b", "a"))


def test_dev_asks_the_same_every_time_and_other_pieces_in_each_round(tokenizer: WordPiece) -> None:
    seen: list[list[Tensor]] = []

    class Watch(Guess):
        def forward(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
            seen[-1].append(ids)
            return super().forward(ids, mask, places)

    batches = batches_of(tokenizer)
    results = []
    for seed in (0, 0, 1):
        seen.append([])
        torch.rand(1)
        results.append(evaluator(batches, Masker(tokenizer, MaskSettings()), tokenizer, seed)(Watch("a"), never))
    assert len(seen[0]) == 6 * len(batches) and results[0] == results[1]
    assert all(torch.equal(one, other) for one, other in zip(seen[0], seen[1], strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(seen[0], seen[2], strict=True))
    rounds = [torch.cat([ids.flatten() for ids in seen[0][start :: len(batches)]]) for start in range(len(batches))]
    assert all((row == SPECIAL.mask).any() for row in rounds)
    assert not torch.equal(seen[0][-1], seen[0][len(batches) - 1])


def test_a_stop_ends_the_evaluation_without_a_result(tokenizer: WordPiece) -> None:
    assert (
        evaluator(batches_of(tokenizer), Masker(tokenizer, MaskSettings()), tokenizer, 0)(Guess("a"), lambda: True)
        is None
    )


def test_the_task_names_what_it_measures(tokenizer: WordPiece, tmp_path: Path) -> None:
    batches = batches_of(tokenizer)
    task = masked_task(tokenizer, tiny_config(), Masker(tokenizer, MaskSettings()), batches, 0, "en", False)
    assert (task.unit, task.measures, task.is_speech) == ("tokens", ("wrong", "not among 5"), False)
    assert task.seconds(batches[0]) == batches[0].tokens
    assert task.identity["kind"] == "bert" and task.identity["model_config"]["channels"] == 8
    again = WordPiece.from_json(task.identity["tokenizer"], SPECIAL)
    assert again.ids(TEXTS) == tokenizer.ids(TEXTS)
