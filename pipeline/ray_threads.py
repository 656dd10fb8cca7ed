"""No thread may use Ray while its session ends.

One that does takes the whole process with it: Ray's C++ side finds the raylet gone and calls ``_exit(1)``, without a
word, in the midst of whatever the main thread was doing (an interrupted build then neither says how to go on nor ends
with 130). Ray Data runs its pipeline in threads, and asked to stop it waits two seconds for them at most. Ray's own C++
threads are another matter: Python knows those that have called it only as dummies, which nobody can wait for, and
Ray ends them itself with the session.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 60.0  # seconds; longer than any call of Ray Data's loop, so that only a hung thread is left behind
_PARKED = "Prefetcher"  # Ray Data leaves it asleep for ever; its iterator is closed, so nothing wakes it to use Ray


@contextmanager
def ended_threads() -> Iterator[None]:
    """The threads that begin inside the ``with`` block have ended when it is left, or had ``_PATIENCE`` to do so."""
    before = set(threading.enumerate())
    try:
        yield
    finally:
        deadline = time.monotonic() + _PATIENCE
        for thread in set(threading.enumerate()) - before:
            if thread.name != _PARKED and not isinstance(thread, threading._DummyThread):
                thread.join(max(deadline - time.monotonic(), 0.0))
