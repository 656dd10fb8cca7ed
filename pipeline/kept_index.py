"""The index of the cache at work, read once a process: of 80,000 clips it costs as much as writing a unit, twice a unit
otherwise."""

from __future__ import annotations

import functools

from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.objects import StorePath


def kept_index(cache: Cache) -> Cache:
    """``cache`` as this process opened it first, with the index and the row map that it has read since.

    Its index is that of ``cache``, by the checksum; its columns may be those of an earlier moment.
    """
    return _first(cache.path, cache.meta.index_sha256, cache.meta.rows_per_unit)


@functools.lru_cache(maxsize=1)
def _first(path: StorePath, index_sha256: str, rows_per_unit: int) -> Cache:
    del index_sha256, rows_per_unit  # another plan is another cache
    return open_cache(path)
