"""Processes that write one cache at the same time, without Ray: started together, killed or not.

Run as a script it is the process that they are forked from: it has the store loaded and no thread, so that a pair takes
milliseconds. A line of JSON in is a crew to start, a line out its exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from multiprocessing import Barrier
from pathlib import Path
from types import TracebackType
from typing import Any

from store_caches import FIRST_COLUMNS, Made, make_cache, quick_disk, random_arrays, unit_data

from frame.pipeline.store import open_cache, writer
from frame.pipeline.store.card import write_card
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.verify import check_units


class Crews:
    """Where crews are started."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def run(self, cache: Path, jobs: Sequence[dict[str, Any]], *, alone: bool = True) -> list[int]:
        """A process for each of ``jobs``, all at once; their exit codes.

        A job: ``units`` and ``columns`` to commit, in this order, and the seconds after
        which it is ``killed``, or None. Without ``alone`` they ignore the lock of the receipts and meet between reading
        and writing them: the negative control.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"cache": str(cache), "jobs": jobs, "alone": alone}) + "\n")
        self._process.stdin.flush()
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def __enter__(self) -> Crews:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def complete(path: Path, made: Made) -> int:
    """What a build does at its end: make what lacks, and the statistics. How many units lacked something."""
    cache, lacking = open_cache(path), 0
    with quick_disk(), writer_folder(path) as tmp:
        for state in check_units(cache, cache.expected_units, deep=True):
            columns = [name for name in cache.columns if name in state.broken_columns]
            if columns:
                lacking += 1
                writer.commit_unit(path, made.meta, made.table, unit_data(made, state.unit, columns), tmp=tmp)
        write_statistics(open_cache(path), tmp=tmp)
        write_card(open_cache(path), tmp=tmp)
    return lacking


def _serve() -> None:
    os.fsync = lambda _: None  # what is killed here is processes; the disk goes on
    with tempfile.TemporaryDirectory() as folder:
        make_cache(Path(folder) / "first", units=())
    importlib.import_module("webdataset")  # both bring what would be imported late, by every process
    for line in sys.stdin:
        order = json.loads(line)
        barrier, (gate, shut), pids = Barrier(len(order["jobs"])), os.pipe(), []
        for job in order["jobs"]:
            pid = os.fork()
            if not pid:
                os.close(shut)
                with suppress(BaseException):
                    if not order["alone"]:
                        _meet_in_between(barrier)
                    _work(Path(order["cache"]), gate, **job)
                    os._exit(0)
                os._exit(1)
            pids.append(pid)
        os.close(gate)
        os.close(shut)  # now they go
        print(json.dumps(_end(pids, [job.get("killed") for job in order["jobs"]])), flush=True)


def _work(cache: Path, gate: int, *, units: list[int], columns: list[str], killed: float | None) -> None:
    del killed
    opened = open_cache(cache)
    made = Made(
        path=cache,
        meta=opened.meta,
        table=opened.index,
        full=random_arrays(opened.meta, FIRST_COLUMNS, seed=0),
        failed={name: {"c1": ("corrupt", "clip 1 is bad")} for name in FIRST_COLUMNS},
    )
    os.read(gate, 1)
    with writer_folder(cache) as tmp:
        for unit in units:
            writer.commit_unit(cache, made.meta, made.table, unit_data(made, unit, columns), tmp=tmp)


def _meet_in_between(barrier: Any) -> None:
    previous = writer._previous

    def both_read(*given: Any) -> Any:
        old = previous(*given)
        barrier.wait()
        return old

    writer._previous = both_read
    writer.exclusive = lambda *_: nullcontext()


def _end(pids: list[int], killed: list[float | None]) -> list[int]:
    """Kill those whose time has come, and wait for all."""
    began = time.monotonic()
    for seconds, pid in sorted(
        (seconds, pid) for seconds, pid in zip(killed, pids, strict=True) if seconds is not None
    ):
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        os.kill(pid, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    _serve()
