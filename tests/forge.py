"""Commands forked from a process that has imported them already: a small command's time is its imports, seconds of
them, and tests start a hundred.

What is forked is the command from ``main()`` on: arguments, environment, working folder, signals and exit are those of
a process of its own, and the modules that it finds imported are all that differ. What a command imports, and when, is
for tests that start it for real. Ray is never imported here, for a build has to guard it first.

Run as a script it is that process: a line of JSON in is a command started, and the file ``LOG.code`` is its end.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Program = Literal["pipeline", "train", "eval"]

_TICK = 0.02  # seconds
_LOADED = (
    *("frame.pipeline.build", "frame.pipeline.prepare", "frame.pipeline.report", "pandas"),
    *("frame.train.run", "frame.train.commands", "frame.eval.cli", "frame.eval.encoder"),
)


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

    @property
    def speakers(self) -> list[int]:
        """Who could still add to what it said: itself, and children of its that it left behind."""
        files = {str(_beside(self.log, what)) for what in ("out", "err")}
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _open_files(entry) & files]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What it printed for a person, on its standard error."""
        return _beside(self.log, "err").read_text("utf-8", "replace")

    @property
    def printed(self) -> str:
        """What it printed on its standard output."""
        return _beside(self.log, "out").read_text("utf-8", "replace")

    @property
    def outcome(self) -> Any:
        """What it printed with ``--json``."""
        return json.loads(self.printed)


class Forge:
    """The process that commands are forked from; it takes those that still run with it when it is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder.resolve(), 0
        # Hooks lie here and there, and Ray's workers import them by the same names.
        here = Path(__file__).parent
        self._path = os.pathsep.join([str(here), str(here / "faults"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": self._path},
        )  # fmt: skip

    def start(
        self,
        *arguments: object,
        program: Program = "pipeline",
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        hook: str = "",
        whole: bool = True,
        **given: Any,
    ) -> Command:
        """Start ``frame-cache`` (or another ``program``) with ``arguments``, after ``hook``, a MODULE:FUNCTION, was
        called in its process with what is ``given``.

        Its environment is this process's as it is now and ``variables``; its working folder is this one's or
        ``cwd``. Its end is a process's ``whole`` end, or without the second that Python takes to take itself apart:
        threads and readers are waited for, what is to be done at exit is done, and that is all."""
        self._count += 1
        log = self._folder / f"command-{self._count}"
        order = {
            "program": program,
            "arguments": [*map(str, arguments)],
            "log": str(log),
            "cwd": str(cwd or Path.cwd()),
            "environment": {**os.environ, "PYTHONPATH": self._path, **(variables or {})},
            "hook": hook,
            "whole": whole,
            "given": given,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Command(pid=int(self._process.stdout.readline()), log=log)

    def run(self, *arguments: object, seconds: float = 120, **how: Any) -> subprocess.CompletedProcess[str]:
        """Start a command (see ``start``) and wait until it has ended and nobody is left who could add to what it said,
        as whoever reads from a pipe does. That has to come within so many seconds."""
        until = time.monotonic() + seconds
        command = self.start(*arguments, **how)
        code = command.wait(seconds)
        while (speakers := command.speakers) and time.monotonic() < until:
            time.sleep(_TICK)
        if code is None or speakers:
            for pid in speakers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([*map(str, arguments)], seconds, command.printed, command.said)
        return subprocess.CompletedProcess([*map(str, arguments)], code, command.printed, command.said)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _beside(log: Path, what: str) -> Path:
    return log.with_name(f"{log.name}.{what}")


def _open_files(process: Path) -> set[str]:
    found = set()
    with suppress(OSError):  # ended meanwhile, or another user's
        for descriptor in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(descriptor.readlink()))
    return found


def _serve() -> None:
    for module in _LOADED:
        importlib.import_module(module)
    assert "ray" not in sys.modules
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


def _become(
    *,
    program: str,
    arguments: list[str],
    log: str,
    cwd: str,
    environment: dict[str, str],
    hook: str,
    whole: bool,
    given: dict[str, Any],
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf to it
    for descriptor, file in ((0, "/dev/null"), (1, f"{log}.out"), (2, f"{log}.err")):
        opened = os.open(file, os.O_RDONLY if not descriptor else os.O_WRONLY | os.O_CREAT, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    if hook:
        module, _, function = hook.partition(":")
        getattr(importlib.import_module(module), function)(**given)
    try:
        importlib.import_module(f"frame.{program}.cli").main()
    except SystemExit as ended:
        if whole or isinstance(ended.code, str):
            raise
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code or 0)


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
