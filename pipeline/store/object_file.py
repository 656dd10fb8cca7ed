"""One object of a cache, read by ranges. Its place in ``places.py`` is that of an open file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from frame.pipeline.store import bucket as requests
from frame.pipeline.store import zarr_unit
from frame.pipeline.store.objects import ObjectPath

# A request takes milliseconds before its first byte, whatever its length.
_BATCH_BYTES = 32 << 20


class OpenObject:
    """An object of the expected size. Nothing is open: every read is a request of its own, so that it can be shared
    between threads, and a connection that breaks costs a retry."""

    def __init__(self, path: ObjectPath, *, expected_bytes: int) -> None:
        self.path = path
        self.bytes = expected_bytes
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise zarr_unit.damaged(path, "the file is missing") from None
        if size != expected_bytes:
            raise zarr_unit.damaged(path, f"it has {size:,} bytes, its receipt says {expected_bytes:,}")

    def batch(self, chunk_bytes: int) -> int:
        """How many neighbouring chunks of this size are read at once, at most."""
        return max(_BATCH_BYTES // chunk_bytes, 1)

    def span(self, start: int, stop: int) -> Fetched | OpenObject:
        """Something to read from that has bytes ``[start, stop)`` at hand already, if they are few enough."""
        if not 0 <= start < stop <= self.bytes or stop - start > _BATCH_BYTES:
            return self
        return Fetched(self.path, start, self._fetch(start, stop))

    def read_into(self, buffers: Sequence[Any], offset: int, *, wanted: int) -> None:
        """Fill ``buffers``, bytes all of them and ``wanted`` together, one after the other from ``offset`` on."""
        _spread(self._fetch(offset, offset + wanted), buffers)

    def _fetch(self, start: int, stop: int) -> bytes:
        try:
            data = requests.get_range(self.path.bucket, self.path.key, start, stop)
        except FileNotFoundError:
            raise zarr_unit.damaged(self.path, "the file is missing") from None
        if len(data) != stop - start:
            raise zarr_unit.damaged(self.path, "it ends too early")
        return data


class Fetched:
    """A part of an object, in memory."""

    def __init__(self, path: ObjectPath, start: int, data: bytes) -> None:
        self.path, self._start, self._data = path, start, data

    def read_into(self, buffers: Sequence[Any], offset: int, *, wanted: int) -> None:
        """As ``OpenObject.read_into``, of bytes that are here."""
        at = offset - self._start
        if at < 0 or at + wanted > len(self._data):
            raise zarr_unit.damaged(self.path, "its receipt names places out of order")
        _spread(memoryview(self._data)[at : at + wanted], buffers)


def _spread(data: bytes | memoryview, buffers: Sequence[Any]) -> None:
    source, at = np.frombuffer(data, dtype=np.uint8), 0
    for buffer in buffers:
        buffer[...] = source[at : at + len(buffer)]
        at += len(buffer)
