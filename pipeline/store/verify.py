"""Is every byte of a cache what was committed? Finds what is truncated, changed, missing, swapped, stale, left over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from frame.pipeline.store import tar_check, tar_unit, zarr_unit
from frame.pipeline.store.card import card_bytes
from frame.pipeline.store.columns import ArraySpec, Column
from frame.pipeline.store.files import TMP, CacheError, sha256_bytes, sha256_file
from frame.pipeline.store.layout import CARD, INDEX, MAX_JSON, META, META_COPY, RECEIPTS, CacheMeta, parse_meta
from frame.pipeline.store.objects import StorePath, names_below
from frame.pipeline.store.reader import Cache
from frame.pipeline.store.receipts import FileEntry, Receipt, read_receipt, receipt_path
from frame.pipeline.store.regular import read_small, require_regular
from frame.pipeline.store.stats import stats_bytes, stats_name

Kind = Literal["missing", "damaged", "stale", "leftover"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong. ``file`` is relative to the cache; ``columns`` are those it makes unreadable."""

    kind: Kind
    file: str
    detail: str
    unit: int | None = None
    columns: tuple[str, ...] = ()

    @property
    def never_made(self) -> bool:
        """Is it only a unit, or a column of one, that was never made? That is no damage."""
        return self.kind == "missing" and self.file.startswith(f"{RECEIPTS}/")


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitState:
    """What is wrong with one unit. Its columns that no problem names are complete and intact."""

    unit: int
    problems: tuple[Problem, ...]
    files: tuple[str, ...]
    bytes: int

    @property
    def broken_columns(self) -> frozenset[str]:
        """Columns that have to be made, or made again."""
        return frozenset(name for problem in self.problems for name in problem.columns)

    @property
    def receipt_is_wrong(self) -> bool:
        """Is there a receipt that commits nothing, because it is damaged or another's?"""
        return not self.files and any(problem.kind != "missing" for problem in self.problems)


def check_units(
    cache: Cache, units: Iterable[int], *, deep: bool, tick: Callable[[UnitState], None] = lambda _: None
) -> list[UnitState]:
    """The state of each of ``units``. ``deep`` compares every file's sha256, otherwise only its size."""
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        states = []
        for state in pool.map(lambda unit: check_unit(cache, unit, deep=deep), units):
            tick(state)
            states.append(state)
    return states


def check_unit(cache: Cache, unit: int, *, deep: bool) -> UnitState:
    """The state of one unit."""
    name = receipt_path(Path(), unit).as_posix()
    everything = tuple(cache.meta.columns)
    try:
        receipt = read_receipt(cache.path, unit, plan_id=cache.meta.plan_id)
    except CacheError as error:
        kind: Kind = "stale" if "plan" in error.what else "damaged"
        problem = Problem(kind=kind, file=name, detail=error.why or error.what, unit=unit, columns=everything)
        return UnitState(unit=unit, problems=(problem,), files=(), bytes=0)
    if receipt is None:
        problem = Problem(kind="missing", file=name, detail="not committed", unit=unit, columns=everything)
        return UnitState(unit=unit, problems=(problem,), files=(), bytes=0)
    return check_committed(cache, receipt, deep=deep)


def check_committed(cache: Cache, receipt: Receipt, *, deep: bool) -> UnitState:
    """The state of the unit that ``receipt`` commits, or would commit if it lay in the cache."""
    name = receipt_path(Path(), receipt.unit).as_posix()
    problems = [*_column_problems(cache, receipt, name), *_file_problems(cache, receipt, deep=deep)]
    if deep and not problems:
        problems += _place_problems(cache, receipt)
    size = sum(entry.bytes for entry in receipt.files.values())
    return UnitState(unit=receipt.unit, problems=tuple(problems), files=tuple(receipt.files), bytes=size)


