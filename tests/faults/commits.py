"""What is interrupted, and how it is looked at: a build of a small cache, without Ray and without decoding.

The same command again is what resumes it. ``CacheCommand`` is one, ``runs.RunCommand`` another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from store_caches import CLS, LATER, Made, add_column, make_cache, quick_disk, restore, tree, unit_data

from frame.pipeline.store import Cache, CacheError, open_cache, reopen, verify, writer
from frame.pipeline.store import finish as finish_module
from frame.pipeline.store.files import TMP, disk_error, exclusive, make_root, writer_folder
from frame.pipeline.store.index import index_bytes
from frame.pipeline.store.layout import META, META_COPY, RECEIPTS, StoreKind
from frame.pipeline.store.verify import Problem, UnitState, check_unit
from frame.pipeline.store.writer import with_metadata, write_metadata

Promise = Callable[[str], None]


class Command(Protocol):
    """Something that can be interrupted anywhere and given again. ``before``, ``whole``: the folder's files at first,
    and at the end if nobody interrupts it."""

    @property
    def before(self) -> Mapping[str, bytes]: ...

    @property
    def whole(self) -> Mapping[str, bytes]: ...

    def run(self, path: Path, promise: Promise) -> None:
        """Do it, or what is left of it. Says to ``promise`` what is from then on to be relied on."""

    def findings(self, path: Path, promised: list[str]) -> Findings:
        """What is wrong with what an interruption left, before anything is mended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """``lost`` was there or promised and is not; ``torn`` counts as committed and is not what was committed."""

    lost: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([*(f"lost: {each}" for each in self.lost), *(f"torn: {each}" for each in self.torn)])


def nobody(_: str) -> None:
    """A promise that nobody hears."""


def begin(command: Command, path: Path) -> None:
    """A folder as it was before the command, at a place where nothing is."""
    if command.before:
        restore(path, command.before)


def differences(command: Command, path: Path) -> tuple[str, ...]:
    """Files that are not as after an undisturbed run, and folders that should be gone."""
    found = tree(path)
    names = [name for name in sorted({*found, *command.whole}) if found.get(name) != command.whole.get(name)]
    return (*names, *(["tmp"] if (path / "tmp").exists() else []))


@dataclass(frozen=True, kw_only=True)
class CacheCommand:
    """What `frame-cache build` does to the disk. ``made`` is the cache at the end."""

    made: Made
    before: Mapping[str, bytes]
    whole: Mapping[str, bytes]
    metadata: Mapping[str, bytes]
    index: bytes

    def run(self, path: Path, promise: Promise = nobody) -> None:
        made = self.made
        try:
            make_root(path)
        except OSError as error:
            raise disk_error(error, path) from error
        with exclusive(path), writer_folder(path) as tmp:
            if (path / META).exists() or (path / META_COPY).exists():
                reopen(path)  # one of them has to be readable
            write_metadata(path, made.meta, self.metadata, self.index, tmp=tmp)
        promise("metadata")
        cache = open_cache(path)
        with writer_folder(path) as tmp:
            for state in verify.check_units(cache, cache.expected_units, deep=True):
                columns = [name for name in cache.columns if name in state.broken_columns]
                if columns:
                    data = unit_data(made, state.unit, columns)
                    writer.commit_unit(path, made.meta, made.table, data, tmp=tmp)
                    promise(str(state.unit))
            left = finish_module.finish(path, tmp=tmp)
        assert not left, f"{left} units are missing after the build"
        promise("finished")

    def findings(self, path: Path, promised: list[str]) -> Findings:
        if not any((path / name).exists() for name in (META, META_COPY)):
            return Findings(lost=("the cache",) if promised or self.before else ())
        try:
            cache = reopen(path)
            states = {state.unit: state for state in verify.check_units(cache, cache.expected_units, deep=True)}
        except CacheError as error:
            # Before cache.json there is no cache; a copy of it alone is the beginning of one.
            fresh = not promised and not self.before and not (path / META).exists()
            return Findings() if fresh else Findings(torn=(str(error),))
        problems = [problem for state in states.values() for problem in state.problems]
        torn = [f"{each.file}: {each.detail}" for each in problems if _is_torn(each)]
        if (path / META).exists():
            torn += [f"{each.file}: {each.detail}" for each in verify.check_metadata(cache) if each.kind != "stale"]
        lost = []
        for unit in map(int, {name for name in promised if name.isdigit()}):
            lost += [f"unit {unit}: {name}" for name in self.made.meta.columns if _lacks(states[unit], name, cache)]
        if self.before:
            lost += [f"unit {u}: {name}" for u in states for name in COLUMNS if _lacks(states[u], name, cache)]
        if "finished" in promised:
            lost += [name for name in differences(self, path) if not name.startswith(TMP)]
        return Findings(lost=tuple(lost), torn=tuple(torn))


def _is_torn(problem: Problem) -> bool:
    """Is it something that a receipt or a name vouches for, rather than something that was never made?"""
    return not (problem.kind == "missing" and problem.file.startswith(f"{RECEIPTS}/"))


def _lacks(state: UnitState, name: str, cache: Cache) -> bool:
    return name not in cache.columns or name in state.broken_columns


@contextmanager
def one_after_the_other() -> Iterator[None]:
    """Units are checked without threads, whose switching takes longer than such small units do."""

    def check(cache: Cache, units: Iterable[int], *, deep: bool) -> list[UnitState]:
        return [check_unit(cache, unit, deep=deep) for unit in units]

    with mock.patch.object(finish_module, "check_units", check), mock.patch.object(verify, "check_units", check):
        yield


COLUMNS = ("frames", CLS)
LENGTHS, FAILED, UNIT_ROWS = (3, 2, 4), 1, 5


def cache_commands(store: StoreKind, scratch: Path) -> dict[str, CacheCommand]:
    """Building a new cache of two units and two columns, and adding another teacher's column to it."""
    path = scratch / "calm"
    layout: Any = {"lengths": LENGTHS, "failed": (FAILED,), "rows_per_unit": UNIT_ROWS, "encoding": "residual"}
    first = make_cache(path, store=store, **layout)
    grown = add_column(first)
    shutil.rmtree(path)
    commands: dict[str, CacheCommand] = {}
    before: Mapping[str, bytes] = {}
    for name, made, columns in (("new", first, COLUMNS), ("later", grown, (*COLUMNS, LATER))):
        kept = {column: made.meta.columns[column] for column in columns}
        meta, metadata = with_metadata(replace(made.meta, columns=kept))
        about = {"made": replace(made, meta=meta), "metadata": metadata, "index": index_bytes(made.table)}
        with quick_disk():
            CacheCommand(before=before, whole={}, **about).run(path)
        commands[name] = CacheCommand(before=before, whole=tree(path), **about)
        before = tree(path)
    shutil.rmtree(path)
    return commands


def commands_of(kind: str, scratch: Path) -> Mapping[str, Command]:
    """The commands of a kind: a store, or "run"."""
    if kind == "run":
        from runs import run_commands  # it loads torch

        return run_commands(scratch)
    return cache_commands(kind, scratch)  # type: ignore[arg-type]
