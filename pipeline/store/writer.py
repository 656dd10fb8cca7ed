"""Writing: a new cache's metadata, and one whole unit at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from frame.pipeline.store import tar_unit, zarr_unit
from frame.pipeline.store.columns import ArraySpec, Column
from frame.pipeline.store.files import CacheError, ensure_durable, exclusive, see_again, sha256_bytes, write_durable
from frame.pipeline.store.index import RowMap
from frame.pipeline.store.layout import INDEX, META, META_COPY, CacheMeta
from frame.pipeline.store.object_writer import put_metadata, put_receipt
from frame.pipeline.store.objects import ObjectPath, StorePath
from frame.pipeline.store.receipts import (
    ColumnEntry,
    Failure,
    FileEntry,
    Receipt,
    read_receipt,
    receipt_path,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitData:
    """What a build hands over for one unit.

    ``rows`` int64 ``[n]``, increasing: the unit rows that have values. ``values``: array name -> ``[n, ...]``.
    ``loss`` and ``moments``: per column, as receipts keep them. ``failed``: every clip of the unit without rows.
    """

    unit: int
    rows: np.ndarray
    values: Mapping[str, np.ndarray]
    loss: Mapping[str, dict[str, float]]
    moments: Mapping[str, dict[str, Any]]
    failed: Mapping[str, tuple[str, str]]
    software: Mapping[str, dict[str, str]]


def with_metadata(meta: CacheMeta) -> tuple[CacheMeta, dict[str, bytes]]:
    """``meta`` knowing the digests of the Zarr metadata files, and those files' contents."""
    if meta.store == "webdataset":
        return replace(meta, metadata={}), {}
    files = {"zarr.json": zarr_unit.group_metadata()}
    for name, spec in meta.arrays().items():
        files[f"{name}/zarr.json"] = zarr_unit.array_metadata(spec, rows=meta.rows, rows_per_unit=meta.rows_per_unit)
    return replace(meta, metadata={name: sha256_bytes(data) for name, data in files.items()}), files


def write_metadata(cache: StorePath, meta: CacheMeta, files: Mapping[str, bytes], index: bytes, *, tmp: Path) -> None:
    """Write the index, the Zarr metadata and, last, ``cache.json``: with it the cache exists.

    Files that already hold what they should are not touched.
    """
    if isinstance(cache, ObjectPath):
        put_metadata(cache, meta, files, index)
        return
    data = meta.to_bytes()
    for name, content in [*files.items(), (INDEX, index), (META_COPY, data), (META, data)]:
        ensure_durable(cache / name, content, tmp=tmp)


def commit_unit(cache: StorePath, meta: CacheMeta, index: pa.Table, data: UnitData, *, tmp: Path) -> Receipt:
    """Write a unit's files, then its receipt. Columns that the receipt already commits and ``data`` lacks are kept."""
    columns = _columns_of(meta, data)
    _require_whole_clips(meta, index, data)
    files = dict(_write_files(cache, meta, index, data, columns, tmp=tmp))
    made = _new_receipt(meta, data, columns, files)
    if isinstance(cache, ObjectPath):
        return put_receipt(cache, meta, data.unit, lambda old: _merge(old, made))
    with exclusive(cache):  # another build may be adding other columns to the same receipt
        receipt = _merge(_previous(cache, meta, data.unit), made)
        write_durable(receipt_path(cache, data.unit), receipt.to_bytes(), tmp=tmp)
    return receipt


def _columns_of(meta: CacheMeta, data: UnitData) -> list[Column]:
    columns = [column for name, column in meta.columns.items() if name in data.values]
    wanted = {spec.name: spec for column in columns for spec in column.arrays(meta.rows_per_unit)}
    if wanted.keys() != data.values.keys():
        raise AssertionError(f"unit {data.unit} brings arrays {sorted(data.values)}, the plan has {sorted(wanted)}")
    for name, spec in wanted.items():
        values = data.values[name]
        if values.shape != (len(data.rows), *spec.shape) or values.dtype != spec.dtype:
            raise AssertionError(f"{name}: {values.shape} {values.dtype}, expected {spec}")
    return columns


def _require_whole_clips(meta: CacheMeta, index: pa.Table, data: UnitData) -> None:
    parts = RowMap(index, rows_per_unit=meta.rows_per_unit).clips(data.unit)
    kept = [np.arange(part.start, part.stop) for part in parts if part.clip not in data.failed]
    if not np.array_equal(data.rows, np.concatenate([np.empty(0, np.int64), *kept])):
        raise AssertionError(f"unit {data.unit}: its rows are not those of the clips that did not fail")


