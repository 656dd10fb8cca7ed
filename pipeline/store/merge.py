"""``merge``: caches that were built apart become one new cache; none of them is changed.

Caches of one plan (the shares of a batch array on several disks, the same plan with other teachers) keep their units,
and what comes out is what one build would have made. Otherwise the clips of the first come first, then those of the
others that it has not, packed anew. Either way every clip must have every column in one cache or another, and whatever
lies in several must be the same: nothing is chosen silently, and nothing is written before all of it has been compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from frame.manifests.errors import InputError
from frame.pipeline.store.export import chosen_meta
from frame.pipeline.store.files import CacheError, sha256_bytes
from frame.pipeline.store.index import index_bytes
from frame.pipeline.store.layout import COPIED, INDEX, CacheMeta, StoreKind
from frame.pipeline.store.merge_checks import cache_conflicts, compare_values, found_differently, row_conflicts
from frame.pipeline.store.objects import StorePath
from frame.pipeline.store.reader import Cache
from frame.pipeline.store.repack import Packing, Survey, pack_index, survey
from frame.pipeline.store.shelves import Home, Shelf

_NAMED = 5  # of many, on one screen


@dataclass(frozen=True, kw_only=True, slots=True)
class Merging:
    """What a merge will write, and what was decided on the way. ``clips``: how many each cache has; ``twice``: clips
    that several have alike, taken once; ``won``: clip -> where it is good and where it failed; ``lost``: as in
    ``Survey``; ``notes``: in words."""

    packing: Packing
    caches: tuple[StorePath, ...]
    clips: tuple[int, ...]
    twice: tuple[str, ...]
    won: Mapping[str, tuple[StorePath, StorePath]]
    lost: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class _Compared:
    """What comparing has found so far."""

    conflicts: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    won: dict[str, tuple[Shelf, Shelf]] = field(default_factory=dict)


def plan_merge(
    caches: Sequence[Cache],
    destination: StorePath,
    *,
    to: StoreKind | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Merging:
    """Compare the caches and lay out the one that they become in the store ``to`` (default: the first's).

    ``tick`` is called for every clip of every cache. Raises ``InputError`` that names what keeps them apart, and
    ``CacheError`` for damage; writes nothing.
    """
    _require_places(caches, destination)
    _refuse(cache_conflicts(caches), destination)
    shelves = [Shelf(cache) for cache in caches]
    compared = _Compared()
    joined = _same_rows if len({_rows_id(cache.meta) for cache in caches}) == 1 else _other_rows
    packing = joined(shelves, to or caches[0].meta.store, compared)
    for position, homes in enumerate(packing.homes):
        _compare(packing, position, homes, compared)
        for _ in homes:
            tick()
    found = survey(packing)
    compared.conflicts += _missing(found, caches)
    _refuse(compared.conflicts, destination)
    return Merging(
        packing=packing,
        caches=tuple(cache.path for cache in caches),
        clips=tuple(int(shelf.has_any_of(np.arange(shelf.cache.index.num_rows)).sum()) for shelf in shelves),
        twice=tuple(compared.twice),
        won={clip: (good.cache.path, bad.cache.path) for clip, (good, bad) in compared.won.items()},
        lost=found.lost,
        notes=tuple(found_differently(caches)),
    )


def _require_places(caches: Sequence[Cache], destination: StorePath) -> None:
    places = [cache.path.resolve() for cache in caches]
    if len(set(places)) < max(len(places), 2):
        raise InputError(
            what="A merge takes two caches or more, each once.", where=", ".join(str(cache.path) for cache in caches)
        )
    target = destination.expanduser().resolve()
    for place in places:
        inside = isinstance(target, Path) and isinstance(place, Path) and target.is_relative_to(place)
        if target == place or inside:
            raise InputError(
                what="The destination lies in one of the caches that are to be merged.",
                where=str(destination),
                fix="Give a new folder: frame-cache merge DEST CACHE CACHE…",
            )


def _refuse(conflicts: Sequence[str], destination: StorePath) -> None:
    if not conflicts:
        return
    shown = list(dict.fromkeys(conflicts))
    lines = [*shown[:_NAMED], *([f"and {len(shown) - _NAMED:,} more"] if len(shown) > _NAMED else [])]
    raise InputError(
        what="These caches cannot become one; nothing was written.",
        where=str(destination),
        why="".join(f"\n    {line}" for line in lines),
        fix="`frame-cache export CACHE PART --clips … --columns …` leaves out what keeps them apart, "
        "`frame-cache build CACHE` completes one that is not finished.",
    )


def _rows_id(meta: CacheMeta) -> str:
    """Digest of what decides which frame each row is, and how it was made: the plan without store and chosen units."""
    build = {key: value for key, value in meta.build.items() if key != "units"}
    return replace(meta, store="zarr", build=build).plan_id


def _same_rows(shelves: Sequence[Shelf], to: StoreKind, _: _Compared) -> Packing:
    """Units of one plan, united."""
    first = shelves[0].cache
    every = set(range(first.units))
    units = {unit for shelf in shelves for unit in shelf.cache.expected_units}
    build = {key: value for key, value in first.meta.build.items() if key != "units"}
    if units != every:
        build["units"] = sorted(units)
    homes = [tuple(Home(shelf=shelf, first_row=int(row)) for shelf in shelves) for row in shelves[0].first_rows]
    file = (first.path / INDEX).read_bytes()
    if sha256_bytes(file) != first.meta.index_sha256:  # it was compared before; somebody is at work
        raise CacheError(what="The index has changed while it was read.", where=str(first.path / INDEX))
    meta = replace(_joined_meta(shelves, to), build=build, dataset=first.meta.dataset)
    return Packing(meta=meta, index=first.index, index_file=file, homes=homes)


def _other_rows(shelves: Sequence[Shelf], to: StoreKind, compared: _Compared) -> Packing:
    """Clips of several plans, one cache's behind the other's."""
    owners: dict[str, list[tuple[Shelf, int]]] = {}
    for shelf in shelves:
        names = shelf.cache.index.column("clip").to_pylist()
        for position in np.flatnonzero(shelf.has_any_of(np.arange(len(names)))):
            owners.setdefault(names[position], []).append((shelf, int(position)))
    begins = np.cumsum([0, *(shelf.cache.index.num_rows for shelf in shelves)])
    begin = {id(shelf): int(row) for shelf, row in zip(shelves, begins[:-1], strict=True)}
    rows, homes = [], []
    for clip, places in owners.items():
        good = [(shelf, position) for shelf, position in places if shelf.cache.index["n_frames"][position].as_py()]
        if len(places) > 1:
            found = [(shelf, shelf.cache.index.slice(position, 1).to_pylist()[0]) for shelf, position in places]
            compared.conflicts += row_conflicts(clip, found)
            if good and len(good) < len(places):
                bad = next(shelf for shelf, position in places if (shelf, position) not in good)
                compared.won[clip] = (good[0][0], bad)
            elif not good:
                compared.twice.append(clip)
        chosen = good or places
        rows.append(begin[id(chosen[0][0])] + chosen[0][1])
        homes.append(tuple(Home(shelf=shelf, first_row=int(shelf.first_rows[at])) for shelf, at in chosen))
    _refuse_rows(compared, shelves)
    size = shelves[0].cache.meta.rows_per_unit
    taken = pa.concat_tables([shelf.cache.index for shelf in shelves]).take(rows)
    table, count = pack_index(taken, rows_per_unit=size)
    file = index_bytes(table)
    meta = replace(
        _joined_meta(shelves, to),
        dataset=_dataset([shelf.cache.meta for shelf in shelves], clips=len(rows)),
        build=_build([shelf.cache.meta for shelf in shelves]),
        rows_per_unit=size,
        rows=count,
        index_sha256=sha256_bytes(file),
    )
    return Packing(meta=meta, index=table, index_file=file, homes=homes)


def _refuse_rows(compared: _Compared, shelves: Sequence[Shelf]) -> None:
    """Clips of one name that are not the same have no values to compare."""
    if compared.conflicts:
        _refuse(compared.conflicts, shelves[0].cache.path)


def _joined_meta(shelves: Sequence[Shelf], to: StoreKind) -> CacheMeta:
    """The first's metadata with the columns and teachers of all."""
    metas = [chosen_meta(shelf.cache, to, None, None) for shelf in shelves]
    return replace(
        metas[0],
        columns={name: column for meta in reversed(metas) for name, column in meta.columns.items()},
        teachers={name: record for meta in reversed(metas) for name, record in meta.teachers.items()},
        metadata={},
    )


def _dataset(metas: Sequence[CacheMeta], *, clips: int) -> dict[str, Any]:
    """What the clips are, of all caches together: every name and every licence, and of how they were chosen what is
    true of all. Each cache's own words are kept in ``build.merged_from``."""
    records = [meta.dataset for meta in metas]
    joined = {key: records[0].get(key) if _agree(records, key) else None for record in records for key in record}
    if not _agree(records, "name"):
        joined["name"] = " + ".join(dict.fromkeys(str(record.get("name")) for record in records))
    if not _agree(records, "licence"):
        joined["licence"] = "; ".join(
            dict.fromkeys(f"{record.get('name')}: {record.get('licence') or 'not stated'}" for record in records)
        )
    return {**joined, "clips": clips}


def _agree(records: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(record.get(key) == records[0].get(key) for record in records)


def _build(metas: Sequence[CacheMeta]) -> dict[str, Any]:
    """The options of the first, which decide nothing that is read, and what was joined."""
    kept = {key: value for key, value in metas[0].build.items() if key not in COPIED}
    sources = [{"plan": meta.plan_id, "dataset": meta.dataset, "build": meta.build} for meta in metas]
    return {**kept, "merged_from": sources}


def _compare(packing: Packing, position: int, homes: Sequence[Home], compared: _Compared) -> None:
    """Compare the values of a clip that several caches may have."""
    if len(homes) < 2:
        return
    clip = packing.index["clip"][position].as_py()
    frames = packing.index["n_frames"][position].as_py()
    having = {name: [home for home in homes if name in home.shelf.cache.columns] for name in packing.meta.columns}
    found = [compare_values(clip, name, frames, owners) for name, owners in having.items() if len(owners) > 1]
    conflicts = [line for overlap in found for line in overlap.conflicts]
    compared.conflicts += conflicts
    won = next((overlap.won for overlap in found if overlap.won), None)
    if won:
        compared.won.setdefault(clip, won)
    elif any(overlap.shared for overlap in found) and not conflicts and clip not in compared.won:
        compared.twice.append(clip)


def _missing(survey: Survey, caches: Sequence[Cache]) -> list[str]:
    """Columns that some clips have in no cache, a line a column."""
    found = []
    for column, clips in survey.missing.items():
        names = ", ".join(list(clips)[:3]) + (f" and {len(clips) - 3:,} more" if len(clips) > 3 else "")
        without = [str(cache.path) for cache in caches if column not in cache.columns]
        why = f"; {', '.join(without)} has no such column" if without else ""
        found.append(f"column {column}: of {names} committed in none of the caches{why}")
    return found
