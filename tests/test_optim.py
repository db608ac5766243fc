"""NovoGrad against three steps in plain floats and against a naive loop; resume is exact."""

import copy
import math
import sys

import pytest
import torch
from torch import Tensor, nn

from quartznet.config import OptimSettings
from quartznet.optim import NovoGrad, add_divided, build_optimizer


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, (1, 5)), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))


def set_gradients(network: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def naive_steps(
    weights: Tensor, gradients: list[Tensor], lr: float, betas: tuple[float, float], eps: float, decay: float
) -> Tensor:
    """The formula of the module's docstring in float64, one tensor."""
    weights, momentum, second = weights.double(), torch.zeros_like(weights).double(), 0.0
    for gradient in gradients:
        square = float((gradient.double() ** 2).sum())
        second = square if second == 0 else betas[1] * second + (1 - betas[1]) * square
        momentum = betas[0] * momentum + gradient.double() / (math.sqrt(second) + eps) + decay * weights
        weights = weights - lr * momentum
    return weights.float()


def test_three_steps_by_hand() -> None:
    weights = nn.Parameter(torch.tensor([3.0, -4.0], dtype=torch.float64))
    optimizer = NovoGrad([weights], lr=0.1, betas=(0.9, 0.5), eps=0.0, weight_decay=0.01)
    expected = [3.0, -4.0]
    momentum = [0.0, 0.0]
    gradients = [[3.0, 4.0], [0.0, 2.0], [6.0, 8.0]]
    seconds = [25.0, 0.5 * 25 + 0.5 * 4, 0.5 * 14.5 + 0.5 * 100]  # 25, 14.5, 57.25
    for gradient, second in zip(gradients, seconds, strict=True):
        weights.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i in range(2):
            momentum[i] = 0.9 * momentum[i] + gradient[i] / math.sqrt(second) + 0.01 * expected[i]
            expected[i] -= 0.1 * momentum[i]
        assert weights.tolist() == pytest.approx(expected, rel=1e-12)
        assert optimizer.state[weights]["exp_avg_sq"].item() == pytest.approx(second, rel=1e-12)
    assert optimizer.state[weights]["step"] == 3


def test_first_step_has_length_lr() -> None:
    weights = nn.Parameter(torch.zeros(100))
    weights.grad = 1000 * torch.randn(100)
    NovoGrad([weights], lr=0.25).step()
    assert weights.norm().item() == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_equals_the_naive_loop_over_twenty_steps(decay: float) -> None:
    network = small_network()
    start = [parameter.detach().clone() for parameter in network.parameters()]
    gradients: list[list[Tensor]] = [[] for _ in start]
    optimizer = NovoGrad(network.parameters(), lr=0.02, betas=(0.95, 0.25), weight_decay=decay)
    for step in range(20):
        set_gradients(network, step)
        for history, parameter in zip(gradients, network.parameters(), strict=True):
            history.append(parameter.grad.clone())
        optimizer.step()
    for parameter, first, history in zip(network.parameters(), start, gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), naive_steps(first, history, 0.02, (0.95, 0.25), 1e-8, decay))


def test_zero_gradients_start_the_second_moment_again() -> None:
    weights = nn.Parameter(torch.ones(2))
    optimizer = NovoGrad([weights], lr=0.5, betas=(0.0, 0.5))
    weights.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(weights.detach(), torch.ones(2))
    weights.grad = torch.tensor([0.0, 4.0])
    optimizer.step()
    assert optimizer.state[weights]["exp_avg_sq"].item() == 16.0  # not 0.5 * 0 + 0.5 * 16
    torch.testing.assert_close(weights.detach(), torch.tensor([1.0, 0.5]))


def test_gradients_are_not_touched() -> None:
    network = small_network()
    set_gradients(network, 0)
    before = [parameter.grad.clone() for parameter in network.parameters()]
    optimizer = NovoGrad(network.parameters(), lr=0.1, weight_decay=0.1)
    optimizer.step()
    optimizer.step()
    assert all(torch.equal(old, parameter.grad) for old, parameter in zip(before, network.parameters(), strict=True))


