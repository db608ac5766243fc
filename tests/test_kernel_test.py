"""The test that kernels must pass on a GPU before a run trusts them: right ones pass, each kind of wrong one fails."""

import pytest
import torch
import triton_cpu

triton_cpu.interpreted()
from quartznet import ctc_kernel, kernel_calls, novograd_kernel  # noqa: E402
from quartznet.config import BlockConfig  # noqa: E402
from quartznet.kernel_test import distance, failed_ctc, failed_novograd, failed_test, first_failure  # noqa: E402
from quartznet.model import Encoder  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def encoder() -> Encoder:
    return Encoder(4, (BlockConfig(4, 5, stride=2), BlockConfig(6, 3, 2, residual=True))).to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_the_kernels_pass_the_test(dtype: torch.dtype, training: bool) -> None:
    network = encoder().train(training)
    before = torch.random.get_rng_state()
    assert failed_test(network, dtype, 40) == ""
    assert torch.equal(torch.random.get_rng_state(), before)


def test_kernels_that_compute_something_else_fail_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel_calls.depthwise
    monkeypatch.setattr(kernel_calls, "depthwise", lambda *arguments: right(*arguments) * 1.03)
    assert failed_test(encoder().eval(), torch.bfloat16, 40).startswith("they were 0.0")


def test_wrong_gradients_fail_the_test_of_a_network_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel_calls.depthwise_backward

    def wrong(*arguments: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dx, dw, sums = right(*arguments)
        return dx, dw.flip(3), sums

    monkeypatch.setattr(kernel_calls, "depthwise_backward", wrong)
    assert "away from fp64 in a test" in failed_test(encoder().train(), torch.bfloat16, 40)
    assert failed_test(encoder().eval(), torch.bfloat16, 40) == ""


def test_kernels_that_do_not_run_fail_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(kernel_calls, "depthwise", broken)
    assert failed_test(encoder(), torch.bfloat16, 40) == (
        "they do not run here: RuntimeError: out of resource: shared memory"
    )


def test_kernels_for_batch_norms_that_stand_still_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    right, modes = kernel_calls.depthwise_backward, set()

    def watched(*arguments: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        modes.add(arguments[-1])
        return right(*arguments)

    monkeypatch.setattr(kernel_calls, "depthwise_backward", watched)
    network = Encoder(4, (BlockConfig(4, 3, 2), BlockConfig(4, 3, 2))).to(DEVICE).train()
    assert failed_test(network, torch.bfloat16, 40) == "" and modes == {False}
    network.blocks[1].layers[0].norm.eval()
    assert failed_test(network, torch.bfloat16, 40) == "" and modes == {False, True}


def test_kernels_with_dropout_are_tried_and_drop_no_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Encoder(4, (BlockConfig(4, 3, 2, dropout=0.2),)).to(DEVICE).train()
    before = torch.random.get_rng_state()
    assert failed_test(network, torch.bfloat16, 40) == ""
    assert torch.equal(torch.random.get_rng_state(), before)
    right = kernel_calls.block_end

    def broken(*arguments: object) -> torch.Tensor:
        return right(*arguments) * (1.0 if arguments[-1] is None else torch.nan)

    monkeypatch.setattr(kernel_calls, "block_end", broken)
    assert failed_test(network, torch.bfloat16, 40) == "with dropout they gave numbers that are not finite"
    assert failed_test(network.eval(), torch.bfloat16, 40) == ""


def test_wrong_losses_and_wrong_gradients_of_ctc_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ctc_kernel.ctc_losses
    assert failed_ctc(DEVICE) == ""
    monkeypatch.setattr(ctc_kernel, "ctc_losses", lambda *arguments: right(*arguments) * 1.01)
    assert failed_ctc(DEVICE).startswith("those of CTC were 0.01")
    monkeypatch.setattr(ctc_kernel, "ctc_losses", lambda *arguments: 1 / 0)
    assert failed_ctc(DEVICE) == "those of CTC do not run here: ZeroDivisionError: division by zero"


def test_a_wrong_optimiser_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failed_novograd(DEVICE) == ""

    class Twice(novograd_kernel.NovoGradKernel):
        def step(self, *arguments: object) -> torch.Tensor:
            super().step(*arguments)
            return super().step(*arguments)

    monkeypatch.setattr(novograd_kernel, "NovoGradKernel", Twice)
    assert failed_novograd(DEVICE).startswith("that of NovoGrad was ")


def test_a_network_that_learns_is_tried_with_its_loss_and_its_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_failure(encoder().train(), torch.bfloat16) == ""
    monkeypatch.setattr(ctc_kernel, "ctc_losses", lambda *arguments: 1 / 0)
    assert first_failure(encoder().train(), torch.bfloat16).startswith("those of CTC do not run here")
    assert first_failure(encoder().eval(), torch.bfloat16) == ""


def test_distance_is_infinite_where_something_is_not_finite() -> None:
    one = torch.ones(3)
    assert distance([one, 2 * one], [one, one]) == pytest.approx(1)
    assert distance([one, one * torch.nan], [one, one]) == float("inf")
