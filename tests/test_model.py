"""The network: parameter counts of the paper, the block against a plain composition, padding and batch invariants."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quartznet.config import BlockConfig, FeatureConfig, ModelConfig, convolution_weights, preset_blocks
from quartznet.layers import Conv
from quartznet.model import Block, QuartzNet, rounded_frames

ENGLISH = tuple(" abcdefghijklmnopqrstuvwxyz'")
SMALL = (
    BlockConfig(8, 5, stride=2),
    BlockConfig(8, 5, repeat=2, residual=True),
    BlockConfig(12, 7, repeat=3, residual=True),
    BlockConfig(12, 9, dilation=2),
    BlockConfig(16, 1, separable=False),
)


def small_model(blocks: tuple[BlockConfig, ...] = SMALL, masked: bool = True, rule: str = "2.5") -> QuartzNet:
    """Random weights and random batch-norm statistics, in evaluation mode."""
    model = QuartzNet(ModelConfig(ENGLISH, blocks, FeatureConfig(rule=rule), masked)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


@pytest.mark.parametrize(
    ("preset", "count"), [("15x5", 18_924_381), ("10x5", 12_818_781), ("5x5", 6_713_181), ("5x3", 6_407_005)]
)
def test_parameter_counts_of_the_paper(preset: str, count: int) -> None:
    with torch.device("meta"):
        blocks = preset_blocks(preset)
    model = QuartzNet(ModelConfig(ENGLISH, blocks))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_convolution_weights_are_counted_before_they_are_made() -> None:
    grouped = (BlockConfig(8, 5, repeat=2, residual=True, groups=4), BlockConfig(12, 3, repeat=2, separable=False))
    for blocks in (SMALL, grouped):
        convolutions = [module.weight for module in small_model(blocks).encoder.modules() if isinstance(module, Conv)]
        assert convolution_weights(64, blocks) == sum(weight.numel() for weight in convolutions)


def test_block_is_the_published_composition() -> None:
    block = Block(3, BlockConfig(4, 5, repeat=2, residual=True)).eval()
    x = torch.randn(1, 3, 20)

    def sub_block(index: int, x: torch.Tensor) -> torch.Tensor:
        layer = block.layers[index]
        x = F.conv1d(x, layer.depthwise.weight[:, :, 0], padding=2, groups=x.shape[1])
        return F.conv1d(x, layer.pointwise.weight[:, :, 0]) / (1 + 1e-3) ** 0.5  # fresh batch norm: only its eps

    residual = F.conv1d(x, block.residual.conv.weight[:, :, 0]) / (1 + 1e-3) ** 0.5
    expected = F.relu(sub_block(1, F.relu(sub_block(0, x))) + residual)
    actual, lengths = block(x[:, :, None], torch.tensor([20]))
    torch.testing.assert_close(actual[:, :, 0], expected)
    assert lengths.tolist() == [20]


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
def test_shapes_and_lengths(rule: str) -> None:
    model = small_model(rule=rule)
    signal, lengths = torch.randn(2, 16000) * 0.1, torch.tensor([16000, 9000])
    features, feature_lengths = model.features(signal, lengths)
    log_probs, output_lengths = model(signal, lengths)
    assert log_probs.shape == (2, features.shape[2] // 2, 29) and log_probs.dtype == torch.float32
    assert output_lengths.tolist() == [-(-int(length) // 2) for length in feature_lengths]
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(log_probs.shape[:2]))


def test_padded_equals_alone() -> None:
    model = small_model()
    features = torch.randn(3, 64, 90)
    lengths = torch.tensor([90, 61, 7])
    features = features * (torch.arange(90) < lengths[:, None])[:, None]
    together, output_lengths = model.forward_features(features, lengths)
    for row in range(3):
        alone, _ = model.forward_features(features[row : row + 1, :, : lengths[row]], lengths[row : row + 1])
        frames = int(output_lengths[row])
        torch.testing.assert_close(together[row, :frames], alone[0, :frames])


def test_batch_order_does_not_matter() -> None:
    model, features, lengths = small_model(), torch.randn(3, 64, 40), torch.tensor([40, 30, 20])
    order = torch.tensor([2, 0, 1])
    forward, _ = model.forward_features(features, lengths)
    shuffled, _ = model.forward_features(features[order], lengths[order])
    for row, (source, length) in enumerate(zip(order.tolist(), (10, 20, 15), strict=True)):
        torch.testing.assert_close(shuffled[row, :length], forward[source, :length])


def test_unmasked_model_reads_its_padding() -> None:
    model, features = small_model(masked=False), torch.randn(1, 64, 64)
    changed = features.clone()
    changed[..., 33:] = 5.0
    length = torch.tensor([32])
    first, second = model.forward_features(features, length)[0], model.forward_features(changed, length)[0]
    assert not torch.allclose(first[0, :16], second[0, :16])


def test_rounding_the_frames_changes_nothing() -> None:
    model, features, lengths = small_model(), torch.randn(1, 64, 100), torch.tensor([100])
    exact = model.decoder(model.encoder(features[:, :, None], lengths)[0])
    torch.testing.assert_close(model.forward_features(features, lengths)[0], exact)


def test_rounded_frames_are_few_and_near() -> None:
    sizes = {rounded_frames(frames) for frames in range(1, 3001)}
    assert len(sizes) < 60
    assert [rounded_frames(frames) for frames in (1, 16, 17, 256, 257, 1001)] == [16, 16, 32, 256, 288, 1024]
    assert all(frames <= rounded_frames(frames) <= max(frames + 15, frames * 1.125) for frames in range(1, 3001))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_inference_form_gives_the_same(masked: bool, groups: int) -> None:
    blocks = (
        BlockConfig(8, 5, stride=2),
        BlockConfig(8, 5, repeat=3, residual=True, groups=groups),
        BlockConfig(12, 3, separable=False, dilation=2),
    )
    model = small_model(blocks, masked)
    signal, lengths = torch.randn(2, 16000) * 0.1, torch.tensor([16000, 9000])
    fast = model.for_inference()
    expected, output_lengths = model(signal, lengths)
    actual, fast_lengths = fast(signal, lengths)
    assert actual.shape == expected.shape and fast_lengths.tolist() == output_lengths.tolist()
    for row, frames in enumerate(output_lengths.tolist()):
        torch.testing.assert_close(actual[row, :frames], expected[row, :frames], rtol=1e-4, atol=1e-5)
    half, _ = model.for_inference(torch.bfloat16)(signal, lengths)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half[0], expected[0], rtol=0.05, atol=0.1)  # bf16: 8 bits of mantissa


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
def test_a_batch_without_clips(rule: str) -> None:
    model = small_model(rule=rule)
    for form in (model, model.for_inference()):
        log_probs, lengths = form(torch.zeros(0, 16000), torch.zeros(0, dtype=torch.int64))
        assert log_probs.shape == (0, 56, 29) and lengths.shape == (0,)


def test_inference_form_leaves_the_original_alone() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.for_inference(torch.bfloat16)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_inference_form_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"for_inference takes float32, bfloat16 on cpu, got torch\.float64"):
        small_model().for_inference(torch.float64)
    with pytest.raises(ValueError, match="already in its inference form"):
        small_model().for_inference().for_inference()


def test_training_reaches_every_parameter() -> None:
    model = small_model().train()
    log_probs, _ = model.forward_features(torch.randn(2, 64, 40), torch.tensor([40, 22]))
    log_probs[..., 3].mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_batch_norm_has_nemos_constants() -> None:
    norms = [module for module in small_model().modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 10 and all((norm.eps, norm.momentum) == (1e-3, 0.1) for norm in norms)
