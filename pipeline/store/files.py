"""How a commit is made of operations on files.

The protocol: write the whole file under a temporary name on the same file system, flush it to the disk, rename it onto
its final name, flush the folder. A name therefore holds either the whole file or what it held before. Temporary files
live in ``CACHE/tmp/<writer>/``; a writer holds a lock in its folder for as long as it lives, and the kernel lets go of
the lock when it dies, however it dies, so leftovers are told from work in progress without looking at any clock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frame.manifests.errors import InputError
from frame.pipeline.store import disk

TMP = "tmp"
_LOCK = "lock"
_BLOCK = 1 << 20
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # what a file system answers that has no locks


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


def write_durable(path: Path, data: bytes | memoryview, *, tmp: Path) -> None:
    """Make ``path`` hold exactly ``data``, or leave it as it was.

    ``tmp`` is the writer's temporary folder, on the same file system. Raises ``CacheError`` on a full or failing disk.
    """
    partial = tmp / f"{uuid.uuid4().hex}.partial"
    try:
        _make_folder(path.parent)
        disk.write_file(partial, data)
        disk.rename(partial, path)
        disk.fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            disk.unlink(partial)
        raise disk_error(error, path) from error


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents; each new one is flushed into its parent, so that no power cut takes it back."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        disk.mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise
    disk.fsync_folder(folder.parent)


def disk_error(error: OSError, path: Path) -> CacheError:
    """The screen for an operation on ``path`` that the disk refused."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return CacheError(
        what="The disk is full." if full else "A file could not be written.",
        where=str(path),
        why=error.strerror or str(error),
        fix="Free some space, then run the same command again: what is finished is kept."
        if full
        else "Mend the file system or its permissions, then run the same command again: what is finished is kept.",
    )


@contextmanager
def writer_folder(cache: Path) -> Iterator[Path]:
    """A temporary folder of this writer's own inside ``cache``, removed at the end.

    Folders of writers that have died are removed on the way in and out; those of living ones are left alone.
    """
    folder, lock = _claim_folder(cache / TMP)
    try:
        remove_leftovers(cache)
        yield folder
    finally:
        disk.remove_tree(folder)
        os.close(lock)
        remove_leftovers(cache)


def _claim_folder(root: Path) -> tuple[Path, int]:
    """A new locked folder in ``root``. Another writer's clean-up may take it before it is locked: then the next."""
    while True:
        folder = root / uuid.uuid4().hex
        try:
            _make_shared(root)
            disk.mkdir(folder)
            lock = _lock(folder / _LOCK, wait=False)
        except FileNotFoundError:
            if root.parent.is_dir():
                continue
            raise disk_error(FileNotFoundError(errno.ENOENT, "the cache's folder is gone"), folder) from None
        except OSError as error:
            raise disk_error(error, folder) from error
        if lock is not None:
            return folder, lock


def _make_shared(folder: Path) -> None:
    """Make a folder that other processes make and remove at the same time; it may be gone again right after."""
    try:
        disk.mkdir(folder)
    except FileExistsError:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(folder.lstat().st_mode) and not folder.is_dir():
                raise


def remove_leftovers(cache: Path) -> None:
    """Remove temporary folders whose writer is gone, and ``tmp`` itself when nobody writes."""
    root = cache / TMP
    try:
        for entry in root.iterdir():
            _remove_if_dead(entry)
        disk.rmdir(root)
    except OSError:
        return  # there is none, another writer is at work, or we may not


def _remove_if_dead(entry: Path) -> None:
    """Remove a writer's folder, or the lock of ``exclusive``, if its owner has died."""
    shared = entry.name == _LOCK
    try:
        lock = _lock(entry if shared else entry / _LOCK, wait=False, needed=True)
    except (FileNotFoundError, NotADirectoryError):
        return  # another writer has just removed it, or it is none of ours
    if lock is None:
        return
    if shared:
        with suppress(OSError):
            disk.unlink(entry)
    else:
        disk.remove_tree(entry)
    os.close(lock)


@contextmanager
def exclusive(cache: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the cache's lock: for planning it, and for a short change of ``cache.json`` or a receipt. ``waiting`` is
    called once if another process holds it.

    Safety rests on the renames. Without the lock, two changes at once would lose one of them, and the next build would
    make it again; and two builds would both probe every video."""
    root = cache / TMP
    while True:
        try:
            _make_shared(root)
            lock = _lock(root / _LOCK, wait=False)
            if lock is None:
                waiting()
                lock = _lock(root / _LOCK, wait=True)
            break
        except FileNotFoundError:
            if not cache.is_dir():
                raise disk_error(FileNotFoundError(errno.ENOENT, "the cache's folder is gone"), cache) from None
        except OSError as error:
            raise disk_error(error, root) from error
    try:
        yield
    finally:
        with suppress(OSError):  # gone, or refused: nothing rests on the file, only on the lock
            disk.unlink(root / _LOCK)
        if lock is not None:
            os.close(lock)
        remove_leftovers(cache)


def _lock(path: Path, *, wait: bool, needed: bool = False) -> int | None:
    """Lock the file ``path``, made if it is not there; None when somebody else holds it.

    It is a file opened for writing because NFS locks nothing else exclusively. Where the file system has no locks at
    all, a descriptor without a lock is returned, or None if the lock is ``needed``. Raises ``FileNotFoundError`` when
    the folder is gone.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if not disk.lock(descriptor, wait=wait):
                os.close(descriptor)
                return None
            # Whoever held it before may have removed the file, and a lock on a file without a name protects nothing.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _NO_LOCKS and not needed:
                return descriptor
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(descriptor)
