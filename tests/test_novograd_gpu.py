"""What only a GPU can show of NovoGrad: nothing waits, launches are few, and CUDA graphs replay it."""

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


def test_two_graphs_with_different_gradients_and_a_new_rate() -> None:
    parameters = weights()
    plain = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    optimizer, reference = NovoGrad(parameters, 0.02, kernel=True), NovoGrad(plain, 0.02)
    skip = torch.zeros((), device="cuda")
    set_gradients(parameters, 0)
    set_gradients(plain, 0)
    optimizer.step(skip=skip)
    reference.step()
    graphs, buffers = [], []
    for number in range(2):
        set_gradients(parameters, 1 + number)
        buffers.append([parameter.grad for parameter in parameters])
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            optimizer.step(skip=skip)
        graphs.append(graph)
    for step, number in enumerate((1, 0, 0, 1)):
        for group in (*optimizer.param_groups, *reference.param_groups):
            group["lr"] = 0.01 * (step + 1)
        optimizer.kernel.write_settings(optimizer.param_groups, parameters[0].device)
        skip.fill_(step == 2)
        graphs[number].replay()
        if step != 2:
            for parameter, gradient in zip(plain, buffers[number], strict=True):
                parameter.grad = gradient
            reference.step()
    assert_close(parameters, plain)
    set_gradients(parameters, 9)  # and an ordinary step afterwards
    set_gradients(plain, 9)
    optimizer.step()
    reference.step()
    assert_close(parameters, plain)
