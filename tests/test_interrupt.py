"""The first signal is a request, the second is not."""

import os
import signal

import pytest

from quartznet.interrupt import Interrupt


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
