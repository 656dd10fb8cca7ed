"""What may lie in the place of a file: regular files alone, and small ones where small ones are read whole.

A cache may come from anybody. Where a file should be it may hold a pipe, which a reader would wait on for ever, a
device without an end, a link to one of the reader's own files, or a text too long for the memory.
"""

from __future__ import annotations

import errno
import os
import stat

from frame.pipeline.store.objects import ObjectPath, StorePath

FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened whose kind is looked at afterwards: no link is followed, and no pipe waited for."""


def require_regular(status: os.stat_result) -> None:
    """Raise ``OSError`` unless the status, taken without following links, is that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "a folder, a pipe or a device"
        raise OSError(errno.EINVAL, f"it is {kind}, where a file should be")


def read_small(path: StorePath, *, most: int) -> bytes:
    """The bytes of ``path``. Raises ``OSError``, also for what is no regular file or has more than ``most`` bytes."""
    if isinstance(path, ObjectPath):
        return path.read_bytes(most=most)
    require_regular(path.lstat())
    size = path.stat().st_size
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and may have {most:,}")
    return path.read_bytes()
