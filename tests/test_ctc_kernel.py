"""The CTC kernels against torch in float64; on a machine without a GPU they run in Triton's interpreter."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

pytest.importorskip("triton", reason="Triton comes with PyTorch on Linux only")

from quartznet import ctc_kernel
from quartznet.ctc_kernel import ctc_losses

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_device(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(DEVICE) for tensor in tensors]


def reference(
    logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int, zero: bool, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses (batch,) and gradient of their weighted sum by the logits, on the CPU in float64."""
    variable = logits.detach().cpu().double().requires_grad_()
    losses = functional.ctc_loss(
        variable.log_softmax(-1).transpose(0, 1),
        *(targets.cpu(), lengths.cpu(), target_lengths.cpu()),
        blank=blank,
        reduction="none",
        zero_infinity=zero,
    )
    losses.backward(weights.cpu().double())
    return losses.detach(), variable.grad


def ours(
    logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int, zero: bool, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The same by the kernels, on the CPU in float64 again."""
    variable = logits.detach().to(DEVICE).requires_grad_()
    lengths, targets, target_lengths = on_device(lengths, targets, target_lengths)
    losses = ctc_losses(variable.log_softmax(-1), lengths, targets, target_lengths, blank, zero)
    losses.backward(weights.to(losses))
    return losses.detach().cpu().double(), variable.grad.cpu().double()


def assert_same(logits: Tensor, *others: Tensor | int | bool, tolerance: float = 1e-5) -> None:
    for mine, theirs in zip(ours(logits, *others), reference(logits, *others), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


def problem(batch: int, time: int, letters: int, labels: int, blank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random logits, lengths, targets, target lengths; many texts are too long for their frames."""
    targets = torch.randint(0, labels - 1, (batch, letters))
    lengths, target_lengths = torch.randint(0, time + 1, (batch,)), torch.randint(0, letters + 1, (batch,))
    return 2 * torch.randn(batch, time, labels), lengths, targets + (targets >= blank), target_lengths


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_losses_and_gradients_are_those_of_torch_in_float64(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    labels = data.draw(st.integers(2, 5), "labels")
    blank, zero = data.draw(st.integers(0, labels - 1), "blank"), data.draw(st.booleans(), "zero_infinity")
    batch, time = data.draw(st.integers(1, 3), "batch"), data.draw(st.integers(1, 8), "time")
    sizes = (batch, time, data.draw(st.integers(0, 4), "letters"), labels)
    assert_same(*problem(*sizes, blank), blank, zero, torch.randn(batch))


def test_by_hand() -> None:
    """The paths aa, a_ and _a of "a": 0.125 + 0.375 + 0.125, of which 0.5 are at a first and 0.25 second."""
    log_probs = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]], device=DEVICE).log().requires_grad_()
    (loss,) = ctc_losses(log_probs, *on_device(torch.tensor([2]), torch.tensor([[0]]), torch.tensor([1])), blank=1)
    assert loss.item() == pytest.approx(-math.log(0.625))
    loss.backward()
    posteriors = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]])
    torch.testing.assert_close(log_probs.grad.cpu(), log_probs.detach().cpu().exp() - posteriors)


def test_equal_neighbours_need_a_blank_between() -> None:
    log_probs = torch.randn(1, 3, 3).log_softmax(-1)
    targets = torch.tensor([[1, 1]])
    (loss,) = ctc_losses(*on_device(log_probs, torch.tensor([3]), targets, torch.tensor([2])), blank=2)
    assert loss.item() == pytest.approx(-(log_probs[0, 0, 1] + log_probs[0, 1, 2] + log_probs[0, 2, 1]).item())


@pytest.mark.parametrize("zero", [True, False])
def test_texts_that_no_path_reads_empty_texts_and_no_frames(zero: bool) -> None:
    lengths, target_lengths = torch.tensor([4, 2, 4, 0, 0]), torch.tensor([2, 2, 0, 0, 1])
    targets = torch.tensor([[1, 1]] * 5)
    logits, weights = torch.randn(5, 4, 3), torch.ones(5)
    losses, gradient = ours(logits, lengths, targets, target_lengths, 0, zero, weights)
    assert losses[3] == 0 and not losses[3].signbit()
    assert losses[[1, 4]].tolist() == ([0, 0] if zero else [math.inf, math.inf])
    assert gradient[1, :2].isnan().all() if not zero else gradient[[1, 4]].abs().sum() == 0
    assert_same(logits, lengths, targets, target_lengths, 0, zero, weights)


def test_more_labels_and_letters_than_one_tile() -> None:
    """Two tiles by two; the walk passes two returns to 1."""
    logits, _, targets, _ = problem(1, 40, 34, 40, blank=33)
    others = torch.tensor([40]), targets, torch.tensor([34]), 33, False, torch.tensor([2.0])
    assert reference(logits, *others)[0].isfinite().all()
    assert_same(logits, *others)


