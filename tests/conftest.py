"""Tiny factories that every test file shares; sounds are generated, weights are random."""

import os
from pathlib import Path

import pytest
import torch
import triton_cpu  # noqa: F401  (first: it says how Triton's kernels run)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real checkpoints and clips beside the checkout, or ``$QUARTZNET_SHARED``."""
    folder = Path(os.environ.get("QUARTZNET_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "corpora").is_dir():
        pytest.skip(f"real checkpoints and clips are not at {folder}; set QUARTZNET_SHARED to run this test")
    return folder
