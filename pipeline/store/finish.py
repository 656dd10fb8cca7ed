"""The end of a build: what is written and removed once every unit is committed."""

from __future__ import annotations

from pathlib import Path

from frame.pipeline.store import disk
from frame.pipeline.store.card import write_card
from frame.pipeline.store.files import CacheError, disk_error
from frame.pipeline.store.layout import RECEIPTS, SHARDS, STATS
from frame.pipeline.store.objects import StorePath
from frame.pipeline.store.reader import Cache, open_cache
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.verify import check_summaries, check_units, leftovers


def finish(path: StorePath, *, tmp: Path) -> int:
    """Write the card; once every unit is committed, the statistics before it, and remove leftovers. The number of units
    still missing."""
    cache = open_cache(path)
    states = check_units(cache, cache.expected_units, deep=False)
    left = sum(bool(state.broken_columns) for state in states)
    if not left:
        write_statistics(cache, tmp=tmp)
    write_card(cache, tmp=tmp)
    if left:
        return left
    for problem in leftovers(cache, states):
        if Path(problem.file).parts[0] in _ours(cache):
            _remove(path / problem.file)
    if problems := check_summaries(cache):
        raise CacheError(what="A summary did not reach the disk.", where=str(path / problems[0].file))
    _flush_receipts(path / RECEIPTS)
    return 0


def _ours(cache: Cache) -> set[str]:
    """Folders that only builds write into. What else a person keeps inside the cache's folder is not touched."""
    return {*cache.meta.arrays(), SHARDS, RECEIPTS, STATS}


def _remove(file: StorePath) -> None:
    try:
        disk.unlink(file) if isinstance(file, Path) else file.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(error, file) from error


def _flush_receipts(folder: StorePath) -> None:
    """The last receipts may be those of a writer that was killed before it had flushed their names."""
    if not isinstance(folder, Path):
        return
    try:
        disk.fsync_folder(folder)
    except OSError as error:
        raise disk_error(error, folder) from error
