"""Copying a cache, or a part of it, into either store. What is read is checked, and stored values are copied as they
are, never encoded again: a cache exported to the other store and back is the same, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from frame.pipeline.store.files import CacheError, writer_folder
from frame.pipeline.store.layout import INDEX, META, CacheMeta, StoreKind
from frame.pipeline.store.reader import Cache, open_cache
from frame.pipeline.store.receipts import Receipt
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.verify import check_units
from frame.pipeline.store.writer import UnitData, commit_unit, with_metadata, write_metadata


def export(
    source: Cache,
    destination: Path,
    *,
    to: StoreKind,
    units: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Cache:
    """Copy ``units`` (default: all) and ``columns`` (default: all) of ``source`` to ``destination``.

    Goes on where an earlier export to the same place stopped. Raises ``CacheError`` where ``destination`` holds
    something else, a unit is not committed, or anything in ``source`` is damaged.
    """
    meta, files = with_metadata(_meta(source, to, units, columns))
    _require_place(destination, meta)
    destination.mkdir(parents=True, exist_ok=True)
    with writer_folder(destination) as tmp:
        write_metadata(destination, meta, files, (source.path / INDEX).read_bytes(), tmp=tmp)
        copy = open_cache(destination)
        states = check_units(copy, copy.expected_units, deep=True)
        for state in states:
            if state.problems:
                commit_unit(destination, meta, source.index, _read_unit(source, meta, state.unit), tmp=tmp)
            tick()
        write_statistics(copy, tmp=tmp)
    return open_cache(destination)


def _meta(source: Cache, to: StoreKind, units: Sequence[int] | None, columns: Sequence[str] | None) -> CacheMeta:
    chosen = list(source.columns) if columns is None else list(columns)
    unknown = [name for name in chosen if name not in source.columns]
    outside = [unit for unit in units or () if unit not in source.expected_units]
    if unknown or outside or not chosen:
        raise CacheError(
            what=f"The cache has no {'column ' + unknown[0] if unknown else f'unit {outside[0]}' if outside else 'such columns'}.",
            where=str(source.path),
            why=f"columns {', '.join(source.columns)}; units 0 to {source.units - 1}",
        )
    kept = {name: replace(column, part="") for name, column in source.columns.items() if name in chosen}
    teachers = {column.teacher for column in kept.values()}
    build = dict(source.meta.build)
    if units is not None and set(units) != set(range(source.units)):
        build["units"] = sorted(set(units))
    return replace(
        source.meta,
        store=to,
        build=build,
        columns=kept,
        teachers={name: record for name, record in source.meta.teachers.items() if name in teachers},
    )


def _require_place(destination: Path, meta: CacheMeta) -> None:
    if (destination / META).exists():
        if open_cache(destination).meta != meta:
            raise CacheError(
                what="The destination holds another cache.",
                where=str(destination),
                why="its plan, columns or store differ from what this export would write",
                fix="Give a new folder.",
            )
    elif destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CacheError(what="The destination is not empty.", where=str(destination), fix="Give a new folder.")


def _read_unit(source: Cache, meta: CacheMeta, unit: int) -> UnitData:
    """A unit's stored values, as they are. A clip that failed in one of the columns is left out of all of them."""
    receipt = _receipt(source, unit)
    mask = np.ones(meta.rows_per_unit, dtype=bool)
    for name in meta.columns:
        mask &= source.readable(name, unit)
    rows = np.flatnonzero(mask)
    values: dict[str, np.ndarray] = {}
    for name, column in meta.columns.items():
        runs = [source.read_arrays(name, unit, low, high) for low, high in _runs(rows)]
        for spec in column.arrays(meta.rows_per_unit):
            empty = np.empty((0, *spec.shape), dtype=spec.dtype)
            values[spec.name] = np.concatenate([empty, *(run[spec.name] for run in runs)])
    entries = {name: receipt.columns[name] for name in meta.columns}
    found: dict[str, Any] = {
        key: {name: value for name, entry in entries.items() if (value := getattr(entry, key)) is not None}
        for key in ("loss", "moments", "software")
    }
    failed = {
        clip: (failure.reason, failure.detail)
        for clip, failure in receipt.failed.items()
        if set(failure.columns) & set(meta.columns)
    }
    return UnitData(unit=unit, rows=rows, values=values, failed=failed, **found)


def _receipt(source: Cache, unit: int) -> Receipt:
    receipt = source.receipt(unit)
    if receipt is None:
        raise CacheError(
            what=f"Unit {unit} is not committed, so it cannot be exported.",
            where=str(source.path),
            fix=f"`frame-cache build {source.path}` completes the cache, or choose other units with --units.",
        )
    return receipt


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Contiguous ranges of increasing row numbers."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, breaks)]
