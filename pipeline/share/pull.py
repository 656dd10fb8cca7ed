"""Bringing a cache from another place into a folder here.

The other place is a stranger. Names come from the strict parsers of the store alone; sizes are bounded by the plan
before anything is fetched; files come under temporary names, and get their own when their sha256 is that of their
receipt. A unit's receipt is written last, when its files have been looked at as ``verify`` does. So a pull that is
killed leaves a valid cache that is not complete, and the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from frame.pipeline.share.arrivals import Fetching, require_plan
from frame.pipeline.share.growth import extends, plan_difference
from frame.pipeline.share.remote import KEPT, Held, Remote, RemoteError, units_in
from frame.pipeline.store.card import write_card
from frame.pipeline.store.files import (
    TMP,
    CacheError,
    disk_error,
    ensure_durable,
    exclusive,
    make_root,
    sha256_file,
    writer_folder,
)
from frame.pipeline.store.layout import INDEX, MAX_JSON, META, META_COPY, CacheMeta
from frame.pipeline.store.objects import names_below
from frame.pipeline.store.reader import Cache, open_cache, reopen
from frame.pipeline.store.receipts import Receipt, parse_receipt, receipt_path
from frame.pipeline.store.regular import read_small
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.verify import UnitState, check_committed, check_units


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulled:
    """What a pull has done. ``units`` are those that are here and right now, of ``units_planned``; ``complete``: all of
    them with every column."""

    units: int
    units_planned: int
    complete: bool
    files_fetched: int
    bytes_fetched: int
    files_there: int
    bytes_there: int


def pull(
    remote: Remote, held: Mapping[str, Held], path: Path, *, tick: Callable[[int], None] = lambda _: None
) -> Pulled:
    """Make ``path`` the cache that lies at ``remote``, of which ``held`` is the listing, as far as it is there.
    ``tick`` counts bytes that are here.

    Raises ``RemoteError`` where there is no cache, where it arrives wrong twice, and where the place fails;
    ``CacheError`` where ``path`` holds anything else. What has arrived by then is kept.
    """
    data, meta = require_plan(remote, held)
    _require_place(path, meta)
    try:
        make_root(path)
    except OSError as error:
        raise disk_error(error, path) from error
    with writer_folder(path) as tmp:
        fetching = Fetching(remote=remote, held=held, meta=meta, root=path, tmp=tmp, tick=tick)
        fetching.plan(data)
        cache = open_cache(path)
        for unit in _units(held, cache):
            _pull_unit(cache, unit, fetching)
        states = check_units(cache, cache.expected_units, deep=False)
        complete = not any(state.problems for state in states)
        if complete:
            write_statistics(cache, tmp=tmp)  # computed from the receipts: theirs would have to be the same
        write_card(cache, tmp=tmp)  # ours, of what is here: no receipt has a checksum of theirs
    return Pulled(
        units=sum(bool(state.files) for state in states),
        units_planned=len(cache.expected_units),
        complete=complete,
        files_fetched=len(fetching.fetched),
        bytes_fetched=sum(fetching.fetched),
        files_there=len(fetching.there),
        bytes_there=sum(fetching.there),
    )


def _units(held: Mapping[str, Held], cache: Cache) -> list[int]:
    """Units that have a receipt there, of those that the plan has."""
    named = units_in(held)
    return [unit for unit in cache.expected_units if unit in named]


def _pull_unit(cache: Cache, unit: int, fetching: Fetching) -> None:
    """Fetch what a unit lacks, look at all of it, then write its receipt."""
    mine, my_data = _mine(cache, unit)
    theirs, data = fetching.receipt(unit, my_data)
    if mine is not None and not extends(mine, theirs):
        if theirs.columns.keys() <= mine.columns.keys() and not _broken(check_committed(cache, mine, deep=True)):
            fetching.keep(mine)  # made here, or extended here
            return
        raise _other_build(cache, unit)
    state = check_committed(cache, theirs, deep=True)
    wrong = {problem.file for problem in state.problems}
    wanted = [name for name in theirs.files if name in wrong]
    _require_unit(state, fetching, but=wanted)
    fetching.files(theirs, wanted)
    if wanted:
        _require_unit(check_committed(cache, theirs, deep=True), fetching)
    path = receipt_path(cache.path, unit)
    assert isinstance(path, Path)
    with exclusive(cache.path):  # a build here may be at work on the same unit
        if _mine(cache, unit)[1] not in (my_data, data):
            raise _other_build(cache, unit)
        ensure_durable(path, data, tmp=fetching.tmp)


def _require_unit(state: UnitState, fetching: Fetching, *, but: Sequence[str] = ()) -> None:
    """Raise ``RemoteError`` where anything is wrong with a unit but the files ``but``, which are to be fetched."""
    if broken := _broken(state, but):
        raise RemoteError(
            what="What is there is not a unit of this cache.",
            where=f"{fetching.remote.address}/{broken}",
            why="its checksums fit, but rows, places or members do not: no program of ours wrote it",
            fix="Ask whoever shared it. Nothing of this unit was committed here.",
        )


def _broken(state: UnitState, but: Sequence[str] = ()) -> str:
    """The first thing that is wrong with a unit, other than columns that are still to come."""
    wrong = (item for item in state.problems if not item.never_made and item.file not in but)
    return next((f"{item.file}: {item.detail}" for item in wrong), "")


def _mine(cache: Cache, unit: int) -> tuple[Receipt | None, bytes | None]:
    """The receipt here, None if it commits nothing; and its bytes, None if there are none."""
    path = receipt_path(cache.path, unit)
    try:
        data = read_small(path, most=MAX_JSON)
    except OSError:
        return None, None
    try:
        return parse_receipt(data, where=path, unit=unit, plan_id=cache.meta.plan_id), data
    except CacheError:
        return None, data


def _other_build(cache: Cache, unit: int) -> CacheError:
    return CacheError(
        what=f"Unit {unit} is here already, made by another build.",
        where=str(receipt_path(cache.path, unit)),
        why="its files or columns differ from those there, though the plan is the same; nothing is overwritten",
        fix=f"Pull into a new folder; or, if a build is at work here, let it end. So far {KEPT}",
    )


def _require_place(path: Path, meta: CacheMeta) -> None:
    """Raise ``CacheError`` unless ``path`` is new, empty, or holds this cache, however little of it and however old."""
    if path.exists() and not path.is_dir():
        raise CacheError(what="CACHE is a file.", where=str(path), fix="Give a new folder.")
    if (path / META).exists() or (path / META_COPY).exists():
        if why := plan_difference(reopen(path).meta, meta):
            raise CacheError(
                what="The folder holds another cache.", where=str(path), why=why, fix="Pull into a new folder."
            )
        return
    ours = {**meta.metadata, INDEX: meta.index_sha256}
    for name in names_below(path) if path.exists() else ():
        with suppress(OSError):
            if name.startswith(f"{TMP}/") or (name in ours and sha256_file(path / name) == ours[name]):
                continue
        raise CacheError(
            what="The folder is not empty.",
            where=str(path),
            why=f"it holds {name}, which is not of this cache",
            fix="Pull into a new folder.",
        )
