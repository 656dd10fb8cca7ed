"""The folder of a local Ray session. Its lock tells sessions that live from what was left where everything was killed.

A session's own process and its watchdog hold the lock; the kernel lets go of it when both are dead, however they died.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "frame-"
_LOCK = "lock"


def new_folder(parent: Path) -> tuple[Path, int]:
    """A new folder in ``parent``, mode 0700, and the descriptor that holds its lock. Dead sessions' are removed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        _remove_if_dead(folder)
    while True:
        root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):  # somebody took it for a dead one before it was locked
            lock = _locked(root, create=True, wait=True)
            if lock is not None and (root / _LOCK).exists():
                return root, lock


def _remove_if_dead(folder: Path) -> None:
    with suppress(OSError):  # another user's, none of ours, or just gone
        lock = _locked(folder, create=False, wait=False)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path, *, create: bool, wait: bool) -> int | None:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    lock = os.open(folder / _LOCK, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(lock)
        return None
    return lock
