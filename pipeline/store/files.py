"""Every operation on files that a commit rests on, in one place.

The protocol: write the whole file under a temporary name on the same file system, flush it to the disk, rename it onto
its final name, flush the folder. A name therefore holds either the whole file or what it held before. Temporary files
live in ``CACHE/tmp/<writer>/``; a writer holds a lock on its folder for as long as it lives, and the kernel lets go of
the lock when it dies, however it dies, so leftovers are told from work in progress without looking at any clock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frame.manifests.errors import InputError

TMP = "tmp"
_BLOCK = 1 << 20


class CacheError(InputError):
    """The cache, or the disk under it, is not in the state that was promised."""


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hexadecimal sha256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's content, read in blocks."""
    digest = hashlib.sha256()
    buffer = bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durable(path: Path, data: bytes | memoryview, *, tmp: Path) -> None:
    """Make ``path`` hold exactly ``data``, or leave it as it was.

    ``tmp`` is the writer's temporary folder, on the same file system. Raises ``CacheError`` on a full or failing disk.
    """
    partial = tmp / f"{uuid.uuid4().hex}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb", buffering=0) as file:
            view = memoryview(data).cast("B")
            while len(view):
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        partial.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> CacheError:
    """The screen for an operation on ``path`` that the disk refused."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return CacheError(
        what="The disk is full." if full else "A file of the cache could not be written.",
        where=str(path),
        why=error.strerror or str(error),
        fix="Free some space, then run the same command again: finished units are kept."
        if full
        else "Mend the file system or its permissions, then run the same command again: finished units are kept.",
    )


@contextmanager
def writer_folder(cache: Path) -> Iterator[Path]:
    """A temporary folder of this writer's own inside ``cache``, removed at the end.

    Folders of writers that have died are removed on the way in and out; those of living ones are left alone.
    """
    root = cache / TMP
    folder = root / uuid.uuid4().hex
    try:
        folder.mkdir(parents=True)
        lock = _lock(folder)
    except OSError as error:
        raise disk_error(error, folder) from error
    try:
        remove_leftovers(cache)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        remove_leftovers(cache)


def remove_leftovers(cache: Path) -> None:
    """Remove temporary folders whose writer is gone, and ``tmp`` itself when nobody writes."""
    root = cache / TMP
    if not root.is_dir():
        return
    for folder in root.iterdir():
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    try:
        root.rmdir()
    except OSError:
        return  # another writer is at work


def _lock(folder: Path) -> int | None:
    """Take the folder's lock; None when a living writer holds it or the folder is already gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def exclusive(cache: Path) -> Iterator[None]:
    """Hold the cache's lock for a short change of ``cache.json``. It saves work; safety rests on the renames."""
    descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
