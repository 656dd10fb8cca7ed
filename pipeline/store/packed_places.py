"""Where the packed rows of one array of one unit lie in a file, for both stores, and unpacking them.

Other than in ``places``, a chunk's length is its own, and its rows are only there together. It is read whole, compared
with its checksum, found to hold as many rows as it should, and only then unpacked: nothing grows beyond what the column
promises.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import google_crc32c
import numpy as np

from frame.pipeline.store import packing, zarr_unit
from frame.pipeline.store.columns import ArraySpec
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.object_file import Fetched, OpenObject
from frame.pipeline.store.places import OpenFile, require_apart, zarr_chunks
from frame.pipeline.store.receipts import FileEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedPlaces:
    """Packed chunks of one array of one unit, in the order of their rows.

    ``starts``: the first row of each, and behind them the unit's end; ``offsets`` (-1 for a chunk that was never
    written), ``bytes``, ``checks``: where it lies in ``file``, and its crc32c as the receipt has it. ``fixed``: every
    chunk holds ``spec.chunk_rows`` rows, as in Zarr; otherwise as many as follow each other in a clip, at most so many.
    """

    file: OpenFile | OpenObject
    spec: ArraySpec
    starts: list[int]
    offsets: list[int]
    bytes: list[int]
    checks: list[int]
    fixed: bool

    def read(self, start: int, stop: int) -> np.ndarray:
        """The levels of unit rows ``[start, stop)``, int16 ``[stop - start, *shape]``."""
        out = np.empty((stop - start, *self.spec.shape), dtype=np.int16)
        for part in self.parts(start, stop):
            out[part.low - start : part.high - start] = part.levels()
        return out

    def parts(self, start: int, stop: int) -> list[Part]:
        """The chunks that hold unit rows ``[start, stop)``, each to be unpacked on its own."""
        if start == stop:
            return []
        first = bisect_right(self.starts, start) - 1
        numbers = range(max(first, 0), bisect_right(self.starts, stop - 1))
        if first < 0 or any(self.offsets[i] < 0 for i in numbers):
            raise self.damaged(start, "was never written")
        source = self.file.span(
            min(self.offsets[i] for i in numbers), max(self.offsets[i] + self.bytes[i] for i in numbers)
        )
        return [
            Part(
                places=self,
                number=i,
                source=source,
                low=max(start, self.starts[i]),
                high=min(stop, self.starts[i + 1]),
            )
            for i in numbers
        ]

    def damaged(self, row: int, what: str) -> CacheError:
        """The screen for the chunk that begins at unit row ``row``."""
        return zarr_unit.damaged(self.file.path, f"the packed chunk at row {row} of its unit {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Unit rows ``[low, high)``, all of them in chunk ``number``."""

    places: PackedPlaces
    number: int
    source: OpenFile | OpenObject | Fetched
    low: int
    high: int

    def levels(self) -> np.ndarray:
        """Their levels, int16 ``[high - low, *shape]``. Raises ``CacheError`` where the chunk is not what it should
        be."""
        places, first = self.places, self.places.starts[self.number]
        spec = places.spec
        packed = np.empty(places.bytes[self.number], dtype=np.uint8)
        self.source.read_into([packed], places.offsets[self.number], wanted=len(packed))
        if google_crc32c.value(packed) != places.checks[self.number]:
            raise places.damaged(first, "fails its checksum")
        try:
            rows = packing.packed_rows(
                packed[: packing.HEADER_BYTES].tobytes(), size=len(packed), row_bytes=spec.row_bytes
            )
            if rows > spec.chunk_rows or (places.fixed and rows != spec.chunk_rows):
                raise ValueError(f"it holds {rows} rows")
            stored = np.empty((self.high - first, *spec.shape), dtype=np.uint16)
            return packing.unpack(packed, stored)[self.low - first :]
        except ValueError as error:
            raise places.damaged(first, f"is none: {error}") from error


def zarr_packed(file: OpenFile | OpenObject, spec: ArraySpec, entry: FileEntry, *, rows_per_unit: int) -> PackedPlaces:
    """Places in a Zarr shard, from its own index, with the checksums of its receipt."""
    offsets, lengths, checks = zarr_chunks(file, spec, entry, rows_per_unit=rows_per_unit)
    require_apart(file, offsets, lengths + 4)
    starts = list(range(0, rows_per_unit + 1, spec.chunk_rows))
    return PackedPlaces(
        file=file,
        spec=spec,
        starts=starts,
        offsets=offsets.tolist(),
        bytes=lengths.tolist(),
        checks=checks,
        fixed=True,
    )


def tar_packed(file: OpenFile | OpenObject, spec: ArraySpec, entry: FileEntry, *, rows_per_unit: int) -> PackedPlaces:
    """Places in a tar, from its receipt: a member a chunk."""
    members = sorted(entry.members.get(spec.name, []), key=lambda member: int(member[0]))
    most = packing.most_bytes(spec.row_bytes * spec.chunk_rows)
    starts = [row for row, _, _, _ in members]
    fits = all(
        0 <= start <= entry.bytes - length and 0 < length <= most and len(sums) == 1
        for _, start, length, sums in members
    )
    if not fits or len(set(starts)) != len(starts) or (starts and not 0 <= starts[0] <= starts[-1] < rows_per_unit):
        raise zarr_unit.damaged(file.path, "its receipt names impossible places")
    offsets, lengths = [start for _, start, _, _ in members], [length for _, _, length, _ in members]
    require_apart(file, np.array(offsets, dtype=np.int64), np.array(lengths, dtype=np.int64))
    return PackedPlaces(
        file=file,
        spec=spec,
        starts=[*starts, rows_per_unit],
        offsets=offsets,
        bytes=lengths,
        checks=[sums[0] for _, _, _, sums in members],
        fixed=False,
    )
