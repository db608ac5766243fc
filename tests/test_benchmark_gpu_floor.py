"""benchmarks/gpu.py: what is counted by hand, and a twin that computes the same as ours."""

import re
from pathlib import Path

import pytest
import torch
from test_benchmark_gpu import CPU, bench, section, small
from torch import Tensor, nn

import quartznet
from benchmarks import gpu_clock, gpu_parts, gpu_train, gpu_ways
from benchmarks.gpu_floor import Ceilings, floor
from benchmarks.gpu_twin import as_nemo, as_twin, difference
from benchmarks.gpu_ways import ENGLISH, Stepper, Way
from quartznet.config import BlockConfig, FeatureConfig, ModelConfig, TrainSettings, preset_blocks
from quartznet.model import QuartzNet

# ---------------------------------------------------------------------------------------------------------------------
# Counted by hand


def test_floor_of_two_layers_by_hand() -> None:
    blocks = (BlockConfig(8, 3, stride=2), BlockConfig(6, 5, residual=True), BlockConfig(10, 1, separable=False))
    found = floor(ModelConfig(("a", "b"), blocks, FeatureConfig(mels=4)), torch.bfloat16)
    # 100 frames a second, 50 after the stride; labels and blank are 3 outputs
    depthwise = 2 * 3 * 4 * 50 + 2 * 5 * 8 * 50
    pointwise = 2 * (4 * 8 + 8 * 6 + 8 * 6 + 6 * 10 + 10 * 3) * 50
    assert found.forward_flop == depthwise + pointwise
    assert found.training_flop == 3 * found.forward_flop
    one_way = 2 * (4 * (100 + 50) + 8 * (50 + 50))
    assert found.bytes["depthwise forward"] == found.bytes["depthwise to input"] == one_way
    assert found.bytes["depthwise weight"] == 2 * (4 * 100 + 8 * 50)
    assert found.bytes["pointwise"] == 2 * 3 * 50 * (4 + 8 + 8 + 6 + 8 + 6 + 6 + 10 + 10 + 3)
    assert found.bytes["batch norm"] == 2 * 50 * (5 * (8 + 6 + 6 + 10) + 3 * 6)
    assert found.training_bytes == sum(found.bytes.values())


def test_floor_of_the_published_network() -> None:
    config = ModelConfig(ENGLISH, preset_blocks("15x5"))
    half, full = floor(config, torch.bfloat16), floor(config, torch.float32)
    assert half.forward_flop == pytest.approx(1.9e9, rel=0.01)
    assert half.training_flop == pytest.approx(5.7e9, rel=0.01)
    assert half.training_bytes == pytest.approx(60e6, rel=0.01)
    assert full.training_bytes == 2 * half.training_bytes and full.forward_flop == half.forward_flop
    assert half.optimizer_bytes == 6 * 4 * 18_924_381  # the published number of parameters with 29 outputs


@pytest.mark.parametrize("preset", ["5x3", "tiny"])
def test_floor_counts_every_parameter(preset: str) -> None:
    config = ModelConfig(ENGLISH, preset_blocks(preset))
    count = sum(parameter.numel() for parameter in QuartzNet(config).parameters())
    assert floor(config, torch.float32).optimizer_bytes == 24 * count


def test_least_time_is_that_of_bytes_or_of_operations() -> None:
    limit = floor(ModelConfig(ENGLISH, preset_blocks("15x5")), torch.bfloat16)
    fast, slow = (Ceilings(1e12, {"bf16": rate}) for rate in (1e18, 1e9))
    gb, ms = gpu_parts.least("pointwise", limit, fast, 10.0, "bf16")
    assert ms == pytest.approx(gb) == pytest.approx(10 * limit.bytes["pointwise"] / 1e9)  # 1 TB/s: a GB each ms
    assert gpu_parts.least("pointwise", limit, slow, 10.0, "bf16")[1] == pytest.approx(1e-5 * limit.flop["pointwise"])
    assert gpu_parts.least("optimiser", limit, fast, 10.0, "bf16")[1] == pytest.approx(0.454, abs=0.001)
    both = [gpu_parts.least(part, limit, fast, 10.0, "bf16")[0] for part in ("depthwise to input", "depthwise weight")]
    assert gpu_parts.least(gpu_parts.BOTH, limit, fast, 10.0, "bf16")[0] == pytest.approx(sum(both))
    assert gpu_parts.least("mask", limit, fast, 10.0, "bf16") == (None, None)


