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
from frame.pipeline.store.objects import ObjectPath, StorePath, sha256_object

TMP = "tmp"
_LOCK = "lock"
_BLOCK = 1 << 20
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # what a file system answers that has no locks


class CacheError(InputError):
    """The cache, or the disk under it, is not in the state that was promised."""


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hexadecimal sha256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: StorePath) -> str:
    """Hexadecimal sha256 of a file's content, read in blocks."""
    if isinstance(path, ObjectPath):
        return sha256_object(path)
    digest = hashlib.sha256()
    buffer = bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def write_durable(path: StorePath, data: bytes | memoryview, *, tmp: Path) -> None:
    """Make ``path`` hold exactly ``data``, or leave it as it was.

    ``tmp`` is the writer's temporary folder, on the same file system. Raises ``CacheError`` on a full or failing disk.
    """
    if isinstance(path, ObjectPath):
        return path.write_bytes(data)
    partial = aside(tmp, "partial")
    try:
        _settle(path.parent, tmp)
        disk.write_file(partial, data)
        disk.move(partial, path)
        disk.fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            disk.unlink(partial)
        raise disk_error(error, path) from error


def give_name(partial: Path, path: Path, *, tmp: Path) -> None:
    """Give a whole and flushed file of the writer's folder ``tmp`` the name ``path``, in place of what has it. Raises
    ``CacheError`` on a failing disk."""
    try:
        _settle(path.parent, tmp)
        disk.move(partial, path)
        disk.fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            disk.unlink(partial)
        raise disk_error(error, path) from error


def ensure_durable(path: StorePath, data: bytes, *, tmp: Path) -> None:
    """``write_durable``, unless ``path`` holds ``data`` already: then only its name is flushed, because a writer may
    have been killed as soon as it had given it."""
    if not holds(path, data):
        return write_durable(path, data, tmp=tmp)
    if isinstance(path, ObjectPath):
        return None
    try:
        _settle(path.parent, tmp)
        disk.fsync_folder(path.parent)
    except OSError as error:
        raise disk_error(error, path) from error


def holds(path: StorePath, data: bytes) -> bool:
    """Is ``data`` what lies at ``path``?"""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def aside(tmp: Path, kind: str) -> Path:
    """A name inside a writer's folder that nothing had before."""
    return tmp / f"{uuid.uuid4().hex}.{kind}"


# Folders whose names a writer (the second item: its temporary folder) knows to be on the disk.
_settled: set[tuple[Path, Path]] = set()


def _settle(folder: Path, tmp: Path) -> None:
    """Make ``folder`` and those above it as far as the cache, and flush each into its parent, so that no power cut
    takes it back. Those that are there are flushed too, once a writer: whoever made them may have been killed before.
    """
    if ((folder, tmp) in _settled and folder.is_dir()) or tmp.is_relative_to(folder) or folder == folder.parent:
        return
    _settle(folder.parent, tmp)
    if not folder.is_dir():
        make_folder(folder)
    disk.fsync_folder(folder.parent)
    _settled.add((folder, tmp))


def make_folder(folder: Path) -> None:
    """Make one folder, unless it is there; the answer that it is may be to one's own request, asked twice."""
    try:
        disk.mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise


def make_root(folder: StorePath) -> None:
    """Make a cache's or a run's folder, and those above it, to outlast a power cut. Raises ``OSError``."""
    if isinstance(folder, ObjectPath):
        return
    if not folder.is_dir():
        make_root(folder.parent)
        make_folder(folder)
    with suppress(PermissionError):  # a folder that one may make folders in, but not open
        disk.fsync_folder(folder.parent)


def see_again(folder: StorePath) -> None:
    """Make the client of a network file system ask the server what is in ``folder``. It may remember for half a minute
    that a file is not there, or what it was; opening the folder is when it has to ask."""
    with suppress(OSError):
        if isinstance(folder, Path):
            os.close(disk.open_folder(folder))


def disk_error(error: OSError, path: StorePath) -> CacheError:
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
def writer_folder(cache: StorePath) -> Iterator[Path]:
    """A temporary folder of this writer's own inside ``cache``, removed at the end.

    Folders of writers that have died are removed on the way in and out; those of living ones are left alone.
    """
    if isinstance(cache, ObjectPath):
        yield Path(os.devnull)  # objects are put whole: nothing is ever made in it
        return
    folder, lock = _claim_folder(cache / TMP)
    try:
        with _closing(lock):
            remove_leftovers(cache)
            try:
                yield folder
            finally:
                disk.remove_tree(folder)
    finally:
        remove_leftovers(cache)


def _claim_folder(root: Path) -> tuple[Path, int]:
    """A new locked folder in ``root``. Another writer's clean-up may take it before it is locked: then the next."""
    while True:
        folder = root / uuid.uuid4().hex
        try:
            _make_shared(root)
            make_folder(folder)
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
def exclusive(cache: StorePath, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the cache's lock: for planning it, and for a short change of ``cache.json`` or a receipt. ``waiting`` is
    called once if another process holds it.

    Safety rests on the renames. Without the lock, two changes at once would lose one of them, and the next build would
    make it again; and two builds would both probe every video."""
    if isinstance(cache, ObjectPath):
        yield  # what is changed there is changed on conditions (see claims.py)
        return
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
        with _closing(lock):
            try:
                yield
            finally:
                with suppress(OSError):  # gone, or refused: nothing rests on the file, only on the lock
                    disk.unlink(root / _LOCK)
    finally:
        remove_leftovers(cache)


@contextmanager
def _closing(lock: int | None) -> Iterator[None]:
    """Let go of a lock whatever happens, an interrupt during the cleaning up included: a process that went on would
    wait for itself."""
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(path: Path, *, wait: bool, needed: bool = False) -> int | None:
    """Lock the file ``path``, made if it is not there; None when somebody else holds it.

    Where the file system has no locks at all, a descriptor without a lock is returned, or None if the lock is
    ``needed``. Raises ``FileNotFoundError`` when the folder is gone.
    """
    while True:
        descriptor = disk.open_lock(path)
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
