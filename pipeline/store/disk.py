"""The system calls on which commits rest, one function each.

Nothing else in this package changes a cache or a run's folder, so whoever stands in front of these functions stands in
front of every change: the fault tests kill, refuse, delay and forget them one by one (tests/faults). Callers therefore
name them through the module: ``disk.rename(...)``.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

# What file systems answer that cannot flush a folder, because they write its entries at once or not at their clients.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)

# What a test may stand in front of.
OPERATIONS = (
    "create",
    "append",
    "write",
    "fsync",
    "close",
    "rename",
    "mkdir",
    "rmdir",
    "unlink",
    "open_folder",
    "open_lock",
    "lock",
)


def create(path: Path) -> int:
    """A descriptor of the new, empty file ``path``."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def append(path: Path) -> int:
    """A descriptor that writes at the end of ``path``, made if it is not there."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


def write(descriptor: int, data: memoryview) -> int:
    """Write some of ``data``; the number of bytes written."""
    return os.write(descriptor, data)


def fsync(descriptor: int) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    """Close a descriptor. Network file systems report here what they could not write."""
    os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give ``source`` the name ``target``, which it takes over in one step if there is one."""
    source.replace(target)


def mkdir(folder: Path) -> None:
    """Make one folder."""
    folder.mkdir()


def rmdir(folder: Path) -> None:
    """Remove an empty folder."""
    folder.rmdir()


def unlink(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def open_folder(folder: Path) -> int:
    """A descriptor of a folder, to flush its entries."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_lock(path: Path) -> int:
    """A descriptor of the file ``path``, made if it is not there, that can be locked."""
    # Opened for writing, because NFS locks nothing else exclusively.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def lock(descriptor: int, *, wait: bool) -> bool:
    """Lock the open file for this descriptor alone; False if another has it. OSError where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data``: one call may take less."""
    view = memoryview(data).cast("B")
    while len(view):
        count = write(descriptor, view)
        if count == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[count:]


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Make the file ``path`` of ``data`` and flush it. The name is one that nobody else uses."""
    try:
        descriptor = create(path)
    except FileExistsError:
        unlink(path)  # made by this very call: a network file system lost the first answer and was asked again
        descriptor = create(path)
    try:
        write_all(descriptor, data)
        fsync(descriptor)
    except BaseException:
        os.close(descriptor)  # what failed is what counts, not whether this does
        raise
    close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut, where the file system can do that."""
    descriptor = open_folder(folder)
    try:
        fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """``rename``, believed to have failed only if it has: a network file system that lost the answer asks again, and is
    then told that there is no ``source``."""
    mine = source.stat()
    try:
        rename(source, target)
    except OSError:
        with suppress(OSError):
            if os.path.samestat(mine, target.stat()):
                return
        raise


def remove_tree(folder: Path) -> None:
    """Remove a folder and what is in it, as far as that can be done: it is litter, and nothing rests on it."""
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry)
            else:
                with suppress(OSError):
                    unlink(entry)
        rmdir(folder)
