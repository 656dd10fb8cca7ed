"""Writing into an object store what several builds may write at the same time: a cache's plan, and receipts.

The plan's copy, ``cache.copy.json``, is put first, on the condition that there is none: with it the place is taken, and
another plan is refused before it has put anything. ``cache.json`` comes last, as on a disk: with it the cache exists.
Columns are only ever added to a plan, so whatever order two builds come in, and wherever one of them dies, putting
together what both know loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from frame.pipeline.store.claims import claim, require_conditions, update
from frame.pipeline.store.files import CacheError, holds
from frame.pipeline.store.layout import INDEX, META, META_COPY, CacheMeta, parse_meta
from frame.pipeline.store.objects import ObjectPath
from frame.pipeline.store.receipts import Receipt, parse_receipt, receipt_path


def claim_place(cache: ObjectPath, meta: CacheMeta) -> None:
    """Take the place for a new cache of this plan. Raises ``CacheError`` if it is taken for any other, even for one
    that only has other teachers: what goes into a new cache is decided once."""
    path = cache / META_COPY
    if claim(path, meta.to_bytes()) != meta.to_bytes():
        raise _taken(cache)


def put_metadata(cache: ObjectPath, meta: CacheMeta, files: Mapping[str, bytes], index: bytes) -> None:
    """Put a new cache's metadata, or those of one that is being repaired or given more columns."""
    copy = _join(cache / META_COPY, meta)
    require_conditions(cache / META_COPY)
    for name, content in [*files.items(), (INDEX, index)]:
        path = cache / name
        if not holds(path, content):
            path.write_bytes(content)
    whole = _join(cache / META, copy)
    if whole != copy:
        _join(cache / META_COPY, whole)


def put_receipt(cache: ObjectPath, meta: CacheMeta, unit: int, merge: Callable[[Receipt | None], Receipt]) -> Receipt:
    """Make the receipt of ``unit`` what ``merge`` makes of the one that is there."""
    path = cache / receipt_path(Path(), unit).as_posix()
    made: list[Receipt] = []

    def change(data: bytes | None) -> bytes:
        try:
            old = None if data is None else parse_receipt(data, where=path, unit=unit, plan_id=meta.plan_id)
        except CacheError:
            old = None  # a damaged receipt commits nothing; its columns are made again
        made[:] = [merge(old)]
        return made[0].to_bytes()

    update(path, change)
    return made[0]


def _join(path: ObjectPath, meta: CacheMeta) -> CacheMeta:
    """Make a copy of the plan hold all that it and ``meta`` know; what it holds then."""

    def change(data: bytes | None) -> bytes:
        try:
            other = meta if data is None else parse_meta(data, where=path)
        except CacheError:
            other = meta  # damaged: it is written again
        return _union(path, other, meta).to_bytes()

    return parse_meta(update(path, change), where=path)


def _union(path: ObjectPath, there: CacheMeta, ours: CacheMeta) -> CacheMeta:
    known = [name for name in ours.columns if name in there.columns]
    same = all(
        there.columns[name] == ours.columns[name] and there.teacher_id(name) == ours.teacher_id(name) for name in known
    )
    if there.plan_id != ours.plan_id or not same:
        raise _taken(path.parent)
    return replace(
        ours,
        columns={**there.columns, **ours.columns},
        teachers={**there.teachers, **ours.teachers},
        # Files that exist keep the digest they have, whatever release of zarr wrote them.
        metadata={**ours.metadata, **there.metadata},
    )


def _taken(cache: ObjectPath) -> CacheError:
    return CacheError(
        what="Another build has planned another cache here.",
        where=str(cache),
        why="its clips, options or teachers differ; it may be at work now, or have died before its plan was complete",
        fix=f"`frame-cache build {cache} --source DIR` goes on with that plan; another one needs another --out.",
    )
