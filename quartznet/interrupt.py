"""Ctrl-C and SIGTERM as a request: the loop finishes its step, saves, and ends; a second one aborts at once.

The surprise: a terminal sends Ctrl-C to the loader's worker processes too, which would die and take the run with them;
``data.loaders`` makes them deaf to it, so that the main process alone decides when to stop.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHILD_ENDED = getattr(signal, "SIGCHLD", None)  # Windows has none


class Interrupt:
    """``with Interrupt() as interrupt:`` then ask ``interrupt.requested()``; ``interrupt.signal`` tells which came."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, object] = {}

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._restore()
        os.write(2, b"\nfinishing this step, then saving; a second signal aborts at once\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


@contextmanager
def held_back(number: int | None) -> Iterator[None]:
    """A signal that comes inside the ``with`` block is handled at its end, so that the block is done whole or raises.

    Outside the main thread, without a signal, and for one that no function of Python handles, nothing changes.
    """
    handler = None if number is None else signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[FrameType | None] = []
    signal.signal(number, lambda _, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(number, handler)
    if came:
        handler(number, came[0])
