"""Which code computes a network: what each name means, what is refused, and the test that ``auto`` makes."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import triton_cpu
from torch import nn

triton_cpu.interpreted()
import evaluate  # noqa: E402
import train  # noqa: E402
from quartznet import backend, block_adapters, kernel_test, lora, transcribe  # noqa: E402
from quartznet.backend import uses_triton, why_not  # noqa: E402
from quartznet.config import BlockConfig  # noqa: E402
from quartznet.model import Encoder  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def encoder(*blocks: BlockConfig) -> Encoder:
    return Encoder(4, blocks or (BlockConfig(4, 5, stride=2), BlockConfig(6, 3, 2, residual=True))).to(DEVICE)


def test_plain_and_auto_on_a_cpu_are_pytorchs_layers() -> None:
    assert not uses_triton("plain", encoder(), torch.bfloat16)
    assert not uses_triton("auto", encoder().cpu(), torch.bfloat16)
    assert uses_triton("triton", encoder(), torch.bfloat16)


def test_fp32_on_a_gpu_is_plain_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run with fused kernels reads its last table in fp32, and must not end with "kernels plain"."""
    monkeypatch.setattr(backend, "_device_of", lambda _: torch.device("cuda"))
    with caplog.at_level(logging.INFO):
        assert not uses_triton("auto", encoder(), torch.float32)
    assert caplog.text == ""


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="kernels must be auto, plain or triton, got 'fast'"):
        uses_triton("fast", encoder(), torch.bfloat16)


def test_without_triton_the_fused_kernels_are_refused_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"cannot be used: Triton is not installed .*; take kernels plain, or auto"):
        uses_triton("triton", encoder(), torch.bfloat16)


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_without_a_gpu_the_fused_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_is_interpreted", lambda: False)
    for dtype in (torch.bfloat16, torch.float32):
        with pytest.raises(
            ValueError, match="the network is on cpu, and Triton needs a GPU; take kernels plain, or auto"
        ):
            uses_triton("triton", encoder(), dtype)


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
@pytest.mark.parametrize(
    ("main", "options"),
    [
        (train.main, ["--init", "none.pt", "--lang", "en", "--data", "nowhere"]),
        (evaluate.main, ["--checkpoint", "none.pt", "--data", "nowhere"]),
        (transcribe.main, ["--checkpoint", "none.pt", "none.wav"]),
    ],
)
def test_commands_refuse_them_before_they_read_a_file(
    main: Callable[[list[str]], int],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("none.pt").touch()
    monkeypatch.setattr(backend, "_is_interpreted", lambda: False)
    assert main([*options, "--kernels", "triton", "--precision", "bf16"]) == 2
    reason = "the network is on cpu, and Triton needs a GPU"
    message = f"error: kernels triton cannot be used: {reason}; take kernels plain, or auto"
    assert capsys.readouterr().err.splitlines() == [message]


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
        uses_triton("triton", encoder(*blocks), torch.bfloat16)


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


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match="the GPU is older than compute capability 8"):
        uses_triton("triton", encoder(), torch.bfloat16)


def test_fp32_is_refused() -> None:
    message = "cannot be used: they compute in bf16 or fp16, not in fp32; take precision bf16, or kernels auto"
    with pytest.raises(ValueError, match=message):
        uses_triton("triton", encoder(), torch.float32)


def test_auto_goes_on_with_plain_where_the_test_fails_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend, "_device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(kernel_test, "first_failure", lambda *_: "they were 0.1 away")
    with caplog.at_level(logging.WARNING):
        assert not uses_triton("auto", encoder(), torch.bfloat16)
    assert "kernels   plain, which is slower: they were 0.1 away" in caplog.text
    monkeypatch.setattr(kernel_test, "first_failure", lambda *_: "they do not run here: RuntimeError: " + 30 * "long ")
    caplog.clear()
    assert not uses_triton("auto", encoder(), torch.bfloat16)
    assert max(map(len, caplog.messages[0].splitlines())) <= 80 < len(caplog.messages[0])
    monkeypatch.setattr(kernel_test, "first_failure", lambda *_: "")
    assert uses_triton("auto", encoder(), torch.bfloat16)
