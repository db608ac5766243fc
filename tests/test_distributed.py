"""Two processes on gloo against one: the same gradient, the same weights, one set of files."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import distributed_worker
import pytest
import torch
from torch import nn

from quartznet import distributed
from quartznet.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]


def start(out: Path, rank: int, port: int) -> subprocess.Popen:
    """One of two workers with the variables that torchrun sets."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    environment = {**os.environ, **{name: str(value) for name, value in names.items()}, "MASTER_ADDR": "127.0.0.1"}
    environment["PYTHONPATH"] = str(ROOT)
    worker = [sys.executable, str(ROOT / "tests" / "distributed_worker.py"), str(out)]
    return subprocess.Popen(worker, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = [start(tmp_path / "two", rank, port) for rank in (0, 1)]
    distributed_worker.run(tmp_path / "one")
    for worker in workers:
        output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0, output
    one = torch.load(tmp_path / "one" / "rank0-of-1.pt", weights_only=True)
    first, second = (torch.load(tmp_path / "two" / f"rank{rank}-of-2.pt", weights_only=True) for rank in (0, 1))
    for name, value in one.items():
        torch.testing.assert_close(first[name], value)  # the sum runs in another order
        assert torch.equal(first[name], second[name]), name
    records = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    alone = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2, 3, 4]  # written once
    for left, right in zip(records, alone, strict=True):
        if left["kind"] == "train":
            assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
            assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)
    assert records[-1]["loss"] == 13.0  # 7 of rank 0 and 6 of rank 1
    assert len(load_checkpoint(tmp_path / "two" / "last.pt")["train"]["random"]) == 2
    assert load_checkpoint(tmp_path / "two" / "continued")["train"]["state"]["step"] == 5


def test_one_process_needs_nothing() -> None:
    cpu = torch.device("cpu")
    with distributed.main_first():
        pass
    with distributed.processes(cpu):
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        assert distributed.sum_over_ranks([1, 2.5], cpu) == [1.0, 2.5]
        assert distributed.gather("x") == ["x"]
        model = nn.BatchNorm1d(2)
        distributed.average_buffers(model)
        assert distributed.wrap(model, cpu) is model


def test_synchronised_batch_norm_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="sync_batchnorm needs GPUs"):
        distributed.synchronise_batch_norm(nn.BatchNorm2d(2), torch.device("cpu"))


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.choose_device("auto") == distributed.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="PyTorch sees no GPU"):
        distributed.choose_device("cuda")
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'tpu'"):
        distributed.choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert distributed.choose_device("auto") == torch.device("cuda", 3)


@pytest.mark.parametrize("world", ["1", "2"])
def test_leaving_says_everything_and_clears_up_only_alone(world: str) -> None:
    code = (
        "import atexit; from quartznet import distributed\natexit.register(print, 'cleared')\nprint('said', end='')\n"
    )
    environment = {**os.environ, "WORLD_SIZE": world, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{code}distributed.leave(3)"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout == ("saidcleared\n" if world == "1" else "said")
