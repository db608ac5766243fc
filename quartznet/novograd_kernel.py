"""NovoGrad's update of a whole network in two Triton launches, without a wait for the device.

Formula: ``quartznet.optim``. Every tensor is cut into chunks; one program takes one chunk, whichever tensor it is of:

    tensor        0                          1        2             owner of each chunk: 0 0 0 1 2 2
    chunk         [   0   |   1   |  2  ]    [ 3 ]    [   4   | 5 ]

    launch 1      squared sum of each chunk's gradient -> partial[chunk];  v -> before[tensor]
    launch 2      sum of a tensor's partials -> v, divisor;  m, p of the chunk;  the first chunk writes v

Memory for each parameter: launch 1 reads 4 bytes (g); launch 2 reads 12 (g, m, p) and writes 8 (m, p). Sums are taken
in a fixed order, so the same gradients give the same bits.

Three surprises. Launch 2 must not read v where another program of it writes v: hence ``before``. Each program sums the
partials of *all* tensors (some ten kilobytes, out of the cache), because that is the norm of the whole gradient: known
inside launch 2, it clips, and leaves a step out whose gradient is not finite, with no third launch. And what changes
from step to step (addresses, rates) lies in tables on the device and is no kernel argument, because a CUDA graph
replays arguments as they were when it was captured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 8192  # elements of one program
BLOCK = 2048  # of which it holds so many at a time: 8 for each of 256 threads, two loads of 16 bytes
SUMS = 1024  # partial sums read at a time
GRAPHS = 64  # captures that can be served

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


@triton.jit(do_not_specialize=["skip", "chunks"])
def update(
    table,
    owners,
    settings,
    partial,
    before,
    norm,
    skip,
    largest,
    chunks,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    SUMS: tl.constexpr,
    ROUNDS: tl.constexpr,
):
    """Launch 2. Grid: chunks. Writes parameters, momenta, second moments and ``norm``; ROUNDS x SUMS >= chunks."""
    chunk = tl.program_id(0)
    owner = tl.load(owners + chunk)
    entry = table + owner * COLUMNS
    first = tl.load(entry + FIRST)
    size = tl.load(entry + SIZE)
    last = first + tl.cdiv(size, CHUNK)

    everything = tl.zeros((SUMS,), tl.float32)
    own = tl.zeros((SUMS,), tl.float32)
    for turn in range(ROUNDS):
        places = turn * SUMS + tl.arange(0, SUMS)
        sums = tl.load(partial + places, mask=places < chunks, other=0.0)
        everything += sums
        own += tl.where((places >= first) & (places < last), sums, 0.0)
    length = tl.sqrt_rn(tl.sum(everything))
    if chunk == 0:
        tl.store(norm, length)

    if (tl.load(skip) == 0) & (length < float("inf")):  # false for nan
        setting = settings + tl.load(entry + GROUP) * SETTINGS
        scale = tl.minimum(1.0, tl.div_rn(largest, length + 1e-6))
        square = tl.sum(own) * scale * scale
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
                gradient, momentum = tl.load(g + at) * scale, tl.load(m + at)
                parameter, momentum = _moved(tl.load(p + at), gradient, momentum, divisor, rate, beta1, decay)
                tl.store(p + at, parameter)
                tl.store(m + at, momentum)
        else:
            for offset in range(0, CHUNK, BLOCK):
                at = offset + lanes
                inside = at < left
                gradient = tl.load(g + at, mask=inside, other=0.0) * scale
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


@dataclass(frozen=True)
class Tables:
    """What the programs read and write beside the tensors; ``spares`` and ``host`` are on the host, the rest is not."""

    host: Tensor  # (tensors, COLUMNS) int64
    table: Tensor  # the same on the device
    spares: Tensor  # (GRAPHS, tensors, COLUMNS) pinned: one for each capture
    owners: Tensor  # (chunks,) int32
    partial: Tensor  # (chunks,)
    before: Tensor  # (tensors,)
    never: Tensor  # 0-dim: the flag of a step that is not left out


class NovoGradKernel:
    """The two launches, and tables of addresses that are written again when a tensor has moved.

    Under CUDA graphs: take one ordinary step first, with a ``skip`` of the same type; call ``write_settings`` before a
    replay whose rates are new. Each capture writes its own addresses from pinned memory that stays as it is, so graphs
    may have different gradients. Replays do not count the state's ``step``.
    """

    def __init__(self) -> None:
        self._tables: Tables | None = None
        self._fixed: tuple | None = None  # what the table was laid out for
        self._addresses: list[int] | None = None  # of gradients, in the table now; None: not known
        self._copied: list[int] = []  # whose gradients are laid out otherwise than their parameters
        self._settings: Tensor | None = None  # (groups, SETTINGS)
        self._written: list[tuple[float, ...]] | None = None
        self._captures = 0
        self._kept: list[Tables] = []  # of graphs captured before a new layout

    def write_settings(self, groups: Sequence[dict], device: torch.device) -> None:
        """Brings rates, betas, eps and decay of ``param_groups`` to the device, if they have changed."""
        rows = [
            (group["lr"], *group["betas"], 1 - group["betas"][1], group["eps"], group["weight_decay"])
            for group in groups
        ]
        if rows == self._written and self._settings.device == device:
            return
        if self._settings is None or len(rows) != len(self._settings) or self._settings.device != device:
            if self._captures:
                raise ValueError("groups were added after a CUDA graph was captured; make a new optimiser")
            self._settings = torch.empty(len(rows), SETTINGS.value, dtype=torch.float32, device=device)
        self._settings.copy_(_pinned(torch.tensor(rows, dtype=torch.float32, device="cpu"), device), non_blocking=True)
        self._written = rows

    def step(
        self,
        parameters: list[Tensor],
        states: list[dict],
        numbers: list[int],
        groups: Sequence[dict],
        skip: Tensor | None = None,
        max_norm: float | None = None,
    ) -> Tensor:
        """One step of at least one parameter, each with a gradient; nothing waits for the device.

        Args:
            states: of each parameter: ``exp_avg`` (shape of the parameter) and ``exp_avg_sq`` (0-dim).
            numbers: of each parameter's group.
            groups: the optimiser's ``param_groups``.
            skip: one number or bool on the device; where it is not zero, nothing changes.
            max_norm: the gradient counts as scaled down to this norm where it is longer, as ``clip_grad_norm_`` does.

        Returns:
            0-dim, on the device: norm of all gradients before clipping. If it is not finite, nothing has changed.

        Raises:
            ValueError: for tensors that the kernels cannot read, a ``skip`` elsewhere, a capture without a step before.
        """
        device = parameters[0].device
        gradients = [parameter.grad for parameter in parameters]
        momenta, seconds = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
        work = Work(parameters, gradients, momenta, seconds, numbers)
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        gradients = self._lay_out(work, capturing)
        self._write_addresses(gradients, capturing)
        if not capturing:
            self.write_settings(groups, device)
        return self._launch(device, skip, max_norm)

    def _lay_out(self, work: Work, capturing: bool) -> list[Tensor]:
        """Checks and tables whenever something else than a gradient's address is new; the gradients to be read."""
        fixed = _fingerprint(work)
        if fixed != self._fixed:
            if capturing:
                raise ValueError("take one step with these parameters and groups before a CUDA graph is captured")
            self._copied = _check(work)
            if self._captures:
                self._kept.append(self._tables)
            self._tables, self._fixed, self._addresses = _tables(work), _fingerprint(work), None
        gradients = list(work.gradients)
        for index in self._copied:
            gradients[index] = torch.empty_like(work.parameters[index]).copy_(gradients[index])
        return gradients

    def _write_addresses(self, gradients: list[Tensor], capturing: bool) -> None:
        """Brings the addresses of gradients to the device, if they may be others there.

        Each copy has pinned memory of its own: overwritten too early, it would send the programs to wrong places. Once
        a graph is captured, nobody knows which addresses its replays have left in the table.
        """
        addresses = [gradient.data_ptr() for gradient in gradients]
        if addresses == self._addresses and not capturing and not self._captures:
            return
        tables = self._tables
        for gradient in gradients:
            if gradient.dtype != torch.float32 or gradient.device != tables.table.device:
                raise ValueError(_refusal("gradient", gradient, tables.table.device))
        tables.host[:, GRADIENT.value] = _host(addresses)
        if capturing and self._captures == GRAPHS:
            raise ValueError(f"{GRAPHS} CUDA graphs were captured with this optimiser; raise GRAPHS for more")
        if capturing:
            source = tables.spares[self._captures].copy_(tables.host)
            self._captures += 1
        else:
            source = _pinned(tables.host, tables.table.device)
        tables.table.copy_(source, non_blocking=True)
        self._addresses = addresses

    def _launch(self, device: torch.device, skip: Tensor | None, max_norm: float | None) -> Tensor:
        tables, chunks = self._tables, len(self._tables.owners)
        norm = (torch.empty if chunks else torch.zeros)((), dtype=torch.float32, device=device)
        skip = tables.never if skip is None else skip
        if skip.numel() != 1 or skip.device != device:
            raise ValueError(f"skip must be one number on {device}, got {skip.numel()} on {skip.device}")
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f"max_norm must be positive, got {max_norm}")
        largest = float("inf") if max_norm is None else float(max_norm)
        if chunks:
            with torch.cuda.device_of(tables.table):  # nothing on a CPU
                places = (tables.table, tables.owners)
                sums = (tables.partial, tables.before)
                measure[(chunks,)](*places, *sums, CHUNK, BLOCK, num_warps=8)
                rest = (norm, skip, largest, chunks, CHUNK, BLOCK, SUMS, triton.cdiv(chunks, SUMS))
                update[(chunks,)](*places, self._settings, *sums, *rest, num_warps=8)
        return norm


