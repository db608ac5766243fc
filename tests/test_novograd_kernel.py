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

from quartznet.config import OptimSettings
from quartznet.optim import NovoGrad, build_optimizer

pytest.importorskip("triton")

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
        close(kernel.total_norm, torch.cat([parameter.grad.flatten() for parameter in parameters]).norm())
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
    assert optimizer.total_norm.item() == 2.0


def test_zero_gradients_start_the_second_moment_again() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = NovoGrad([parameter], lr=0.5, betas=(0.0, 0.5), kernel=True)
    parameter.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(2)) and optimizer.total_norm == 0
    parameter.grad = torch.tensor([0.0, 4.0])
    optimizer.step()
    assert optimizer.state[parameter]["exp_avg_sq"].item() == 16.0
    torch.testing.assert_close(parameter.detach(), torch.tensor([1.0, 0.5]))


def test_what_has_no_gradient_stays_until_it_has_one() -> None:
    parameters = weights([(5,), (4,), (3,)])
    others = copies(parameters)
    plain, kernel = NovoGrad(parameters, weight_decay=0.5), NovoGrad(others, weight_decay=0.5, kernel=True)
    kernel.step()  # no gradient anywhere
    assert kernel.total_norm is None
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
    assert optimizer.total_norm == 0


def test_gradients_are_not_touched() -> None:
    parameters = weights([(9,), (4, 4)])
    set_gradients(parameters)
    before = [parameter.grad.clone() for parameter in parameters]
    NovoGrad(parameters, lr=0.1, kernel=True).step(max_norm=0.1)
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


@pytest.mark.parametrize("number", [True, 1.0, [-1]])
def test_a_step_is_left_out_where_skip_is_not_zero(number: bool | float | list[int]) -> None:
    flag = torch.tensor(number)
    parameters = weights([(5,), (4, 3)])
    others = copies(parameters)
    plain, kernel = NovoGrad(parameters, lr=0.1), NovoGrad(others, lr=0.1, kernel=True)
    set_gradients(parameters, others)
    plain.step()
    kernel.step(skip=torch.zeros_like(flag))
    before = [parameter.detach().clone() for parameter in others], copy.deepcopy(list(kernel.state.values()))
    kernel.step(skip=flag)
    assert all(torch.equal(old, new) for old, new in zip(before[0], others, strict=True))
    for old, new in zip(before[1], kernel.state.values(), strict=True):
        assert torch.equal(old["exp_avg"], new["exp_avg"]) and torch.equal(old["exp_avg_sq"], new["exp_avg_sq"])
    assert [state.pop("step") for state in kernel.state.values()] == [2, 2]
    close(kernel.total_norm, torch.cat([parameter.grad.flatten() for parameter in others]).norm())


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e30])
def test_a_gradient_that_is_not_finite_changes_nothing(poison: float) -> None:
    parameters = weights([(5,), (4, 3)])
    optimizer = NovoGrad(parameters, lr=0.1, weight_decay=0.1, kernel=True)
    set_gradients(parameters)
    optimizer.step()
    before = copy.deepcopy(parameters), copy.deepcopy(list(optimizer.state.values()))
    parameters[0].grad[3] = poison
    optimizer.step()
    assert not optimizer.total_norm.isfinite()
    assert all(map(torch.equal, before[0], parameters))
    for old, new in zip(before[1], optimizer.state.values(), strict=True):
        assert torch.equal(old["exp_avg"], new["exp_avg"]) and torch.equal(old["exp_avg_sq"], new["exp_avg_sq"])


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_max_norm_clips_as_torch_does(max_norm: float) -> None:
    parameters = weights([(5,), (4, 3)])
    others = copies(parameters)
    plain, kernel = NovoGrad(parameters, lr=0.1), NovoGrad(others, lr=0.1, kernel=True)
    for size in (1.0, 0.01):
        set_gradients(parameters, others, size=size)
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        plain.step()
        kernel.step(max_norm=max_norm)
        close(kernel.total_norm, norm)
        assert_same(plain, kernel)


