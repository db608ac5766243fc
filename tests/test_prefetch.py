"""Reading ahead: the order of copies, events and steps on a pretended GPU; nothing is lost or counted twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import pytest
import torch
from torch import Tensor

from quartznet.prefetch import Streams, cuda_streams, prefetched, sent

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
Log = list[str]


@dataclass
class Parcel:
    """A batch with two tensors; writes down where it was sent."""

    name: str
    log: Log
    first: Tensor = field(default_factory=lambda: torch.zeros(1))
    second: Tensor = field(default_factory=lambda: torch.zeros(2))

    def to(self, device: torch.device) -> "Parcel":
        self.log.append(f"copy {self.name} to {device.type}")
        return Parcel(self.name, self.log)


@dataclass
class Stream:
    name: str
    log: Log

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


class Pretended:
    """Streams that write down what is asked of them; what is copied must be copied on the side."""

    def __init__(self) -> None:
        self.log: Log = []
        self.main, self.side, self.used = Stream("main", self.log), Stream("side", self.log), "main"
        self.events = 0

    def streams(self) -> Streams:
        return Streams(lambda device: self.side, lambda device: self.main, self.use, self.mark, self.keep)

    @contextmanager
    def use(self, stream: Stream) -> Iterator[None]:
        self.used = stream.name
        yield
        self.used = "main"

    def mark(self, stream: Stream) -> str:
        assert self.used == stream.name
        self.events += 1
        return f"event {self.events}"

    def keep(self, tensor: Tensor, stream: Stream) -> None:
        self.log.append(f"{stream.name} uses {len(tensor)}")

    def parcels(self, names: str) -> Iterator[Parcel]:
        for name in names:
            self.log.append(f"read {name}")
            assert self.used == "main", "the loader's own work does not belong on the side"
            yield Parcel(name, self.log)


def test_the_next_batch_is_copied_before_the_step_of_this_one() -> None:
    gpu = Pretended()
    for batch in prefetched(gpu.parcels("abc"), CUDA, gpu.streams()):
        gpu.log.append(f"step {batch.name}")

    def turn(place: int) -> Log:
        return [f"main waits for event {place}", "main uses 1", "main uses 2"]

    copies = {name: [f"read {name}", f"copy {name} to cuda"] for name in "abc"}
    assert gpu.log == [
        *copies["a"], *turn(1), *copies["b"], "step a", *turn(2), *copies["c"], "step b", *turn(3), "step c",
    ]  # fmt: skip


def test_nothing_is_lost_or_doubled() -> None:
    for names in ("", "a", "ab", "abcdefg"):
        gpu = Pretended()
        assert "".join(batch.name for batch in prefetched(gpu.parcels(names), CUDA, gpu.streams())) == names


def test_one_ahead_and_no_more() -> None:
    gpu = Pretended()
    batches = prefetched(gpu.parcels("abcdef"), CUDA, gpu.streams())
    assert gpu.log == []  # nothing before the first is asked for
    next(batches)
    assert [line for line in gpu.log if line.startswith("read")] == ["read a", "read b"]
    list(islice(batches, 2))
    assert gpu.log.count("read d") == 1 and "read e" not in gpu.log


def test_an_error_comes_when_its_batch_is_due() -> None:
    gpu, trained = Pretended(), []

    def failing() -> Iterator[Parcel]:
        yield from gpu.parcels("ab")
        raise RuntimeError("DataLoader worker (pid 7) is killed")

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        for batch in prefetched(failing(), CUDA, gpu.streams()):
            trained.append(batch.name)
    assert trained == ["a", "b"]


def test_a_run_that_stops_goes_on_where_it_was() -> None:
    """The loop counts the batches that it took, and begins there again: each is trained on once, in order."""
    names, trained, done = "abcdefgh", "", 0
    for stops_after in (2, 1, 3, 8):
        gpu = Pretended()
        for taken, batch in enumerate(prefetched(gpu.parcels(names[done:]), CUDA, gpu.streams()), 1):
            trained += batch.name
            if taken == stops_after:
                break
        done += taken
    assert trained == names


def test_on_a_cpu_batches_pass_as_they_are_and_none_is_read_early() -> None:
    gpu = Pretended()
    batches = prefetched(gpu.parcels("abc"), CPU)
    first = next(batches)
    assert gpu.log == ["read a"] and first.name == "a"
    assert [batch.name for batch in batches] == ["b", "c"]
    assert gpu.log == ["read a", "read b", "read c"]  # nothing was copied


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_no_random_number_is_drawn(device: torch.device) -> None:
    gpu, before = Pretended(), torch.get_rng_state()
    assert len(list(prefetched(gpu.parcels("abc"), device, gpu.streams()))) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_small_tensors_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.zeros(3)
    assert sent(tensor, CPU) is tensor
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(Tensor, "to", lambda tensor, device, non_blocking=False: (device, non_blocking))
    assert sent(tensor, CUDA) == (CUDA, True) and len(pinned) == 1


@dataclass
class Numbers:
    tensor: Tensor

    def to(self, device: torch.device) -> "Numbers":
        return Numbers(self.tensor.to(device, non_blocking=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_real_streams() -> None:
    batches = (Numbers(torch.full((1 << 20,), number).pin_memory()) for number in range(50))
    sums = [batch.tensor.sum() for batch in prefetched(batches, CUDA, cuda_streams())]
    assert [int(value) >> 20 for value in sums] == list(range(50))