def _fingerprint(work: Work) -> tuple:
    """All that the tables and ``_check`` depend on, but for the addresses of gradients; fast, as every step asks."""
    return (
        work.groups,
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
        momentum, second = work.momenta[index], work.seconds[index]
        for name, tensor in (("parameter", parameter), ("momentum", momentum), ("second moment", second)):
            if tensor.dtype != torch.float32 or tensor.device != device:
                raise ValueError(_refusal(name, tensor, device))
        if torch.empty_like(parameter).stride() != parameter.stride():
            raise ValueError(
                f"NovoGrad's kernel needs parameters without gaps or overlaps, got shape {tuple(parameter.shape)} "
                f"with strides {parameter.stride()}; use kernel=False"
            )
        if momentum.shape != parameter.shape or second.numel() != 1:
            raise ValueError(f"the state of a parameter of shape {tuple(parameter.shape)} is not of this parameter")
        if _layout(momentum) != _layout(parameter):
            momentum.data = torch.empty_like(parameter).copy_(momentum)
        if _layout(work.gradients[index]) != _layout(parameter):
            others.append(index)
    return others


def _layout(tensor: Tensor) -> list[int]:
    """Strides of the dimensions that have more than one place."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]


def _refusal(name: str, tensor: Tensor, device: torch.device) -> str:
    found = f"{tensor.dtype} on {tensor.device}"
    return f"NovoGrad's kernel needs float32 on {device}, got a {name} of {found}; use kernel=False"


def _tables(work: Work) -> Tables:
    """Everything but the addresses of gradients is filled in; ``before`` and ``partial`` are launch 1's to write."""
    device = work.parameters[0].device
    sizes = _host([parameter.numel() for parameter in work.parameters])
    counts = (sizes + CHUNK - 1) // CHUNK
    owners = _host(range(len(sizes))).int().repeat_interleave(counts)
    host = sizes.new_zeros(len(sizes), COLUMNS.value)
    for column, tensors in ((PARAMETER, work.parameters), (MOMENTUM, work.momenta), (SECOND, work.seconds)):
        host[:, column.value] = _host([tensor.data_ptr() for tensor in tensors])
    for column, numbers in ((SIZE, sizes), (FIRST, counts.cumsum(0) - counts), (GROUP, _host(work.groups))):
        host[:, column.value] = numbers
    return Tables(
        host=host,
        table=torch.empty_like(host, device=device),
        spares=_pinned(host.repeat(GRAPHS, 1, 1), device),
        owners=_pinned(owners, device).to(device, non_blocking=True),
        partial=torch.empty(len(owners), dtype=torch.float32, device=device),
        before=torch.empty(len(sizes), dtype=torch.float32, device=device),
        never=torch.zeros((), dtype=torch.int32, device=device),
    )


def _host(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64, device="cpu")


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy in new pinned memory if ``device`` needs one; torch keeps it until the copies from it are done."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