@pytest.mark.parametrize("time", [250, pytest.param(2000, marks=pytest.mark.slow)])
def test_thousands_of_frames_lose_no_digits(time: int) -> None:
    logits, _, targets, _ = problem(1, time, 30, 5, blank=4)
    others = torch.tensor([time]), targets, torch.tensor([30])
    losses = ctc_losses(*on_device(logits.log_softmax(-1), *others), blank=4)
    expected = functional.ctc_loss(
        logits.double().log_softmax(-1).transpose(0, 1), targets, *others[::2], blank=4, reduction="none"
    )
    torch.testing.assert_close(losses.cpu().double(), expected, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_thousands_of_frames_lose_no_digits_of_the_gradient() -> None:
    logits, _, targets, _ = problem(1, 2000, 60, 29, blank=28)
    others = torch.tensor([2000]), targets, torch.tensor([60]), 28, False, torch.ones(1)
    mine, expected = ours(logits, *others)[1], reference(logits, *others)[1]
    assert (mine - expected).norm() / expected.norm() < 1e-4


def test_what_is_padding_never_matters() -> None:
    logits, lengths, targets, target_lengths = problem(2, 6, 3, 4, blank=0)
    lengths, target_lengths = torch.tensor([6, 4]), torch.tensor([1, 2])
    expected = ours(logits, lengths, targets, target_lengths, 0, True, torch.ones(2))
    log_probs = functional.pad(logits.log_softmax(-1), (0, 0, 0, 2), value=math.nan)
    log_probs[1, 4:] = math.nan
    log_probs = log_probs.to(DEVICE).requires_grad_()
    garbage = torch.cat([targets, targets], dim=1)
    garbage[0, 1:], garbage[1, 2:] = -(2**40), 2**40
    losses = ctc_losses(log_probs, *on_device(lengths, garbage, target_lengths), 0)
    losses.sum().backward()
    assert torch.equal(losses.detach().cpu().double(), expected[0])
    torch.testing.assert_close(log_probs.grad[:, :6].cpu().double(), expected[1])
    assert log_probs.grad[1, 4:].abs().sum() == 0 and log_probs.grad[:, 6:].abs().sum() == 0


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0)])
def test_any_strides(order: tuple[int, int, int]) -> None:
    logits, lengths, targets, target_lengths = problem(2, 5, 2, 3, blank=2)
    log_probs = logits.log_softmax(-1).to(DEVICE)
    others = on_device(lengths, targets, target_lengths)
    results = []
    for view in (log_probs, log_probs.permute(order).contiguous().permute(tuple(torch.tensor(order).argsort()))):
        variable = view.detach().requires_grad_()
        assert variable.is_contiguous() is (view is log_probs)
        losses = ctc_losses(variable, *others, 2)
        losses.mean().backward()  # a gradient with stride 0
        results.append((losses.detach(), variable.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_float_types(dtype: torch.dtype) -> None:
    logits, lengths, targets, target_lengths = problem(2, 5, 2, 3, blank=2)
    log_probs = logits.log_softmax(-1).to(DEVICE, dtype).requires_grad_()
    losses = ctc_losses(log_probs, *on_device(lengths, targets, target_lengths), 2)
    losses.sum().backward()
    plain = log_probs.detach().float().requires_grad_()
    expected = ctc_losses(plain, *on_device(lengths, targets, target_lengths), 2)
    expected.sum().backward()
    assert losses.dtype == torch.float32 and log_probs.grad.dtype == dtype
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(log_probs.grad, plain.grad.to(dtype))


def test_gradient_is_the_slope_along_a_random_direction() -> None:
    logits, _, targets, _ = problem(1, 6, 2, 4, blank=3)
    others = torch.tensor([6]), targets, torch.tensor([2]), 3, False, torch.ones(1)
    direction, step = torch.randn_like(logits), 1e-2
    up, down = ours(logits + step * direction, *others)[0], ours(logits - step * direction, *others)[0]
    slope = (ours(logits, *others)[1] * direction).sum().item()
    assert ((up - down) / (2 * step)).item() == pytest.approx(slope, rel=1e-2, abs=1e-3)


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")  # NumPy's, in the interpreter
def test_a_frame_that_is_not_a_number_is_not_hidden() -> None:
    logits, _, targets, _ = problem(2, 5, 2, 3, blank=2)
    logits[0, 3] = math.nan
    losses, gradient = ours(logits, torch.tensor([5, 5]), targets, torch.tensor([2, 1]), 2, True, torch.ones(2))
    assert losses.isnan().tolist() == [True, False]
    assert gradient.isnan().all((1, 2)).tolist() == [True, False] and not gradient[1].isnan().any()


@pytest.mark.parametrize(
    ("length", "count", "letter"), [(7, 1, 0), (-1, 1, 0), (5, 4, 0), (5, -1, 0), (5, 3, 9), (5, 3, -1)]
)
def test_numbers_out_of_range_make_their_utterance_nan(length: int, count: int, letter: int) -> None:
    logits, targets = torch.randn(2, 5, 3), torch.tensor([[0, 1, 0], [0, 1, letter]])
    lengths, counts = torch.tensor([5, length]), torch.tensor([3, count])
    losses, gradient = ours(logits, lengths, targets, counts, 2, True, torch.ones(2))
    assert losses.isnan().tolist() == [False, True]
    assert gradient.isnan().all((1, 2)).tolist() == [False, True] and not gradient[0].isnan().any()


def test_without_a_gradient_the_same_losses_and_twice_the_same_gradient() -> None:
    logits, lengths, targets, target_lengths = problem(2, 5, 2, 3, blank=2)
    arguments = on_device(logits.log_softmax(-1), lengths, targets, target_lengths)
    plain = ctc_losses(*arguments, 2)
    arguments[0].requires_grad_()
    with torch.no_grad():
        assert torch.equal(ctc_losses(*arguments, 2), plain)
    losses = ctc_losses(*arguments, 2)
    assert plain.grad_fn is None and torch.equal(losses.detach(), plain)
    first, second = (torch.autograd.grad(losses.sum(), arguments[0], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_rows_are_kept_only_for_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(ctc_kernel.ConnectionistLoss, "apply", lambda *arguments: kept.append(arguments[-1]))
    arguments = on_device(*problem(2, 5, 2, 3, blank=2))
    ctc_losses(*arguments, 2)
    arguments[0].requires_grad_()
    ctc_losses(*arguments, 2)
    with torch.no_grad():
        ctc_losses(*arguments, 2)
    assert kept == [False, True, False]


@pytest.mark.parametrize(("batch", "time"), [(0, 4), (2, 0)])
def test_nothing_to_do(batch: int, time: int) -> None:
    lengths, targets = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, 2, dtype=torch.int64)
    losses, gradient = ours(torch.zeros(batch, time, 3), lengths, targets, lengths, 2, True, torch.ones(batch))
    assert losses.tolist() == [0] * batch and gradient.shape == (batch, time, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"log_probs": a["log_probs"][0]}, r"log_probs is float32 of shape \(5, 3\) on .*: give a float"),
        (lambda a: a | {"log_probs": a["log_probs"].long()}, r"log_probs is int64 of shape \(2, 5, 3\)"),
        (lambda a: a | {"targets": a["targets"][:1]}, r"targets is int64 of shape \(1, 2\) .*each of 2 utterances"),
        (lambda a: a | {"targets": a["targets"].int()}, r"targets is int32 .*: give int64 on"),
        (lambda a: a | {"lengths": a["lengths"].float()}, r"^lengths is float32 .*: give int64 on"),
        (lambda a: a | {"lengths": a["lengths"].to("meta")}, r"^lengths is .* on meta: give int64 on"),
        (lambda a: a | {"target_lengths": a["lengths"][:1]}, r"target_lengths is .*\(1,\).*each of 2 utterances"),
        (lambda a: a | {"blank": 3}, r"blank is 3, and log_probs has 3 labels: give a number from 0 to 2"),
    ],
)
def test_errors_say_what_and_what_to_do(change: Callable[[dict], dict], message: str) -> None:
    log_probs, lengths, targets, target_lengths = on_device(*problem(2, 5, 2, 3, blank=2))
    good = {"log_probs": log_probs, "lengths": lengths, "targets": targets, "target_lengths": target_lengths}
    with pytest.raises(ValueError, match=message):
        ctc_losses(**change(good | {"blank": 2}))


