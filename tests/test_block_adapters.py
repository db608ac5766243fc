"""quartznet.block_adapters: NeMo's linear adapter, at NeMo's place."""

import pytest
import torch
import torch.nn.functional as F
from test_lora import output
from test_model import small_model
from torch import nn

from quartznet import block_adapters
from quartznet.config import preset_blocks


def test_parameters_of_15x5() -> None:
    channels = [block.filters for block in preset_blocks("15x5")]
    counts = [block_adapters.parameter_count(channels, size) for size in (16, 32, 64)]
    assert sum(channels) == 7936 and counts == [269_824, 523_776, 1_031_680]
    adapter = block_adapters.LinearAdapter(48, 5)
    assert sum(p.numel() for p in adapter.parameters()) == block_adapters.parameter_count([48], 5)


def test_step_0_is_the_base_bit_for_bit() -> None:
    model = small_model().eval()
    before, names = output(model), set(model.state_dict())
    block_adapters.attach(model.encoder, 4)
    assert torch.equal(output(model), before)
    assert names < set(model.state_dict()) and block_adapters.has_adapters(model.encoder)
    with pytest.raises(ValueError, match="has adapters already"):
        block_adapters.attach(model.encoder, 4)


def test_the_formula_frame_by_frame() -> None:
    adapter = block_adapters.LinearAdapter(6, 3)
    nn.init.normal_(adapter.up.weight)
    x = torch.randn(2, 6, 1, 5)
    given = adapter(x)
    for clip in range(2):
        for frame in range(5):
            column = x[clip, :, 0, frame]
            normed = (column - column.mean()) / (column.var(correction=0) + 1e-5).sqrt()
            expected = column + adapter.up.weight @ F.silu(adapter.down.weight @ normed)
            torch.testing.assert_close(given[clip, :, 0, frame], expected, atol=1e-5, rtol=1e-4)


def test_it_sits_after_the_whole_block() -> None:
    model = small_model().eval()
    block = model.encoder.blocks[1]
    channels = model.encoder.blocks[0].config.filters
    x, lengths = torch.rand(1, channels, 1, 12), torch.tensor([12])
    plain, _ = block(x.clone(), lengths)
    block_adapters.attach(model.encoder, 4)
    nn.init.normal_(block.adapter.up.weight)
    changed, after = block(x.clone(), lengths)
    torch.testing.assert_close(changed, block.adapter(plain))
    assert torch.equal(after, lengths) and not torch.equal(changed, plain)


def test_the_inference_form_keeps_them() -> None:
    model = small_model().eval()
    block_adapters.attach(model.encoder, 4)
    for block in model.encoder.blocks:
        nn.init.normal_(block.adapter.up.weight, std=0.3)
    features = torch.randn(2, model.config.features.mels, 40)
    lengths = torch.tensor([40, 40])
    fast = model.for_inference().forward_features(features, lengths)[0]
    torch.testing.assert_close(fast, model.forward_features(features, lengths)[0], atol=1e-4, rtol=0)
    assert model.for_inference(torch.bfloat16).forward_features(features, lengths)[0].isfinite().all()


def test_a_size_of_nothing() -> None:
    with pytest.raises(ValueError, match="size of at least 1, got 0"):
        block_adapters.LinearAdapter(4, 0)
