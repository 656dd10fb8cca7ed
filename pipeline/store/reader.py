"""Reading a cache: ``open_cache(path).read(column, start, stop)``, the same for both stores.

A reader opens committed units only, takes every length from the receipts, and compares every chunk's crc32c before it
hands anything out. What is missing, failed or damaged is an error that names the file, never zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from frame.pipeline.store import codecs, tar_unit, zarr_unit
from frame.pipeline.store.files import CacheError, sha256_bytes
from frame.pipeline.store.index import RowMap, failed_at_plan, read_index
from frame.pipeline.store.layout import INDEX, META, ArraySpec, CacheMeta, Column, parse_meta
from frame.pipeline.store.places import OpenFile, Places, tar_places, zarr_places
from frame.pipeline.store.receipts import Receipt, merge_moments, read_receipt, receipt_units

_OPEN_PLACES = 256  # shards kept open; at the usual limit of 1,024 descriptors this leaves room for others


def open_cache(path: str | Path) -> Cache:
    """Open a cache for reading.

    Raises ``CacheError`` when there is none at ``path``, when its metadata are damaged, or of another format version.
    """
    root = Path(path)
    meta_path = root / META
    try:
        data = meta_path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CacheError(
            what="There is no cache here.",
            where=str(root),
            why=f"{META} is missing" if root.is_dir() else "the folder does not exist",
            fix="`frame-cache build --dataset … --source … --out CACHE` makes one.",
        ) from None
    return Cache(root, parse_meta(data, where=meta_path))


class Cache:
    """One open cache. Cheap to pickle and safe in forked or spawned workers and threads: it holds no locks and no
    file positions, and a copy opens its own files."""

    def __init__(self, path: Path, meta: CacheMeta) -> None:
        self.path = path
        self.meta = meta
        self._reset()

    def _reset(self) -> None:
        self._index: pa.Table | None = None
        self._row_map: RowMap | None = None
        self._receipts: dict[int, Receipt] = {}
        self._files: dict[str, OpenFile] = {}
        self._places: dict[tuple[str, int], Places] = {}
        self._readable: dict[tuple[str, int], np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "meta": self.meta}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.meta = state["path"], state["meta"]
        self._reset()

    @property
    def columns(self) -> dict[str, Column]:
        """Columns by name: the teachers' targets, and ``frames``."""
        return self.meta.columns

    @property
    def units(self) -> int:
        """Number of units planned; ``receipts()`` tells which of them are committed."""
        return self.meta.units

    @property
    def expected_units(self) -> list[int]:
        """Units that this cache is meant to have: all, or those that a partial export took."""
        chosen = self.meta.build.get("units")
        return list(range(self.units)) if chosen is None else list(chosen)

    @property
    def index(self) -> pa.Table:
        """A row a clip (see ``frame.pipeline.store.index``). Raises ``CacheError`` when the file is damaged."""
        if self._index is None:
            path = self.path / INDEX
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise zarr_unit.damaged(path, "the file is missing") from None
            if sha256_bytes(data) != self.meta.index_sha256:
                raise zarr_unit.damaged(path, "its content does not match the checksum in cache.json")
            self._index = read_index(data)
        return self._index

    @property
    def row_map(self) -> RowMap:
        """Which clip owns a row."""
        if self._row_map is None:
            self._row_map = RowMap(self.index, rows_per_unit=self.meta.rows_per_unit)
        return self._row_map

    def planned_rows(self, unit: int) -> int:
        """Rows of ``unit`` that belong to clips, whether they failed since or not."""
        return sum(part.stop - part.start for part in self.row_map.clips(unit))

    def receipt(self, unit: int) -> Receipt | None:
        """The receipt of ``unit``, None while it is not committed."""
        if unit not in self._receipts:
            receipt = read_receipt(self.path, unit, plan_id=self.meta.plan_id)
            if receipt is None:
                return None  # not remembered: a build may commit it at any moment
            self._receipts[unit] = receipt
        return self._receipts[unit]

    def receipts(self) -> dict[int, Receipt]:
        """The receipts of all committed units."""
        found = ((unit, self.receipt(unit)) for unit in receipt_units(self.path))
        return {unit: receipt for unit, receipt in found if receipt is not None}

    def failed(self) -> dict[str, tuple[str, str]]:
        """Clips that failed, with reason and detail: when they were probed, or in a committed unit."""
        found: dict[str, tuple[str, str]] = {}
        for position in np.flatnonzero(self.index.column("n_frames").to_numpy() == 0):
            found[self.index.column("clip")[int(position)].as_py()] = failed_at_plan(self.index, int(position))
        for receipt in self.receipts().values():
            found |= {clip: (failure.reason, failure.detail) for clip, failure in receipt.failed.items()}
        return dict(sorted(found.items()))

    def stats(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every channel over all committed tokens, float32 ``[width]`` each."""
        width = self._column(column).shape[-1]
        entries = [receipt.columns.get(column) for _, receipt in sorted(self.receipts().items())]
        parts = [entry.moments for entry in entries if entry is not None and entry.moments is not None]
        _, mean, variance = merge_moments(parts, width)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def readable(self, column: str, unit: int) -> np.ndarray:
        """Which rows of ``unit`` can be read, bool ``[rows_per_unit]``: those of clips that did not fail."""
        key = (column, unit)
        if key not in self._readable:
            receipt = self._committed(column, unit)
            mask = np.zeros(self.meta.rows_per_unit, dtype=bool)
            for part in self.row_map.clips(unit):
                failure = receipt.failed.get(part.clip)
                if failure is None or column not in failure.columns:
                    mask[part.start : part.stop] = True
            self._readable[key] = mask
        return self._readable[key]

    def read(self, column: str, start: int, stop: int) -> np.ndarray:
        """Rows ``[start, stop)`` of a column as ``[stop - start, *shape]``, dequantised: float16, frames uint8.

        Rows are numbered through the whole cache. Raises ``CacheError`` for damage, for units that are not committed,
        and for rows that hold no frame (a unit's unused end, a failed clip); ``IndexError`` outside of the cache.
        """
        wanted = self._column(column)
        if not 0 <= start <= stop <= self.meta.rows:
            raise IndexError(f"rows {start} to {stop} of a cache with {self.meta.rows}")
        size = self.meta.rows_per_unit
        pieces = []
        for unit in range(start // size, -(-stop // size)):
            low, high = max(start - unit * size, 0), min(stop - unit * size, size)
            if low < high:
                pieces.append(self._read_unit(wanted, unit, low, high))
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty((0, *wanted.shape), dtype=wanted.dtype)

    def read_arrays(self, column: str, unit: int, low: int, high: int) -> dict[str, np.ndarray]:
        """Unit rows ``[low, high)`` of a column as they are stored, by array name."""
        self._require_rows(column, unit, low, high)
        specs = self._column(column).arrays(self.meta.rows_per_unit)
        return {spec.name: self._place(spec, column, unit).read(low, high) for spec in specs}

    def _read_unit(self, column: Column, unit: int, low: int, high: int) -> np.ndarray:
        return codecs.decode(column, self.read_arrays(column.name, unit, low, high))

    def _column(self, name: str) -> Column:
        try:
            return self.meta.columns[name]
        except KeyError:
            raise CacheError(
                what=f"The cache has no column {name!r}.",
                where=str(self.path),
                why=f"it has {', '.join(sorted(self.meta.columns))}",
                fix="`frame-cache build CACHE --teachers NAME` adds a teacher's columns.",
            ) from None

    def _committed(self, column: str, unit: int) -> Receipt:
        receipt = self.receipt(unit)
        if receipt is None or column not in receipt.columns:
            # It may have been committed after this cache was opened.
            self._receipts.pop(unit, None)
            receipt = self.receipt(unit)
        entry = receipt.columns.get(column) if receipt else None
        if receipt is None or entry is None or entry.teacher != self.meta.teacher_id(column):
            raise CacheError(
                what=f"Unit {unit} of column {column!r} is not committed.",
                where=str(self.path),
                why="the build has not come that far, or its receipt was removed",
                fix="`frame-cache build CACHE` makes what is missing.",
            )
        return receipt

    def _require_rows(self, column: str, unit: int, low: int, high: int) -> None:
        mask = self.readable(column, unit)
        if mask[low:high].all():
            return
        row = int(low + np.argmin(mask[low:high]))
        owner = next((part for part in self.row_map.clips(unit) if part.start <= row < part.stop), None)
        failure = self._committed(column, unit).failed.get(owner.clip) if owner else None
        raise CacheError(
            what=f"Row {unit * self.meta.rows_per_unit + row} of column {column!r} holds no frame.",
            where=str(self.path),
            why=f"clip {owner.clip!r} failed: {failure.reason}: {failure.detail}"
            if owner and failure
            else "it is an unused row at the end of a unit",
            fix="Take rows from `index` (first_row, n_frames), and leave out the clips that `failed()` names.",
        )

    def _place(self, spec: ArraySpec, column: str, unit: int) -> Places:
        key = (spec.name, unit)
        if key not in self._places:
            if len(self._places) >= _OPEN_PLACES:
                self._places.pop(next(iter(self._places), key), None)
                self._files.clear()  # files still in use stay open: their places hold them
            self._places[key] = self._open_place(spec, column, unit)
        return self._places[key]

    def _open_place(self, spec: ArraySpec, column: str, unit: int) -> Places:
        receipt = self._committed(column, unit)
        zarr = self.meta.store == "zarr"
        part = self.meta.columns[column].part
        name = zarr_unit.shard_name(spec, unit) if zarr else tar_unit.shard_name(unit, part)
        entry = receipt.files.get(name)
        if entry is None:
            raise zarr_unit.damaged(self.path / name, "its unit's receipt does not name it")
        if name not in self._files:
            self._files[name] = OpenFile(self.path / name, expected_bytes=entry.bytes)
        size = self.meta.rows_per_unit
        if zarr:
            return zarr_places(self._files[name], spec, rows_per_unit=size, size=entry.bytes)
        return tar_places(self._files[name], spec, entry, rows_per_unit=size)
