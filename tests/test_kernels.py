"""The Triton kernels: in the interpreter against PyTorch in fp64, and compiled for real GPUs without one."""

import math

import pytest
import torch
import torch.nn.functional as F
import triton_cpu
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

triton_cpu.interpreted()
from quartznet import kernel_calls as calls  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = 4e-3  # of bf16: 2^-9 for each rounding, of which a result has a few


def distance(this: Tensor, that: Tensor) -> float:
    """||this - that|| / ||that||; NaN and infinity are far."""
    ratio = (this.double().cpu() - that.cpu()).norm() / that.cpu().norm().clamp(min=1e-12)
    return ratio.item() if ratio == ratio else float("inf")


def random_norm(channels: int) -> calls.Norm:
    gamma, var = (0.5 + torch.rand(channels, device=DEVICE) for _ in range(2))
    beta, mean = (0.3 * torch.randn(channels, device=DEVICE) for _ in range(2))
    return calls.Norm(gamma, beta, mean, var, 1e-3)


def unit(z: Tensor, norm: calls.Norm) -> Tensor:
    mean, var = (tensor.double()[:, None, None] for tensor in (norm.mean, norm.var))
    return (z - mean) / (var + norm.eps).sqrt()


def normed(z: Tensor, norm: calls.Norm) -> Tensor:
    return unit(z, norm) * norm.gamma.double()[:, None, None] + norm.beta.double()[:, None, None]


def real(lengths: Tensor, row: int) -> Tensor:
    return torch.arange(row, device=lengths.device) < lengths[:, None]


def plain_depthwise(
    x: Tensor, weight: Tensor, taps: calls.Taps, lengths: Tensor, out_lengths: Tensor, norm: calls.Norm | None, row: int
) -> Tensor:
    """``calls.depthwise`` in fp64 by PyTorch's convolution."""
    h = (x if norm is None else normed(x, norm).relu()) * real(lengths, x.shape[2])
    size = (taps.stride, taps.pad, taps.dilation, len(weight))
    y = F.conv1d(h.transpose(0, 1), weight[:, :, 0], None, *size).transpose(0, 1)
    return F.pad(y, (0, row - y.shape[2])) * real(out_lengths, row)


