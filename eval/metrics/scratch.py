"""Memory that is used again: a fresh array of a mask's size costs more time than the arithmetic on it."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray


class _Held(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[np.uint8]] = {}


_HELD = _Held()


def scratch(name: str, count: int) -> NDArray[np.uint8]:
    """``count`` bytes of this thread's own, with anything in them, until it asks for the same name again.

    What is held grows to the most that was ever asked for, and stays with the thread.
    """
    array = _HELD.arrays.get(name)
    if array is None or len(array) < count:
        array = _HELD.arrays[name] = np.empty(count, dtype=np.uint8)
    return array[:count]
