"""Which code computes a network: what each name means, what is refused, and the test that ``auto`` makes."""

import logging

import pytest
import torch
import triton_cpu
from torch import nn

triton_cpu.interpreted()
from quartznet import backend, block_adapters, kernel_calls, lora  # noqa: E402
from quartznet.backend import distance, failed_test, uses_triton, why_not  # noqa: E402
from quartznet.config import BlockConfig  # noqa: E402
from quartznet.model import Encoder  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def encoder(*blocks: BlockConfig) -> Encoder:
    return Encoder(4, blocks or (BlockConfig(4, 5, stride=2), BlockConfig(6, 3, 2, residual=True))).to(DEVICE)


def test_plain_and_auto_on_a_cpu_are_pytorchs_layers() -> None:
    assert not uses_triton("plain", encoder(), torch.float32)
    assert not uses_triton("auto", encoder().cpu(), torch.float32)
    assert uses_triton("triton", encoder(), torch.float32)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="kernels must be auto, plain or triton, got 'fast'"):
        uses_triton("fast", encoder(), torch.float32)


def test_without_triton_the_fused_kernels_are_refused_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"cannot be used: Triton is not installed .*; take kernels plain, or auto"):
        uses_triton("triton", encoder(), torch.float32)


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_without_a_gpu_the_fused_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_is_interpreted", lambda: False)
    with pytest.raises(ValueError, match="cannot be used: the network is on cpu, and Triton needs a GPU"):
        uses_triton("triton", encoder(), torch.float32)


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ((BlockConfig(4, 3, stride=3),), "block 0 has stride 3"),
        ((BlockConfig(4, 3, groups=2),), "block 0 has grouped convolutions"),
        ((BlockConfig(4, 3, separable=False),), "block 0 has an ordinary convolution over time"),
        ((BlockConfig(4, 3), BlockConfig(4, 1, 2, separable=False)), "block 1 repeats an ordinary convolution"),
        ((BlockConfig(4, 133, dilation=2),), "block 0 has kernels that reach over 265 frames"),
    ],
)
def test_networks_that_the_kernels_cannot_compute_are_told_apart(blocks: tuple[BlockConfig, ...], reason: str) -> None:
    assert why_not(encoder(*blocks)) == reason
    with pytest.raises(ValueError, match=reason):
        uses_triton("triton", encoder(*blocks), torch.float32)


def test_what_hangs_on_a_network_keeps_it_from_the_kernels() -> None:
    with_lora, adapted, synchronised, momentless = (encoder() for _ in range(4))
    lora.attach(with_lora, rank=1)
    block_adapters.attach(adapted, 2)
    synchronised.blocks[1].residual.norm = nn.SyncBatchNorm(6)
    momentless.blocks[0].layers[0].norm.momentum = None
    assert why_not(with_lora) == "block 0 has LoRA weights or another hook"
    assert why_not(adapted) == "block 0 has an adapter or another hook"
    assert why_not(synchronised) == "block 1 has a norm of type SyncBatchNorm"
    assert why_not(momentless) == "block 0 has an unusual batch norm"
    assert why_not(encoder().double()) == "the weights are in fp64"
    assert why_not(encoder()) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_the_kernels_pass_the_test(dtype: torch.dtype, training: bool) -> None:
    network = encoder().train(training)
    before = torch.random.get_rng_state()
    assert failed_test(network, dtype, 40) == ""
    assert torch.equal(torch.random.get_rng_state(), before)


def test_kernels_that_compute_something_else_fail_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel_calls.depthwise
    monkeypatch.setattr(kernel_calls, "depthwise", lambda *arguments: right(*arguments) * 1.01)
    assert failed_test(encoder().eval(), torch.float32, 40).startswith("they were 0.0")


def test_wrong_gradients_fail_the_test_of_a_network_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel_calls.depthwise_backward

    def wrong(*arguments: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dx, dw, sums = right(*arguments)
        return dx, dw.flip(3), sums

    monkeypatch.setattr(kernel_calls, "depthwise_backward", wrong)
    assert "away from fp64 in a test" in failed_test(encoder().train(), torch.float32, 40)
    assert failed_test(encoder().eval(), torch.float32, 40) == ""


def test_kernels_that_do_not_run_fail_the_test_and_auto_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(kernel_calls, "depthwise", broken)
    assert failed_test(encoder(), torch.float32, 40) == (
        "they do not run here: RuntimeError: out of resource: shared memory"
    )
    monkeypatch.setattr(backend, "_device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with caplog.at_level(logging.WARNING):
        assert not uses_triton("auto", encoder(), torch.float32)
    assert "kernels   plain, which is slower: they do not run here" in caplog.text


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match="the GPU is older than compute capability 8"):
        uses_triton("triton", encoder(), torch.float32)


def test_distance_is_infinite_where_something_is_not_finite() -> None:
    one = torch.ones(3)
    assert distance([one, 2 * one], [one, one]) == pytest.approx(1)
    assert distance([one, one * torch.nan], [one, one]) == float("inf")
