"""NovoGrad's update of a whole network in two Triton launches, without a wait for the device.

Formula: ``quartznet.optim``. Every tensor is cut into chunks; one program takes one chunk, whichever tensor it is of:

    tensor        0                          1        2             owner of each chunk: 0 0 0 1 2 2
    chunk         [   0   |   1   |  2  ]    [ 3 ]    [   4   | 5 ]

    launch 1      squared sum of each chunk's gradient -> partial[chunk];  v -> before[tensor]
    launch 2      sum of a tensor's partials -> v, divisor;  m, p of the chunk;  the first chunk writes v

Memory for each parameter: launch 1 reads 4 bytes (g); launch 2 reads 12 (g, m, p) and writes 8 (m, p). Sums are taken
in a fixed order, so the same gradients give the same bits.

The surprise: launch 2 must not read v where another program of it writes v. Hence ``before``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 8192  # elements of one program
BLOCK = 2048  # of which it holds so many at a time: 8 for each of 256 threads, two loads of 16 bytes
SUMS = 256  # partial sums read at a time

PARAMETER, GRADIENT, MOMENTUM, SECOND, SIZE, FIRST, GROUP, COLUMNS = (tl.constexpr(i) for i in range(8))
RATE, BETA1, BETA2, REST, EPS, DECAY, SETTINGS = (tl.constexpr(i) for i in range(7))


@triton.jit
def _floats(entry, column: tl.constexpr):
    """The tensor whose address is in this column of the table's row."""
    return tl.load(entry + column).to(tl.pointer_type(tl.float32))


@triton.jit
def _is_aligned(entry):
    """Whether parameter, gradient and momentum begin at multiples of 16 bytes."""
    addresses = tl.load(entry + PARAMETER) | tl.load(entry + GRADIENT) | tl.load(entry + MOMENTUM)
    return (addresses & 15) == 0


