"""Ends what is left of a local Ray session once its driver is gone. A script: stdlib only, started by ``ray_session``.

Ray's own children die with the driver (the kernel's parent-death signal) and its workers follow, but the two agents
that the raylet starts survive a SIGKILL of the driver for good where nothing reaps orphans, as in most containers.
This process waits for the end of the driver, however it comes, kills every process that carries the session's mark in
its environment, and removes the session's folder.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "FRAME_RAY_SESSION"
PATIENCE = 10.0  # seconds; a process in uninterruptible sleep cannot be killed, and must not keep this one alive


def main(root: Path, driver: int) -> None:
    """Wait for the end of the process ``driver``, kill the session marked by ``root`` and remove that folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a batch system signals every process of a job; the driver decides
    wait_for_end(driver)
    end_session(root)
    shutil.rmtree(root, ignore_errors=True)


def wait_for_end(driver: int) -> None:
    """Return when the driver closes its end of stdin, or is no longer the parent.

    The pipe alone is not enough: a child that the driver forked keeps the other end open after the driver's death.
    """
    while os.getppid() == driver:
        readable, _, _ = select.select([sys.stdin], [], [], 0.5)
        if readable:
            return


def end_session(root: Path) -> None:
    """SIGKILL all marked processes until two scans in a row find none (a scan can miss a child just being forked)."""
    deadline, empty = time.monotonic() + PATIENCE, 0
    while empty < 2 and time.monotonic() < deadline:
        found = list(marked(root))
        empty = 0 if found else empty + 1
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def marked(root: Path) -> Iterator[int]:
    """The ids of all living processes of this user that were started with the session's mark."""
    mark = f"{MARK}={root}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if mark in environment.split(b"\0"):
            yield int(entry.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
