"""Clips packed anew into units: chosen ones of a cache, a cache in units of another length, clips of several caches.

Stored values are copied as they are, never encoded again: float16 and int8 are the same bits, and so are the levels of
a ``residual`` column, whose differences in time are exact wherever a chunk begins. What a receipt says of a unit holds
for a copy that has just the same rows; otherwise moments are computed from the values, and the loss is that of the
units that the rows were taken from: their mean, weighted by rows, and their worst.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from frame.manifests.errors import InputError
from frame.pipeline.store.codecs import decode
from frame.pipeline.store.columns import Column
from frame.pipeline.store.export import chosen_meta, write_copy
from frame.pipeline.store.files import CacheError, sha256_bytes
from frame.pipeline.store.index import ClipRows, RowMap, failed_at_plan, index_bytes, lay_out
from frame.pipeline.store.layout import CacheMeta, StoreKind
from frame.pipeline.store.objects import StorePath
from frame.pipeline.store.reader import Cache
from frame.pipeline.store.receipts import ColumnEntry, merge_moments, moments_of
from frame.pipeline.store.shelves import Home, Piece, Shelf, Stretch, locate
from frame.pipeline.store.totals import is_loss
from frame.pipeline.store.writer import UnitData

_NAMED = 5  # of many, on one screen


@dataclass(frozen=True, kw_only=True)
class Packing:
    """A cache that is to be made of clips that lie in others: its metadata (without the digests of Zarr's), its index,
    and for every clip of it the places that it lies in."""

    meta: CacheMeta
    index: pa.Table
    index_file: bytes
    homes: Sequence[tuple[Home, ...]]

    @cached_property
    def row_map(self) -> RowMap:
        """Which clip owns a row of the new cache."""
        return RowMap(self.index, rows_per_unit=self.meta.rows_per_unit)

    @property
    def units(self) -> list[int]:
        """The units that the new cache is meant to have."""
        chosen = self.meta.build.get("units")
        return list(range(self.meta.units)) if chosen is None else list(chosen)

    def piece(self, part: ClipRows, column: str) -> Piece | None:
        """Where the part of a clip that goes into one unit comes from; None where not all of it is committed."""
        low = part.first_frame
        return locate(self.homes[part.position], part.clip, column, low, low + part.stop - part.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What does not go into a new cache. ``missing``: column -> clips of which some frame is committed nowhere.
    ``lost``: clip -> its frames that are there, but share a new unit with frames of it that failed: a clip is in a unit
    whole or not at all."""

    missing: dict[str, tuple[str, ...]]
    lost: dict[str, int]


def survey(packing: Packing) -> Survey:
    """Look at every clip of every new unit."""
    missing: dict[str, dict[str, None]] = {}
    lost: dict[str, int] = {}
    for unit in packing.units:
        for part in packing.row_map.clips(unit):
            frames = 0
            for column in packing.meta.columns:
                piece = packing.piece(part, column)
                if piece is None:
                    missing.setdefault(column, {})[part.clip] = None
                elif piece.failure:
                    there = [stretch.high - stretch.low for stretch in piece.stretches if stretch.failure is None]
                    frames = max(frames, sum(there))
            if frames:
                lost[part.clip] = lost.get(part.clip, 0) + frames
    return Survey(missing={column: tuple(clips) for column, clips in missing.items()}, lost=lost)


def pack_index(table: pa.Table, *, rows_per_unit: int) -> tuple[pa.Table, int]:
    """The clips of ``table`` in its order, laid out in units, and the number of rows in all."""
    first, rows = lay_out(table.column("n_frames").to_pylist(), unit=rows_per_unit)
    unit = [min(row // rows_per_unit, rows // rows_per_unit - 1) for row in first]
    for name, numbers in (("first_row", first), ("unit", unit)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(numbers, type=pa.int64()))
    return table.combine_chunks(), rows


def plan_repack(
    source: Cache,
    *,
    to: StoreKind,
    clips: Collection[str] | None = None,
    columns: Sequence[str] | None = None,
    rows_per_unit: int | None = None,
) -> Packing:
    """A copy of ``clips`` (ids; default: all that the cache is meant to have) in their order in ``source``, in units of
    ``rows_per_unit`` (default: as in ``source``). Writes nothing.

    Raises ``InputError`` for what makes no sense or is not there. ``survey`` says whether all of it is committed.
    """
    size = source.meta.rows_per_unit if rows_per_unit is None else rows_per_unit
    if size < 1:
        raise InputError(what=f"--unit-rows {size} makes no sense.", where="--unit-rows", fix="give at least 1")
    base = chosen_meta(source, to, None, columns)
    shelf = Shelf(source)
    positions = _positions(source, shelf, clips)
    table, rows = pack_index(source.index.take(positions), rows_per_unit=size)
    file = index_bytes(table)
    build = {key: value for key, value in base.build.items() if key != "units"}
    return Packing(
        meta=replace(
            base,
            dataset={**base.dataset, "clips": len(positions)},
            build={**build, "repacked_from": source.meta.plan_id},
            rows_per_unit=size,
            rows=rows,
            index_sha256=sha256_bytes(file),
            metadata={},
        ),
        index=table,
        index_file=file,
        homes=[(Home(shelf=shelf, first_row=int(shelf.first_rows[position])),) for position in positions],
    )


def _positions(source: Cache, shelf: Shelf, clips: Collection[str] | None) -> np.ndarray:
    names = source.index.column("clip")
    if clips is None:
        everything = np.arange(len(names))
        return np.flatnonzero(shelf.has_any_of(everything))
    if not clips:
        raise CacheError(what="Nothing is chosen for export.", where=str(source.path), fix="Name clips with --clips.")
    if unknown := sorted(set(clips) - set(names.to_pylist())):
        raise CacheError(
            what=f"There is no clip {', '.join(map(repr, unknown[:_NAMED]))}."
            if len(unknown) <= _NAMED
            else f"There is no clip {', '.join(map(repr, unknown[:_NAMED]))}, nor {len(unknown) - _NAMED} more.",
            where=str(source.path),
            why=f"its {len(names):,} clips are the column `clip` of index.parquet, such as {names[0].as_py()!r}",
            fix="Give ids of clips to --clips, or patterns such as 'dog_*'.",
        )
    chosen = pc.is_in(names, value_set=pa.array(sorted(clips), type=pa.string()))
    return np.flatnonzero(chosen.to_numpy())


def require_all_there(found: Survey, source: Cache) -> None:
    """Raise ``CacheError`` where a clip to be copied is not committed in every column."""
    if not found.missing:
        return
    column, (clip, *_) = next(iter(found.missing.items()))
    clips = {name for names in found.missing.values() for name in names}
    more = f", and {len(clips) - 1:,} other clips lack something" if len(clips) > 1 else ""
    raise CacheError(
        what=f"Clip {clip!r} is not committed, so it cannot be exported.",
        where=str(source.path),
        why=f"some of its frames have no {column} yet{more}",
        fix=f"`frame-cache build {source.path}` completes the cache, or choose other clips with --clips.",
    )


def repack(destination: StorePath, packing: Packing, *, tick: Callable[[], None] = lambda: None) -> Cache:
    """Make ``destination`` the cache that was planned. Goes on where it stopped before; raises as ``export`` does."""
    return write_copy(
        destination, packing.meta, packing.index_file, lambda meta, unit: gather(packing, meta, unit), tick=tick
    )


def gather(packing: Packing, meta: CacheMeta, unit: int) -> list[UnitData]:
    """The stored values of a new unit: columns that lack the same clips together, for tar files all of them."""
    parts = packing.row_map.clips(unit)
    pieces = {column: [_there(packing.piece(part, column)) for part in parts] for column in meta.columns}
    failed = {
        column: {
            part.clip: (piece.failure.reason, piece.failure.detail)
            for part, piece in zip(parts, found, strict=True)
            if piece.failure
        }
        for column, found in pieces.items()
    }
    if meta.store == "webdataset":  # a sample has all of its files or is not there
        anywhere = {clip: why for found in reversed(failed.values()) for clip, why in found.items()}
        failed = dict.fromkeys(failed, anywhere)
    rowless = {
        packing.index.column("clip")[position].as_py(): failed_at_plan(packing.index, position)
        for position in packing.row_map.rowless(unit)
    }
    alike: dict[frozenset[str], list[str]] = {}
    for column, found in failed.items():
        alike.setdefault(frozenset(found), []).append(column)
    return [
        _unit_data(meta, unit, parts, {name: pieces[name] for name in names}, {**failed[names[0]], **rowless})
        for names in alike.values()
    ]


def _there(piece: Piece | None) -> Piece:
    if piece is None:
        raise CacheError(
            what="A clip that is to be copied is not committed.", fix="Complete the cache that it is taken from."
        )
    return piece


def _unit_data(
    meta: CacheMeta,
    unit: int,
    parts: Sequence[ClipRows],
    pieces: dict[str, list[Piece]],
    failed: dict[str, tuple[str, str]],
) -> UnitData:
    kept = [number for number, part in enumerate(parts) if part.clip not in failed]
    rows = np.concatenate([np.empty(0, np.int64), *(np.arange(parts[i].start, parts[i].stop) for i in kept)])
    values: dict[str, np.ndarray] = {}
    found: dict[str, dict[str, Any]] = {"loss": {}, "moments": {}, "software": {}}
    for name, places in pieces.items():
        column = meta.columns[name]
        stretches = [[stretch.read(name) for stretch in places[i].stretches] for i in kept]
        clips = [_joined(column, arrays) for arrays in stretches]
        values |= _joined(column, clips)
        used = _used(name, places, set(kept))
        about = _about(column, used, clips, rows=len(rows))
        for key, value in about.items():
            if value is not None:
                found[key][name] = value
    return UnitData(unit=unit, rows=rows, values=values, failed=failed, **found)


def _joined(column: Column, arrays: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The column's arrays, one behind the other."""
    return {
        spec.name: np.concatenate([np.empty((0, *spec.shape), dtype=spec.dtype), *(part[spec.name] for part in arrays)])
        for spec in column.arrays(1)
    }


def _used(column: str, pieces: Sequence[Piece], kept: Collection[int]) -> list[tuple[ColumnEntry, int]]:
    """What the receipts of the units say that the pieces come from, and how many rows come from each."""
    counts: dict[tuple[int, int], int] = {}
    stretches: dict[tuple[int, int], Stretch] = {}
    for number, piece in enumerate(pieces):
        there = number in kept
        for stretch in piece.stretches:
            key = (id(stretch.shelf), stretch.unit)
            stretches[key] = stretch
            counts[key] = counts.get(key, 0) + (stretch.high - stretch.low if there else 0)
    found = []
    for key, stretch in stretches.items():
        receipt = stretch.shelf.receipt(stretch.unit)
        assert receipt is not None
        found.append((receipt.columns[column], counts[key]))
    return found


def _about(
    column: Column, used: Sequence[tuple[ColumnEntry, int]], clips: Sequence[dict[str, np.ndarray]], *, rows: int
) -> dict[str, Any]:
    """Loss, moments and software of a column of a new unit, whose rows are those of ``clips``."""
    if len(used) == 1 and used[0][0].rows == rows:  # the same rows in the same order: a clip is in a cache once
        entry, _ = used[0]
        return {"loss": entry.loss, "moments": entry.moments, "software": entry.software}
    return {
        "loss": _loss([(count, entry.loss) for entry, count in used if count and entry.loss and is_loss(entry.loss)]),
        "moments": _moments(column, clips) if column.teacher is not None else None,
        "software": _software([entry.software for entry, _ in used]),
    }


def _loss(losses: Sequence[tuple[int, dict[str, float]]]) -> dict[str, float] | None:
    if not losses:
        return None
    total = sum(count for count, _ in losses)
    return {
        "mean_cosine": sum(count * loss["mean_cosine"] for count, loss in losses) / total,
        "worst_cosine": min(loss["worst_cosine"] for _, loss in losses),
    }


def _moments(column: Column, clips: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Clip by clip, as a build does it: the doubles of a whole unit would be many times the unit."""
    parts = [moments_of(decode(column, arrays)) for arrays in clips]
    count, mean, variance = merge_moments(parts, column.shape[-1])
    return {"count": count, "mean": mean.tolist(), "m2": (variance * count).tolist()}


def _software(found: Sequence[dict[str, str]]) -> dict[str, str]:
    """What made the rows; where units differ in it, everything that did."""
    names = sorted({name for software in found for name in software})
    return {name: ", ".join(sorted({str(software[name]) for software in found if name in software})) for name in names}
