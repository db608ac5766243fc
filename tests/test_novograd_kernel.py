"""NovoGrad's two Triton launches against the ``_foreach`` path; and they compile for a GPU.

Without a GPU they run in Triton's interpreter (tests/conftest.py).
"""

import copy
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from triton_cpu import interpreted

from quartznet.config import OptimSettings
from quartznet.optim import NovoGrad, build_optimizer

interpreted()
from quartznet import novograd_kernel  # noqa: E402

DEVICE = torch.empty(0, device="cuda" if torch.cuda.is_available() else "cpu").device
SHAPES = [(1,), (3,), (7, 5, 1), (8192 + 4,), (6, 3, 1, 5), (0,), (8192,)]


@pytest.fixture(autouse=True)
def on_the_device() -> Iterator[None]:
    """Tensors are made there."""
    with DEVICE:
        yield


def weights(shapes: list[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def copies(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(parameter.detach().clone()) for parameter in parameters]


def set_gradients(*networks: list[nn.Parameter], size: float = 1.0) -> None:
    """The same random gradients for all."""
    for same in zip(*networks, strict=True):
        gradient = size * torch.randn(same[0].shape)
        for parameter in same:
            parameter.grad = gradient.clone()


def groups(parameters: list[nn.Parameter]) -> list[dict]:
    return [
        {"params": parameters[:2], "lr": 0.03, "betas": (0.5, 0.75), "eps": 0.1},
        {"params": parameters[2:4], "lr": 0.001, "weight_decay": 0.1},
        {"params": parameters[4:]},
    ]


def assert_same(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
    """Parameters and state, by relative norm."""
    for a, b in zip(first.param_groups, second.param_groups, strict=True):
        for x, y in zip(a["params"], b["params"], strict=True):
            close(y.detach(), x.detach())
            assert first.state[x].get("step") == second.state[y].get("step")
            for key in ("exp_avg", "exp_avg_sq"):
                close(second.state[y].get(key, torch.zeros(())), first.state[x].get(key, torch.zeros(())))


def close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    assert found.isfinite().all()


@pytest.mark.parametrize("grouped", [False, True])
def test_equals_the_plain_path_over_several_steps(grouped: bool) -> None:
    parameters = weights()
    others = copies(parameters)
    plain = NovoGrad(groups(parameters) if grouped else parameters, lr=0.02, weight_decay=0.01)
    kernel = NovoGrad(groups(others) if grouped else others, lr=0.02, weight_decay=0.01, kernel=True)
    for step in range(3):
        set_gradients(parameters, others, size=10.0 ** (step - 2))
        for optimizer in (plain, kernel):
            optimizer.param_groups[-1]["lr"] = 0.02 * step  # what a schedule does
            optimizer.step()
        assert_same(plain, kernel)


def test_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([3.0, -4.0]))
    optimizer = NovoGrad([parameter], lr=0.1, betas=(0.5, 0.25), eps=1.0, weight_decay=0.5, kernel=True)
    parameter.grad = torch.tensor([3.0, 4.0])  # v = 25, m = g / 6 + p / 2 = 2, -4 / 3
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([2.8, -4 + 0.4 / 3]))
    parameter.grad = torch.tensor([0.0, 2.0])  # v = 25 / 4 + 3 / 4 * 4 = 9.25
    optimizer.step()
    assert optimizer.state[parameter]["exp_avg_sq"].item() == 9.25
    momentum = torch.tensor([0.5 * 2 + 1.4, -2 / 3 + 2 / (math.sqrt(9.25) + 1) + (-4 + 0.4 / 3) / 2])
    torch.testing.assert_close(parameter.detach(), torch.tensor([2.8, -4 + 0.4 / 3]) - 0.1 * momentum)


def test_zero_gradients_start_the_second_moment_again() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = NovoGrad([parameter], lr=0.5, betas=(0.0, 0.5), kernel=True)
    parameter.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(2))
    parameter.grad = torch.tensor([0.0, 4.0])
    optimizer.step()
    assert optimizer.state[parameter]["exp_avg_sq"].item() == 16.0
    torch.testing.assert_close(parameter.detach(), torch.tensor([1.0, 0.5]))


def test_what_has_no_gradient_stays_until_it_has_one() -> None:
    parameters = weights([(5,), (4,), (3,)])
    others = copies(parameters)
    plain, kernel = NovoGrad(parameters, weight_decay=0.5), NovoGrad(others, weight_decay=0.5, kernel=True)
    kernel.step()  # no gradient anywhere
    assert not kernel.state
    for thawed in (2, 1, 3):
        set_gradients(parameters, others)
        for parameter in (*parameters[thawed:], *others[thawed:]):
            parameter.grad = None
        plain.step()
        kernel.step()
        assert_same(plain, kernel)
    assert len(kernel.state) == 3


