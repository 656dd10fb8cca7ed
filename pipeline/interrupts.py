"""Being interrupted in the midst of other people's code.

Python raises ``KeyboardInterrupt`` wherever the main thread happens to stand. That may be a callback or a destructor of
a library, where an exception is printed or dropped and the program goes on as if nobody had asked.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Yields a function that raises ``KeyboardInterrupt`` if one of the signals that ask for it has come since.

    The signals do what they did before, too. Outside of the main thread, which no signal reaches, nothing changes.
    """
    asked: list[int] = []

    def again() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield again
        return
    before = {number: signal.getsignal(number) for number in _ASKING}

    def note(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        if callable(handler):
            asked.append(number)
            handler(number, frame)

    taken = [number for number in _ASKING if callable(before[number])]
    for number in taken:
        signal.signal(number, note)
    try:
        yield again
    finally:
        for number in taken:
            signal.signal(number, before[number])
