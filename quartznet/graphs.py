"""CUDA graphs: what a function launches is recorded once for each shape and from then on sent to the GPU in one go.

    call 1, 2      inputs -> buffers -> function(buffers), on a side stream: kernels are compiled, loaded and tuned
    call 3         the same launches are recorded, not run; then replayed
    call 4, ...    inputs -> buffers -> replay: one copy for each input and one launch

Every call does the work exactly once, so statistics and gradients that the function changes are right from the first.
A recording holds addresses: of the buffers, of the weights, of the results. So

* results are overwritten by the next call **of any shape**, because all recordings share one pool of memory (they need
  no more than the hungriest of them); whoever keeps a result clones it first;
* calls must follow each other on one stream;
* whatever the function reads besides its inputs, and whatever decides what it does, belongs into ``key``; tensors that
  keep their address may change their values;
* the function must not look at a value on the device (``.item()``, ``bool(tensor)``, a copy to the host), or recording
  fails, which costs one warning and leaves that shape as fast as it was.

Random numbers differ from replay to replay: PyTorch records "seed and offset from this memory" in place of their
values, and ``replay`` writes the generator's present ones there and moves it on by as much as the recording draws. It
does so for the default generator only. The FFT library makes a plan for each size, and Triton compiles, in the first
two calls, which is why these already read the buffers: what is compiled depends on their alignment too.

The surprise: with PyTorch 2.11 a recording that fails breaks three things for all that comes after, and the message
then names something else: the side stream stays current, the allocator waits for the recording's end, and the random
generator refuses to draw. ``CudaCapture`` mends them. Nothing of ``CudaCapture`` has been run on a GPU yet.
"""

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MOST_FAILURES = 3  # shapes that could not be recorded; after that no other is tried

Outputs = Tensor | tuple[Tensor, ...]
Function = Callable[..., Outputs]


class Capture(ABC):
    """How work is warmed up and recorded. ``CudaCapture`` is the real one; a test brings its own for the CPU."""

    @abstractmethod
    def warm(self, function: Function, inputs: Sequence[Tensor]) -> Outputs:
        """``function(*inputs)``, on the stream that will record it."""

    @abstractmethod
    def record(self, function: Function, inputs: Sequence[Tensor]) -> Callable[[], Outputs]:
        """Records without effect; what is returned does the work on what ``inputs`` then hold, each time it is called.

        Raises:
            Exception: of any kind, when it cannot be recorded; everything is then as before.
        """

    def memory(self) -> tuple[int, int]:
        """Bytes that tensors occupy, and bytes that are taken from the device."""
        return 0, 0


