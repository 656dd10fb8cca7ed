"""What keeps caches from becoming one, each difference by its name: which caches, which field, both values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frame.pipeline.store.columns import Column
from frame.pipeline.store.layout import COPIED
from frame.pipeline.store.reader import Cache
from frame.pipeline.store.shelves import Home, Shelf, Stretch

_VALUE = 60  # characters of a value on the screen
# What a record says of where a teacher was found; the sha256 of its weights and the rest say what it is.
_FOUND = ("requested", "library_version", "weights")
# What a clip is, whether or not it could be read; the rest of its row comes from its frames.
_IDENTITY = ("source", "split", "label", "start", "end", "frame_rate")
_PLACE = ("first_row", "unit")


def cache_conflicts(caches: Sequence[Cache]) -> list[str]:
    """Differences of geometry, sampling, columns and teachers, each with the first cache that has the thing."""
    found: list[str] = []
    for kind in ("geometry", "sampling"):
        found += _against_first(kind, [(cache, getattr(cache.meta, kind)) for cache in caches])
    columns = [(cache, {name: _column(column) for name, column in cache.columns.items()}) for cache in caches]
    teachers = [(cache, {name: _essence(record) for name, record in cache.meta.teachers.items()}) for cache in caches]
    for kind, things in (("column", columns), ("teacher", teachers)):
        for name in dict.fromkeys(name for _, owned in things for name in owned):
            owners = [(cache, owned[name]) for cache, owned in things if name in owned]
            found += _against_first(f"{kind} {name}", owners)
    return found


def found_differently(caches: Sequence[Cache]) -> list[str]:
    """What may differ, and whose is kept, in words: where a teacher was found and by which release of its library, and
    options of the builds that decide nothing that is read."""
    options = [
        (cache, {key: value for key, value in cache.meta.build.items() if key not in COPIED}) for cache in caches
    ]
    notes = [f"{line}; the first is kept" for line in _against_first("build", options)]
    for name in dict.fromkeys(name for cache in caches for name in cache.meta.teachers):
        owners = [cache for cache in caches if name in cache.meta.teachers]
        records = [cache.meta.teachers[name] for cache in owners]
        keys = sorted({key for record in records[1:] for key, *_ in _differences(records[0], record)})
        if keys:
            notes.append(f"teacher {name}: {', '.join(keys)} differ; kept as in {owners[0].path}")
    return notes


def row_conflicts(clip: str, rows: Sequence[tuple[Shelf, Mapping[str, Any]]]) -> list[str]:
    """Differences of what several indexes say of one clip, apart from where its rows lie. Of one that could not even
    be probed only what it is has to agree."""
    good = [(shelf, row) for shelf, row in rows if row["n_frames"]]
    found = _against_first(f"clip {clip}", [(s.cache, {key: row[key] for key in _IDENTITY}) for s, row in rows])
    rest = [
        (shelf.cache, {key: value for key, value in row.items() if key not in (*_IDENTITY, *_PLACE)})
        for shelf, row in good
    ]
    return found + _against_first(f"clip {clip}", rest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """What several caches have of one column of one clip. ``conflicts``: values that differ, in words; ``shared``: more
    than one has some frame of it; ``won``: where it is good, and where it failed."""

    conflicts: tuple[str, ...]
    shared: bool
    won: tuple[Shelf, Shelf] | None


def compare_values(clip: str, column: str, frames: int, homes: Sequence[Home]) -> Overlap:
    """Compare the stored values of a clip wherever more than one of its homes has them."""
    at, shared, won, wrong = 0, False, None, {}
    while at < frames:
        end = min(at + min(home.rows_left(at) for home in homes), frames)
        there = [part for home in homes if (part := home.stretch(column, clip, at, end)) is not None]
        good = [part for part in there if part.failure is None]
        bad = [part for part in there if part.failure is not None]
        shared = shared or len(there) > 1
        if good and bad:
            won = won or (good[0].shelf, bad[0].shelf)
        for other in good[1:]:
            if id(other.shelf) not in wrong and not _equal(good[0], other, column):
                wrong[id(other.shelf)] = (
                    f"clip {clip}, values of {column}: unit {good[0].unit} of {good[0].shelf.cache.path} and unit "
                    f"{other.unit} of {other.shelf.cache.path} differ"
                )
        at = end
    return Overlap(conflicts=tuple(wrong.values()), shared=shared, won=won)


def _equal(a: Stretch, b: Stretch, column: str) -> bool:
    """Are the same values stored? Files of the same digest need not be read for that."""
    metas = [part.shelf.cache.meta for part in (a, b)]
    alike = len({(meta.store, meta.rows_per_unit, meta.index_sha256) for meta in metas}) == 1
    if alike and a.unit == b.unit and a.shelf.digests(column, a.unit) == b.shelf.digests(column, b.unit):
        return True
    left, right = a.read(column), b.read(column)
    return all(np.array_equal(left[name].view(np.uint8), right[name].view(np.uint8)) for name in left)


def _column(column: Column) -> dict[str, Any]:
    return {key: value for key, value in column.to_json().items() if key != "part"}


def _essence(record: Mapping[str, Any]) -> dict[str, Any]:
    weights = record.get("weights")
    what = weights.get("sha256") if isinstance(weights, dict) else weights
    return {**{key: value for key, value in record.items() if key not in _FOUND}, "weights sha256": what}


def _against_first(what: str, things: Sequence[tuple[Cache, Mapping[str, Any]]]) -> list[str]:
    """How each of the others differs from the first, a line a field."""
    if not things:
        return []
    first, wanted = things[0]
    return [
        f"{what}, {key}: {_short(one)} in {first.path}, {_short(other)} in {cache.path}"
        for cache, value in things[1:]
        for key, one, other in _differences(wanted, value)
    ]


def _differences(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two JSON values differ; of lists of equal length the first item that does."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _differences(one.get(key), other.get(key), f"{name} {key}".strip())
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b:
                yield from _differences(a, b, f"{name}[{number}]")
                return
    elif one != other:
        yield name, one, other


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"
