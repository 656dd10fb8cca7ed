"""Commands forked from a process that has imported them already: half the time of a small build is its imports, and a
test that kills ten of them would spend most of its own on that.

Run as a script it is that process: a line of JSON in is a command started, and the file ``LOG.code`` is its end.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICK = 0.02  # seconds


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of ours in a process of its own. ``log``: what its output files' names begin with."""

    pid: int
    log: Path

    @property
    def code(self) -> int | None:
        """Its exit code, -9 after a SIGKILL; None while it runs."""
        try:
            return int(_beside(self.log, "code").read_text())
        except FileNotFoundError:
            return None

    def wait(self, seconds: float = 240) -> int | None:
        """Its exit code; None if it still runs after so long, which no command of the tests should."""
        until = time.monotonic() + seconds
        while (code := self.code) is None and time.monotonic() < until:
            time.sleep(_TICK)
        return code

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What it printed for a person."""
        return _beside(self.log, "err").read_text("utf-8", "replace")

    @property
    def outcome(self) -> Any:
        """What it printed with ``--json``."""
        return json.loads(_beside(self.log, "out").read_bytes())


class Forge:
    """The process that commands are forked from; it takes those that still run with it when it is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: str | Path, program: str = "pipeline", hook: str = "", **given: Any) -> Command:
        """Start ``frame-cache`` (or another ``program``) with ``arguments``, after ``hook``, a MODULE:FUNCTION, was
        called in its process with what is ``given``."""
        self._count += 1
        log = self._folder / f"command-{self._count}"
        order = {"program": program, "arguments": [*map(str, arguments)], "log": str(log)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order | {"hook": hook, "given": given}) + "\n")
        self._process.stdin.flush()
        return Command(pid=int(self._process.stdout.readline()), log=log)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _beside(log: Path, what: str) -> Path:
    return log.with_name(f"{log.name}.{what}")


def _serve() -> None:
    for module in ("frame.pipeline.build", "frame.pipeline.prepare", "frame.pipeline.report", "pandas"):
        importlib.import_module(module)
    running: dict[int, Path] = {}
    while True:
        readable, _, _ = select.select([0], [], [], _TICK)
        if readable:
            line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]  # unbuffered, as `select` sees it
            if not line:
                break
            order = json.loads(line)
            pid = os.fork()
            if not pid:
                _become(**order)
                return
            running[pid] = Path(order["log"])
            os.write(1, f"{pid}\n".encode())
        _reap(running)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _become(program: str, arguments: list[str], log: str, hook: str, given: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf to it
    for descriptor, file in ((0, "/dev/null"), (1, f"{log}.out"), (2, f"{log}.err")):
        opened = os.open(file, os.O_RDONLY if not descriptor else os.O_WRONLY | os.O_CREAT, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[1:] = arguments
    if hook:
        module, _, function = hook.partition(":")
        getattr(importlib.import_module(module), function)(**given)
    importlib.import_module(f"frame.{program}.cli").main()


def _reap(running: dict[int, Path]) -> None:
    for pid, log in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            partial = _beside(log, "partial")
            partial.write_text(str(os.waitstatus_to_exitcode(status)))
            partial.replace(_beside(log, "code"))
            del running[pid]


if __name__ == "__main__":
    _serve()