def test_nothing_but_empty_tensors() -> None:
    parameter = nn.Parameter(torch.zeros(0))
    parameter.grad = torch.zeros(0)
    optimizer = NovoGrad([parameter], kernel=True)
    optimizer.step()
    assert optimizer.state[parameter]["step"] == 1 and optimizer.state[parameter]["exp_avg_sq"] == 0


def test_gradients_are_not_touched() -> None:
    parameters = weights([(9,), (4, 4)])
    set_gradients(parameters)
    before = [parameter.grad.clone() for parameter in parameters]
    NovoGrad(parameters, lr=0.1, kernel=True).step()
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(parameters, before, strict=True))


@pytest.mark.parametrize("kernel_first", [False, True])
def test_a_run_may_change_from_one_path_to_the_other(kernel_first: bool) -> None:
    parameters = weights([(6, 5), (3,)])
    optimizer = NovoGrad(parameters, lr=0.1, kernel=kernel_first)
    for _ in range(3):
        set_gradients(parameters)
        optimizer.step()
    others = copies(parameters)
    resumed = NovoGrad(others, lr=0.1, kernel=not kernel_first)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    for _ in range(2):
        set_gradients(parameters, others)
        optimizer.step()
        resumed.step()
        assert_same(optimizer, resumed)


def test_state_loaded_between_two_steps_is_seen() -> None:
    parameters = weights([(6, 5)])
    others = copies(parameters)
    plain, kernel = NovoGrad(parameters, lr=0.1), NovoGrad(others, lr=0.1, kernel=True)
    set_gradients(parameters, others)
    kernel.step()
    for _ in range(2):
        plain.step()
    kernel.load_state_dict(copy.deepcopy(plain.state_dict()))
    others[0].data.copy_(parameters[0].data)
    plain.step()
    kernel.step()
    assert_same(plain, kernel)


def as_channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("which", ["parameter", "gradient", "momentum", "all"])
def test_layouts_may_differ(which: str) -> None:
    parameters = weights([(4, 3, 2, 5), (2,)])
    others = copies(parameters)
    plain, kernel = NovoGrad(parameters, lr=0.1), NovoGrad(others, lr=0.1, kernel=True)
    if which in ("parameter", "all"):
        others[0].data = as_channels_last(others[0].data)
    for step in range(3):
        set_gradients(parameters, others)
        if which in ("gradient", "all"):
            others[0].grad = as_channels_last(others[0].grad)
        if which in ("momentum", "all") and step == 1:
            others_state = kernel.state[others[0]]
            others_state["exp_avg"] = as_channels_last(others_state["exp_avg"])
        plain.step()
        kernel.step()
        assert_same(plain, kernel)
    assert others[0].stride() == kernel.state[others[0]]["exp_avg"].stride()


def test_one_gradient_for_all_places() -> None:
    parameters = weights([(4, 3)])
    others = copies(parameters)
    for parameter in (parameters[0], others[0]):
        parameter.grad = torch.tensor(0.5).expand(4, 3)  # strides 0
    plain, kernel = NovoGrad(parameters, lr=0.1), NovoGrad(others, lr=0.1, kernel=True)
    plain.step()
    kernel.step()
    assert_same(plain, kernel)


def test_tensors_need_not_be_aligned() -> None:
    parameters = weights([(8192 + 8192,)])
    other = nn.Parameter(torch.cat([torch.zeros(1), parameters[0].detach()])[1:])
    assert other.data_ptr() % 16 == 4
    plain, kernel = NovoGrad(parameters, lr=0.1), NovoGrad([other], lr=0.1, kernel=True)
    for _ in range(2):
        set_gradients(parameters, [other])
        plain.step()
        kernel.step()
        assert_same(plain, kernel)


def test_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """More partial sums than are read at a time; the same gradients give the same bits."""
    for name, size in (("CHUNK", 16), ("BLOCK", 8), ("SUMS", 2)):
        monkeypatch.setattr(novograd_kernel, name, size)
    parameters = weights([(100,), (64,), (3,)])
    others, again = copies(parameters), copies(parameters)
    plain, kernel, same = NovoGrad(parameters), NovoGrad(others, kernel=True), NovoGrad(again, kernel=True)
    for _ in range(2):
        set_gradients(parameters, others, again)
        for optimizer in (plain, kernel, same):
            optimizer.step()
        assert_same(plain, kernel)
        assert all(map(torch.equal, others, again))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e30])
