"""quartznet.keep: no pull where nothing has moved, and the right one where something has."""

import copy

import pytest
import torch
from test_finetune import FOUR, batch_of
from test_model import small_model

from quartznet.config import AugmentSettings
from quartznet.keep import Memory, distance_loss, divergence_loss, frozen_head, with_head
from quartznet.recognition import recognition_loss


def test_the_pull_is_proportional_to_the_distance() -> None:
    model = small_model(FOUR)
    base = copy.deepcopy(model)
    memory = Memory(base, l2sp=3.0)
    assert distance_loss(model.encoder, memory.start).item() == 0
    weight = model.encoder.blocks[1].layers[0].pointwise.weight
    with torch.no_grad():
        weight += 0.25
    frozen = model.encoder.blocks[2].layers[0].pointwise.weight.requires_grad_(False)
    with torch.no_grad():
        frozen += 1.0  # holds still, so it is not pulled
    (3.0 * distance_loss(model.encoder, memory.start)).backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 3.0 * 0.25), atol=1e-6, rtol=1e-5)
    assert frozen.grad is None and distance_loss(model.encoder, memory.start).item() == pytest.approx(
        0.25**2 * weight.numel() / 2, rel=1e-4
    )


def test_divergence_by_hand() -> None:
    old = torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]).log()
    new = torch.tensor([[[0.8, 0.2], [0.3, 0.7]]]).log()
    first = 0.5 * torch.tensor(0.5 / 0.8).log() + 0.5 * torch.tensor(0.5 / 0.2).log()
    second = 0.9 * torch.tensor(0.9 / 0.3).log() + 0.1 * torch.tensor(0.1 / 0.7).log()
    torch.testing.assert_close(divergence_loss(new, old, torch.tensor([2]), 1.0), (first + second)[None])
    torch.testing.assert_close(divergence_loss(new, old, torch.tensor([1]), 1.0), first[None])  # padding does not count
    soft_old, soft_new = ((x / 2).softmax(2) for x in (old, new))
    soft = 4 * (soft_old * (soft_old / soft_new).log()).sum((1, 2))
    torch.testing.assert_close(divergence_loss(new, old, torch.tensor([2]), 2.0), soft)


def test_the_same_answers_have_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 5, 4, requires_grad=True)
    log_probs = logits.log_softmax(2)
    loss = divergence_loss(log_probs, log_probs.detach(), torch.tensor([5, 3]), 1.5)
    loss.sum().backward()
    assert loss.abs().max() < 1e-6 and logits.grad.abs().max() < 1e-6


def test_both_are_added_to_the_ctc_loss_of_each_utterance() -> None:
    model = small_model(FOUR).eval()  # in evaluation old and new network see the same statistics
    batch, generator = batch_of(model), torch.Generator()
    plain = recognition_loss(AugmentSettings(cutout_masks=0))(model, batch, generator)
    memory = Memory(copy.deepcopy(model), l2sp=1.0, lwf=1.0)
    same = recognition_loss(AugmentSettings(cutout_masks=0), memory)(model, batch, generator)
    torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-5)
    with torch.no_grad():
        model.encoder.blocks[3].layers[0].conv.weight *= 1.5
    plain = recognition_loss(AugmentSettings(cutout_masks=0))(model, batch, generator)
    lwf = recognition_loss(AugmentSettings(cutout_masks=0), Memory(memory.base, lwf=1.0))(model, batch, generator)
    l2sp = recognition_loss(AugmentSettings(cutout_masks=0), Memory(memory.base, l2sp=1.0))(model, batch, generator)
    assert lwf.shape == plain.shape == l2sp.shape and (lwf > plain).all()
    extra = l2sp - plain
    assert extra.min() > 0 and torch.allclose(extra, extra[0].expand(3), atol=1e-3)


def test_learning_without_forgetting_holds_the_encoder_and_not_the_new_head() -> None:
    model = small_model(FOUR)
    memory = Memory(copy.deepcopy(model), lwf=1.0)
    model.train()
    recognition_loss(AugmentSettings(cutout_masks=0), memory)(
        model, batch_of(model), torch.Generator()
    ).sum().backward()
    assert all(parameter.grad is None for parameter in memory.base.parameters())
    assert model.encoder.blocks[0].layers[0].pointwise.weight.grad.abs().max() > 0


def test_another_head_on_the_same_encoder() -> None:
    model, other = small_model(FOUR).eval(), small_model(FOUR)
    head = frozen_head(other.state_dict())
    view = with_head(model, head, ("ß", *other.config.labels[1:]))
    assert view.encoder is model.encoder and view.alphabet.labels[0] == "ß" and model.decoder is not head
    features, lengths = torch.randn(1, model.config.features.mels, 30), torch.tensor([30])
    encoded, _ = model.encode(features, lengths)
    expected = other.decoder(encoded)[:, : model.output_length(30)]
    assert torch.equal(view.forward_features(features, lengths)[0], expected)
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_impossible_weights() -> None:
    with pytest.raises(ValueError, match="l2sp and lwf cannot be negative, temperature must be above 0"):
        Memory(small_model(FOUR), l2sp=-1.0)