def _write_files(
    cache: StorePath, meta: CacheMeta, index: pa.Table, data: UnitData, columns: list[Column], *, tmp: Path
) -> Iterator[tuple[str, FileEntry]]:
    if meta.store == "zarr":
        for column in columns:
            for spec in column.arrays(meta.rows_per_unit):
                shard = zarr_unit.encode_shard(
                    spec, data.rows, data.values[spec.name], rows_per_unit=meta.rows_per_unit
                )
                checks = zarr_unit.chunk_checks(spec, shard, rows_per_unit=meta.rows_per_unit)
                members = {spec.name: [[0, 0, len(shard), checks]]}
                yield _write(cache, zarr_unit.shard_name(spec, data.unit), shard, (column.name,), members, tmp=tmp)
        return
    for part in sorted({column.part for column in columns}):
        inside = [column for column in meta.columns.values() if column.part == part]
        if missing := {column.name for column in inside} - {column.name for column in columns}:
            raise AssertionError(f"unit {data.unit}: {sorted(missing)} lie in the same tar file and would be lost")
        specs = [spec for column in inside for spec in column.arrays(meta.rows_per_unit)]
        tar, members = tar_unit.encode_tar(_samples(meta, index, data, specs))
        kept = tuple(sorted(column.name for column in inside))
        yield _write(cache, tar_unit.shard_name(data.unit, part), tar, kept, members, tmp=tmp)


def _write(
    cache: StorePath, name: str, content: bytes | memoryview, columns: tuple[str, ...], members: Any, *, tmp: Path
) -> tuple[str, FileEntry]:
    write_durable(cache / name, content, tmp=tmp)
    entry = FileEntry(bytes=len(content), sha256=sha256_bytes(content), columns=columns, members=members)
    return name, entry


def _samples(meta: CacheMeta, index: pa.Table, data: UnitData, specs: list[ArraySpec]) -> Iterator[tar_unit.Sample]:
    """The unit's rows, a sample a clip."""
    packed = {spec.name: spec.chunk_rows for spec in specs if spec.steps}
    for part in RowMap(index, rows_per_unit=meta.rows_per_unit).clips(data.unit):
        if part.clip in data.failed:
            continue
        count = part.stop - part.start
        low = int(np.searchsorted(data.rows, part.start))
        high = low + count
        clip = index.slice(part.position, 1).to_pylist()[0]
        info = {key: clip[key] for key in ("clip", "source", "split", "label", "fps")}
        info |= {"first_frame": part.first_frame, "n_frames": count, "clip_frames": clip["n_frames"]}
        info["timestamps"] = clip["timestamps"][part.first_frame : part.first_frame + count]
        values = {spec.name: data.values[spec.name][low:high] for spec in specs}
        yield tar_unit.Sample(key=part.clip, first_row=part.start, info=info, arrays=values, packed=packed)


def _new_receipt(meta: CacheMeta, data: UnitData, columns: list[Column], files: dict[str, FileEntry]) -> Receipt:
    names = tuple(sorted(column.name for column in columns))
    return Receipt(
        unit=data.unit,
        plan_id=meta.plan_id,
        files=files,
        columns={
            name: ColumnEntry(
                rows=len(data.rows),
                teacher=meta.teacher_id(name),
                loss=_loss(meta.columns[name], data, files),
                moments=data.moments.get(name),
                software=dict(data.software[name]),
            )
            for name in names
        },
        failed={
            clip: Failure(reason=reason, detail=detail, columns=names)
            for clip, (reason, detail) in sorted(data.failed.items())
        },
    )


def _loss(column: Column, data: UnitData, files: Mapping[str, FileEntry]) -> dict[str, float] | None:
    """The loss that was measured, and what it bought: ``bits`` a value, of packed ones as they lie in the files."""
    loss, values = data.loss.get(column.name), math.prod(column.shape)
    if not loss or not len(data.rows):
        return loss
    if column.steps is None:
        return {**loss, "bits": 8 * column.row_bytes / values}
    places = [place for entry in files.values() for place in entry.members.get(column.name, [])]
    return {**loss, "bits": 8 * sum(length for _, _, length, _ in places) / (len(data.rows) * values)}


def _previous(cache: StorePath, meta: CacheMeta, unit: int) -> Receipt | None:
    for _ in range(2):  # what a network file system's client remembers is not worth the columns of another build
        see_again(receipt_path(cache, unit).parent)
        with suppress(CacheError):  # a damaged receipt commits nothing; its columns are made again
            if (receipt := read_receipt(cache, unit, plan_id=meta.plan_id)) is not None:
                return receipt
    return None


def _merge(old: Receipt | None, new: Receipt) -> Receipt:
    """``new``, and of ``old`` whatever belongs to columns that ``new`` does not bring."""
    if old is None:
        return new
    made = set(new.columns)
    files = {name: entry for name, entry in old.files.items() if not made & set(entry.columns)}
    failed = dict(new.failed)
    for clip, failure in old.failed.items():
        others = tuple(name for name in failure.columns if name not in made)
        if others:
            mine = failed.get(clip)
            failed[clip] = replace(failure, columns=tuple(sorted({*others, *(mine.columns if mine else ())})))
    return Receipt(
        unit=new.unit,
        plan_id=new.plan_id,
        files=dict(sorted({**files, **new.files}.items())),
        columns=dict(sorted({**old.columns, **new.columns}.items())),
        failed=dict(sorted(failed.items())),
    )
