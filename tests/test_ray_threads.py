"""Threads that a session of Ray leaves behind are waited for."""

from __future__ import annotations

import _thread
import threading
import time

import pytest

from frame.pipeline.ray_threads import ended_threads


def test_a_thread_of_the_block_has_ended_after_it() -> None:
    done = []
    with ended_threads():
        threading.Thread(target=lambda: (time.sleep(0.2), done.append(True)), daemon=True).start()
    assert done == [True]


def test_an_error_in_the_block_waits_too_and_goes_on() -> None:
    done = []

    def block() -> None:
        with ended_threads():
            threading.Thread(target=lambda: (time.sleep(0.2), done.append(True)), daemon=True).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [True]


def test_threads_that_python_did_not_start_are_left_alone() -> None:
    """Ray's C++ threads: one that has called Python is in ``threading.enumerate()``, and to join it is an error."""
    seen, go = threading.Event(), threading.Event()

    def foreign() -> None:
        threading.current_thread()  # makes the dummy
        seen.set()
        go.wait(10)

    with ended_threads():
        _thread.start_new_thread(foreign, ())
        assert seen.wait(10)
        assert any(isinstance(thread, threading._DummyThread) for thread in threading.enumerate())
    go.set()
