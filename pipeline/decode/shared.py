"""Memory that two processes write and read: taken up again as soon as nobody looks at it any more.

Fresh shared memory costs as much as a quarter of decoding: the kernel clears each page of it. So an arena is kept
when the arrays in it are gone, and the next frames are written into it. Many small arrays share one arena, because
each holds files open, of which a process may often have no more than a thousand.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

ARENA = 64 << 20
"""Bytes of an arena, at least. What is not written to takes no memory."""

KEPT = 256 << 20
"""Bytes of arenas that are kept, at most, while there is nothing in them."""

PAGE = 4096

_numbers = count()


class Arena:
    """One stretch of shared memory, filled from its beginning. ``number`` is its name in this process."""

    def __init__(self, size: int) -> None:
        self.number, self.size = next(_numbers), size
        self.used, self.lent = 0, 0
        self._descriptor = os.memfd_create("frames", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor).atexit = False
        os.ftruncate(self._descriptor, size)
        self.memory = mmap.mmap(self._descriptor, size)

    def fileno(self) -> int:
        """The descriptor that another process can map."""
        return self._descriptor


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of an arena that are spoken for, from ``start``."""

    arena: Arena
    start: int


class Pool:
    """The arenas of one process, and what is lent of them."""

    def __init__(self) -> None:
        self._arenas: list[Arena] = []

    def take(self, size: int) -> Place:
        """Room for ``size`` bytes. It is to be given to `lend` or to `put_back`."""
        room = -(-size // PAGE) * PAGE
        fitting = (arena for arena in list(self._arenas) if arena.used + room <= arena.size)
        arena = next(fitting, None)
        if arena is None:
            arena = Arena(max(room, ARENA))
            self._arenas.append(arena)
        place = Place(arena, arena.used)
        arena.used, arena.lent = arena.used + room, arena.lent + 1
        return place

    def lend(self, place: Place, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The place as an array of ``shape``. It is put back by itself when no view of the array is left."""
        array = np.frombuffer(place.arena.memory, np.uint8, math.prod(shape), place.start)
        # The array's base lives exactly as long as the last view of the array, whatever is made of it.
        weakref.finalize(array.base, self.put_back, place).atexit = False
        return array.reshape(shape)

    def put_back(self, place: Place) -> None:
        """Nobody looks at the place any more. An arena is filled anew when all its places are back."""
        arena = place.arena
        arena.lent -= 1
        if arena.lent:
            return
        arena.used = 0
        if sum(arena.size for arena in self._arenas if not arena.lent) > KEPT and arena in self._arenas:
            self._arenas.remove(arena)

    def live(self) -> list[int]:
        """Numbers of the arenas that may be written to again."""
        return [arena.number for arena in self._arenas]
