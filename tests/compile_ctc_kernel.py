"""Compiles the CTC kernels for an H100 or H200, which needs no GPU, and prints what ptxas says of registers and spills.

A process of its own, because ``TRITON_INTERPRET`` must be off when Triton is imported: ``test_ctc_kernel.py`` runs it.
"""

import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quartznet.ctc_kernel import share, walk

POINTERS = {"lengths": "*i64", "targets": "*i64", "target_lengths": "*i64"} | dict.fromkeys(
    ("losses", "rows", "weights"), "*fp32"
)


def report(kernel: triton.JITFunction, constants: dict[str, int | bool], stored: str, warps: int) -> str:
    """One line: the kernel, its spills and registers."""
    types = POINTERS | {"log_probs": f"*{stored}", "gradient": f"*{stored}"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, {name: types.get(name, "i32") for name in kernel.arg_names}, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.ptx").write_text(compiled.asm["ptx"])
        command = [triton.knobs.nvidia.ptxas.path, "-v", "--gpu-name", "sm_90a", "kernel.ptx", "-o", "kernel.cubin"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    said = [
        line.split(":", 1)[-1].strip() for line in done.stderr.splitlines() if "spill" in line or "registers" in line
    ]
    return f"{kernel.__name__} {constants}: {'; '.join(said)}"


def main() -> None:
    for states in (512, 1024):
        print(report(walk, {"KEEP": True, "ZERO": True, "STATES": states}, "fp32", states // 64))
    print(report(share, {"ZERO": True, "STATES": 512}, "bf16", 4))


if __name__ == "__main__":
    main()
