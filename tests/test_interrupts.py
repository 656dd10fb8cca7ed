from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from frame.pipeline.interrupts import remembered_interrupts


def swallowed(number: int) -> None:
    """A signal that arrives in code which drops the exception, as a destructor does."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_an_interrupt_that_a_library_swallows_is_raised_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    with remembered_interrupts() as again:
        again()
        swallowed(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_for_sigterm_is_called_and_the_request_remembered() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
    try:
        with remembered_interrupts() as again:
            os.kill(os.getpid(), signal.SIGTERM)
            assert calls == [signal.SIGTERM]
            with pytest.raises(KeyboardInterrupt):
                again()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with remembered_interrupts() as again:
            os.kill(os.getpid(), signal.SIGINT)
            again()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_left_alone() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with remembered_interrupts() as again:
                again()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
