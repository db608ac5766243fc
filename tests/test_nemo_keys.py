"""The table of names: positions by hand, all spellings of one weight, layouts read from shapes."""

import dataclasses

import pytest
import torch

from quartznet.config import BlockConfig, ModelConfig, preset_blocks
from quartznet.model import QuartzNet
from quartznet.nemo_keys import (
    blocks_from_shapes,
    canonical,
    canonical_weights,
    from_nemo,
    front_end_table,
    listing,
    to_nemo,
    weight_table,
)


def names(*blocks: BlockConfig) -> dict[str, str]:
    return {entry.ours: entry.theirs for entry in weight_table(ModelConfig(("a",), blocks))}


def test_positions_by_hand() -> None:
    table = names(
        BlockConfig(8, 3, repeat=2, residual=True),
        BlockConfig(8, 3, repeat=2, groups=2),
        BlockConfig(8, 3, repeat=2, separable=False),
    )
    assert table["encoder.blocks.0.layers.1.depthwise.weight"] == "encoder.encoder.0.mconv.5.conv.weight"
    assert table["encoder.blocks.0.layers.1.norm.bias"] == "encoder.encoder.0.mconv.7.bias"
    assert table["encoder.blocks.0.residual.conv.weight"] == "encoder.encoder.0.res.0.0.conv.weight"
    assert table["encoder.blocks.0.residual.norm.weight"] == "encoder.encoder.0.res.0.1.weight"
    assert table["encoder.blocks.1.layers.1.pointwise.weight"] == "encoder.encoder.1.mconv.7.conv.weight"
    assert table["encoder.blocks.2.layers.1.conv.weight"] == "encoder.encoder.2.mconv.4.conv.weight"
    assert table["decoder.bias"] == "decoder.decoder_layers.0.bias"


def test_every_weight_of_the_model_has_one_entry_of_its_shape() -> None:
    blocks = (
        BlockConfig(6, 5, stride=2),
        BlockConfig(6, 3, 2, residual=True, groups=3),
        BlockConfig(4, 3, separable=False),
    )
    config = ModelConfig(("a", "b"), blocks)
    table = {entry.ours: entry.shape for entry in front_end_table(config) + weight_table(config)}
    assert table == {name: tuple(tensor.shape) for name, tensor in QuartzNet(config).state_dict().items()}


def test_a_15x5_has_639_tensors() -> None:
    config = ModelConfig(tuple("abcdefghijklmnopqrstuvwxyz '"), preset_blocks("15x5"))
    assert len(weight_table(config)) == 637 and len(front_end_table(config)) == 2


@pytest.mark.parametrize(
    "key",
    [
        "encoder.2.conv.0.weight",
        "encoder.2.mconv.0.conv.weight",
        "encoder.2.mconv.0.weight",
        "encoder.encoder.2.mconv.0.conv.weight",
        "module.encoder.encoder.2.mconv.0.weight",
        "model.module.encoder.encoder.2.mconv.0.conv.weight",
    ],
)
def test_spellings(key: str) -> None:
    assert canonical(key, 3) == "encoder.encoder.2.mconv.0.conv.weight"


def test_other_spellings() -> None:
    assert canonical("encoder.2.conv.1.weight", 1) == "encoder.encoder.2.mconv.1.weight"
    assert canonical("encoder.2.res.0.0.weight", 3) == "encoder.encoder.2.res.0.0.conv.weight"
    assert canonical("decoder_layers.0.bias", 1) == "decoder.decoder_layers.0.bias"
    assert canonical("preprocessor.featurizer.fb", 3) == "preprocessor.featurizer.fb"
    assert canonical("spec_augmentation.x", 1) is None


def test_canonical_weights() -> None:
    one = torch.zeros(1)
    assert canonical_weights({"decoder_layers.0.bias": one, "loss.x": one})[1] == ["loss.x"]
    with pytest.raises(ValueError, match=r"parts that QuartzNet does not have: encoder\.layers\.0\.weight"):
        canonical_weights({"encoder.layers.0.weight": one})
    with pytest.raises(ValueError, match=r"two keys mean decoder\.decoder_layers\.0\.bias"):
        canonical_weights({"decoder_layers.0.bias": one, "module.decoder_layers.0.bias": one})


def test_only_dense_finite_floats() -> None:
    config = ModelConfig(("a",), (BlockConfig(2, 1, separable=False),))
    weights = to_nemo(QuartzNet(config).state_dict(), config)
    for wrong in (torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")):
        with pytest.raises(ValueError, match="dense numbers are needed"):
            canonical_weights(weights | {"decoder.decoder_layers.0.bias": wrong})
    for wrong in (torch.zeros(2).long(), torch.zeros(2, dtype=torch.complex64)):
        with pytest.raises(ValueError, match="floats are needed"):
            from_nemo(weights | {"decoder.decoder_layers.0.bias": wrong}, weight_table(config))
    with pytest.raises(ValueError, match=r"mconv\.1\.running_var holds variances below zero"):
        from_nemo(weights | {"encoder.encoder.0.mconv.1.running_var": torch.tensor([1.0, -1.0])}, weight_table(config))
    with pytest.raises(ValueError, match=r"decoder_layers\.0\.bias holds values that are not finite"):
        from_nemo(weights | {"decoder.decoder_layers.0.bias": torch.tensor([1.0, torch.nan])}, weight_table(config))


@pytest.mark.parametrize("preset", ["15x5", "5x3", "tiny"])
def test_blocks_from_shapes(preset: str) -> None:
    blocks = preset_blocks(preset)
    config = ModelConfig(("a",), blocks)
    weights = {entry.theirs: torch.empty(entry.their_shape, device="meta") for entry in weight_table(config)}
    expected = [BlockConfig(**{**vars(block), "dropout": 0.0}) for block in blocks]
    if preset == "tiny":  # its dilated block has another kernel, so the dilation cannot be known
        expected[-2] = dataclasses.replace(blocks[-2], dilation=1)
    assert blocks_from_shapes(weights) == tuple(expected)


def test_groups_from_shapes() -> None:
    blocks = (BlockConfig(8, 5, stride=2), BlockConfig(8, 3, 2, groups=4), BlockConfig(8, 3, groups=2, separable=False))
    weights = {entry.theirs: torch.empty(entry.their_shape) for entry in weight_table(ModelConfig(("a",), blocks))}
    assert blocks_from_shapes(weights) == blocks


def test_shapes_that_are_no_quartznet() -> None:
    with pytest.raises(ValueError, match="no QuartzNet encoder; blocks found: none"):
        blocks_from_shapes({})
    key = "encoder.encoder.0.mconv"
    with pytest.raises(ValueError, match="block 0 has 1 convolutions and 0 norms"):
        blocks_from_shapes({f"{key}.0.conv.weight": torch.zeros(1, 1, 1)})
    wrong = {f"{key}.0.conv.weight": torch.zeros(3, 1, 1), f"{key}.1.conv.weight": torch.zeros(2, 2, 1)}
    with pytest.raises(ValueError, match="block 0 reads 3 channels with a weight for 2"):
        blocks_from_shapes(wrong | {f"{key}.2.weight": torch.zeros(2)})


def test_listing() -> None:
    assert listing(["a", "b"]) == "a, b"
    assert listing(list("abcd"), 2) == "a, b and 2 more"
