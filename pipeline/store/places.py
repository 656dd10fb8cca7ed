"""Where the rows of one array of one unit lie in a file, for both stores, and reading them by offset.

Both stores come down to the same thing: chunks of a known length at known offsets of one file, each with a crc32c. A
run of chunks is fetched by vectored reads straight into the caller's array; nothing is copied twice, and nothing is
handed out before its checksum has been compared.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from frame.pipeline.store import regular, tar_unit, zarr_unit
from frame.pipeline.store.columns import FRAMES, ArraySpec
from frame.pipeline.store.object_file import Fetched, OpenObject
from frame.pipeline.store.objects import ObjectPath, StorePath
from frame.pipeline.store.receipts import FileEntry

# What is read at once is checked at once, while it still lies in the processor's cache: from memory, the checksum runs
# at a quarter of that speed. Fewer bytes would cost more calls.
_BATCH_BYTES = 1 << 20
_BATCH_CHUNKS = 500  # two buffers each in one vectored read; the system's limit is 1,024

_Buffers = Sequence[Any]  # of uint8 arrays, which NumPy's stubs call buffers only from Python 3.12 on


class OpenFile:
    """A file descriptor that closes itself when nobody uses it any more. Safe to share between threads and forks,
    because reads name their offset."""

    def __init__(self, path: Path, *, expected_bytes: int) -> None:
        self.path = path
        self.bytes = expected_bytes
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, regular.FLAGS)
            status = os.fstat(self.descriptor)
            regular.require_regular(status)
        except FileNotFoundError:
            raise zarr_unit.damaged(path, "the file is missing") from None
        except OSError as error:
            raise zarr_unit.damaged(path, f"it cannot be opened: {error.strerror}") from error
        if status.st_size != expected_bytes:
            raise zarr_unit.damaged(path, f"it has {status.st_size:,} bytes, its receipt says {expected_bytes:,}")

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def batch(self, chunk_bytes: int) -> int:
        """How many neighbouring chunks of this size are read at once, at most."""
        return min(max(_BATCH_BYTES // chunk_bytes, 1), _BATCH_CHUNKS)

    def span(self, start: int, stop: int) -> OpenFile:
        """Something to read bytes ``[start, stop)`` from."""
        del start, stop  # of a file on a disk they need not be fetched together
        return self

    def read_into(self, buffers: _Buffers, offset: int, *, wanted: int) -> None:
        """Fill ``buffers``, bytes all of them and ``wanted`` together, one after the other from ``offset`` on."""
        try:
            got = os.preadv(self.descriptor, buffers, offset)
            if got != wanted:
                self._read_rest(buffers, offset, got)
        except OSError as error:
            raise zarr_unit.damaged(self.path, f"it cannot be read: {error.strerror}") from error

    def _read_rest(self, buffers: _Buffers, offset: int, got: int) -> None:
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


def open_file(path: StorePath, *, expected_bytes: int) -> OpenFile | OpenObject:
    """A file of the cache to read from. Raises ``CacheError`` where it is missing or of another size."""
    kind = OpenObject if isinstance(path, ObjectPath) else OpenFile
    return kind(path, expected_bytes=expected_bytes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Chunks of one array of one unit, ``chunk_rows`` rows each: where they lie in ``file``.

    Lists, a number a chunk, because a window of frames asks for few of them and a list is the fastest to ask:
    ``offsets``; ``bytes``; ``ends``, the number of the first chunk after it that does not lie right behind it, or its
    own for a chunk that was never written; ``checks``, its crc32c as the receipt has it. ``gap`` bytes follow every
    chunk: in a Zarr shard the four of its own crc32c.
    """

    file: OpenFile | OpenObject
    spec: ArraySpec
    chunk_rows: int
    offsets: list[int]
    bytes: list[int]
    ends: list[int]
    checks: list[int]
    gap: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Unit rows ``[start, stop)`` as ``[stop - start, *shape]`` of the stored type."""
        out = np.empty((stop - start, *self.spec.shape), dtype=self.spec.dtype)
        self.read_into(start, stop, out)
        return out

    def read_into(self, start: int, stop: int, out: np.ndarray) -> None:
        """Unit rows ``[start, stop)`` into ``out``, contiguous ``[stop - start, *shape]`` of the stored type."""
        each = self.chunk_rows
        if start == stop:
            return
        if self.spec.name == FRAMES and not self.gap:
            last = max(range(start, stop), key=self.offsets.__getitem__)
            source = self.file.span(min(self.offsets[start:stop]), self.offsets[last] + self.bytes[last])
            for row in range(start, stop):
                out[row - start] = self._picture(row, source)
        elif each == 1:
            self._fill(_bytes_of(out, stop - start), start, stop)
        else:
            low, high = start // each, -(-stop // each)
            whole = np.empty(((high - low) * each, *self.spec.shape), dtype=self.spec.dtype)
            self._fill(_bytes_of(whole, high - low), low, high)
            out[...] = whole[start - low * each : stop - low * each]

    def _fill(self, out: np.ndarray, low: int, high: int) -> None:
        """Read chunks ``[low, high)`` into ``out`` uint8 ``[chunks, bytes]`` and compare their checksums."""
        limit = self.file.batch(out.shape[1])
        first = low
        while first < high:
            last = min(self.ends[first], high, first + limit)
            if last == first:
                raise zarr_unit.damaged(self.file.path, f"row {first * self.chunk_rows} of its unit was never written")
            chunks = list(out[first - low : last - low])
            expected = self._fetch(chunks, first, last)
            if [google_crc32c.value(chunk) for chunk in chunks] != expected:
                rows = f"{first * self.chunk_rows} to {last * self.chunk_rows}"
                raise zarr_unit.damaged(self.file.path, f"a checksum in rows {rows} of its unit fails")
            first = last

    def _fetch(self, chunks: list[np.ndarray], first: int, last: int) -> list[int]:
        """Read chunks ``[first, last)``, neighbours in the file, into ``chunks``; the checksums they should have."""
        count, size, expected = last - first, len(chunks[0]), self.checks[first:last]
        if not self.gap:
            self.file.read_into(chunks, self.offsets[first], wanted=count * size)
            return expected
        tails = np.empty((count, self.gap), dtype=np.uint8)
        buffers = chunks * 2
        buffers[::2] = chunks
        buffers[1::2] = tails
        self.file.read_into(buffers, self.offsets[first], wanted=count * (size + self.gap))
        if tails.view("<u4")[:, 0].tolist() != expected:
            rows = f"{first * self.chunk_rows} to {last * self.chunk_rows}"
            raise zarr_unit.damaged(self.file.path, f"the checksums of rows {rows} are not those its receipt names")
        return expected

    def _picture(self, row: int, source: OpenFile | OpenObject | Fetched) -> np.ndarray:
        if self.ends[row] == row:
            raise zarr_unit.damaged(self.file.path, f"the picture of row {row} of its unit was never written")
        data = np.empty(self.bytes[row], dtype=np.uint8)
        source.read_into([data], self.offsets[row], wanted=len(data))
        if google_crc32c.value(data) != self.checks[row]:
            raise zarr_unit.damaged(self.file.path, f"the checksum of the picture of row {row} of its unit fails")
        try:
            return tar_unit.decode_png(data.data, self.spec.shape)
        except (OSError, SyntaxError, ValueError) as error:
            raise zarr_unit.damaged(self.file.path, f"the picture of row {row} of its unit: {error}") from error


def _bytes_of(array: np.ndarray, chunks: int) -> np.ndarray:
    return array.reshape(chunks, -1).view(np.uint8)


def zarr_places(file: OpenFile | OpenObject, spec: ArraySpec, entry: FileEntry, *, rows_per_unit: int) -> Places:
    """Places in a Zarr shard, from its own index, with the checksums of its receipt."""
    offsets, lengths, checks = zarr_chunks(file, spec, entry, rows_per_unit=rows_per_unit)
    return _places(file, spec, spec.chunk_rows, offsets, lengths, checks, gap=4)


def zarr_chunks(
    file: OpenFile | OpenObject, spec: ArraySpec, entry: FileEntry, *, rows_per_unit: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Offset (-1: never written) and bytes of every chunk of a Zarr shard, from its own index; their checksums, from
    its receipt."""
    checks = [check for _, _, _, sums in entry.members.get(spec.name, []) for check in sums]
    if len(checks) != rows_per_unit // spec.chunk_rows:
        raise zarr_unit.damaged(file.path, "its receipt has not a checksum for every chunk")
    index = np.empty(zarr_unit.index_bytes(spec, rows_per_unit), dtype=np.uint8)
    if len(index) > file.bytes:
        raise zarr_unit.damaged(file.path, "it is too short for its index")
    file.read_into([index], file.bytes - len(index), wanted=len(index))
    return *zarr_unit.locate(spec, index.tobytes(), file.path, size=file.bytes), checks


