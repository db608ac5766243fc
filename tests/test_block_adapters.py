"""quartznet.block_adapters: NeMo's linear adapter, at NeMo's place.

The golden files come from ``golden/make_export.py`` (a network of ours, as a ``.nemo`` file) and from
``golden/make_nemo_adapters.py`` (what the real NeMo computes with it and with random adapters in every block).
"""

from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from test_lora import output
from test_model import small_model
from torch import nn

from quartznet import block_adapters
from quartznet.config import preset_blocks
from quartznet.ctc import ctc_loss
from quartznet.model import QuartzNet
from quartznet.nemo import load_nemo

GOLDEN = Path(__file__).parent / "golden"
PARTS = {"module.0": "norm", "module.1": "down", "module.3": "up"}  # NeMo's names and ours


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


# ---------------------------------------------------------------------------------------------------------------------
# Against the real NeMo


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with numpy.load(GOLDEN / "nemo_adapters.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def by_our_names(golden: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The arrays ``prefix + encoder.encoder.3.adapter_layer.ours.module.1.weight`` as ``blocks.3.adapter.down.weight``.

    ``ours`` is the name that NeMo was given for the adapters.
    """
    renamed = {}
    for name, tensor in golden.items():
        if name.startswith(prefix):
            block, part = name.removeprefix(f"{prefix}encoder.encoder.").split(".adapter_layer.ours.")
            part, kind = part.rsplit(".", 1)
            renamed[f"blocks.{block}.{block_adapters.CHILD}.{PARTS[part]}.{kind}"] = tensor
    return renamed


@pytest.fixture
def adapted(golden: dict[str, torch.Tensor]) -> QuartzNet:
    """The golden network with NeMo's adapters, in evaluation mode."""
    model = load_nemo(GOLDEN / "export.nemo")
    base, adapters = model.encoder.state_dict(), by_our_names(golden, "weight_")
    block_adapters.attach(model.encoder, size=adapters["blocks.0.adapter.down.weight"].shape[0])
    model.encoder.load_state_dict(base | adapters)  # strictly: NeMo's adapters have the same tensors and no more
    return model


def test_log_probs_equal_nemo(golden: dict[str, torch.Tensor], adapted: QuartzNet) -> None:
    with torch.no_grad():
        log_probs, lengths = adapted.forward_features(golden["features"], golden["lengths"])
        plain, _ = load_nemo(GOLDEN / "export.nemo").forward_features(golden["features"], golden["lengths"])
    assert lengths.tolist() == golden["outputs"].tolist() == [23, 15]
    # Seen: 8.3e-7, padding counted. That is rounding: in fp32 ours is 9.5e-7 from itself in fp64.
    torch.testing.assert_close(log_probs, golden["log_probs"], rtol=0, atol=1e-5)
    assert (plain - golden["log_probs"]).abs().max() > 1  # the adapters do a lot


def test_the_inference_form_equals_nemo(golden: dict[str, torch.Tensor], adapted: QuartzNet) -> None:
    log_probs, lengths = adapted.for_inference().forward_features(golden["features"], golden["lengths"])
    for clip, length in enumerate(lengths):  # of unequal length, and adapters write into the padding; seen: 9.6e-7
        torch.testing.assert_close(log_probs[clip, :length], golden["log_probs"][clip, :length], rtol=0, atol=1e-5)


def test_in_fp64_no_difference_is_left(
    golden: dict[str, torch.Tensor], adapted: QuartzNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # log-softmax and CTC ask for fp32
    log_probs, lengths = adapted.double().forward_features(golden["features"].double(), golden["lengths"])
    loss = ctc_loss(log_probs, lengths, golden["targets"], golden["target_lengths"], adapted.alphabet.blank)
    loss.backward()
    torch.testing.assert_close(log_probs, golden["exact_log_probs"], rtol=0, atol=1e-12)  # seen: 2.2e-15
    assert loss.item() == pytest.approx(golden["exact_loss"].item(), rel=1e-12)
    ours, theirs = dict(adapted.encoder.named_parameters()), by_our_names(golden, "gradient_")
    assert len(theirs) == 4 * len(adapted.encoder.blocks)
    for name, expected in theirs.items():  # seen: 4.8e-15
        torch.testing.assert_close(ours[name].grad, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


def test_dropout_comes_before_it_as_in_nemo(
    golden: dict[str, torch.Tensor], adapted: QuartzNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "dropout", lambda x, share, training: torch.zeros_like(x))  # as with a share of 1
    x, lengths = golden["features"][:, :, None].double(), golden["lengths"]
    for index, block in enumerate(adapted.double().encoder.blocks):
        with torch.no_grad():
            x, lengths = block(x, lengths)
        expected = golden[f"dropped_{index}"]
        assert expected.abs().max() > 0.01  # dropout after the adapter would have left zeros
        torch.testing.assert_close(x[0, :, 0, 0], expected, rtol=0, atol=1e-12)  # seen: 0
