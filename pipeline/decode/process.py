"""A process that can be killed: started, asked one thing at a time, and killed when it is late."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.decode import wire

COMMAND = (sys.executable, "-B", "-P", "-m", "frame.pipeline.decode.child")
"""``-P``: a laboratory's working folder may hold an ``av.py`` of its own. ``-B``: the process may not write files."""

START_SECONDS = 120.0
STDERR_KEPT = 8192

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SECRET = ("RAY_", "AWS_", "HF_", "WANDB_")  # how the names of variables begin that may hold tokens and keys


class ChildDeathError(Exception):
    """The process ended in the middle of a request, or was killed because it was late.

    ``how`` is the signal's name or the exit status. ``late`` is true when the deadline of ``seconds`` was the cause.
    """

    def __init__(self, how: str, *, late: bool = False, seconds: float = 0.0) -> None:
        super().__init__(how)
        self.how, self.late, self.seconds = how, late, seconds


class Child:
    """A process in a session of its own, which dies with the thread that started it and can be killed at any moment.

    ``command`` is called with two more arguments: the number of the socket to speak on, and this process's id.
    It says hello first. Its standard error goes into a pipe that nobody has to empty: what does not fit is lost.
    """

    def __init__(self, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        self._errors, errors = os.pipe()
        os.set_blocking(self._errors, False)
        # A decoder that complains about every frame must neither wait for a reader nor fill a disk.
        os.set_blocking(errors, False)
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                # Hostile video must not find the token of the Ray session it is decoded in, nor an object store's keys.
                env={k: v for k, v in os.environ.items() if not k.startswith(_SECRET)} | dict.fromkeys(ONE_THREAD, "1"),
            )
        except BaseException:
            ours.close()
            os.close(self._errors)
            raise
        finally:
            theirs.close()
            os.close(errors)
        self._said = ""
        self._socket = ours
        self._end = weakref.finalize(self, _end, self._process, ours, self._errors)
        self._greet()

    def ask(self, message: dict[str, Any], *, seconds: float, descriptor: int | None = None) -> dict[str, Any]:
        """Send one request and wait at most ``seconds`` for its answer. Raises `ChildDeathError`.

        Whatever goes wrong, an interrupt included, the process is killed: an answer that comes after the question
        was given up must never be taken for the answer to the next.
        """
        until = time.monotonic() + seconds
        try:
            self._socket.settimeout(seconds)
            wire.send(self._socket, message, [] if descriptor is None else [descriptor])
            return wire.receive(self._socket, until=until)[0]
        except TimeoutError:
            self.kill()
            raise ChildDeathError("deadline", late=True, seconds=seconds) from None
        except (EOFError, OSError, ValueError):
            how = self._how_it_ended()
            self.kill()
            raise ChildDeathError(how) from None
        except BaseException:
            self.kill()
            raise

    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._end.alive and self._process.poll() is None

    def kill(self) -> None:
        """End it now. May be called again."""
        self._said = self.complaints()
        self._end()

    def complaints(self) -> str:
        """What it and its native libraries wrote since the last call, the first few thousand characters."""
        said, self._said = self._said, ""
        if self._end.alive:
            with suppress(BlockingIOError):
                said += os.read(self._errors, 1 << 16).decode(errors="replace")
        return said[:STDERR_KEPT]

    def _how_it_ended(self) -> str:
        # It closed its socket: it is dead, or about to be. One that only pretends to end is helped.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        status = self._process.poll()
        if status is None:
            return "a closed connection"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def _greet(self) -> None:
        try:
            wire.receive(self._socket, until=time.monotonic() + START_SECONDS)
        except (EOFError, OSError, ValueError) as error:
            how = "no answer" if isinstance(error, TimeoutError) else self._how_it_ended()
            lines = self.complaints().strip().splitlines()
            self.kill()
            raise InputError(
                what="The decode process cannot start.",
                where=sys.executable,
                why=lines[-1] if lines else how,
                fix="Install the package again, with all its dependencies, into this interpreter.",
            ) from None


def _end(process: subprocess.Popen[bytes], connection: socket.socket, errors: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    connection.close()
    os.close(errors)
