"""Memory that two processes write and read: taken up again as soon as nobody looks at it any more.

Fresh shared memory costs as much as a quarter of decoding: the kernel clears each page of it. So a block is kept
when the array made of it is gone, and the next frames are written into it.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from itertools import count

import numpy as np
from numpy.typing import NDArray

KEPT = 256 << 20
"""Bytes of free blocks that are kept at most; a larger one is never kept."""

_numbers = count()


class Block:
    """One stretch of shared memory. ``number`` is its name among all blocks of this process."""

    def __init__(self, size: int) -> None:
        self.number, self.size = next(_numbers), size
        self._descriptor = os.memfd_create("frames", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, size)
        self.memory = mmap.mmap(self._descriptor, size)

    def fileno(self) -> int:
        """The descriptor that another process can map."""
        return self._descriptor


class Pool:
    """Blocks that are free, and those lent out as arrays."""

    def __init__(self) -> None:
        self._free: list[Block] = []
        self._lent: set[int] = set()

    def take(self, size: int) -> Block:
        """A block of at least ``size`` bytes, at most twice as large unless it is new."""
        fitting = [block for block in self._free if size <= block.size <= 2 * size]
        if not fitting:
            return Block(size)
        block = min(fitting, key=lambda block: block.size)
        self._free.remove(block)
        return block

    def lend(self, block: Block, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The block's first bytes as an array of ``shape``. The block is free again when no view of it is left."""
        array = np.frombuffer(block.memory, np.uint8, math.prod(shape))
        self._lent.add(block.number)
        # The array's base lives exactly as long as the last view of the array, whatever is made of it.
        weakref.finalize(array.base, self._return, block).atexit = False
        return array.reshape(shape)

    def put(self, block: Block) -> None:
        """Keep the block for another time, unless there is enough already."""
        if block.size + sum(free.size for free in self._free) <= KEPT:
            self._free.append(block)

    def live(self) -> list[int]:
        """Numbers of the blocks that may be written to or looked at again."""
        return [*self._lent, *(block.number for block in self._free)]

    def _return(self, block: Block) -> None:
        self._lent.discard(block.number)
        self.put(block)
