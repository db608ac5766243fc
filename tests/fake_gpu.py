"""A GPU that is not there: tensors "on cuda" that have shapes and no numbers, and a guard that fails on every wait.

PyTorch's ``FakeTensorMode`` runs each operation as far as shapes and devices go. What needs a number from the device
raises by itself there; ``NoWaits`` also refuses copies between host and device that are not ``non_blocking``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
NEEDS_NUMBERS = ("_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero", "masked_select", "_unique2")


class NoWaits(TorchDispatchMode):
    """Raises AssertionError for an operation that makes the host wait for the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        devices = {value.device.type for value in args if isinstance(value, Tensor)}
        assert not (name in NEEDS_NUMBERS and "cuda" in devices), f"{name} waits for the device"
        result = function(*args, **kwargs)
        if name in ("_to_copy", "copy_") and isinstance(result, Tensor):
            crosses = len(devices | {result.device.type}) > 1
            waits = crosses and not (kwargs.get("non_blocking") or (name == "copy_" and True in args[2:]))
            assert not waits, f"{name} of {tuple(result.shape)} between host and device waits"
        return result


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, ``torch.empty(..., device=CUDA)`` works, and page-locked memory is any memory."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def moved(module: nn.Module) -> nn.Module:
    """The module with parameters and buffers on the fake GPU; call it inside ``fake_gpu``."""
    for part in module.modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is not None:
                empty = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
                here = part._parameters if name in part._parameters else part._buffers
                here[name] = nn.Parameter(empty) if here is part._parameters else empty
    return module
