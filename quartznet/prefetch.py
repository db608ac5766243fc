"""Batches that are on the device before they are asked for: copies on a stream of their own while a step computes.

    reads       b0 b1            b2            b3         from the loader, one ahead of the step
    side             copy b1        copy b2        copy b3
    main                step b0        step b1        step b2

A copy from page-locked memory on a second CUDA stream runs beside the kernels of the first. Three things keep that
right: the main stream waits, on the device, for the event behind a batch's copies; the memory of a batch is marked as
used by the main stream, or the side stream would write the next batch into it too early (``record_stream``); and
page-locked memory is given back by PyTorch's own allocator, which knows of copies that are still under way.

The surprise: nothing here may be counted. A batch that was read ahead has not been trained on, so neither its clips
nor its messages nor an error in reading it may show before it is its turn; a run that stops drops it, and the sampler
starts there again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor made on the host, on ``device``: through page-locked memory, so that a GPU is not waited for.

    What is on the device already comes back as it is. Write nothing into ``tensor`` afterwards.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Movable(Protocol):
    """A batch of any kind: its tensors are attributes."""

    def to(self, device: torch.device) -> "Movable": ...


B = TypeVar("B", bound=Movable)


@dataclass(frozen=True)
class Streams:
    """What is asked of ``torch.cuda``; tests without a GPU hand in their own."""

    make: Callable[[torch.device], Any]  # a new stream
    current: Callable[[torch.device], Any]  # the one that the step computes on; it has ``wait_event``
    use: Callable[[Any], AbstractContextManager]  # copies inside go to this stream
    mark: Callable[[Any], Any]  # an event behind all that a stream was given so far
    keep: Callable[[Tensor, Any], None]  # memory of a tensor is not reused before this stream is done with it


def cuda_streams() -> Streams:
    """The real ones."""
    return Streams(
        make=torch.cuda.Stream,
        current=torch.cuda.current_stream,
        use=torch.cuda.stream,
        mark=lambda stream: stream.record_event(),
        keep=Tensor.record_stream,
    )


def prefetched(batches: Iterable[B], device: torch.device, streams: Streams | None = None) -> Iterator[B]:
    """The same batches in the same order, on ``device``; on a GPU the next one is copied during the step of this one.

    On a CPU, batches pass through as they are, each read when it is asked for. On a GPU one batch more is read than was
    asked for, and its memory is taken; an error in reading it is raised when it is due. No random numbers are drawn.

    Args:
        batches: in page-locked memory (``DataLoader(pin_memory=True)``); others are copied too, but waited for.
        streams: None: those of ``torch.cuda``.
    """
    if device.type != "cuda":
        yield from batches
        return
    streams = cuda_streams() if streams is None else streams
    source, side = iter(batches), streams.make(device)

    def ahead() -> Callable[[], B]:
        """Reads and copies one batch; the result hands it over, or raises what reading it did."""
        try:
            batch = next(source)
            with streams.use(side):
                batch = batch.to(device)
                copied = streams.mark(side)
        except Exception as error:
            return _raiser(error)
        return lambda: _handed_over(batch, copied, streams.current(device), streams)

    waiting = ahead()
    while True:
        try:
            batch = waiting()
        except StopIteration:
            return
        waiting = ahead()
        yield batch
        del batch  # or its memory would be held while the next one is read


def _raiser(error: Exception) -> Callable[[], Any]:
    def hand_over() -> Any:
        raise error

    return hand_over


def _handed_over(batch: B, copied: Any, current: Any, streams: Streams) -> B:
    """The batch, safe to be read on the current stream."""
    current.wait_event(copied)
    for value in vars(batch).values():
        if isinstance(value, Tensor):
            streams.keep(value, current)
    return batch