def test_without_a_gpu_the_message_names_the_other_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctc_kernel, "INTERPRETED", False)
    with pytest.raises(ValueError, match=r"on cpu, kernels need CUDA: call quartznet\.ctc\.ctc_losses"):
        ctc_losses(*problem(2, 5, 2, 3, blank=2), 2)


def test_compiles_for_a_gpu_without_spills(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).with_name("compile_ctc_kernel.py")
    root = script.parents[1]
    done = subprocess.run(
        [sys.executable, script], env=environment | {"PYTHONPATH": str(root)}, capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout
    for line in lines:
        assert "0 bytes spill stores, 0 bytes spill loads" in line
        assert int(line.split(" registers")[0].split()[-1]) <= 128


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_call_waits_and_a_cuda_graph_holds_it() -> None:
    logits, lengths, targets, target_lengths = problem(4, 50, 20, 29, blank=28)
    others = on_device(lengths, targets, target_lengths)
    static, expected = (
        logits.to(DEVICE).requires_grad_(),
        reference(logits, lengths, targets, target_lengths, 28, True, torch.ones(4)),
    )

    def step() -> tuple[Tensor, Tensor]:
        losses = ctc_losses(static.log_softmax(-1), *others, 28)
        return losses.detach(), torch.autograd.grad(losses.sum(), static)[0]

    step()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    for _ in range(2):
        graph.replay()
        for mine, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(mine.cpu().double(), theirs, rtol=1e-5, atol=1e-5)