def _column_problems(cache: Cache, receipt: Receipt, file: str) -> Iterator[Problem]:
    for name, column in cache.meta.columns.items():
        entry = receipt.columns.get(name)
        if entry is None:
            yield Problem(kind="missing", file=file, detail=f"no {name} yet", unit=receipt.unit, columns=(name,))
        elif entry.teacher != cache.meta.teacher_id(name):
            detail = f"{name} was made by another teacher, or with other steps"
            yield Problem(kind="stale", file=file, detail=detail, unit=receipt.unit, columns=(name,))
        elif not set(file_names(cache.meta, column, receipt.unit)) <= receipt.files.keys():
            detail = f"{name}'s files are not named"
            yield Problem(kind="damaged", file=file, detail=detail, unit=receipt.unit, columns=(name,))
        elif entry.moments is not None and len(entry.moments["mean"]) != column.shape[-1]:
            detail = f"{name}'s moments are of another width"
            yield Problem(kind="damaged", file=file, detail=detail, unit=receipt.unit, columns=(name,))
        elif entry.rows != _expected_rows(cache, receipt, name):
            detail = f"{name} has {entry.rows} rows, index and failures leave {_expected_rows(cache, receipt, name)}"
            yield Problem(kind="damaged", file=file, detail=detail, unit=receipt.unit, columns=(name,))


def file_names(meta: CacheMeta, column: Column, unit: int) -> list[str]:
    """The files that hold ``column`` of ``unit``, relative to the cache."""
    if meta.store == "webdataset":
        return [tar_unit.shard_name(unit, column.part)]
    return [zarr_unit.shard_name(spec, unit) for spec in column.arrays(meta.rows_per_unit)]


def _expected_rows(cache: Cache, receipt: Receipt, column: str) -> int:
    failed = {clip for clip, failure in receipt.failed.items() if column in failure.columns}
    clips = cache.row_map.clips(receipt.unit)
    return sum(part.stop - part.start for part in clips if part.clip not in failed)


def _file_problems(cache: Cache, receipt: Receipt, *, deep: bool) -> Iterator[Problem]:
    for name, entry in receipt.files.items():
        path = cache.path / name
        detail = _file_problem(path, entry, deep=deep)
        if not detail and deep and name.endswith(".tar") and isinstance(path, Path):
            detail = tar_check.strange_member(path, entry, *_inside(cache, receipt, entry))
        if detail:
            kind: Kind = "missing" if detail == "missing" else "damaged"
            yield Problem(kind=kind, file=name, detail=detail, unit=receipt.unit, columns=entry.columns)


def _file_problem(path: StorePath, entry: FileEntry, *, deep: bool) -> str:
    try:
        if isinstance(path, Path):
            require_regular(path.lstat())
        size = path.stat().st_size
        if size != entry.bytes:
            return f"{size:,} bytes where {entry.bytes:,} were committed"
        if deep and sha256_file(path) != entry.sha256:
            return "content differs from its sha256"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _place_problems(cache: Cache, receipt: Receipt) -> Iterator[Problem]:
    """Files with fitting checksums that a reader refuses: rows where none can be, or on top of each other."""
    for name in cache.columns:
        try:
            cache.require_places(name, receipt)
        except CacheError as error:
            files = file_names(cache.meta, cache.columns[name], receipt.unit)
            yield Problem(kind="damaged", file=files[0], detail=error.why, unit=receipt.unit, columns=(name,))


def _inside(cache: Cache, receipt: Receipt, entry: FileEntry) -> tuple[dict[str, ArraySpec], set[str]]:
    """The arrays and the clips that a tar may hold."""
    columns = [cache.columns[name] for name in entry.columns if name in cache.columns]
    specs = [spec for column in columns for spec in column.arrays(cache.meta.rows_per_unit)]
    return {spec.name: spec for spec in specs}, {part.clip for part in cache.row_map.clips(receipt.unit)}


def check_metadata(cache: Cache) -> list[Problem]:
    """Problems of everything that belongs to no unit: metadata, index, statistics."""
    problems = [
        *_copies(cache),
        *(
            _digest(cache.path, name, digest)
            for name, digest in {**cache.meta.metadata, INDEX: cache.meta.index_sha256}.items()
        ),
    ]
    strange = _strange_arrays(cache, {problem.file for problem in problems if problem})
    return [problem for problem in [*problems, *strange] if problem is not None]