def tar_places(file: OpenFile | OpenObject, spec: ArraySpec, entry: FileEntry, *, rows_per_unit: int) -> Places:
    """Places in a tar, from its receipt. Every row is a chunk of its own there."""
    offsets = np.full(rows_per_unit, -1, dtype=np.int64)
    lengths = np.zeros(rows_per_unit, dtype=np.int64)
    checks = np.zeros(rows_per_unit, dtype=np.uint32)
    for row, start, length, sums in entry.members.get(spec.name, []):
        count = len(sums)
        each = length // max(count, 1)
        fits = spec.name == FRAMES or each == spec.row_bytes
        if row < 0 or row + count > rows_per_unit or start < 0 or not 0 <= length <= entry.bytes - start or not fits:
            raise zarr_unit.damaged(file.path, "its receipt names impossible places")
        offsets[row : row + count] = start + each * np.arange(count)
        lengths[row : row + count] = each
        checks[row : row + count] = sums
    return _places(file, spec, 1, offsets, lengths, checks.tolist(), gap=0)


def _places(
    file: OpenFile | OpenObject,
    spec: ArraySpec,
    chunk_rows: int,
    offsets: np.ndarray,
    lengths: np.ndarray,
    checks: list[int],
    *,
    gap: int,
) -> Places:
    count = len(offsets)
    require_apart(file, offsets, lengths + gap)
    last = np.append(offsets[:-1] + lengths[:-1] + gap != offsets[1:], True)  # of its run of neighbours
    ends = np.minimum.accumulate(np.where(last, np.arange(1, count + 1), count)[::-1])[::-1]
    return Places(
        file=file,
        spec=spec,
        chunk_rows=chunk_rows,
        offsets=offsets.tolist(),
        bytes=lengths.tolist(),
        ends=np.where(offsets < 0, np.arange(count), ends).tolist(),
        checks=checks,
        gap=gap,
    )


def require_apart(file: OpenFile | OpenObject, offsets: np.ndarray, lengths: np.ndarray) -> None:
    """Raise ``CacheError`` where two chunks share bytes: a small file could pass for any number of rows."""
    order = np.argsort(offsets, kind="stable")[np.count_nonzero(offsets < 0) :]
    if (offsets[order][:-1] + lengths[order][:-1] > offsets[order][1:]).any():
        raise zarr_unit.damaged(file.path, "rows of its unit lie on top of each other")
