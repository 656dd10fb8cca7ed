"""A real S3 server in a process of its own (moto's), and a way to it that breaks where a test says.

The server listens on the loopback and goes when the test does: it reads its standard input, which ends with its parent.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

BUCKET = "lab"
KEY_ID, SECRET = "AKIDOFTHETESTS", "nobodyshouldeverreadthis"

# Where a connection breaks: before anything of a request has passed, in its midst, after the server has done the work
# and before it can say so, or in the midst of the answer.
Kind = Literal["unsent", "cut", "unanswered", "short"]
KINDS: tuple[Kind, ...] = ("unsent", "cut", "unanswered", "short")


@dataclass(frozen=True, kw_only=True)
class Break:
    """How one request ends. ``after``: bytes that pass before, of the request or of its answer."""

    kind: Kind
    after: int = 0


Plan = Callable[[int], Break | None]


def calm(_: int) -> Break | None:
    """Nothing breaks."""
    return None


def at_random(seed: int, share: float) -> Plan:
    """A ``share`` of the requests breaks, anywhere."""

    def plan(turn: int) -> Break | None:
        rng = random.Random(f"{seed} {turn}")
        if rng.random() >= share:
            return None
        return Break(kind=rng.choice(KINDS), after=int(2 ** rng.uniform(0, 13)))

    return plan


def only(turn: int, kind: Kind, after: int = 200) -> Plan:
    """One request breaks, counted from 0."""
    return lambda number: Break(kind=kind, after=after) if number == turn else None


@dataclass(kw_only=True)
class Way:
    """A TCP proxy. ``turns`` requests have begun, ``broken`` of them were broken by ``plan``; ``watch`` is called
    before each and when its answer has begun to pass."""

    target: int
    plan: Plan = calm
    watch: Callable[[int, str], None] = lambda _turn, _when: None
    turns: int = 0
    broken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def begin(self, plan: Plan) -> None:
        """Count from 0, and break by ``plan`` from here on."""
        with self._lock:
            self.plan, self.turns, self.broken = plan, 0, 0

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        """One connection. A request and its answer never overlap, so whoever speaks after the other begins a turn."""
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            _reset(client)
            return
        exchange = _Exchange(self, client, server)
        back = threading.Thread(target=exchange.answers, daemon=True)
        back.start()
        exchange.requests()
        back.join()
        client.close()
        server.close()

    def next_turn(self) -> tuple[int, Break | None]:
        with self._lock:
            turn, self.turns = self.turns, self.turns + 1
            found = self.plan(turn)
            self.broken += found is not None
        self.watch(turn, "before")
        return turn, found


class _Exchange:
    def __init__(self, way: Way, client: socket.socket, server: socket.socket) -> None:
        self.way, self.client, self.server = way, client, server
        self.answering, self.turn, self.fault, self.passed = True, -1, None, 0

    def requests(self) -> None:
        """From the client to the server."""
        with suppress(OSError):
            while data := self.client.recv(1 << 16):
                if self.answering:
                    self.passed, self.answering = 0, False
                    self.turn, self.fault = self.way.next_turn()
                if self.fault and self.fault.kind == "unsent":
                    return self._break()
                if self.fault and self.fault.kind == "cut" and self.passed + len(data) > self.fault.after:
                    self.server.sendall(data[: self.fault.after - self.passed])
                    return self._break()
                self.passed += len(data)
                self.server.sendall(data)
        return self._end()

    def answers(self) -> None:
        """From the server to the client."""
        with suppress(OSError):
            while data := self.server.recv(1 << 16):
                if not self.answering:
                    self.passed, self.answering = 0, True
                    self.way.watch(self.turn, "after")
                if self.fault and self.fault.kind == "unanswered":
                    return self._break()
                if self.fault and self.fault.kind == "short" and self.passed + len(data) > self.fault.after:
                    self.client.sendall(data[: self.fault.after - self.passed])
                    return self._break()
                self.passed += len(data)
                self.client.sendall(data)
        return self._end()

    def _break(self) -> None:
        _reset(self.client)
        _reset(self.server)

    def _end(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _reset(end: socket.socket) -> None:
    """Close with a reset, and wake whoever waits on it."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
        end.close()


@contextmanager
def serving(*, conditions: bool = True) -> Iterator[int]:
    """The port of a server with an empty bucket. Without ``conditions`` it takes every put, as some servers do."""
    command = [sys.executable, __file__, *([] if conditions else ["--unconditional"])]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "server", "AWS_SECRET_ACCESS_KEY": "server"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
            yield port
        finally:
            process.kill()


@contextmanager
def a_way(target: int) -> Iterator[Way]:
    """A proxy before the server at this port."""
    way = Way(target=target)
    threading.Thread(target=way.run, daemon=True).start()
    try:
        yield way
    finally:
        way.close()


def settings(port: int) -> dict[str, str]:
    """The environment of a process that uses the server at this port."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1"))),
    }


def use(monkeypatch: pytest.MonkeyPatch, port: int, state: Path) -> None:
    """Have this process use the server at this port, and keep what lies beside caches in ``state``."""
    for name, value in {**settings(port), "XDG_STATE_HOME": str(state)}.items():
        monkeypatch.setenv(name, value)
    impatient(monkeypatch)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between tries, and as many tries as ever; clients that know of both."""
    from datetime import timedelta

    from frame.pipeline.store import bucket

    backoff = {"init_backoff": timedelta(milliseconds=2), "max_backoff": timedelta(milliseconds=20), "base": 2}
    monkeypatch.setitem(bucket.RETRIES, "backoff", backoff)
    monkeypatch.setattr(bucket, "_clients", {})


def _serve(*, conditions: bool) -> None:
    """The server's process."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    inner, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        # A put is one step on S3; moto looks at the condition in one and puts in another.
        if environ["REQUEST_METHOD"] == "PUT":
            import io

            length = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(length)
            if len(body) != length:  # an upload that broke off leaves nothing
                start_response("400 Bad Request", [("Content-Length", "0")])
                return []
            environ["wsgi.input"] = io.BytesIO(body)
            if not conditions:
                environ.pop("HTTP_IF_NONE_MATCH", None)
                environ.pop("HTTP_IF_MATCH", None)
        with one_at_a_time:
            return list(inner(environ, start_response))

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as by any real server

        def log(self, *_: object) -> None:
            pass

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(conditions="--unconditional" not in sys.argv)