def test_build_optimizer_and_copies() -> None:
    parameters = weights([(3,)])
    optimizer = build_optimizer(parameters, OptimSettings(lr=0.03), kernel=True)
    assert optimizer.kernel is not None and build_optimizer(parameters, OptimSettings()).kernel is None
    assert isinstance(build_optimizer(parameters, OptimSettings(name="adamw"), kernel=True), torch.optim.AdamW)
    assert copy.deepcopy(optimizer).kernel is None


def test_each_capture_has_addresses_of_its_own() -> None:
    """A stand-in for CUDA graphs: what would be replayed is a copy from memory that later steps leave alone."""
    from quartznet import novograd_kernel

    parameters = weights([(3,), (4,)])
    optimizer = NovoGrad(parameters, kernel=True)
    set_gradients(parameters)
    kept = [[parameter.grad for parameter in parameters]]
    optimizer.step()
    kernel = optimizer.kernel
    tables = kernel._tables
    for _ in range(2):
        kept.append([torch.ones_like(parameter) for parameter in parameters])
        kernel._write_addresses(kept[-1], capturing=True)
    column = novograd_kernel.GRADIENT.value
    for number in range(2):
        assert tables.spares[number, :, column].tolist() == [gradient.data_ptr() for gradient in kept[number + 1]]
    tables.table.fill_(0)  # as if a replay had left something else
    kernel._write_addresses(kept[2], capturing=False)
    assert tables.table[:, column].tolist() == [gradient.data_ptr() for gradient in kept[2]]

    optimizer.add_param_group({"params": weights([(2,)])})
    with pytest.raises(ValueError, match="groups were added after a CUDA graph was captured"):
        optimizer.step()
    kernel._captures = novograd_kernel.GRAPHS
    with pytest.raises(ValueError, match="64 CUDA graphs were captured"):
        kernel._write_addresses(kept[0], capturing=True)


def test_a_new_layout_keeps_what_captured_graphs_read() -> None:
    parameters = weights([(3,), (4,)])
    optimizer = NovoGrad(parameters, kernel=True)
    parameters[0].grad = torch.ones(3)
    optimizer.step()
    old = optimizer.kernel._tables
    optimizer.kernel._write_addresses([parameters[0].grad], capturing=True)
    parameters[1].grad = torch.ones(4)
    optimizer.step()
    assert optimizer.kernel._kept == [old] and optimizer.kernel._tables is not old


def test_a_capture_needs_a_step_before() -> None:
    from quartznet.novograd_kernel import NovoGradKernel, Work

    one = [torch.ones(1)]
    with pytest.raises(ValueError, match="take one step with these parameters and groups before"):
        NovoGradKernel()._lay_out(Work(one, one, one, one, [0]), capturing=True)


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
    parameter.grad = torch.ones(2)
    optimizer = NovoGrad([parameter], kernel=True)
    with pytest.raises(ValueError, match=f"skip must be one number on {DEVICE}, got 2 on {DEVICE}"):
        optimizer.step(skip=torch.zeros(2))
    with pytest.raises(ValueError, match="max_norm must be positive, got 0"):
        optimizer.step(max_norm=0)
    with pytest.raises(ValueError, match=r"got a gradient of torch.float64"):
        optimizer.kernel._write_addresses([parameter.grad.double()], capturing=False)


COMPILE = """
import os, re, subprocess, sys, torch, triton
from quartznet import novograd_kernel as kernels
from quartznet.optim import NovoGrad

target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
both = {"table": "*i64", "owners": "*i32", "partial": "*fp32", "before": "*fp32"}
more = {"settings": "*fp32", "norm": "*fp32", "skip": "*i1", "largest": "fp32", "chunks": "i32"}
sizes = {"CHUNK": kernels.CHUNK, "BLOCK": kernels.BLOCK}
sums = {"SUMS": kernels.SUMS, "ROUNDS": 3}
for function, types, constants in ((kernels.measure, both, sizes), (kernels.update, both | more, sizes | sums)):
    types = types | dict.fromkeys(constants, "constexpr")
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