def test_a_gradient_that_is_not_finite_does_what_it_does_on_the_plain_path(poison: float) -> None:
    parameters = weights([(5,), (4, 3)])
    others = copies(parameters)
    plain, kernel = (NovoGrad(given, weight_decay=0.1, kernel=given is others) for given in (parameters, others))
    for step in range(3):
        set_gradients(parameters, others)
        if step == 1:
            parameters[0].grad[3] = others[0].grad[3] = poison
        plain.step()
        kernel.step()
    for x, y in zip(parameters, others, strict=True):
        same = {"rtol": 1e-5, "atol": 1e-6, "equal_nan": True}
        torch.testing.assert_close(y, x, **same)
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(kernel.state[y][key], plain.state[x][key], **same)
    assert not kernel.state[others[0]]["exp_avg_sq"].isfinite() and others[1].isfinite().all()


def test_build_optimizer_and_copies() -> None:
    parameters = weights([(3,)])
    optimizer = build_optimizer(parameters, OptimSettings(lr=0.03), kernel=True)
    assert optimizer.kernel is not None and build_optimizer(parameters, OptimSettings()).kernel is None
    assert isinstance(build_optimizer(parameters, OptimSettings(name="adamw"), kernel=True), torch.optim.AdamW)
    assert copy.deepcopy(optimizer).kernel is None


def step_of(parameter: nn.Parameter, **state: Tensor) -> None:
    optimizer = NovoGrad([parameter], kernel=True)
    parameter.grad = torch.ones_like(parameter)
    optimizer._state_of(parameter).update(state)
    optimizer.step()


def test_what_the_kernel_refuses() -> None:
    with pytest.raises(ValueError, match=f"needs float32 on {DEVICE}, got a parameter of torch.float64 on {DEVICE}"):
        step_of(nn.Parameter(torch.ones(2, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"got a second moment of torch.float64"):
        step_of(nn.Parameter(torch.ones(2)), exp_avg_sq=torch.zeros((), dtype=torch.float64))
    with pytest.raises(ValueError, match=r"without gaps or overlaps, got shape \(2, 2\) with strides \(3, 1\)"):
        step_of(nn.Parameter(torch.ones(2, 3)[:, :2]))
    with pytest.raises(ValueError, match=r"state of a parameter of shape \(2,\) is not of this parameter"):
        step_of(nn.Parameter(torch.ones(2)), exp_avg=torch.zeros(3))
    parameter = nn.Parameter(torch.ones(2))
    optimizer = NovoGrad([parameter], kernel=True)
    parameter.grad = torch.ones(2)
    optimizer.step()
    parameter.grad = None
    parameter.grad_dtype = torch.float64
    parameter.grad = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"got a gradient of torch.float64"):
        optimizer.step()


COMPILE = """
import os, re, subprocess, sys, torch, triton
from quartznet import novograd_kernel as kernels
from quartznet.optim import NovoGrad

target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
tables = {"table": "*i64", "owners": "*i32", "settings": "*fp32", "partial": "*fp32", "before": "*fp32"}
sizes = {"CHUNK": kernels.CHUNK, "BLOCK": kernels.BLOCK}
for function, constants in ((kernels.measure, sizes), (kernels.update, sizes | {"SUMS": kernels.SUMS})):
    types = tables | dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in function.arg_names}
    source = triton.compiler.ASTSource(fn=function, signature=signature, constexprs=constants)
    ptx = triton.compile(source, target=target, options={"num_warps": 8}).asm["ptx"]
    path = os.path.join(sys.argv[1], "kernel.ptx")
    with open(path, "w") as file:
        file.write(ptx)
    assembler = os.path.join(os.path.dirname(triton.__file__), "backends/nvidia/bin/ptxas")
    arch = re.search(r"[.]target (\\w+)", ptx).group(1)
    done = subprocess.run([assembler, "-v", "--gpu-name", arch, "-o", os.devnull, path], capture_output=True, text=True)
    print(done.returncode, re.search(r"(\\d+) bytes spill stores", done.stderr).group(1), "ld.global.v4" in ptx)

parameter = torch.nn.Parameter(torch.ones(2))
parameter.grad = torch.ones(2)
try:
    NovoGrad([parameter], kernel=True).step()
except ValueError as error:
    print(error)
"""


def test_compiles_for_a_gpu_without_spills_and_refuses_a_cpu(tmp_path) -> None:
    """In another process, because the interpreter was chosen in this one; a compiled kernel cannot run on a CPU."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second, refusal = done.stdout.splitlines()
    assert first == second == "0 0 True"  # assembled, no spills, loads of 16 bytes
    assert refusal == "NovoGrad's kernel needs parameters on a CUDA device, not cpu; use kernel=False"
