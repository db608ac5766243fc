"""What test_distributed.py runs, alone and as one of two processes: a few steps of the loop on seven unequal clips.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 python tests/distributed_worker.py OUT
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from quartznet import distributed
from quartznet.batch import Batch
from quartznet.checkpoint import copy_checkpoint
from quartznet.config import OptimSettings, ScheduleSettings, TrainSettings
from quartznet.engine import fit
from quartznet.task import DevResult, Task


class Clips(torch.utils.data.Dataset):
    """Seven clips of noise; the target of each is its number."""

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, torch.randn(20 + index, generator=torch.Generator().manual_seed(index))


class Sampler:
    """Alone: all seven. As one of two: five and two, so that the ranks weigh unequally."""

    def set_epoch(self, epoch: int) -> None:
        pass

    def start_at(self, batch: int) -> None:
        pass

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        parts = [[0, 1, 2, 3, 4, 5, 6]] if distributed.world_size() == 1 else [[0, 1, 2, 3, 4], [5, 6]]
        return iter([parts[distributed.rank()]])


def collate(items: list[tuple[int, Tensor]]) -> Batch:
    signal = nn.utils.rnn.pad_sequence([row for _, row in items], batch_first=True)
    lengths = torch.tensor([len(row) for _, row in items])
    targets = torch.tensor([[index] for index, _ in items])
    ones = torch.ones(len(items), dtype=torch.int64)
    return Batch(signal, lengths, targets, ones, ["x"] * len(items), [str(index) for index, _ in items])


class Toy(nn.Module):
    """Batch norm is there, but in evaluation mode: a process cannot see the clips of another."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4))
        self.decoder = nn.Linear(4, 1)

    def train(self, mode: bool = True) -> "Toy":
        super().train(mode)
        self.encoder[1].eval()
        return self

    def forward(self, signal: Tensor, lengths: Tensor) -> Tensor:
        valid = torch.arange(signal.shape[1] - 2) < (lengths - 2).unsqueeze(1)
        mean = (self.encoder(signal.unsqueeze(1)) * valid.unsqueeze(1)).sum(2) / valid.sum(1, keepdim=True)
        return self.decoder(mean)[:, 0]


def losses_of(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    return (model(batch.signal, batch.signal_lengths) - batch.targets[:, 0]).square()


def evaluate(model: nn.Module, should_stop: object) -> DevResult:
    mine = [7.0 - distributed.rank()]
    total = sum(sum(part) for part in distributed.gather(mine))
    return DevResult(total, total / 100, 0.0, [])


class FrozenFirst:
    """Holds the encoder still in the first two epochs."""

    def begin_epoch(self, model: nn.Module, epoch: int) -> bool:
        for parameter in model.encoder.parameters():
            parameter.requires_grad_(epoch >= 2)
            parameter.grad = None
        return epoch == 2

    def train_mode(self, model: nn.Module) -> None:
        model.train()


def main() -> None:
    run(Path(sys.argv[1]))


def run(out: Path) -> None:
    """Trains four steps; each rank leaves its weights in ``out``."""
    device = torch.device("cpu")
    with distributed.processes(device):
        torch.manual_seed(distributed.rank())  # DistributedDataParallel must make the ranks alike
        model = Toy()
        loader = torch.utils.data.DataLoader(Clips(), batch_sampler=Sampler(), collate_fn=collate)
        optim = OptimSettings(lr=0.01)
        settings = TrainSettings(steps=4, optim=optim, save_every=1e-9, log_every=1)
        settings = replace(settings, schedule=ScheduleSettings("constant", 0.0))
        task = Task(losses_of, evaluate, lambda batch: batch.seconds(10), {"model_config": {}}, tuning=FrozenFirst())
        state, _ = fit(model, loader, settings, task, out)
        torch.save(model.state_dict(), out / f"rank{distributed.rank()}-of-{distributed.world_size()}.pt")
        assert distributed.sum_over_ranks([1.0], device) == [distributed.world_size()]
        assert state.audio_seconds > 0
        if distributed.world_size() == 2:
            continue_until_told(model, loader, settings, task, out)


def continue_until_told(model: nn.Module, loader: object, settings: TrainSettings, task: Task, out: Path) -> None:
    """Only rank 1 gets a signal; both must stop after that step, and both must say so."""

    def told_to_stop(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        if distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses_of(model, batch, generator)

    copy = out / "continued"
    with distributed.main_first():
        assert (copy / "last.pt").exists() != distributed.is_main()
        copy_checkpoint(out / "last.pt", copy / "last.pt")
    state, came = fit(model, loader, replace(settings, steps=8), replace(task, loss=told_to_stop), copy)
    assert (state.step, came) == (5, signal.SIGTERM)


if __name__ == "__main__":
    main()
    distributed.leave(0)
