"""Reading a cache: ``open_cache(path).read(column, start, stop)``, the same for both stores.

A reader opens committed units only, takes every length from the receipts, and compares every chunk's crc32c before it
hands anything out. What is missing, failed or damaged is an error that names the file, never zeros.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from frame.pipeline.store import codecs, tar_unit, zarr_unit
from frame.pipeline.store.columns import Column
from frame.pipeline.store.files import CacheError, sha256_bytes
from frame.pipeline.store.index import RowMap, failed_at_plan, read_index, require_index_fits
from frame.pipeline.store.layout import INDEX, MAX_JSON, META, META_COPY, CacheMeta, parse_meta
from frame.pipeline.store.objects import StorePath, side_by_side, store_path
from frame.pipeline.store.packed_places import PackedPlaces, tar_packed, zarr_packed
from frame.pipeline.store.places import Places, open_file, tar_places, zarr_places
from frame.pipeline.store.receipts import Receipt, merge_moments, read_receipt, receipt_path, receipt_units
from frame.pipeline.store.regular import read_small

MAX_INDEX = 4 << 30  # bytes, some thirty times that of the largest data sets
_OPEN_UNITS = 200  # columns of units kept open at most; each holds one file, or two


def open_cache(path: str | StorePath) -> Cache:
    """Open a cache for reading.

    Raises ``CacheError`` when there is none at ``path``, when its metadata are damaged, or of another format version.
    """
    root = store_path(path).expanduser()
    meta_path = root / META
    try:
        data = read_small(meta_path, most=MAX_JSON)
    except (FileNotFoundError, NotADirectoryError):
        raise CacheError(
            what="There is no cache here.",
            where=str(root),
            why=f"{META} is missing" if root.is_dir() else "the folder does not exist",
            fix="`frame-cache build --dataset … --source … --out CACHE` makes one.",
        ) from None
    except OSError as error:
        raise CacheError(
            what="The cache cannot be read.", where=str(meta_path), why=error.strerror or str(error)
        ) from error
    return Cache(root, parse_meta(data, where=meta_path))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Committed:
    """What reading needs of a receipt, small enough to keep for every unit: columns that are there, by the teacher that
    the cache names; the clips that failed in each."""

    columns: frozenset[str]
    failed: dict[str, frozenset[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """One column of one unit, open: where its arrays lie, values first, and a 1 for every row that holds no frame."""

    places: tuple[Places | PackedPlaces, ...]
    gaps: bytes

    def unreadable(self, low: int, high: int) -> bool:
        return self.gaps.find(1, low, high) >= 0


def reopen(path: StorePath) -> Cache:
    """``open_cache`` that does with either copy of ``cache.json``: to find and repair damage, not for readers."""
    try:
        return open_cache(path)
    except CacheError:
        copy = path / META_COPY
        if not copy.is_file():
            raise
        try:
            meta = parse_meta(read_small(copy, most=MAX_JSON), where=copy)
        except (CacheError, OSError):
            meta = None
        if meta is None:
            raise
        return Cache(path, meta)


class Cache:
    """One open cache. Cheap to pickle and safe in forked or spawned workers and threads: it holds no locks and no
    file positions, and a copy opens its own files."""

    def __init__(self, path: StorePath, meta: CacheMeta) -> None:
        self.path = path
        self.meta = meta
        self._reset()

    def _reset(self) -> None:
        self._plan_id = self.meta.plan_id
        self._index: pa.Table | None = None
        self._row_map: RowMap | None = None
        self._commits: dict[int, _Committed] = {}
        self._open_units: dict[tuple[str, int], _Opened] = {}
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Up to a quarter of the descriptors that this process may have (-1: any number).
        self._most_open = max(1, min(_OPEN_UNITS, descriptors // 8)) if descriptors > 0 else _OPEN_UNITS

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
                data = read_small(path, most=MAX_INDEX)
            except FileNotFoundError:
                raise zarr_unit.damaged(path, "the file is missing") from None
            except OSError as error:
                raise zarr_unit.damaged(path, error.strerror or str(error)) from error
            if sha256_bytes(data) != self.meta.index_sha256:
                raise zarr_unit.damaged(path, "its content does not match the checksum in cache.json")
            try:
                table = read_index(data)
                require_index_fits(table, rows=self.meta.rows, rows_per_unit=self.meta.rows_per_unit)
            except ValueError as error:
                raise zarr_unit.damaged(path, f"no program of ours wrote it: {error}") from None
            self._index = table
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
        """The receipt of ``unit`` as it is now, None while it is not committed."""
        return read_receipt(self.path, unit, plan_id=self._plan_id)

    def receipts(self) -> dict[int, Receipt]:
        """The receipts of all committed units, as they are now."""
        expected = set(self.expected_units)
        units = [unit for unit in receipt_units(self.path) if unit in expected]
        found = zip(units, side_by_side(self.path, self.receipt, units), strict=True)
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

    def look_up(self, units: Iterable[int]) -> None:
        """Learn what is committed of these units before asking for each: in an object store, many at the same time."""
        unknown = [unit for unit in units if unit not in self._commits]
        self._commits |= zip(unknown, side_by_side(self.path, self._read_commit, unknown), strict=True)

    def readable(self, column: str, unit: int) -> np.ndarray:
        """Which rows of ``unit`` can be read, bool ``[rows_per_unit]``: those of clips that did not fail."""
        failed = self._committed(column, unit).failed.get(column, frozenset())
        mask = np.zeros(self.meta.rows_per_unit, dtype=bool)
        for part in self.row_map.clips(unit):
            if part.clip not in failed:
                mask[part.start : part.stop] = True
        return mask

    def read(self, column: str, start: int, stop: int) -> np.ndarray:
        """Rows ``[start, stop)`` of a column as ``[stop - start, *shape]``, dequantised: float16, frames uint8.

        Rows are numbered through the whole cache. Raises ``CacheError`` for damage, for units that are not committed,
        and for rows that hold no frame (a unit's unused end, a failed clip); ``IndexError`` outside of the cache.
        """
        wanted = self._column(column)
        if not 0 <= start <= stop <= self.meta.rows:
            raise IndexError(f"rows {start} to {stop} of a cache with {self.meta.rows}")
        size = self.meta.rows_per_unit
        out = np.empty((0, *wanted.shape), dtype=wanted.dtype)
        for unit in range(start // size, -(-stop // size)):
            first = unit * size
            low, high = max(start, first), min(stop, first + size)
            if low < high:
                opened = self._frames(column, unit, low - first, high - first)
                if not len(out):  # only now: a file that is open has the length of such rows
                    out = np.empty((stop - start, *wanted.shape), dtype=wanted.dtype)
                self._read_unit(wanted, opened, low - first, high - first, out[low - start : high - start])
        return out

    def read_arrays(self, column: str, unit: int, low: int, high: int) -> dict[str, np.ndarray]:
        """Unit rows ``[low, high)`` of a column as they are stored, by array name."""
        opened = self._frames(column, unit, low, high)
        return {place.spec.name: place.read(low, high) for place in opened.places}

    def require_places(self, column: str, receipt: Receipt) -> None:
        """Raise ``CacheError`` where a unit's rows cannot all be where its receipt and files say."""
        self._open_places(self._column(column), receipt.unit, receipt)

    def _frames(self, column: str, unit: int, low: int, high: int) -> _Opened:
        """The open column of the unit, in which unit rows ``[low, high)`` hold frames."""
        opened = self._opened(column, unit)
        if opened.unreadable(low, high):
            raise self._no_frame(column, unit, low, high)
        return opened

    @staticmethod
    def _read_unit(column: Column, opened: _Opened, low: int, high: int, out: np.ndarray) -> None:
        if column.encoding == "int8":
            values, scale = (place.read(low, high) for place in opened.places)
            codecs.dequantise(values, scale, out)
        elif isinstance(first := opened.places[0], PackedPlaces):
            assert column.steps is not None
            codecs.unpack_into(first.parts(low, high), column.steps, out)
        else:
            first.read_into(low, high, out)

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

    def _committed(self, column: str, unit: int) -> _Committed:
        commit = self._commits.get(unit)
        if commit is None or column not in commit.columns:  # a build may commit it at any moment
            commit = self._commits[unit] = self._read_commit(unit)
        if column not in commit.columns:
            raise CacheError(
                what=f"Unit {unit} of column {column!r} is not committed.",
                where=str(self.path),
                why="the build has not come that far, or its receipt was removed",
                fix="`frame-cache build CACHE` makes what is missing.",
            )
        return commit

    def _read_commit(self, unit: int) -> _Committed:
        receipt = self.receipt(unit)
        if receipt is None:
            return _Committed(columns=frozenset(), failed={})
        failed: dict[str, set[str]] = {}
        for clip, failure in receipt.failed.items():
            for column in failure.columns:
                failed.setdefault(column, set()).add(clip)
        made = receipt.columns.items()
        teachers = {name: self.meta.teacher_id(name) for name in self.meta.columns}
        return _Committed(
            columns=frozenset(name for name, entry in made if entry.teacher == teachers.get(name)),
            failed={column: frozenset(clips) for column, clips in failed.items()},
        )

    def _no_frame(self, column: str, unit: int, low: int, high: int) -> CacheError:
        """The error for unit rows ``[low, high)``, of which some cannot be read."""
        row = int(low + np.argmin(self.readable(column, unit)[low:high]))
        owner = next((part for part in self.row_map.clips(unit) if part.start <= row < part.stop), None)
        receipt = self.receipt(unit)
        failure = receipt.failed.get(owner.clip) if owner and receipt else None
        return CacheError(
            what=f"Row {unit * self.meta.rows_per_unit + row} of column {column!r} holds no frame.",
            where=str(self.path),
            why=f"clip {owner.clip!r} failed: {failure.reason}: {failure.detail}"
            if owner and failure
            else "it is an unused row at the end of a unit",
            fix="Take rows from `index` (first_row, n_frames), and leave out the clips that `failed()` names.",
        )

    def _opened(self, column: str, unit: int) -> _Opened:
        # Other threads may add and evict entries between any two lines here: nothing is looked up twice.
        key = (column, unit)
        opened = self._open_units.get(key)
        if opened is None:
            mask = self.readable(column, unit)
            opened = _Opened(
                places=self._open_places(self._column(column), unit, self.receipt(unit)), gaps=(~mask).tobytes()
            )
            self._open_units[key] = opened
            while len(self._open_units) > self._most_open:
                self._open_units.pop(next(iter(list(self._open_units)), key), None)
        return opened

    def _open_places(self, column: Column, unit: int, receipt: Receipt | None) -> tuple[Places | PackedPlaces, ...]:
        size = self.meta.rows_per_unit
        files = receipt.files if receipt else {}
        zarr = self.meta.store == "zarr"
        found: list[Places | PackedPlaces] = []
        for spec in column.arrays(size):
            name = zarr_unit.shard_name(spec, unit) if zarr else tar_unit.shard_name(unit, column.part)
            if name not in files:
                raise zarr_unit.damaged(receipt_path(self.path, unit), f"it does not name {name}")
            file = open_file(self.path / name, expected_bytes=files[name].bytes)
            if spec.steps:
                packed = zarr_packed if zarr else tar_packed
                found.append(packed(file, spec, files[name], rows_per_unit=size))
            else:
                places = zarr_places if zarr else tar_places
                found.append(places(file, spec, files[name], rows_per_unit=size))
        return tuple(found)
