"""Whole builds with real Ray, and how to find and kill their processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from forge import Command
from small_videos import write_folder
from test_stages import TEACHER, make, run, tree

from frame.pipeline.build import finish
from frame.pipeline.ray_watchdog import session_processes
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.receipts import receipt_units
from frame.pipeline.store.verify import check_units

ENCODING = "residual"
PLAN = (
    *("--teachers", TEACHER, "--weights", "random", "--size", "64", "--unit-rows", "24", "--batch-rows", "8"),
    *("--encoding", ENCODING),
)
RUN = ("--workers", "1", "--max-failures", "1", "--json")
UNITS = 13
PATIENCE = 30.0  # seconds until nothing of a killed session may be left: ten, on a machine that has time for it


def write_source(folder: Path) -> Path:
    """Some 260 frames in a dozen units, and a file that is no video."""
    return write_folder(folder, [20, 24, 30, 11, 22, 7, 24, 18, 60, 24, 20], bad=1)


def write_calm(source: Path, path: Path, tmp: Path) -> Path:
    """The cache that the stages make one after the other in one process, without Ray, undisturbed."""
    prepared = make(source, path, encoding=ENCODING)
    run(prepared)
    assert finish(path, tmp=tmp) == 0
    assert prepared.cache.units == UNITS
    return path


def fresh(source: Path, path: Path) -> tuple[str | Path, ...]:
    """The arguments of a build that plans."""
    return ("build", "--dataset", "folder", "--source", source, "--out", path, *PLAN, *RUN)


def differences(a: Path, b: Path) -> list[str]:
    """Names of the files that one has and the other has not, or not the same."""
    one, two = tree(a), tree(b)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def committed(path: Path) -> int:
    """How many receipts there are."""
    return len(receipt_units(path))


def broken_units(path: Path) -> int:
    """Of the units that have receipts, how many do not hold what these say."""
    try:
        states = check_units(open_cache(path), receipt_units(path), deep=True)
    except CacheError:
        return 0  # killed while it planned
    return sum(bool(state.problems) for state in states)


def wait_for_units(command: Command, path: Path, units: int) -> bool:
    """Return once so many units are committed, or the command has ended; whether it still runs."""
    while command.code is None:
        if committed(path) >= units:
            return True
        time.sleep(0.005)
    return False


def session_of(driver: int) -> tuple[Path, int] | None:
    """The folder of the Ray session of a command, and the id of the process that watches it."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
            if len(words) > 2 and words[-3].endswith(b"ray_watchdog.py") and words[-1] == b"%d" % driver:
                return Path(os.fsdecode(words[-2])), int(entry.name)
    return None


def workers_of(driver: int) -> list[int]:
    """The ids of its Ray workers, idle ones too; the agents beside them go by similar titles."""
    return [pid for pid in _session(driver) if _title(pid).startswith(b"ray::") and b"Agent" not in _title(pid)]


def servers_of(driver: int) -> list[int]:
    """The id of the raylet, Ray's server on this machine."""
    return [pid for pid in _session(driver) if b"/raylet/raylet" in _title(pid)]


def processes_of(driver: int) -> list[int]:
    """The driver, its watchdog and every process of its session."""
    found = session_of(driver)
    return [driver, *([found[1]] if found else []), *_session(driver)]


def _session(driver: int) -> list[int]:
    found = session_of(driver)
    return [] if found is None else list(session_processes(found[0], driver))


def _title(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def kill(*pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def left_of(session: tuple[Path, int] | None, driver: int) -> int:
    """How many processes of a session are left when it has had time to end."""
    if session is None:
        return 0
    until = time.monotonic() + PATIENCE
    while (left := list(session_processes(session[0], driver))) and time.monotonic() < until:
        time.sleep(0.05)
    return len(left)