def test_parts_by_hand() -> None:
    depthwise, pointwise = [8, 1, 1, 33], [16, 8, 1, 1]
    signal, mask = [4, 8, 1, 100], [4, 1, 1, 100]
    part = gpu_parts.part_of
    assert part("conv2d_c1_k1_nhwc", [("aten::convolution", [signal, depthwise])]) == "depthwise forward"
    assert part("gemm", [("aten::cudnn_convolution", []), ("aten::conv2d", [signal, pointwise])]) == "pointwise"
    backward = [("aten::convolution_backward", [signal, signal, depthwise])]
    assert part("wgrad2d_grouped_direct_kernel", backward) == "depthwise weight"
    assert part("dgrad2d_grouped_direct_kernel", backward) == "depthwise to input"
    assert part("wgrad", [("aten::convolution_backward", [signal, signal, pointwise])]) == "pointwise"
    assert part("k", [("aten::mul", [signal, mask])]) == "mask"
    assert part("k", [("aten::mul", [signal, signal])]) == gpu_parts.OTHER
    assert part("k", [("aten::_foreach_mul_", []), ("Optimizer.step#NovoGrad.step", [])]) == "optimiser"
    assert part("k", [("aten::_ctc_loss_backward", [])]) == "CTC"
    assert part("gemm", [("aten::mm", []), (gpu_parts.FRONT_END, [])]) == gpu_parts.FRONT_END
    assert part("depthwise_backward", [("aten::mm", [])]) == gpu_parts.BOTH


def test_parts_of_a_step_on_a_cpu() -> None:
    found = bench()
    model, batches = small(), found.batches(0.5, 1.0)
    stepper = Stepper(found.ways[0], model, TrainSettings(precision="fp32"))
    with gpu_parts.ranges_in(model):
        events = gpu_parts.profiled(lambda number: stepper(batches[number]), CPU, 2)
    parts = gpu_parts.by_part(events, on_device=False)
    expected = {"front end", "augmentation", "depthwise forward", "depthwise to input", "depthwise weight", "pointwise"}
    assert expected | {"batch norm", "mask", "CTC", "optimiser"} <= parts.keys()
    assert all(ms >= 0 and count > 0 for ms, count in parts.values())
    assert "encode" not in vars(model) and not model.front_end._forward_hooks


def test_parts_are_named_for_every_kernel() -> None:
    names = set()
    for module in ("kernels", "ctc_kernel", "novograd_kernel"):
        source = (Path(quartznet.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        called = re.findall(r"^@triton\.jit[^\n]*\ndef (\w+)\(", source, re.MULTILINE)
        names |= {name for name in called if not re.search(rf"(?<!def )\b{name}\(", source)}  # not called by another
    assert names == gpu_parts.KERNELS.keys()


# ---------------------------------------------------------------------------------------------------------------------
# The twin


def padded_signal() -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([16000, 12345, 7000])
    return torch.randn(3, 16000) * (torch.arange(16000) < lengths[:, None]), lengths


def trained_statistics(model: QuartzNet) -> QuartzNet:
    batch = gpu_clock.random_batch(0.5, 2.0, len(ENGLISH), CPU, 0)
    return gpu_ways.with_statistics(model, batch)


def test_the_twin_computes_the_same() -> None:
    model = trained_statistics(small())
    twin, (signal, lengths) = as_twin(model), padded_signal()
    assert difference(model, twin, signal, lengths) < 1e-4
    with torch.no_grad():
        twin.encoder.blocks[1].convolutions[0][1].conv.weight[0] += 0.1
    assert difference(model, twin, signal, lengths) > 1e-3
    assert twin.output_length(101) == model.output_length(101)


def test_the_twin_learns_the_same() -> None:
    model = trained_statistics(small())
    twin, batch = as_twin(model), gpu_clock.random_batch(0.5, 2.0, len(ENGLISH), CPU, 1)
    settings, way = TrainSettings(precision="fp32"), Way("x", lambda model: model)
    losses = []
    for network in (model, twin):
        stepper = Stepper(way, network, settings)
        stepper.set_rate(0.01)
        losses.append([stepper(batch) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][2] < losses[0][0]


def test_nemo_computes_the_same() -> None:
    pytest.importorskip("nemo.collections.asr", reason="nemo_toolkit is not installed")
    model = trained_statistics(small())
    assert difference(model, as_nemo(model), *padded_signal()) < 1e-4


def test_a_random_network_speaks_in_a_quarter_of_its_frames() -> None:
    batch = gpu_clock.random_batch(0.5, 2.0, len(ENGLISH), CPU, 0)
    model = gpu_ways.speaking(small(), batch)
    with torch.no_grad():
        log_probs, _ = model(batch.signal, batch.signal_lengths)
    assert (log_probs.argmax(2) == len(ENGLISH)).float().mean() == pytest.approx(0.75, abs=0.03)
    assert all(module.momentum == 0.1 for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_a_twin_that_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_train, "difference", lambda *_: 0.1)
    with pytest.raises(RuntimeError, match=r"the twin's log-probabilities differ by 0\.1; its time says nothing"):
        gpu_train.check_twin(bench(), section())