def _strange_arrays(cache: Cache, named: set[str]) -> Iterator[Problem]:
    """Zarr metadata with a fitting checksum that have other readers decompress, or see another shape."""
    for array, spec in cache.meta.arrays().items():
        name = f"{array}/zarr.json"
        if name in cache.meta.metadata and name not in named:
            found = read_small(cache.path / name, most=MAX_JSON)
            if not zarr_unit.describes(found, spec, rows=cache.meta.rows, rows_per_unit=cache.meta.rows_per_unit):
                yield Problem(kind="damaged", file=name, detail="it describes another array, or another encoding")


def _copies(cache: Cache) -> Iterator[Problem]:
    for name in (META, META_COPY):
        try:
            data = read_small(cache.path / name, most=MAX_JSON)
            intact = parse_meta(data, where=cache.path / name) == cache.meta
        except FileNotFoundError:
            yield Problem(kind="missing", file=name, detail="missing")
        except CacheError as error:
            yield Problem(kind="damaged", file=name, detail=error.why or error.what)
        except OSError as error:
            yield Problem(kind="damaged", file=name, detail=f"cannot be read: {error.strerror}")
        else:
            if not intact:
                yield Problem(kind="stale", file=name, detail="differs from the other copy")


def _digest(root: StorePath, name: str, digest: str) -> Problem | None:
    path = root / name
    try:
        if isinstance(path, Path):
            require_regular(path.lstat())
        if sha256_file(path) == digest:
            return None
    except FileNotFoundError:
        return Problem(kind="missing", file=name, detail="missing")
    except OSError as error:
        return Problem(kind="damaged", file=name, detail=f"cannot be read: {error.strerror}")
    return Problem(kind="damaged", file=name, detail="content differs from its sha256")


def check_summaries(cache: Cache) -> list[Problem]:
    """Problems of what is computed from the receipts, ``stats/`` and the card; call it only when every unit is
    complete."""
    receipts = cache.receipts()
    expected = {CARD: card_bytes(cache)}
    for column in cache.meta.columns.values():
        if column.teacher is not None:
            expected[stats_name(column.name)] = stats_bytes(column, receipts)
    found = (_digest(cache.path, name, sha256_bytes(data)) for name, data in expected.items())
    return [problem for problem in found if problem]


def leftovers(cache: Cache, states: Iterable[UnitState]) -> list[Problem]:
    """Files that nothing commits. ``states`` must cover every unit that has a receipt."""
    known = {META, META_COPY, INDEX, CARD, *cache.meta.metadata}
    known |= {stats_name(column.name) for column in cache.meta.columns.values() if column.teacher}
    known |= {receipt_path(Path(), unit).as_posix() for unit in cache.expected_units}
    for state in states:
        known |= set(state.files)
        if state.receipt_is_wrong:  # it is named already; what it should have named is not strange for that
            known |= {name for column in cache.columns.values() for name in file_names(cache.meta, column, state.unit)}
    return [
        Problem(kind="leftover", file=name, detail="no receipt names it")
        for name in names_below(cache.path)
        if name not in known and name.partition("/")[0] != TMP
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The outcome of ``verify``. ``unfinished`` units are those not committed yet, which is no damage."""

    problems: tuple[Problem, ...]
    unfinished: tuple[int, ...]
    units: int
    files: int
    bytes: int

    @property
    def damage(self) -> tuple[Problem, ...]:
        """Problems other than units and columns that were never made."""
        return tuple(problem for problem in self.problems if not problem.never_made)


def verify(cache: Cache, *, tick: Callable[[UnitState], None] = lambda _: None) -> Report:
    """Check everything, every byte of it. A unit whose receipt was deleted counts as unfinished, and its files as
    left over."""
    metadata = check_metadata(cache)
    if any(problem.file == INDEX for problem in metadata):
        return Report(problems=tuple(metadata), unfinished=(), units=0, files=0, bytes=0)
    states = check_units(cache, cache.expected_units, deep=True, tick=tick)
    problems = [*metadata, *(problem for state in states for problem in state.problems)]
    if not any(problem.file.startswith(RECEIPTS) for problem in problems):  # they are computed from the receipts
        problems += check_summaries(cache)
    problems += leftovers(cache, states)
    unfinished = tuple(state.unit for state in states if any(problem.never_made for problem in state.problems))
    return Report(
        problems=tuple(problems),
        unfinished=unfinished,
        units=len(states) - len(unfinished),
        files=sum(len(state.files) for state in states),
        bytes=sum(state.bytes for state in states),
    )