class CudaCapture(Capture):
    """Recording with ``torch.cuda.graph``: one side stream and one pool of memory for all recordings.

    The stream is the same for warming and recording, so that library handles, their workspaces and autograd's nodes
    that add up gradients are those of the recording. Other threads may use the GPU meanwhile ("thread_local"): a
    loader's thread pins memory at any moment, and would break a recording in PyTorch's default mode.
    """

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self.stream = torch.cuda.Stream(self.device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm(self, function: Function, inputs: Sequence[Tensor]) -> Outputs:
        with self._aside():
            return function(*inputs)

    def record(self, function: Function, inputs: Sequence[Tensor]) -> Callable[[], Outputs]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                outputs = function(*inputs)
        except BaseException:
            torch.cuda.set_stream(current)
            self._mend()
            raise

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay

    def memory(self) -> tuple[int, int]:
        return torch.cuda.memory_allocated(self.device), torch.cuda.memory_reserved(self.device)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Work of the block goes to the side stream: after all that was asked for before, before all that follows."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def _mend(self) -> None:
        """Puts allocator and generator back after a recording that failed; other recordings keep the old pool."""
        failed, self.pool = self.pool, torch.cuda.graph_pool_handle()
        with suppress(RuntimeError):  # raised where the recording did end, and only the function had failed
            torch._C._cuda_endAllocateToPool(self.device.index, failed)
            torch._C._cuda_releasePool(self.device.index, failed)
        with suppress(RuntimeError), torch.cuda.stream(self.stream):
            nothing = torch.cuda.CUDAGraph()  # a recording that succeeds takes the generator out of recording
            nothing.capture_begin(torch.cuda.graph_pool_handle(), "thread_local")
            torch.zeros(1, device=self.device)
            nothing.capture_end()


@dataclass
class _Entry:
    """What is known of one shape."""

    buffers: list[Tensor]
    calls: int = 0
    replay: Callable[[], Outputs] | None = None
    failed: bool = False
    allocated: int = 0  # bytes
    reserved: int = 0


class Graphs:
    """A function of tensors, called as it is but replayed where its shape has been seen before.

    On a device other than CUDA, and without a ``capture`` for it, every call is a plain one. Not for several threads
    at once.
    """

    def __init__(
        self,
        function: Function,
        device: torch.device,
        capture: Capture | None = None,
        most: int = 32,
        warm_calls: int = 2,
    ) -> None:
        """
        Args:
            function: tensors on ``device`` -> a tensor, or a tuple of them.
            most: shapes that are remembered; the one whose last use is longest ago goes first.
            warm_calls: calls of a shape before it is recorded.

        Raises:
            ValueError: for ``most`` or ``warm_calls`` below 1.
        """
        if most < 1 or warm_calls < 1:
            raise ValueError(f"most and warm_calls must be at least 1, got {most} and {warm_calls}")
        self.function, self.device, self.most, self.warm_calls = function, device, most, warm_calls
        self.capture = CudaCapture(device) if capture is None and device.type == "cuda" else capture
        self.entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.failures = 0

    @property
    def recorded(self) -> int:
        """Recordings that are held now."""
        return sum(entry.replay is not None for entry in self.entries.values())

    @property
    def allocated(self) -> int:
        """Bytes of all results that are held. What lies between input and result is shared by all recordings."""
        return sum(entry.allocated for entry in self.entries.values())

    def __call__(self, *inputs: Tensor, key: Hashable = ()) -> Outputs:
        """``function(*inputs)``; a replayed result is good until the next call.

        Args:
            inputs: on the device, or in pinned memory of the host.
            key: what the function's work depends on besides the inputs' shapes and types.
        """
        if self.capture is None:
            return self.function(*(item.to(self.device, non_blocking=True) for item in inputs))
        entry = self._entry((key, *((item.shape, item.dtype) for item in inputs)), inputs)
        with torch.no_grad():
            for buffer, item in zip(entry.buffers, inputs, strict=True):
                buffer.copy_(item, non_blocking=True)
        if entry.replay is None and not entry.failed:
            if entry.calls < self.warm_calls:
                entry.calls += 1
                return self.capture.warm(self.function, entry.buffers)
            self._record(entry)
        return self.function(*entry.buffers) if entry.replay is None else entry.replay()

    def _entry(self, name: Hashable, inputs: Sequence[Tensor]) -> _Entry:
        if name not in self.entries:
            if len(self.entries) >= self.most:
                self._forget_one()
            with torch.inference_mode(False):  # or they could not be written outside of that mode
                buffers = [torch.zeros(item.shape, dtype=item.dtype, device=self.device) for item in inputs]
            self.entries[name] = _Entry(buffers, failed=self.failures >= MOST_FAILURES)
        self.entries.move_to_end(name)
        return self.entries[name]

    def _forget_one(self) -> None:
        """The shape unused for longest; its part of the pool is free for later recordings."""
        _, entry = self.entries.popitem(last=False)
        if entry.replay is not None:
            logger.info("forgot the CUDA graph of %s: %d are the most", shapes(entry.buffers[:1]), self.most)

    def _record(self, entry: _Entry) -> None:
        allocated, reserved = self.capture.memory()
        try:
            entry.replay = self.capture.record(self.function, entry.buffers)
        except Exception as error:
            entry.failed = True
            self.failures += 1
            while error.__context__ is not None:  # the end of a broken recording fails too, with a message of no use
                error = error.__context__
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            rest = "; no other will be tried" if self.failures == MOST_FAILURES else ""
            logger.warning("no CUDA graph for %s, which runs as without%s: %s", shapes(entry.buffers), rest, reason)
            return
        now_allocated, now_reserved = self.capture.memory()
        entry.allocated, entry.reserved = now_allocated - allocated, now_reserved - reserved
        logger.info(
            "CUDA graph %d of at most %d, for %s: results %.1f MB, memory %+.1f MB",
            self.recorded,
            self.most,
            shapes(entry.buffers[:1]),
            entry.allocated / 1e6,
            entry.reserved / 1e6,
        )


def shapes(tensors: Sequence[Tensor]) -> str:
    """``2x64x208, 2`` for messages."""
    return ", ".join("x".join(map(str, item.shape)) or "scalar" for item in tensors)
