"""Several processes that train one network (``torchrun --nproc_per_node=2 train.py ...``), or one process alone.

Every function here also works without ``torchrun``, where it does nothing or returns its argument, so the training loop
is written once. Sums over ranks travel as float64: counts stay exact.

The surprise: DistributedDataParallel divides gradients by the number of processes. If every rank took the mean of its
own batch, a rank with few utterances would weigh each of them more. So a rank's loss is the *sum* over its utterances
times ``world_size / utterances of all ranks``, and the averaged gradient is that of the joined batch.
"""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as process_group
from torch import nn


def rank() -> int:
    """This process's number, 0 for the one that writes files."""
    return process_group.get_rank() if process_group.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return process_group.get_world_size() if process_group.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """The ``with`` block runs on rank 0, then on all others: what rank 0 unpacks or writes is there for them.

    An error on rank 0 releases the others, which then meet it themselves.
    """
    if not is_main():
        gather(None)
    try:
        yield
    finally:
        if is_main():
            gather(None)


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a device; under ``torchrun`` each local process gets its own GPU.

    Raises:
        ValueError: when a GPU is asked for and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but PyTorch sees no GPU here; use --device cpu, or check the driver")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def processes(device: torch.device, timeout_minutes: float = 30.0) -> Iterator[None]:
    """Joins the processes that ``torchrun`` started (nccl on GPUs, gloo on CPUs) and leaves them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    process_group.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    try:
        with warnings.catch_warnings():
            # depthwise weights (channels, 1, 1, kernel): strides of dimensions of size 1 differ and mean nothing
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield
        process_group.barrier()  # a rank that leaves while another still talks to it makes that one abort
    finally:
        process_group.destroy_process_group()


def leave(status: int) -> NoReturn:
    """Ends the program with this exit status; the last call of a script that used ``processes``.

    DistributedDataParallel never lets go of its process group (torch 2.11, seen with gloo), so the group's threads
    still run while the interpreter clears up around them, and now and then one dies of it: "terminate called without
    an active exception", exit status -6 after a perfect run, which ``torchrun`` reports as a failure. A rank therefore
    leaves without clearing up; everything is on disk by then.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def sum_over_ranks(values: Sequence[float], device: torch.device) -> list[float]:
    """Each value summed over all ranks; every rank must call this at the same place and gets the same answer."""
    if world_size() == 1:
        return [float(value) for value in values]
    total = torch.tensor(values, dtype=torch.float64, device=device)
    process_group.all_reduce(total)
    return total.tolist()


def gather(value: object) -> list:
    """The ``value`` of every rank, in the order of the ranks, on every rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    process_group.all_gather_object(values, value)
    return values


def average_buffers(model: nn.Module) -> None:
    """Floating-point buffers (batch-norm statistics) become their mean over ranks, so that all evaluate one network."""
    if world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            process_group.all_reduce(buffer)
            buffer.div_(world_size())


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` whose batch norms share their statistics over all ranks; parameters stay the same objects.

    Raises:
        ValueError: on a CPU, where PyTorch has no synchronised batch norm.
    """
    if device.type != "cuda":
        raise ValueError("sync_batchnorm needs GPUs: PyTorch has no synchronised batch norm on a CPU; leave it out")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` as is, or inside DistributedDataParallel. Wrap again whenever ``requires_grad`` has changed.

    Buffers are not broadcast at every forward pass; ``average_buffers`` joins them before they matter.
    """
    if world_size() == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
