"""Opening a source once, by descriptor: what is hashed, probed and decoded is one and the same file."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from frame.pipeline.decode.errors import ClipError

_REFUSALS = {
    errno.ENOENT: ("missing", "no such file or folder"),
    errno.ENOTDIR: ("missing", "no such file or folder"),
    errno.ELOOP: ("missing", "a symbolic link that leads nowhere"),
    errno.ENAMETOOLONG: ("missing", "the name is longer than the file system allows"),
    errno.ENXIO: ("not-a-file", "a socket or a pipe"),
}


def refusal(error: OSError) -> ClipError:
    """The operating system's refusal as a ClipError, without the path that its own message holds."""
    code = error.errno or 0
    return ClipError(*_REFUSALS.get(code, ("unreadable", os.strerror(code))))


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What stays as it is while nobody writes to the file: device, inode, size, and the times of its last changes."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder. Raises ClipError where the operating system does not say."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise refusal(error) if isinstance(error, OSError) else ClipError("missing", "not a file name") from None


class Source:
    """A regular file, open for reading. ``path`` names the open file itself, for libraries that want a name.

    That name has no odd characters and no leading dash, whatever the file is called, and it leads to the same bytes
    even when the file is replaced meanwhile.
    """

    def __init__(self, path: Path) -> None:
        try:
            # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise refusal(error) from None
        try:
            self.identity = self._checked()
        except BaseException:
            self.close()
            raise
        self.size = self.identity[2]
        self.path = f"/proc/self/fd/{self._descriptor}"

    def _checked(self) -> tuple[int, ...]:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ClipError("not-a-file", "a pipe, a socket or a device")
        if status.st_size == 0:
            raise ClipError("empty", "the file has no bytes")
        return identity(status)

    def sha256(self) -> str:
        """Hex digest of the file's bytes, all of which are read."""
        try:
            with Path(self.path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise refusal(error) from None

    def head(self, size: int = 64) -> bytes:
        """The first bytes."""
        return os.pread(self._descriptor, size, 0)

    def close(self) -> None:
        """Close the file. ``path`` leads nowhere afterwards."""
        os.close(self._descriptor)


def check_digest(found: str, planned: str | None) -> None:
    """Raise ClipError when the bytes are not those that were planned."""
    if planned is not None and found != planned:
        raise ClipError("source-changed", f"sha256 is {found[:12]}, the plan has {planned[:12]}")
