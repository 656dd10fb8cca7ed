"""A process that has training loaded, and forks itself for every run.

A run begins there as in a process of its own, with nothing left of an earlier one, and ends there for good: signals and
exit codes are real. What it is spared are the seconds that the imports take.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOADED = (
    "frame.train.run",
    "frame.train.cli",
    "frame.train.commands",
    "struck",
)
_TRIED: set[str] = set()
DEADLINE = 300.0  # seconds after which a run counts as hung: this many times what it takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a run ended. ``code`` is its exit code, the negative number of the signal that ended it, or None for one that
    did not end in time; ``said`` is all that it wrote."""

    code: int | None
    said: str


class FreshProcesses:
    """The loaded process. Its forks call a function of ``struck`` by name; each is the head of a group of its own."""

    def __init__(self) -> None:
        roots = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import fresh; fresh.serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(roots)},
        )  # fmt: skip

    def run(self, log: Path, function: str, **given: Any) -> Ended:
        """One call in a process of its own."""
        return self.run_all([log], function, [given])[0]

    def run_all(
        self, logs: Sequence[Path], function: str, given: Sequence[Mapping[str, Any]], *, shared: str = ""
    ) -> list[Ended]:
        """Calls at the same time. ``shared``: give each its rank among them, and this port of loopback to meet at."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        calls = [
            {"function": function, "given": dict(values), "log": str(log), "environment": _rank(i, len(given), shared)}
            for i, (log, values) in enumerate(zip(logs, given, strict=True))
        ]
        self._process.stdin.write(json.dumps(calls) + "\n")
        codes = json.loads(self._process.stdout.readline())
        return [Ended(code=code, said=log.read_text()) for code, log in zip(codes, logs, strict=True)]

    def close(self) -> None:
        """End it; it does so by itself when this process is gone."""
        self._process.communicate()


@functools.cache
def fresh_processes() -> FreshProcesses:
    """One for all tests of a session."""
    made = FreshProcesses()
    atexit.register(made.close)
    return made


def _rank(number: int, count: int, port: str) -> dict[str, str]:
    if not port:
        return {}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    return {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count), **where}


def serve() -> None:
    """The loaded process: a line of calls in, a line of exit codes out, until nobody asks any more."""
    for name in _LOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        calls = json.loads(line)
        pids = [_fork(call) for call in calls]
        until = time.monotonic() + DEADLINE
        answer = json.dumps([_wait(pid, until) for pid in pids])
        for call in calls:
            _load(Path(call["log"] + ".modules"))
        print(answer, flush=True)


def _fork(call: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    log = os.open(call["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, place)
    os.environ.update(call["environment"])
    code = 1
    try:
        getattr(importlib.import_module("struck"), call["function"])(**call["given"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    Path(call["log"] + ".modules").write_text("\n".join(sys.modules))
    # As at any end of a process, but for the seconds that taking apart half a million objects would cost.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def _load(listed: Path) -> None:
    """Import what a fork has imported only while it ran, as the next ones would too."""
    for name in listed.read_text().splitlines() if listed.exists() else ():
        if name not in sys.modules and name not in _TRIED:
            _TRIED.add(name)
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _wait(pid: int, until: float) -> int | None:
    """The exit code of a fork, whose group then ends with it; None for one that has to be killed."""
    code = None
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < until:
        time.sleep(0.005)
    if found[0] == pid:
        code = os.waitstatus_to_exitcode(found[1])
    try:
        os.killpg(pid, signal.SIGKILL)  # readers of a run that was killed
    except ProcessLookupError:
        return code
    if code is None:
        os.waitpid(pid, 0)
    return code
