"""``index.parquet``: a row a clip, and which rows of the cache are whose."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


def lay_out(lengths: Sequence[int], *, unit: int) -> tuple[list[int], int]:
    """First row of every clip, and the number of rows in all (whole units, at least one).

    A clip that does not fit into the rest of a unit begins the next one; one longer than a unit runs on through as many
    as it needs, and the next clip follows in the rest of the last.
    """
    cursor, first = 0, []
    for length in lengths:
        room = -cursor % unit or unit
        if length > room and room < unit:
            cursor += room
        first.append(cursor)
        cursor += length
    return first, max(-(-cursor // unit), 1) * unit


_MAX_CLIPS = 1 << 24
_MAX_TEXT = 1 << 16  # of a name, a label, a reason
_BATCH_CLIPS = 1024
_EXPANSION = 1000
"""A Parquet file says in a few bytes that a value stands there a billion times. An index's names and digests differ
from clip to clip: even with equal times in all of them it grows to no more than some hundred times its size."""


def read_index(data: bytes) -> pa.Table:
    """The table in ``index.parquet``, without any extension type or embedded schema of Arrow's.

    Raises ``ValueError`` for any other file, before it takes more memory than an index of that size can.
    """
    # Arrow would make Python objects of an embedded schema's extension types, some of which hold pickled ones.
    if data[:4] != b"PAR1" or data[-4:] != b"PAR1" or b"ARROW:schema" in _footer(data):
        raise ValueError("it is no plain Parquet file")
    texts = [field.name for field in SCHEMA if field.type == pa.string()]
    limit, size, parts = (64 << 20) + _EXPANSION * len(data), 0, []
    try:
        file = pq.ParquetFile(io.BytesIO(data), read_dictionary=texts)  # a text that stands often is held once
        _require_bounded(file, limit)
        for batch in file.iter_batches(batch_size=_BATCH_CLIPS):
            if any((pc.max(pc.binary_length(batch[name].dictionary)).as_py() or 0) > _MAX_TEXT for name in texts):
                raise ValueError(f"a text of more than {_MAX_TEXT:,} bytes")
            part = pa.Table.from_batches([batch]).cast(SCHEMA)
            size += part.nbytes
            if size > limit:
                raise ValueError(f"more than {limit:,} bytes come out of {len(data):,}")
            parts.append(part)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else "it cannot be read") from None
    return pa.concat_tables([SCHEMA.empty_table(), *parts])


def _footer(data: bytes) -> bytes:
    return data[-8 - int.from_bytes(data[-8:-4], "little") :]


def _require_bounded(file: pq.ParquetFile, limit: int) -> None:
    found = file.metadata
    names = [column.path.partition(".")[0] for column in file.schema]
    if names != SCHEMA.names or found.num_rows > _MAX_CLIPS:
        raise ValueError(f"{found.num_rows:,} rows of {len(names)} columns")
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    values = sum(group.column(column).num_values for group in groups for column in range(len(names)))
    if max(8 * values, sum(group.total_byte_size for group in groups)) > limit:
        raise ValueError(f"{values:,} values are promised")


def require_index_fits(table: pa.Table, *, rows: int, rows_per_unit: int) -> None:
    """Raise ``ValueError`` unless the clips lie in a cache of so many rows, one after the other, and are named
    as files inside of a folder can be."""
    for name in ("clip", "source", "first_row", "n_frames", "unit"):
        if table.column(name).null_count:
            raise ValueError(f"a clip without {name}")
    for name in ("clip", "source"):
        if pc.any(pc.match_substring_regex(table.column(name), _OUTSIDE)).as_py():
            raise ValueError(f"a {name} that leads out of its folder")
    first, count, unit = (table.column(name).to_numpy() for name in ("first_row", "n_frames", "unit"))
    inside = (first >= 0) & (count >= 0) & (first <= rows) & (count <= rows - first)
    lengths = pc.fill_null(pc.list_value_length(table.column("timestamps")), 0).to_numpy()
    if not (inside.all() and (lengths == count).all() and ((unit >= 0) & (unit < rows // rows_per_unit)).all()):
        raise ValueError("clips that are not where they can be")
    RowMap(table, rows_per_unit=rows_per_unit)


_OUTSIDE = r"^/|(^|/)\.\.(/|$)|[\x00-\x1f\x7f]"


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
