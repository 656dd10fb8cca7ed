"""Ends what is left of a local Ray session once its driver is gone. A script: stdlib only, started by ``ray_session``.

Ray's own children die with the driver (the kernel's parent-death signal) and its workers follow, but the two agents
that the raylet starts survive a SIGKILL of the driver, for minutes where nothing reaps orphans, as in most containers.
This process waits for the end of the driver, however it comes, kills every process of the session, and removes the
session's folder. A driver that ended without leaving its session in order could not say anything: this process does.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "FRAME_RAY_SESSION"
IN_ORDER = b"."  # what a driver says that leaves its session
# Ray's C++ side ends the driver at once, without a word and with code 1, when it finds the raylet gone.
LAST_WORDS = """
The process that ran Ray ended in the midst of it.
  where: pid {driver}
  why:   it was killed, or a server of Ray's (raylet, gcs_server) was, which takes it along
  do:    see that memory is enough, and run the same command again: what was committed is kept
"""
PATIENCE = 10.0  # seconds; a process in uninterruptible sleep cannot be killed, and must not keep this one alive


def main(root: Path, driver: int) -> None:
    """Wait for the end of the process ``driver``, kill the session marked by ``root`` and remove that folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a batch system signals every process of a job; the driver decides
    in_order = wait_for_end(driver)
    end_session(root, driver)
    shutil.rmtree(root, ignore_errors=True)
    if not in_order:
        with contextlib.suppress(OSError):  # nobody listens any more
            sys.stderr.write(LAST_WORDS.format(driver=driver).lstrip())


def wait_for_end(driver: int) -> bool:
    """Return when the driver leaves its session, or is gone; whether it said that it leaves.

    It is gone when it closes its end of stdin, or is no longer the parent. The pipe alone is not enough: a child that
    the driver forked keeps the other end open after the driver's death.
    """
    while os.getppid() == driver:
        readable, _, _ = select.select([sys.stdin], [], [], 0.5)
        if readable:
            return os.read(0, 1) == IN_ORDER
    return False


def end_session(root: Path, driver: int) -> None:
    """SIGKILL all its processes until two scans in a row find none (a scan can miss a child just being forked)."""
    deadline, empty = time.monotonic() + PATIENCE, 0
    while empty < 2 and time.monotonic() < deadline:
        found = list(session_processes(root, driver))
        empty = 0 if found else empty + 1
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def session_processes(root: Path, driver: int) -> Iterator[int]:
    """The ids of all living processes of this user that belong to the session, its driver excepted."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), driver):
            try:
                if _is_marked(entry, root) or (_has_open(entry, root) and _parent(entry) != driver):
                    yield int(entry.name)
            except OSError:  # ended meanwhile, or another user's
                continue


def _is_marked(entry: Path, root: Path) -> bool:
    """Whether it was started with the session's mark, as all of Ray's processes and their children are."""
    return f"{MARK}={root}".encode() in (entry / "environ").read_bytes().split(b"\0")


def _has_open(entry: Path, root: Path) -> bool:
    """Whether it has a file below ``root`` open, as all of Ray's processes have their logs.

    Ray's Python processes write their titles over the beginning of their environment, and with it, now and then, over
    the mark. A child that the driver forked may have such a file from it, and is no process of the session.
    """
    below = f"{root}/"
    for descriptor in (entry / "fd").iterdir():
        try:
            if str(descriptor.readlink()).startswith(below):
                return True
        except FileNotFoundError:  # closed meanwhile
            continue
    return False


def _parent(entry: Path) -> int:
    return int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
