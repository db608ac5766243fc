"""Triton's interpreter for the tests: kernels run on CPU tensors, one program after the other, without a GPU.

``TRITON_INTERPRET`` is read when a kernel is decorated, those of ``triton.language`` itself among them, so it is set
when this file is imported, and ``tests/conftest.py`` imports it before everything else.

The interpreter of Triton 3.6 is mended in four places, so that it does what a GPU does: bounds of loops (it takes
``int()`` of an array of one number, which NumPy 2.4 refuses), rounding to bf16 (it cuts off, a GPU rounds to nearest),
products of bf16 matrices (it multiplies their bits as whole numbers), and minimum and maximum, which on a GPU drop NaN
unless told otherwise.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def _rounded(data: numpy.ndarray) -> numpy.ndarray:
    """fp32 -> the bits of bf16, to nearest."""
    return torch.from_numpy(numpy.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy().view(numpy.uint16)


def _widened(data: numpy.ndarray) -> numpy.ndarray:
    """The bits of bf16 -> fp32."""
    return (data.astype(numpy.uint32) << 16).view(numpy.float32)


def interpreted() -> None:
    """Mends the interpreter; skips the tests of the calling module where Triton is not installed."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch on Linux only")
    if torch.cuda.is_available():
        return
    import triton.language as tl
    from triton.runtime import interpreter

    builder, bounds = interpreter.InterpreterBuilder, interpreter._patch_lang_tensor
    if getattr(bounds, "is_mended", False):
        return
    cast, dot = builder.cast_impl, builder.create_dot

    def mended_bounds(tensor: type, scope: object) -> None:
        bounds(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def mended_cast(self: object, source: object, target: object) -> object:
        kinds = (source.dtype.scalar, target.scalar)
        if kinds == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(_rounded(source.data), tl.bfloat16)
        if kinds == (tl.bfloat16, tl.float32):
            return interpreter.TensorHandle(_widened(source.data), tl.float32)
        return cast(self, source, target)

    def mended_dot(self: object, first: object, second: object, *others: object) -> object:
        if first.dtype.scalar == tl.bfloat16:
            first, second = (interpreter.TensorHandle(_widened(part.data), tl.float32) for part in (first, second))
        return dot(self, first, second, *others)

    mended_bounds.is_mended = True
    interpreter._patch_lang_tensor = mended_bounds
    builder.cast_impl, builder.create_dot = mended_cast, mended_dot
    builder.create_minnumf = lambda self, first, second: self.binary_op(first, second, numpy.fmin)
    builder.create_maxnumf = lambda self, first, second: self.binary_op(first, second, numpy.fmax)


def run_compiler(program: str) -> str:
    """What a Python program prints that compiles kernels for a GPU, in a process of its own without the interpreter."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
