"""``index.parquet``: a row a clip, and which rows of the cache are whose."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("clip", pa.string()),  # the clip's identity, and its key in tar files
        ("source", pa.string()),  # relative to the source folder
        ("split", pa.string()),
        ("label", pa.string()),
        ("first_row", pa.int64()),
        ("n_frames", pa.int64()),  # 0 for a clip that failed when it was probed
        ("unit", pa.int64()),  # the unit of its first row
        ("fps", pa.float64()),  # the source's average rate
        ("timestamps", pa.list_(pa.float64())),  # seconds, one a row
        ("width", pa.int32()),  # of the decoded frames, rotation applied
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),  # of the source's content
        ("start", pa.float64()),  # segment of the source in seconds, null for the whole
        ("end", pa.float64()),
        ("frame_rate", pa.float64()),  # the rate given to a folder of frames, null for videos
        ("error", pa.string()),  # "reason: detail" for a clip that failed when it was probed, else ""
    ]
)


def index_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file. The same table and pyarrow give the same bytes."""
    out = io.BytesIO()
    pq.write_table(table.cast(SCHEMA), out, compression="zstd", store_schema=False)
    return out.getvalue()


def read_index(data: bytes) -> pa.Table:
    """The table in ``index.parquet``, without any extension type or embedded schema of Arrow's."""
    return pq.read_table(io.BytesIO(data), schema=SCHEMA)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRows:
    """The part of a clip that lies in one unit: unit rows ``[start, stop)``, clip frames from ``first_frame`` on."""

    clip: str
    position: int  # row of the index
    start: int
    stop: int
    first_frame: int


class RowMap:
    """Which clip owns a row. Built once from the index; a few bytes a clip."""

    def __init__(self, index: pa.Table, *, rows_per_unit: int) -> None:
        self.rows_per_unit = rows_per_unit
        self._clip = index.column("clip").to_pylist()
        self._first = index.column("first_row").to_numpy()
        self._count = index.column("n_frames").to_numpy()
        self._unit = index.column("unit").to_numpy()
        self._end = self._first + self._count
        if (np.diff(self._first) < 0).any() or (self._end[:-1] > self._first[1:]).any():
            raise ValueError("the index's clips overlap or are out of order")

    def clips(self, unit: int) -> list[ClipRows]:
        """Clips with rows in ``unit``, in row order; clips without any row are left out."""
        begin, end = unit * self.rows_per_unit, (unit + 1) * self.rows_per_unit
        low = int(np.searchsorted(self._end, begin, side="right"))
        high = int(np.searchsorted(self._first, end, side="left"))
        found = []
        for position in range(low, high):
            first, count = int(self._first[position]), int(self._count[position])
            start, stop = max(first, begin), min(first + count, end)
            if start < stop:
                found.append(
                    ClipRows(
                        clip=self._clip[position],
                        position=position,
                        start=start - begin,
                        stop=stop - begin,
                        first_frame=start - first,
                    )
                )
        return found

    def rowless(self, unit: int) -> list[int]:
        """Positions of the clips that belong to ``unit`` but failed when they were probed."""
        return [int(i) for i in np.flatnonzero((self._unit == unit) & (self._count == 0))]


def failed_at_plan(index: pa.Table, position: int) -> tuple[str, str]:
    """Reason and detail of a clip that failed when it was probed."""
    text: Any = index.column("error")[position].as_py()
    reason, _, detail = text.partition(": ")
    return reason, detail
