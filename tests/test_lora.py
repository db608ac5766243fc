"""quartznet.lora: nothing at first, a low-rank weight in the end, merged or not."""

import copy

import pytest
import torch
from test_model import small_model
from torch import nn

from quartznet import lora
from quartznet.config import BlockConfig, preset_blocks
from quartznet.layers import Conv
from quartznet.model import Encoder, QuartzNet


def output(model: QuartzNet) -> torch.Tensor:
    features = torch.randn(2, model.config.features.mels, 40, generator=torch.Generator().manual_seed(2))
    return model.forward_features(features, torch.tensor([40, 31]))[0]


def learnt(model: QuartzNet) -> QuartzNet:
    """Corrections as large as after a long training."""
    for name, parameter in model.named_parameters():
        if ".low_rank." in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def test_parameters_of_15x5() -> None:
    with torch.device("meta"):
        encoder = Encoder(64, preset_blocks("15x5"))
        assert len(list(lora.pointwise(encoder))) == 93
        counts = [lora.parameter_count(encoder, rank) for rank in (4, 8, 16, 32)]
        before = sum(parameter.numel() for parameter in encoder.parameters())
        lora.attach(encoder, rank=8)
    assert counts == [304_384, 608_768, 1_217_536, 2_435_072]
    added = sum(parameter.numel() for parameter in encoder.parameters()) - before
    assert added == 608_768 and added / 18_924_381 < 0.033


def test_step_0_is_the_base_bit_for_bit() -> None:
    model = small_model().eval()
    before, names = output(model), set(model.state_dict())
    lora.attach(model.encoder)
    assert torch.equal(output(model), before)
    added = set(model.state_dict()) - names
    assert names < set(model.state_dict()) and all(".low_rank." in name for name in added)
    assert lora.has_lora(model.encoder)


def test_a_correction_is_the_formula() -> None:
    conv = Conv(3, 5, 1)
    x = torch.randn(2, 3, 1, 7)
    encoder = nn.Sequential(conv)
    lora.attach(encoder, rank=2, alpha=3.0)
    low_rank = conv.low_rank
    nn.init.normal_(low_rank.up)
    weight = conv.weight[:, :, 0, 0] + 3.0 / 2 * low_rank.up[:, :, 0, 0] @ low_rank.down[:, :, 0, 0]
    expected = torch.einsum("oi,bixt->boxt", weight, x)
    torch.testing.assert_close(conv(x), expected, atol=1e-6, rtol=1e-5)


def test_merged_equals_unmerged_and_unmerging_restores_the_weights() -> None:
    model = small_model().eval()
    lora.attach(model.encoder, rank=4)
    learnt(model)
    unmerged, weights = output(model), copy.deepcopy(model.state_dict())
    lora.merge(model.encoder)
    lora.merge(model.encoder)  # the second time does nothing
    torch.testing.assert_close(output(model), unmerged, atol=1e-4, rtol=0)
    assert not torch.equal(model.state_dict()["encoder.blocks.0.layers.0.pointwise.weight"],
                           weights["encoder.blocks.0.layers.0.pointwise.weight"])  # fmt: skip
    lora.unmerge(model.encoder)
    lora.unmerge(model.encoder)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=1e-6, rtol=0)
    torch.testing.assert_close(output(model), unmerged, atol=1e-5, rtol=0)


def test_removed_after_merging_it_is_a_plain_network() -> None:
    model = small_model().eval()
    names = set(model.state_dict())
    lora.attach(model.encoder)
    before = output(learnt(model))
    lora.merge(model.encoder)
    lora.remove(model.encoder)
    assert set(model.state_dict()) == names and not lora.has_lora(model.encoder)
    torch.testing.assert_close(output(model), before, atol=1e-4, rtol=0)
    lora.attach(model.encoder)  # and can take a new one


def test_the_inference_form_has_it_merged_and_leaves_the_model_alone() -> None:
    model = learnt_lora()
    weights = copy.deepcopy(model.state_dict())
    features = torch.randn(2, model.config.features.mels, 40)
    lengths = torch.tensor([40, 40])
    fast = model.for_inference()
    expected, given = model.forward_features(features, lengths)[0], fast.forward_features(features, lengths)[0]
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def learnt_lora() -> QuartzNet:
    model = small_model().eval()
    lora.attach(model.encoder, rank=2)
    return learnt(model)


def test_dropout_is_for_training_only() -> None:
    model = small_model()
    lora.attach(model.encoder, rank=2, dropout=0.5)
    learnt(model).eval()
    assert torch.equal(output(model), output(model))
    conv = model.encoder.blocks[0].layers[0].pointwise.train()
    x = torch.randn(1, conv.weight.shape[1], 1, 9)
    assert not torch.equal(conv(x), conv(x))


@pytest.mark.parametrize("rank, alpha, dropout", [(0, 1.0, 0.0), (1, 0.0, 0.0), (1, 1.0, 1.0)])
def test_impossible_sizes(rank: int, alpha: float, dropout: float) -> None:
    with pytest.raises(ValueError, match="LoRA needs rank >= 1, alpha > 0 and dropout in"):
        lora.LowRank(3, 3, rank, alpha, dropout)


def test_what_cannot_have_it() -> None:
    model = small_model()
    lora.attach(model.encoder)
    with pytest.raises(ValueError, match="has LoRA weights already"):
        lora.attach(model.encoder)
    blocks = (BlockConfig(16, 3), BlockConfig(16, 3, separable=False))
    grouped = small_model((BlockConfig(16, 11, separable=False), BlockConfig(16, 3, groups=4), blocks[1]))
    with pytest.raises(ValueError, match="none"):
        lora.attach(grouped.encoder)
