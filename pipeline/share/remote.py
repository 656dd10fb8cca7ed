"""What pushing and pulling ask of another place, whatever kind of place it is."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from frame.manifests.errors import InputError
from frame.pipeline.store import disk
from frame.pipeline.store.files import aside, disk_error, sha256_bytes
from frame.pipeline.store.layout import RECEIPTS, damage
from frame.pipeline.store.regular import FLAGS, require_regular

_RECEIPT = re.compile(rf"{RECEIPTS}/(\d{{6,12}})\.json", re.ASCII)

BLOCK = 8 << 20
"""Bytes that are read or written at once."""

KEPT = "what has arrived is kept: run the same command again to go on."


class RemoteError(InputError):
    """The other place did not answer, refused, or gave something else than it was given. It says nothing about the
    cache here, so it is no ``CacheError``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A file that is there, as far as the place itself says: bytes (None: it does not), and, on the hub, the sha256 of
    a large file or the git blob id of a small one (else empty)."""

    size: int | None
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """A file that came, under a temporary name and flushed to the disk; its sha256 was taken of what came."""

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """A file to push: ``name`` in the cache, its size and sha256, and ``data`` of a small one, which is sent as it was
    when it was looked at, or else ``path``, which is compared with its sha256 whenever it is read."""

    name: str
    size: int
    sha256: str
    data: bytes | None = None
    path: Path | None = None

    def blocks(self) -> Iterator[bytes]:
        """The content. Raises ``CacheError`` at the latest behind the last block, if it is not what was committed."""
        if self.data is not None:
            yield self.data
            return
        assert self.path is not None
        digest = hashlib.sha256()
        try:
            with os.fdopen(os.open(self.path, FLAGS), "rb", buffering=0) as file:
                require_regular(os.fstat(file.fileno()))
                while block := file.read(BLOCK):
                    digest.update(block)
                    yield block
        except OSError as error:
            raise damage(self.path, error.strerror or str(error)) from error
        if digest.hexdigest() != self.sha256:
            raise damage(self.path, "its content differs from the sha256 in its receipt, so it is not pushed")

    def content(self) -> bytes:
        """All of it, compared with its sha256."""
        return b"".join(self.blocks())

    def require_intact(self) -> None:
        """Read it once. Raises ``CacheError`` if it is not what was committed."""
        for _ in self.blocks():
            pass

    def git_blob(self) -> str:
        """What git, and the hub, call a small file of this content."""
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


def outgoing(name: str, data: bytes) -> Outgoing:
    """A small file that is at hand."""
    return Outgoing(name=name, size=len(data), sha256=sha256_bytes(data), data=data)


class Remote(Protocol):
    """Another place. All of these raise ``RemoteError``, after some tries where another try may help."""

    most_files: int
    """How many files are handed to ``send`` at once."""
    most_bytes: int
    """How many bytes, unless a single file has more."""

    @property
    def address(self) -> str:
        """What a person may read: no password, no token."""

    @property
    def checked(self) -> str:
        """In words, how it is known that files arrived."""

    def prepare(self, names: Iterable[str]) -> None:
        """Make the place ready for files of these names, before any is sent."""

    def listing(self) -> dict[str, Held]:
        """What is there now, by name."""

    def read(self, name: str, *, most: int) -> bytes | None:
        """A small file's content, None if there is none of this name. Never more than ``most`` bytes."""

    def fetch(self, name: str, tmp: Path, *, most: int) -> Arrived:
        """Bring a file into the folder ``tmp``; of a longer one than ``most`` bytes it is no more than the beginning.
        A disk that refuses raises ``CacheError``."""

    def right(self, file: Outgoing, held: Held) -> bool:
        """Is what is there of this name the file? Nothing is sent that is there and right."""

    def send(self, files: Sequence[Outgoing]) -> None:
        """Put files there, in their order, and see that they arrived. None of them ever stands half-written under its
        name, as far as the place allows (each kind of place says how far that is)."""


def save(blocks: Iterable[bytes], tmp: Path, *, most: int) -> Arrived:
    """Write what comes to a new file in ``tmp``, flush it, and take its sha256 on the way; one block over ``most``
    bytes ends it. Raises ``CacheError`` if the disk refuses, and whatever ``blocks`` does."""
    path, digest, count = aside(tmp, "pulled"), hashlib.sha256(), 0
    try:
        with _refusals(path):
            descriptor = disk.create(path)
        try:
            for block in blocks:
                digest.update(block)
                count += len(block)
                with _refusals(path):
                    disk.write_all(descriptor, block)
                if count > most:
                    break
            with _refusals(path):
                disk.fsync(descriptor)
        except BaseException:
            os.close(descriptor)  # what failed is what counts, not whether this does
            raise
        with _refusals(path):
            disk.close(descriptor)
    except BaseException:
        discard(path)
        raise
    return Arrived(path=path, size=count, sha256=digest.hexdigest())


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Errors of the disk here as ``CacheError``, so that they are never taken for errors of the other place."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def same_bytes(file: Outgoing, size: int, blocks: Iterable[bytes], *, read_back: bool) -> bool:
    """Is what lies there, ``size`` bytes in ``blocks``, the file? Large ones by size alone without ``read_back``."""
    if size != file.size:
        return False
    if file.data is None and not read_back:
        return True
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest() == file.sha256


def units_in(names: Iterable[str]) -> set[int]:
    """Units that have a receipt among the files ``names``."""
    return {int(match[1]) for name in names if (match := _RECEIPT.fullmatch(name))}


def discard(path: Path) -> None:
    """Remove a temporary file, as far as that can be done: the writer's folder goes at the end anyway."""
    with suppress(OSError):
        disk.unlink(path)


def changed(name: str, address: str, *, kept: str = KEPT) -> RemoteError:
    """The screen for a file that has come through wrong twice."""
    return RemoteError(
        what="A file arrived changed, twice.",
        where=f"{address}, {name}",
        why="its sha256 is not the one that the receipt or the plan names",
        fix=f"Check the network, the disks and the place; {kept}",
    )
