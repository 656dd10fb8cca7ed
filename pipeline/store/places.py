"""Where the rows of one array of one unit lie in a file, for both stores, and reading them by offset.

Both stores come down to the same thing: chunks of a known length at known offsets of one file, each with a crc32c. A
run of chunks is fetched by one vectored read straight into the caller's array; nothing is copied twice, and nothing is
handed out before its checksum has been compared.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from frame.pipeline.store import tar_unit, zarr_unit
from frame.pipeline.store.layout import FRAMES, ArraySpec
from frame.pipeline.store.receipts import FileEntry

_VECTORS = 512  # buffers in one vectored read; the system's limit is 1,024


class OpenFile:
    """A file descriptor that closes itself when nobody uses it any more. Safe to share between threads and forks,
    because reads name their offset."""

    def __init__(self, path: Path, *, expected_bytes: int) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            self.descriptor = -1
            raise zarr_unit.damaged(path, "the file is missing") from None
        size = os.fstat(self.descriptor).st_size
        if size != expected_bytes:
            raise zarr_unit.damaged(path, f"it has {size:,} bytes, its receipt says {expected_bytes:,}")

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def read_into(self, buffers: Sequence[np.ndarray], offset: int) -> None:
        """Fill ``buffers``, uint8 ``[bytes]`` each, one after the other from ``offset`` on."""
        wanted = sum(len(buffer) for buffer in buffers)
        got = os.preadv(self.descriptor, buffers, offset)
        if got != wanted:
            self._read_rest(buffers, offset, got)

    def _read_rest(self, buffers: Sequence[np.ndarray], offset: int, got: int) -> None:
        # A vectored read may stop early (2 GiB limit, signals); go on from where it stopped.
        before = 0
        for buffer in buffers:
            inside = max(got - before, 0)
            while inside < len(buffer):
                count = os.preadv(self.descriptor, [buffer[inside:]], offset + before + inside)
                if count == 0:
                    raise zarr_unit.damaged(self.path, "it ends too early")
                inside += count
            before += len(buffer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Chunks of one array of one unit: ``offsets`` int64 ``[chunks]`` (-1: never written), ``bytes`` int64 and
    ``checks`` uint32 of the same length (``checks`` None: four bytes behind every chunk)."""

    file: OpenFile
    spec: ArraySpec
    chunk_rows: int
    offsets: np.ndarray
    bytes: np.ndarray
    checks: np.ndarray | None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Unit rows ``[start, stop)`` as ``[stop - start, *shape]`` of the stored type."""
        low, high = start // self.chunk_rows, -(-stop // self.chunk_rows)
        if (self.offsets[low:high] < 0).any():
            raise zarr_unit.damaged(self.file.path, f"rows {start} to {stop} were promised but never written")
        if self.spec.name == FRAMES and self.checks is not None:
            return np.stack([self._picture(row) for row in range(start, stop)])
        shape = ((high - low) * self.chunk_rows, *self.spec.shape)
        out = np.empty(shape, dtype=self.spec.dtype)
        self._fill(out.reshape(-1).view(np.uint8).reshape(high - low, -1), low, high)
        return out[start - low * self.chunk_rows : stop - low * self.chunk_rows]

    def _fill(self, out: np.ndarray, low: int, high: int) -> None:
        """Read chunks ``[low, high)`` into ``out`` uint8 ``[chunks, bytes]`` and compare their checksums."""
        gap = 0 if self.checks is not None else 4
        tails = np.empty((len(out), gap), dtype=np.uint8)
        for first, last in self._runs(low, high, out.shape[1] + gap):
            buffers: list[np.ndarray] = []
            for i in range(first - low, last - low):
                buffers += [out[i], tails[i]] if gap else [out[i]]
            self.file.read_into(buffers, int(self.offsets[first]))
        expected = tails.view("<u4")[:, 0] if self.checks is None else self.checks[low:high]
        for i, chunk in enumerate(out):
            if google_crc32c.value(chunk) != expected[i]:
                row = (low + i) * self.chunk_rows
                raise zarr_unit.damaged(self.file.path, f"the checksum of rows from {row} on fails")

    def _runs(self, low: int, high: int, stride: int) -> list[tuple[int, int]]:
        """Ranges of chunks that lie one behind the other in the file, at most ``_VECTORS`` buffers each."""
        breaks = np.flatnonzero(np.diff(self.offsets[low:high]) != stride) + low + 1
        edges = [low, *breaks.tolist(), high]
        limit = _VECTORS // 2
        return [
            (first, min(first + limit, end))
            for begin, end in itertools.pairwise(edges)
            for first in range(begin, end, limit)
        ]

    def _picture(self, row: int) -> np.ndarray:
        assert self.checks is not None
        data = np.empty(int(self.bytes[row]), dtype=np.uint8)
        self.file.read_into([data], int(self.offsets[row]))
        if google_crc32c.value(data) != self.checks[row]:
            raise zarr_unit.damaged(self.file.path, f"the checksum of the picture of row {row} fails")
        try:
            return tar_unit.decode_png(data.tobytes(), self.spec.shape)
        except (OSError, ValueError) as error:
            raise zarr_unit.damaged(self.file.path, f"the picture of row {row}: {error}") from error


def zarr_places(file: OpenFile, spec: ArraySpec, *, rows_per_unit: int, size: int) -> Places:
    """Places in a Zarr shard, from its own index."""
    offsets = zarr_unit.locate(spec, file.path, rows_per_unit=rows_per_unit, size=size)
    lengths = np.full(len(offsets), spec.row_bytes * spec.chunk_rows, dtype=np.int64)
    return Places(file=file, spec=spec, chunk_rows=spec.chunk_rows, offsets=offsets, bytes=lengths, checks=None)


def tar_places(file: OpenFile, spec: ArraySpec, entry: FileEntry, *, rows_per_unit: int) -> Places:
    """Places in a tar, from its receipt. Every row is a chunk of its own there."""
    offsets = np.full(rows_per_unit, -1, dtype=np.int64)
    lengths = np.zeros(rows_per_unit, dtype=np.int64)
    checks = np.zeros(rows_per_unit, dtype=np.uint32)
    for row, start, length, sums in (entry.members or {}).get(spec.name, []):
        count = len(sums)
        each = length // count
        if row < 0 or row + count > rows_per_unit or start < 0 or start + length > entry.bytes:
            raise zarr_unit.damaged(file.path, "its receipt names impossible places")
        offsets[row : row + count] = start + each * np.arange(count)
        lengths[row : row + count] = each
        checks[row : row + count] = sums
    return Places(file=file, spec=spec, chunk_rows=1, offsets=offsets, bytes=lengths, checks=checks)
