"""What only a GPU can show of NovoGrad: nothing waits, and launches are few."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from quartznet.optim import NovoGrad

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SHAPES = [(256, 1, 33), (512, 256, 1), (512,), (512,), (512, 1, 87), (1024, 512, 1), (29, 1024, 1), (29,), (1,)] * 20


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator).cuda()) for shape in SHAPES]


def set_gradients(parameters: list[nn.Parameter], step: int) -> None:
    """New tensors each time, as after ``zero_grad(set_to_none=True)``."""
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).cuda()


def assert_close(found: list[nn.Parameter], expected: list[nn.Parameter]) -> None:
    for x, y in zip(found, expected, strict=True):
        assert (x.double().cpu() - y.double().cpu()).norm() <= 2e-6 * y.double().cpu().norm()


@pytest.mark.parametrize("kernel", [False, True])
def test_equals_float64_on_a_cpu(kernel: bool) -> None:
    parameters = weights()
    exact = [nn.Parameter(parameter.detach().double().cpu()) for parameter in parameters]
    optimizer, reference = NovoGrad(parameters, 0.02, kernel=kernel), NovoGrad(exact, 0.02)
    for step in range(5):
        set_gradients(parameters, step)
        for parameter, other in zip(parameters, exact, strict=True):
            other.grad = parameter.grad.double().cpu()
        optimizer.step()
        reference.step()
    assert_close(parameters, exact)


@pytest.mark.parametrize(("kernel", "most"), [(False, 80), (True, 2)])
def test_launches_are_few_and_nothing_waits(kernel: bool, most: int) -> None:
    parameters = weights()
    optimizer = NovoGrad(parameters, 0.02, weight_decay=0.001, kernel=kernel)
    set_gradients(parameters, 0)
    optimizer.step()
    set_gradients(parameters, 1)
    optimizer.param_groups[0]["lr"] = 0.01
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    names = [event.name for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    launches = [name for name in names if not name.startswith(("Mem", "Activity", "Context"))]
    assert 0 < len(launches) <= most, launches
