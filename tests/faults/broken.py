"""Deliberately broken variants of the commit protocol. The tests that hold it must fail on each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

from power import Disk

from frame.pipeline.store import CacheError, disk, files, verify, writer
from frame.pipeline.store.reader import Cache
from frame.pipeline.store.verify import UnitState, check_unit, file_names


@contextmanager
def writing_in_place() -> Iterator[None]:
    """Files are written under the names by which they count."""

    def write(path: Path, data: bytes | memoryview, *, tmp: Path) -> None:
        files._settle(path.parent, tmp)
        view = memoryview(data)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for part in (view[: len(view) // 2], view[len(view) // 2 :]):
            disk.write_all(descriptor, part)
        disk.fsync(descriptor)
        disk.close(descriptor)

    with mock.patch.object(files, "write_durable", write), mock.patch.object(writer, "write_durable", write):
        yield


@contextmanager
def taking_files_for_units() -> Iterator[None]:
    """A unit whose files exist counts as made, whether a receipt says so or not."""

    def check(cache: Cache, units: list[int], *, deep: bool) -> list[UnitState]:
        states = []
        for unit in units:
            names = {name for column in cache.columns.values() for name in file_names(cache.meta, column, unit)}
            if any((cache.path / name).exists() for name in names):
                states.append(UnitState(unit=unit, problems=(), files=tuple(names), bytes=0))
            else:
                states.append(check_unit(cache, unit, deep=deep))
        return states

    with mock.patch.object(verify, "check_units", check):
        yield


@contextmanager
def never_flushing() -> Iterator[None]:
    """Nothing is flushed, neither files nor folders."""
    with mock.patch.object(Disk, "_flush"):
        yield


@contextmanager
def believing_the_first_look() -> Iterator[None]:
    """That a receipt is not there is taken for granted before the server was asked."""

    def previous(cache: Path, meta: object, unit: int) -> object:
        try:
            return writer.read_receipt(cache, unit, plan_id=meta.plan_id)  # type: ignore[attr-defined]
        except CacheError:
            return None

    with mock.patch.object(writer, "_previous", previous):
        yield


@contextmanager
def believing_every_error() -> Iterator[None]:
    """A rename that is said to have failed has failed: what lies under the name is not ours, and is cleared away."""

    def move(source: Path, target: Path) -> None:
        try:
            disk.rename(source, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise

    with mock.patch.object(disk, "move", move):
        yield


BROKEN: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "in place": writing_in_place,
    "exists": taking_files_for_units,
}
