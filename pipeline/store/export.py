"""Copying a cache, or a part of it, into either store. What is read is checked, and stored values are copied as they
are, never encoded again: a cache exported to the other store and back is the same, byte for byte.

A copy is one whole: columns that were added later, and lie in tar files of their own, join the others. In tar files a
clip that failed in some of the columns is left out of all of them, because a sample has all of its files or is none;
into Zarr every column goes with the clips it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from frame.pipeline.store.card import write_card
from frame.pipeline.store.codecs import decode
from frame.pipeline.store.files import TMP, CacheError, disk_error, make_root, writer_folder
from frame.pipeline.store.layout import INDEX, META, META_COPY, CacheMeta, StoreKind
from frame.pipeline.store.objects import StorePath, names_below
from frame.pipeline.store.reader import Cache, open_cache
from frame.pipeline.store.receipts import Receipt, moments_of
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.verify import check_units
from frame.pipeline.store.writer import UnitData, commit_unit, with_metadata, write_metadata


def export(
    source: Cache,
    destination: StorePath,
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
    return copy_units(source, destination, chosen_meta(source, to, units, columns), tick=tick)


def copy_units(
    source: Cache,
    destination: StorePath,
    meta: CacheMeta,
    *,
    change: Callable[[UnitData], UnitData] = lambda data: data,
    tick: Callable[[], None] = lambda: None,
) -> Cache:
    """Make ``destination`` the cache ``meta`` out of the units of ``source``, each changed by ``change`` on the way.

    Goes on where it stopped before; raises as ``export`` does.
    """
    _ = source.index  # compared with its checksum, and so is what is copied
    index = (source.path / INDEX).read_bytes()
    return write_copy(
        destination, meta, index, lambda meta, unit: map(change, _read_unit(source, meta, unit)), tick=tick
    )


def write_copy(
    destination: StorePath,
    meta: CacheMeta,
    index: bytes,
    read: Callable[[CacheMeta, int], Iterable[UnitData]],
    *,
    tick: Callable[[], None] = lambda: None,
) -> Cache:
    """Make ``destination`` the cache ``meta`` with this ``index`` file, of the units that ``read`` gives.

    Goes on where it stopped before; raises as ``export`` does.
    """
    meta, files = with_metadata(meta)
    _require_place(destination, meta, {**files, INDEX: index})
    try:
        make_root(destination)
    except OSError as error:
        raise disk_error(error, destination) from error
    with writer_folder(destination) as tmp:
        write_metadata(destination, meta, files, index, tmp=tmp)
        copy = open_cache(destination)
        states = check_units(copy, copy.expected_units, deep=True)
        for state in states:
            if state.problems:
                for data in read(meta, state.unit):
                    commit_unit(destination, meta, copy.index, data, tmp=tmp)
            tick()
        write_statistics(copy, tmp=tmp)
        write_card(copy, tmp=tmp)
    return open_cache(destination)


def chosen_meta(source: Cache, to: StoreKind, units: Sequence[int] | None, columns: Sequence[str] | None) -> CacheMeta:
    """The metadata of a copy of these ``units`` and ``columns`` in the store ``to``."""
    chosen = list(source.columns) if columns is None else list(columns)
    wrong = [f"There is no column {name!r}." for name in chosen if name not in source.columns]
    wrong += [f"There is no unit {unit}." for unit in units or () if unit not in source.expected_units]
    if not chosen or (units is not None and not units):
        wrong.append("Nothing is chosen for export.")
    if wrong:
        raise CacheError(
            what=wrong[0],
            where=str(source.path),
            why=f"it has columns {', '.join(source.columns)}; {len(source.expected_units)} units",
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


def _require_place(destination: StorePath, meta: CacheMeta, files: Mapping[str, bytes]) -> None:
    """Raise ``CacheError`` unless ``destination`` is new, empty, or holds this very export, however little of it."""
    if (destination / META).exists():
        if open_cache(destination).meta != meta:
            raise CacheError(
                what="The destination holds another cache.",
                where=str(destination),
                why="its plan, columns, encoding or store differ from what would be written here",
                fix="Give a new folder.",
            )
        return
    if destination.exists() and not destination.is_dir():
        raise CacheError(what="The destination is a file.", where=str(destination), fix="Give a new folder.")
    ours = {**files, META_COPY: meta.to_bytes()}
    for name in names_below(destination):
        if not name.startswith(f"{TMP}/") and not _holds(destination / name, ours.get(name)):
            raise CacheError(
                what="The destination is not empty.",
                where=str(destination),
                why=f"it holds {name}, which is not of this copy",
                fix="Give a new folder.",
            )


def _holds(path: StorePath, content: bytes | None) -> bool:
    return content is not None and path.stat().st_size == len(content) and path.read_bytes() == content


def _read_unit(source: Cache, meta: CacheMeta, unit: int) -> list[UnitData]:
    """A unit's stored values, as they are: columns that lack the same clips together, for tar files all of them."""
    receipt = _receipt(source, unit)
    masks = {name: source.readable(name, unit) for name in meta.columns}
    if meta.store == "webdataset":
        common = np.logical_and.reduce(list(masks.values()))
        return [_read_columns(source, meta, receipt, list(masks), common)]
    alike: dict[bytes, list[str]] = {}
    for name, mask in masks.items():
        alike.setdefault(mask.tobytes(), []).append(name)
    return [_read_columns(source, meta, receipt, names, masks[names[0]]) for names in alike.values()]


def _read_columns(source: Cache, meta: CacheMeta, receipt: Receipt, names: list[str], mask: np.ndarray) -> UnitData:
    rows = np.flatnonzero(mask)
    values: dict[str, np.ndarray] = {}
    for name in names:
        runs = [source.read_arrays(name, receipt.unit, low, high) for low, high in _runs(rows)]
        for spec in source.columns[name].arrays(meta.rows_per_unit):
            empty = np.empty((0, *spec.shape), dtype=spec.dtype)
            values[spec.name] = np.concatenate([empty, *(run[spec.name] for run in runs)])
    entries = {name: receipt.columns[name] for name in names}
    found: dict[str, Any] = {
        key: {name: value for name, entry in entries.items() if (value := getattr(entry, key)) is not None}
        for key in ("loss", "moments", "software")
    }
    for name, entry in entries.items():
        if entry.rows != len(rows) and name in found["moments"]:  # the statistics are of the rows that are there
            found["moments"][name] = moments_of(decode(source.columns[name], values))
    failed = {
        clip: (failure.reason, failure.detail)
        for clip, failure in receipt.failed.items()
        if set(failure.columns) & set(names)
    }
    return UnitData(unit=receipt.unit, rows=rows, values=values, failed=failed, **found)


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