@triton.jit
def measure(table, owners, partial, before, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    """Launch 1. Grid: chunks. Writes ``partial`` (chunks,) and ``before`` (tensors,)."""
    chunk = tl.program_id(0)
    owner = tl.load(owners + chunk)
    entry = table + owner * COLUMNS
    first = tl.load(entry + FIRST)
    start = (chunk - first) * CHUNK
    left = tl.load(entry + SIZE) - start
    gradient = _floats(entry, GRADIENT) + start
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    if (left >= CHUNK) & _is_aligned(entry):  # no mask and known alignment: loads of 16 bytes
        whole = tl.multiple_of(gradient, 16)
        for offset in range(0, CHUNK, BLOCK):
            values = tl.load(whole + offset + lanes)
            total += values * values
    else:
        for offset in range(0, CHUNK, BLOCK):
            values = tl.load(gradient + offset + lanes, mask=offset + lanes < left, other=0.0)
            total += values * values
    tl.store(partial + chunk, tl.sum(total))
    if chunk == first:
        tl.store(before + owner, tl.load(_floats(entry, SECOND)))


@triton.jit
def _moved(parameter, gradient, momentum, divisor, rate, beta1, decay):
    """New parameter and momentum."""
    new = beta1 * momentum + tl.div_rn(gradient, divisor) + decay * parameter
    return parameter - rate * new, new


@triton.jit
def update(table, owners, settings, partial, before, CHUNK: tl.constexpr, BLOCK: tl.constexpr, SUMS: tl.constexpr):
    """Launch 2. Grid: chunks. Writes parameters, momenta and second moments."""
    chunk = tl.program_id(0)
    owner = tl.load(owners + chunk)
    entry = table + owner * COLUMNS
    first = tl.load(entry + FIRST)
    size = tl.load(entry + SIZE)
    count = tl.cdiv(size, CHUNK)
    sums = tl.zeros((SUMS,), tl.float32)
    for turn in range(0, count, SUMS):
        places = turn + tl.arange(0, SUMS)
        sums += tl.load(partial + first + places, mask=places < count, other=0.0)
    square = tl.sum(sums)

    setting = settings + tl.load(entry + GROUP) * SETTINGS
    old = tl.load(before + owner)
    second = tl.load(setting + BETA2) * old + tl.load(setting + REST) * square
    second = tl.where(old == 0, square, second)
    if chunk == first:
        tl.store(_floats(entry, SECOND), second)
    divisor = tl.sqrt_rn(second) + tl.load(setting + EPS)
    rate, beta1, decay = tl.load(setting + RATE), tl.load(setting + BETA1), tl.load(setting + DECAY)

    start = (chunk - first) * CHUNK
    left = size - start
    p, g, m = _floats(entry, PARAMETER), _floats(entry, GRADIENT), _floats(entry, MOMENTUM)
    p, g, m = p + start, g + start, m + start
    lanes = tl.arange(0, BLOCK)
    if (left >= CHUNK) & _is_aligned(entry):
        p, g, m = tl.multiple_of(p, 16), tl.multiple_of(g, 16), tl.multiple_of(m, 16)
        for offset in range(0, CHUNK, BLOCK):
            at = offset + lanes
            gradient, momentum = tl.load(g + at), tl.load(m + at)
            parameter, momentum = _moved(tl.load(p + at), gradient, momentum, divisor, rate, beta1, decay)
            tl.store(p + at, parameter)
            tl.store(m + at, momentum)
    else:
        for offset in range(0, CHUNK, BLOCK):
            at = offset + lanes
            inside = at < left
            gradient = tl.load(g + at, mask=inside, other=0.0)
            momentum = tl.load(m + at, mask=inside, other=0.0)
            parameter = tl.load(p + at, mask=inside, other=0.0)
            parameter, momentum = _moved(parameter, gradient, momentum, divisor, rate, beta1, decay)
            tl.store(p + at, parameter, mask=inside)
            tl.store(m + at, momentum, mask=inside)


@dataclass(frozen=True)
class Work:
    """The tensors of one step, one of each kind for each parameter, and the number of the group that it belongs to."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    momenta: list[Tensor]  # shapes of the parameters
    seconds: list[Tensor]  # v: 0-dim
    groups: list[int]


class NovoGradKernel:
    """The two launches, and tables that are laid out again when a tensor has moved.

    Addresses of gradients and the settings of groups go to the device at every step, each time out of pinned memory of
    its own: overwritten too early, it would send the programs to wrong places. A CUDA graph cannot hold the step.
    """

    def __init__(self) -> None:
        self._fixed: tuple | None = None  # what the tables were laid out for
        self._rows: Tensor | None = None  # (tensors, COLUMNS) int64 on the host, complete but for the gradients
        self._owners: Tensor | None = None  # (chunks,) int32 on the device
        self._copied: list[int] = []  # whose gradients are laid out otherwise than their parameters

    def step(self, parameters: list[Tensor], states: list[dict], numbers: list[int], groups: Sequence[dict]) -> None:
        """One step of at least one parameter, each with a gradient; nothing waits for the device.

        Args:
            states: of each parameter: ``exp_avg`` (shape of the parameter) and ``exp_avg_sq`` (0-dim).
            numbers: of each parameter's group.
            groups: the optimiser's ``param_groups``.

        Raises:
            ValueError: for tensors that the kernels cannot read.
        """
        gradients = [parameter.grad for parameter in parameters]
        momenta, seconds = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
        work = Work(parameters, gradients, momenta, seconds, numbers)
        if _fingerprint(work) != self._fixed:
            self._copied = _check(work)
            self._rows, self._owners = _lay_out(work)
            self._fixed = _fingerprint(work)
        for index in self._copied:
            gradients[index] = torch.empty_like(parameters[index]).copy_(gradients[index])
        self._launch(gradients, groups)

    def _launch(self, gradients: list[Tensor], groups: Sequence[dict]) -> None:
        device, chunks = self._owners.device, len(self._owners)
        if not chunks:
            return
        self._rows[:, GRADIENT.value] = _host([gradient.data_ptr() for gradient in gradients])
        table, settings = _sent(self._rows, device), _sent(_settings(groups), device)
        partial = torch.empty(chunks, dtype=torch.float32, device=device)
        before = torch.empty(len(gradients), dtype=torch.float32, device=device)
        with torch.cuda.device_of(table):  # nothing on a CPU
            measure[(chunks,)](table, self._owners, partial, before, CHUNK, BLOCK, num_warps=8)
            update[(chunks,)](table, self._owners, settings, partial, before, CHUNK, BLOCK, SUMS, num_warps=8)


def _fingerprint(work: Work) -> tuple:
    """All that the tables and ``_check`` depend on, but for the addresses of gradients; fast, as every step asks."""
    return (
        work.groups,
        [gradient.dtype for gradient in work.gradients],
        [[tensor.data_ptr() for tensor in tensors] for tensors in (work.parameters, work.momenta, work.seconds)],
        [[tensor.numel() for tensor in tensors] for tensors in (work.parameters, work.gradients)],
        [[tensor.stride() for tensor in tensors] for tensors in (work.parameters, work.gradients, work.momenta)],
    )


def _check(work: Work) -> list[int]:
    """Raises for what the kernels cannot read; momenta get the layout of their parameters.

    Returns:
        Indices of gradients that have another layout.
    """
    device = work.parameters[0].device
    if device.type != "cuda" and isinstance(update, triton.JITFunction):
        raise ValueError(f"NovoGrad's kernel needs parameters on a CUDA device, not {device}; use kernel=False")
    others = []
    for index, parameter in enumerate(work.parameters):
        gradient, momentum, second = work.gradients[index], work.momenta[index], work.seconds[index]
        kinds = {"parameter": parameter, "gradient": gradient, "momentum": momentum, "second moment": second}
        for name, tensor in kinds.items():
            if tensor.dtype != torch.float32 or tensor.device != device:
                found = f"a {name} of {tensor.dtype} on {tensor.device}"
                raise ValueError(f"NovoGrad's kernel needs float32 on {device}, got {found}; use kernel=False")
        if torch.empty_like(parameter).stride() != parameter.stride():
            raise ValueError(
                f"NovoGrad's kernel needs parameters without gaps or overlaps, got shape {tuple(parameter.shape)} "
                f"with strides {parameter.stride()}; use kernel=False"
            )
        if momentum.shape != parameter.shape or second.numel() != 1:
            raise ValueError(f"the state of a parameter of shape {tuple(parameter.shape)} is not of this parameter")
        if _layout(momentum) != _layout(parameter):
            momentum.data = torch.empty_like(parameter).copy_(momentum)
        if _layout(gradient) != _layout(parameter):
            others.append(index)
    return others


def _layout(tensor: Tensor) -> list[int]:
    """Strides of the dimensions that have more than one place."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]


def _lay_out(work: Work) -> tuple[Tensor, Tensor]:
    """Rows of the table (tensors, COLUMNS) on the host, with the column of gradients empty; owners on the device."""
    sizes = _host([parameter.numel() for parameter in work.parameters])
    counts = (sizes + CHUNK - 1) // CHUNK
    owners = _host(range(len(sizes))).int().repeat_interleave(counts)
    rows = sizes.new_zeros(len(sizes), COLUMNS.value)
    for column, tensors in ((PARAMETER, work.parameters), (MOMENTUM, work.momenta), (SECOND, work.seconds)):
        rows[:, column.value] = _host([tensor.data_ptr() for tensor in tensors])
    for column, numbers in ((SIZE, sizes), (FIRST, counts.cumsum(0) - counts), (GROUP, _host(work.groups))):
        rows[:, column.value] = numbers
    return rows, _sent(owners, work.parameters[0].device)


def _settings(groups: Sequence[dict]) -> Tensor:
    """(groups, SETTINGS) on the host."""
    rows = [
        (group["lr"], *group["betas"], 1 - group["betas"][1], group["eps"], group["weight_decay"]) for group in groups
    ]
    return torch.tensor(rows, dtype=torch.float32, device="cpu")


def _host(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64, device="cpu")


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device without a wait, through new pinned memory, which torch keeps until the copy is done."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