def test_no_gradient_means_no_decay_and_no_state() -> None:
    frozen, trained = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = NovoGrad([frozen, trained], lr=0.1, weight_decay=0.5)
    optimizer.step()  # no gradient anywhere
    trained.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(frozen.detach(), torch.ones(3)) and frozen not in optimizer.state
    assert not torch.equal(trained.detach(), torch.ones(3))


@pytest.mark.parametrize("name", ["novograd", "adamw"])
def test_state_dict_continues_bit_for_bit(name: str, tmp_path) -> None:
    settings = OptimSettings(name=name, lr=0.01)
    whole = small_network().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(whole.parameters(), settings)
    for step in range(5):
        set_gradients(whole, step)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = copy.deepcopy(whole)
    other = build_optimizer(resumed.parameters(), settings)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(5, 10):
        for network, its_optimizer in ((whole, optimizer), (resumed, other)):
            set_gradients(network, step)
            its_optimizer.step()
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def test_state_is_one_scalar_for_each_tensor() -> None:
    network = small_network()
    set_gradients(network, 0)
    optimizer = NovoGrad(network.parameters())
    optimizer.step()
    for parameter in network.parameters():
        state = optimizer.state[parameter]
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert state["exp_avg_sq"].shape == () and state["exp_avg"].shape == parameter.shape


def test_groups_keep_their_own_rate() -> None:
    slow, fast = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = NovoGrad([{"params": [slow], "lr": 0.1}, {"params": [fast]}], lr=1.0)
    slow.grad, fast.grad = torch.ones(1), torch.ones(1)
    optimizer.step()
    assert (slow.item(), fast.item()) == (pytest.approx(-0.1), pytest.approx(-1.0))


def test_closure_is_called_with_gradients_on() -> None:
    weights = nn.Parameter(torch.tensor([2.0]))
    optimizer = NovoGrad([weights], lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weights**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert weights.item() == pytest.approx(1.9)


def test_learns() -> None:
    weights = nn.Parameter(torch.tensor([5.0, -3.0]))
    optimizer = NovoGrad([weights], lr=0.05, betas=(0.5, 0.25))
    for _ in range(300):
        optimizer.zero_grad()
        (weights**2).sum().backward()
        optimizer.step()
    assert weights.norm() < 0.2  # the step has a fixed length, so it ends in a small circle


def test_build_optimizer_by_settings() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    novograd = build_optimizer(parameters, OptimSettings(lr=0.03, weight_decay=0.2))
    assert isinstance(novograd, NovoGrad) and novograd.defaults["betas"] == (0.95, 0.25)
    assert (novograd.defaults["lr"], novograd.defaults["weight_decay"]) == (0.03, 0.2)
    adamw = build_optimizer(parameters, OptimSettings(name="adamw"))
    assert isinstance(adamw, torch.optim.AdamW) and adamw.defaults["betas"] == (0.9, 0.98)
    given = build_optimizer(parameters, OptimSettings(betas=(0.8, 0.5)))
    assert given.defaults["betas"] == (0.8, 0.5)


def test_impossible_settings() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(ValueError, match=r"cannot be negative, got -0\.1"):
        NovoGrad(parameters, lr=-0.1)
    with pytest.raises(ValueError, match=r"betas must be in \[0, 1\), got \(0.9, 1.0\)"):
        NovoGrad(parameters, betas=(0.9, 1.0))


def test_division_by_reciprocals_is_the_same_but_for_rounding() -> None:
    gradients = [torch.randn(3, 4), torch.randn(1), torch.randn(100)]
    divisors = torch.tensor([0.3, 7.0, 1e-8])
    sums = [torch.zeros_like(gradient) for gradient in gradients]
    add_divided(sums, gradients, divisors, by_product=True)
    for total, gradient, divisor in zip(sums, gradients, divisors, strict=True):
        torch.testing.assert_close(total, gradient / divisor, rtol=2.5e-7, atol=0.0)
    add_divided(sums, [-gradient for gradient in gradients], divisors, by_product=False)
    for total, gradient, divisor in zip(sums, gradients, divisors, strict=True):
        assert (total.abs() <= 2.5e-7 * (gradient / divisor).abs()).all()


def test_the_kernel_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "quartznet.novograd_kernel", raising=False)
    with pytest.raises(ValueError, match="needs the package triton"):
        NovoGrad([nn.Parameter(torch.zeros(1))], kernel=True)
