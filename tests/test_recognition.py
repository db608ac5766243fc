"""The loss and the scores of a recogniser."""

import math

import pytest
import torch
from torch import Tensor

from quartznet.batch import Batch
from quartznet.config import AugmentSettings, BlockConfig, ModelConfig
from quartznet.ctc import ctc_losses
from quartznet.model import QuartzNet
from quartznet.recognition import Transcript, evaluator, mean_loss, recognise, recognition_loss, summarise


def small_model() -> QuartzNet:
    return QuartzNet(ModelConfig(tuple(" ab"), (BlockConfig(8, 5, stride=2), BlockConfig(8, 1, separable=False))))


def batch_of(signal: Tensor, targets: list[list[int]], skipped: list[str] | None = None) -> Batch:
    lengths = torch.full((len(targets),), signal.shape[1])
    texts = ["".join(" ab"[number] for number in row) for row in targets]
    names = [f"clip{number}" for number in range(len(targets))]
    letters = torch.tensor([len(row) for row in targets])
    return Batch(signal, lengths, torch.tensor(targets), letters, texts, names, skipped or [])


def test_masks_only_while_training_and_one_loss_a_clip() -> None:
    model = small_model().eval()
    batch = batch_of(torch.randn(2, 8000), [[1, 2], [2, 1]])
    loss = recognition_loss(AugmentSettings(cutout_masks=3))
    log_probs, lengths = model(batch.signal, batch.signal_lengths)
    expected = ctc_losses(log_probs, lengths, batch.targets, batch.target_lengths, 3)
    torch.testing.assert_close(loss(model, batch, torch.Generator()), expected)
    drawn = [loss(model.train(), batch, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert drawn[0].shape == (2,) and drawn[0].dtype == torch.float32
    assert not torch.equal(drawn[0], drawn[2])


def test_recognise_reports_what_failed_and_stops_when_asked() -> None:
    model = small_model().train()
    batches = [batch_of(torch.randn(1, 8000), [[1]], ["clip9: broken"]), batch_of(torch.randn(1, 8000), [[2]])]
    rows, skipped = recognise(model, batches)
    assert len(rows) == 2 and skipped == ["clip9: broken"] and model.training
    assert len(recognise(model, batches, lambda: True)[0]) == 1
    assert evaluator(batches)(model, lambda: True) is None


def test_text_without_a_path_has_infinite_loss_and_stays_out_of_the_mean() -> None:
    batch = batch_of(torch.randn(1, 1600), [[1, 2] * 20])
    rows, _ = recognise(small_model(), [batch])
    assert rows[0].loss == math.inf
    assert math.isnan(mean_loss(rows))


def test_rates_by_hand() -> None:
    rows = [Transcript("b", "a b", "a b", 2.0), Transcript("a", "a b a", "a a", 4.0)]
    result = summarise(rows, examples=1)
    assert (result.loss, result.wer, result.examples) == (3.0, 1 / 5, [("a b a", "a a")])
    assert result.cer == 2 / 8


def test_evaluation_without_a_single_clip_is_an_error() -> None:
    nothing = Batch(
        torch.zeros(0, 0),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 0),
        torch.zeros(0, dtype=torch.int64),
        [],
        [],
        ["clip0: broken"],
    )
    with pytest.raises(ValueError, match="no dev clip could be loaded; the first problem: clip0: broken"):
        evaluator([nothing])(small_model(), lambda: False)
