"""Places to push to and pull from that fail where a test says: file systems for fsspec, one that renames and one that
does not, and shorthands for both commands' functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from store_caches import Made, quick_disk

from frame.pipeline.share import retry
from frame.pipeline.share.address import open_remote
from frame.pipeline.share.pull import Pulled, pull
from frame.pipeline.share.push import Pushed, push
from frame.pipeline.share.source import look_at
from frame.pipeline.store import open_cache
from frame.pipeline.store.verify import verify


class Faults:
    """What happens at the n-th operation, from 0 on: ``fault`` is called before each with its number and name."""

    def __init__(self) -> None:
        self.begin(lambda _number, _name: None)

    def begin(self, fault: Callable[[int, str], None]) -> None:
        self.count, self.fault = 0, fault

    def strike(self, name: str) -> None:
        number, self.count = self.count, self.count + 1
        self.fault(number, name)


FAULTS = Faults()


class _Struck:
    """An open file whose reads and writes are operations."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> _Struck:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> Any:
        FAULTS.strike("read")
        return self._file.read(size)

    def write(self, data: bytes) -> Any:
        """Half of it, then perhaps the fault, then the other half: what is killed in between is half-written."""
        self._file.write(data[: len(data) // 2])
        FAULTS.strike("write")
        return self._file.write(data[len(data) // 2 :])


class FaultyDisk(LocalFileSystem):
    """``faultydisk:///FOLDER``: the local disk, which renames."""

    protocol = "faultydisk"

    def info(self, path: Any, **kwargs: Any) -> Any:
        FAULTS.strike("info")
        return super().info(path, **kwargs)

    def open(self, path: Any, mode: str = "rb", **kwargs: Any) -> Any:
        FAULTS.strike("open")
        return _Struck(super().open(path, mode, **kwargs))

    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        FAULTS.strike("makedirs")
        super().makedirs(path, exist_ok=exist_ok)

    def mv(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        FAULTS.strike("mv")
        super().mv(path1, path2, **kwargs)


class FaultyObjects(MemoryFileSystem):
    """``faultyobjects://NAME``: in memory, and without renaming, as object stores are."""

    protocol = "faultyobjects"

    def info(self, path: Any, **kwargs: Any) -> Any:
        FAULTS.strike("info")
        return super().info(path, **kwargs)

    def open(self, path: Any, mode: str = "rb", **kwargs: Any) -> Any:
        FAULTS.strike("open")
        return _Struck(super().open(path, mode, **kwargs))

    def pipe_file(self, path: Any, value: Any, *_: Any, **__: Any) -> None:
        FAULTS.strike("pipe_file")
        MemoryFileSystem().open(path, "wb", data=bytes(value)).close()


fsspec.register_implementation("faultydisk", FaultyDisk, clobber=True)
fsspec.register_implementation("faultyobjects", FaultyObjects, clobber=True)


@contextmanager
def impatient() -> Iterator[None]:
    """Two short pauses between tries."""
    with mock.patch.object(retry, "PAUSES", (0.0, 0.0)):
        yield


def broken(number: int, *, times: int = 1) -> Callable[[int, str], None]:
    """A fault for ``Faults.begin``: the operations from ``number`` on fail, so many of them."""

    def fault(turn: int, name: str) -> None:
        if number <= turn < number + times:
            raise ConnectionResetError(f"operation {turn} ({name}) broke off")

    return fault


def send(cache: Path, url: str, **options: Any) -> Pushed:
    """What ``frame-cache push`` does."""
    remote = open_remote(url, pushing=True, **options)
    with quick_disk():
        return push(look_at(open_cache(cache)), remote)


def bring(url: str, path: Path) -> Pulled:
    """What ``frame-cache pull`` does."""
    remote = open_remote(url)
    with quick_disk():
        return pull(remote, remote.listing(), path)


def intact(path: Path) -> bool:
    """Does ``verify`` find a whole cache, and nothing else?"""
    return not verify(open_cache(path)).problems


def undamaged(path: Path) -> bool:
    """Does ``verify`` find no more than what is still to come (statistics and the card, at the end, too), and
    leftovers?"""
    damage = verify(open_cache(path)).damage
    last = ("stats/", "README.md")
    return all(item.kind == "leftover" or (item.kind == "missing" and item.file.startswith(last)) for item in damage)


def in_memory(name: str) -> dict[str, bytes]:
    """What lies below ``memory://NAME``."""
    fs = MemoryFileSystem()
    return {path[len(f"/{name}/") :]: fs.cat_file(path) for path in fs.find(f"/{name}")}


def put_in_memory(name: str, files: Mapping[str, bytes]) -> None:
    """Make ``memory://NAME`` hold these files and no other."""
    fs = MemoryFileSystem()
    if fs.exists(f"/{name}"):
        fs.rm(f"/{name}", recursive=True)
    for file, data in files.items():
        fs.pipe_file(f"/{name}/{file}", data)


def same_bytes(made: Made, path: Path) -> bool:
    """Has the copy every file of the cache, byte for byte, and no other?"""
    from store_caches import tree

    return tree(made.path) == tree(path)