class Case:
    """Random input of a depthwise convolution, with what is beyond every length poisoned."""

    def __init__(self, taps: calls.Taps, lengths: list[int], activate: bool, dtype: torch.dtype, channels: int = 2):
        self.taps = taps
        row = -(-max(lengths) // 8) * 8
        self.x = torch.randn(channels, len(lengths), row, device=DEVICE).to(dtype)
        self.weight = (0.3 * torch.randn(channels, 1, 1, taps.count, device=DEVICE)).to(dtype).float()
        self.lengths = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
        self.out_lengths = (self.lengths - 1) // taps.stride + 1
        self.norm = random_norm(channels) if activate else None
        self.x.masked_fill_(~real(self.lengths, row), torch.nan)

    @property
    def arguments(self) -> tuple:
        return self.x, self.weight, self.taps, self.lengths, self.out_lengths, self.norm

    def exact(self, gradient: Tensor | None = None) -> tuple[Tensor, ...]:
        """The result, and the gradients of x and of the weight, in fp64."""
        x = self.x.double().masked_fill(~real(self.lengths, self.x.shape[2]), 0.0).requires_grad_()
        weight = self.weight.double().requires_grad_()
        row = math.ceil(math.ceil(x.shape[2] / self.taps.stride) / 8) * 8
        y = plain_depthwise(x, weight, self.taps, self.lengths, self.out_lengths, self.norm, row)
        if gradient is None:
            return (y.detach(),)
        clean = gradient.double().nan_to_num(0.0)
        return y.detach(), *torch.autograd.grad((y * clean).sum(), (x, weight))


taps_of_all_kinds = st.one_of(
    st.builds(calls.Taps, st.integers(0, 43).map(lambda n: 2 * n + 1), st.just(1), st.sampled_from([1, 1, 2, 3])),
    st.builds(calls.Taps, st.integers(0, 20).map(lambda n: 2 * n + 1), st.sampled_from([2, 4]), st.just(1)),
)
lengths_of_all_kinds = st.lists(st.one_of(st.integers(1, 40), st.integers(60, 150)), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(taps_of_all_kinds, lengths_of_all_kinds, st.booleans(), st.integers(0, 1000))
def test_depthwise_and_its_gradients_equal_fp64(
    taps: calls.Taps, lengths: list[int], activate: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    case = Case(taps, lengths, activate, torch.float32)
    y = calls.depthwise(*case.arguments)
    gradient = torch.randn(y.shape, device=DEVICE).masked_fill_(~real(case.out_lengths, y.shape[2]), torch.nan)
    exact, to_x, to_weight = case.exact(gradient)
    dx, dw, _ = calls.depthwise_backward(gradient, *case.arguments, frozen=True)
    assert distance(y, exact) < 1e-6
    assert distance(dx, to_x) < 1e-6
    assert distance(dw, to_weight) < 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("taps", [calls.Taps(33, 2), calls.Taps(51), calls.Taps(75), calls.Taps(87, 1, 2)])
def test_half_precision_is_off_by_its_roundings(taps: calls.Taps, dtype: torch.dtype) -> None:
    case = Case(taps, [90, 33, 64], True, dtype)
    y = calls.depthwise(*case.arguments)
    gradient = torch.randn(y.shape, device=DEVICE).to(dtype)
    exact, to_x, to_weight = case.exact(gradient)
    dx, dw, _ = calls.depthwise_backward(gradient, *case.arguments, frozen=True)
    assert y.dtype == dx.dtype == dtype and dw.dtype == torch.float32
    assert distance(y, exact) < HALF
    assert distance(dx, to_x) < HALF
    assert distance(dw, to_weight) < HALF


def test_depthwise_by_hand() -> None:
    x = torch.tensor([[[1.0, 2, 3, 4, 5, 9, 9, 9]]], device=DEVICE)
    weight = torch.tensor([10.0, 1, 100], device=DEVICE).view(1, 1, 1, 3)
    five = torch.tensor([5], dtype=torch.int32, device=DEVICE)
    three = torch.tensor([3], dtype=torch.int32, device=DEVICE)
    assert calls.depthwise(x, weight, calls.Taps(3), five, five).tolist() == [[[201, 312, 423, 534, 45, 0, 0, 0]]]
    assert calls.depthwise(x, weight, calls.Taps(3, 2), five, three)[0, 0, :4].tolist() == [201, 423, 45, 0]


def test_the_sums_for_the_norm_are_those_of_its_gradients() -> None:
    case = Case(calls.Taps(5), [40, 17], True, torch.float32, channels=3)
    gradient = torch.randn(3, 2, 40, device=DEVICE)
    du, _, sums = calls.depthwise_backward(gradient, *case.arguments)
    z = case.x.double().nan_to_num(0.0)
    assert distance(sums.sum(1)[:, 0], du.double().sum((1, 2))) < 1e-6
    assert distance(sums.sum(1)[:, 1], (du.double() * unit(z, case.norm)).sum((1, 2))) < 1e-6


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("frames", [37, 1600])
def test_statistics_are_those_of_batch_norm(offset: float, frames: int) -> None:
    z = offset + torch.randn(3, 2, frames, device=DEVICE)
    padded = F.pad(z, (0, -frames % 8), value=torch.nan)
    norm = torch.nn.BatchNorm1d(3, momentum=0.1, eps=1e-3).double().to(DEVICE)
    mean, var = torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE)
    batch_mean, batch_var = calls.statistics(padded, frames, mean, var, 0.1)
    norm(z.double().transpose(0, 1))
    assert distance(batch_mean, z.double().mean((1, 2))) < 1e-6
    assert distance(batch_var, z.double().var((1, 2), unbiased=False)) < 1e-5
    assert distance(mean, norm.running_mean) < 1e-6
    assert distance(var, norm.running_var) < 1e-5


@pytest.mark.parametrize("has_residual", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_end_of_a_block_and_its_gradients_equal_fp64(has_residual: bool, frozen: bool) -> None:
    z, r = (torch.randn(3, 2, 24, device=DEVICE) for _ in range(2))
    lengths = torch.tensor([24, 9], dtype=torch.int32, device=DEVICE)
    norms = [random_norm(3), random_norm(3)]
    if not frozen:
        norms = [
            calls.Norm(norm.gamma, norm.beta, x.mean((1, 2)), x.var((1, 2), unbiased=False), norm.eps)
            for norm, x in zip(norms, (z, r), strict=True)
        ]
    exact = [x.double().requires_grad_() for x in (z, r)]
    weights = [[t.double().requires_grad_() for t in (norm.gamma, norm.beta)] for norm in norms]
    total = 0.0
    for x, norm, (gamma, beta) in list(zip(exact, norms, weights, strict=True))[: 1 + has_residual]:
        mean, var = norm.mean.double(), norm.var.double()
        if not frozen:
            mean, var = x.mean((1, 2)), x.var((1, 2), unbiased=False)
        own = (x - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
        total = total + own * gamma[:, None, None] + beta[:, None, None]
    expected = total.relu() * real(lengths, 24)
    dh = torch.randn(3, 2, 24, device=DEVICE)
    (expected * dh.double()).sum().backward()

    residual, residual_norm = (r, norms[1]) if has_residual else (None, None)
    h = calls.block_end(z, norms[0], lengths, residual, residual_norm)
    du, sums = calls.block_end_backward(dh, h, z, norms[0], residual, residual_norm)
    out = torch.empty_like(du)
    assert distance(h, expected.detach()) < 1e-6
    if has_residual:
        dgamma, dbeta = calls.norm_backward(du, r, norms[1], sums, 2, 48, frozen, out)
        assert distance(out, exact[1].grad) < 2e-6
        assert distance(dgamma, weights[1][0].grad) < 1e-6
        assert distance(dbeta, weights[1][1].grad) < 1e-6
    dgamma, dbeta = calls.norm_backward(du, z, norms[0], sums, 1, 48, frozen, du)  # in place
    assert distance(du, exact[0].grad) < 2e-6
    assert distance(dgamma, weights[0][0].grad) < 1e-6
    assert distance(dbeta, weights[0][1].grad) < 1e-6


def test_dropout_is_the_same_forward_and_backward_and_drops_its_share() -> None:
    lengths = torch.full((4,), 256, dtype=torch.int32, device=DEVICE)
    x = torch.ones(4, 4, 256, device=DEVICE)
    one = torch.ones(4, 1, 1, 1, device=DEVICE)
    drop = calls.Dropout(0.25, torch.tensor([5], device=DEVICE))
    y = calls.depthwise(x, one, calls.Taps(1), lengths, lengths, None, drop)
    dx, dw, _ = calls.depthwise_backward(torch.ones_like(y), x, one, calls.Taps(1), lengths, lengths, None, drop)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs((y == 0).float().mean().item() - 0.25) < 0.03  # 4,096 numbers: 4 standard deviations
    assert torch.equal(dx, y)
    assert torch.allclose(dw[:, 0, 0, 0], y.sum((1, 2)), rtol=1e-5)
    other = calls.Dropout(0.25, torch.tensor([6], device=DEVICE))
    assert not torch.equal(calls.depthwise(x, one, calls.Taps(1), lengths, lengths, None, other), y)


def test_columns_of_many_short_rows_share_tiles() -> None:
    """As many tiles as the frames need, not one for each utterance; and many programs give what one gives."""
    case = Case(calls.Taps(9), [8, 3, 5, 8, 1, 7] * 30, True, torch.float32)
    exact, to_x, to_weight = case.exact(torch.ones(2, 180, 8, device=DEVICE))
    assert distance(calls.depthwise(*case.arguments), exact) < 1e-6
    dx, dw, sums = calls.depthwise_backward(torch.ones(2, 180, 8, device=DEVICE), *case.arguments, frozen=True)
    assert sums.shape[1] == 3  # 180 columns in tiles of 64
    assert distance(dx, to_x) < 1e-6
    assert distance(dw, to_weight) < 1e-6


# ---------------------------------------------------------------------------------------------------------------------
# Compiled for a GPU

COMPILE = """
import itertools, os, re, subprocess, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from quartznet import kernels
from quartznet.kernel_calls import MORE_WARPS, Taps, forward_warps

TOOLS = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")

def kind(name):
    if name in ("x_ptr", "z_ptr", "y_ptr", "g_ptr", "dx_ptr", "h_ptr", "dh_ptr", "du_ptr", "dz_ptr", "r_ptr"):
        return "*bf16"
    if name.endswith("lengths_ptr"):
        return "*i32"
    if name.endswith("_ptr"):
        return "*i64" if name == "seed_ptr" else "*fp32"
    return "fp32" if name in ("eps", "probability", "momentum") else "i32"

def report(title, kernel, constants, warps, capability):
    names = kernel.arg_names
    signature = {{name: "constexpr" if name in constants else kind(name) for name in names}}
    aligned = {{(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}}
    constants = {{(names.index(name),): value for name, value in constants.items()}}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={{"num_warps": warps}})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        run = lambda *command: subprocess.run([os.path.join(TOOLS, command[0]), *command[1:], file.name],
                                              capture_output=True, text=True, check=True).stdout
        usage = re.search(r"REG:(\\d+) STACK:(\\d+)", run("cuobjdump", "-res-usage"))
        code = run("nvdisasm", "-c")
    wide = len(re.findall(r"LDG(?:STS)?\\.[A-Z0-9.]*128", code))
    matrix = len(re.findall(r"\\b(?:HGMMA|HMMA)\\b", code)) + code.count("HGMMA.") + code.count("HMMA.")
    print(title, usage[1], usage[2], compiled.metadata.shared, wide, matrix)

taps = Taps({count}, {stride}, {dilation})
flags = {{"ACTIVATE": {activate}, "DROPOUT": {dropout}, "PRECISION": "ieee", "ALIGN": kernels.ALIGN}}
shape = {{"TAPS": taps.count, "STRIDE": taps.stride, "DILATION": taps.dilation, "PAD": taps.pad}}
report("forward", kernels.depthwise_forward, shape | flags | taps.sizes(False, {dropout}),
       forward_warps({dropout}), {capability})
report("backward", kernels.depthwise_backward,
       shape | flags | taps.sizes(True, {dropout}) | {{"J": 1 << (taps.count - 1).bit_length(), "FROZEN": False}},
       MORE_WARPS, {capability})
"""


@pytest.mark.parametrize(
    ("capability", "count", "stride", "dilation", "activate", "dropout"),
    [
        (90, 75, 1, 1, True, False),
        (90, 51, 1, 1, True, False),
        (90, 87, 1, 2, False, False),
        (80, 51, 1, 1, True, True),
    ],
)
def test_compiled_for_a_gpu_the_depthwise_kernels_spill_no_register(
    capability: int, count: int, stride: int, dilation: int, activate: bool, dropout: bool
) -> None:
    """H100 and H200 (9.0), A100 (8.0): whole loads of 16 bytes, matrix units, no stack, shared memory that there is."""
    program = COMPILE.format(
        capability=capability, count=count, stride=stride, dilation=dilation, activate=activate, dropout=dropout
    )
    rows = [line.split() for line in triton_cpu.run_compiler(program).splitlines()]
    assert [row[0] for row in rows] == ["forward", "backward"]
    for title, registers, stack, shared, wide, matrix in rows:
        assert int(stack) == 0, f"{title} keeps {stack} bytes outside of its {registers} registers"
        assert int(shared) < 164 * 1024, f"{title} wants {shared} bytes of shared memory"
        assert int(wide) > 0, f"{title} loads nothing by 16 bytes"
        assert int(matrix) > 0, f"{title} does not use the matrix units"
