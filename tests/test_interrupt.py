"""The first signal is a request, the second is not."""

import os
import signal

import pytest

from quartznet.interrupt import Interrupt, held_back


def test_first_signal_asks_second_aborts() -> None:
    before = signal.default_int_handler
    signal.signal(signal.SIGINT, before)  # a shell starts jobs in the background with SIGINT ignored
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        assert not interrupt.requested()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested() and interrupt.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_is_held_back_comes_when_the_block_is_done() -> None:
    def handle(number: int, frame: object) -> None:
        raise RuntimeError(f"signal {number}")

    before = signal.signal(signal.SIGCHLD, handle)
    done = False
    try:
        with pytest.raises(RuntimeError, match=f"signal {int(signal.SIGCHLD)}"), held_back(signal.SIGCHLD):
            os.kill(os.getpid(), signal.SIGCHLD)
            done = True
        assert done and signal.getsignal(signal.SIGCHLD) == handle
        with pytest.raises(KeyError), held_back(signal.SIGCHLD):  # the error of the block comes first
            os.kill(os.getpid(), signal.SIGCHLD)
            raise KeyError
        with held_back(signal.SIGCHLD):
            pass
    finally:
        signal.signal(signal.SIGCHLD, before)
