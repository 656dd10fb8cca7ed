"""F26: a stranger at the ports of a local Ray session, from this machine or from another."""

from __future__ import annotations

import importlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tally import Fault
from test_ray_session import LOOPBACK, STORE, run_python

from frame.pipeline import ray_local
from frame.pipeline.ray_ports import Listener, complaints, session_listeners
from frame.pipeline.ray_session import RaySession, ray_session

HTTP_PATHS = [
    ("POST", "/api/jobs/"),
    ("GET", "/api/jobs/"),
    ("DELETE", "/api/jobs/x"),
    ("POST", "/api/job_agent/jobs/"),
    ("POST", "/get_or_create_runtime_env"),
    ("GET", "/"),
]

WITHOUT = {"none": {"RAY_AUTH_MODE": "disabled"}, "a wrong one": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}}
CALL = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None, 5)"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaySession]:
    """A session with a task and an actor in it, whose workers listen too."""

    class Idle:
        def ready(self) -> int:
            return 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        with ray_session(address=None, cpus=2, object_store_bytes=STORE) as running:
            ray = importlib.import_module("ray")
            actor = ray.remote(Idle).remote()
            assert ray.get([actor.ready.remote(), ray.remote(lambda: 1).remote()]) == [1, 1]
            yield running
            del actor


@pytest.mark.fault("F26")
@pytest.mark.usefixtures("session")
def test_every_port_is_on_the_loopback_interface_and_wants_the_token(fault: Fault) -> None:
    listeners = session_listeners(os.getpid())
    assert {one.process for one in listeners} >= {"gcs_server", "raylet"}
    assert complaints(listeners) == []
    spoken = 0
    for listener in listeners:
        for method, path in HTTP_PATHS:
            with fault.trial() as trial:
                status = http_status(listener, method, path)
                spoken += status is not None
                trial.undetected += not listener.loopback or status not in (None, 401)
    assert spoken, "the runtime environment agent speaks HTTP"


def http_status(listener: Listener, method: str, path: str) -> int | None:
    try:
        with socket.create_connection((listener.address, listener.port), 5) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            first = connection.recv(64)
    except (ConnectionResetError, ConnectionRefusedError):  # not HTTP, or an idle worker that ended meanwhile
        return None
    return int(first.split()[1]) if first.startswith(b"HTTP/1.") else None


@pytest.mark.fault("F26")
@pytest.mark.parametrize("token", WITHOUT)
def test_calls_without_the_token_are_refused(fault: Fault, session: RaySession, token: str) -> None:
    with fault.trial() as trial:
        asked = run_python(CALL, session.address, **LOOPBACK, **WITHOUT[token])
        trial.undetected += asked.returncode == 0
        assert "AuthenticationError" in asked.stderr


def test_no_dashboard_and_no_web_page(session: RaySession) -> None:
    assert importlib.import_module("ray")._private.worker.global_worker.node.webui_url in (None, "")
    assert session.address.startswith("127.0.0.1:")


def test_the_token_is_nowhere_to_be_read(session: RaySession) -> None:
    token = ray_local.session_token().encode()
    assert len(token) == 64
    assert token.decode() not in os.environ.values()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert token not in command.read_bytes()
        except OSError:
            continue
    assert session.logs is not None
    root = session.logs.parents[2]
    assert root.stat().st_mode & 0o777 == 0o700
    for file in root.rglob("*"):
        if file.is_file():
            assert token not in file.read_bytes(), file
    assert not (Path.home() / ".ray").exists()


UNGUARDED = """
import os
from frame.manifests.errors import InputError
from frame.pipeline import ray_local
from frame.pipeline.ray_ports import answer_without_token
from frame.pipeline.ray_session import ray_session

guards, complaints = ray_local._guards, ray_local.complaints
ray_local._guards = lambda root: guards(root) | {
    "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"
}

def with_answers(listeners):
    print("answers:", sorted({answer_without_token(one) for one in listeners}))
    return complaints(listeners)

ray_local.complaints = with_answers
try:
    with ray_session(address=None, cpus=1, object_store_bytes=100 * 2**20):
        print("started")
except InputError as error:
    print(error)
"""


@pytest.mark.fault("F26")
def test_a_session_that_is_open_to_others_is_refused(fault: Fault) -> None:
    """The same Ray without its two guards, the token and the loopback address."""
    refused = run_python(UNGUARDED)
    assert re.search(r"\[::\]:\d+ \(gcs_server, pid \d+\) can be reached from other machines", refused.stdout)
    assert "answers: ['', 'HTTP/1.1 404 Not Found']" in refused.stdout
    assert "started" not in refused.stdout
    assert refused.stderr == ""
    fault.control(caught="not closed to others" in refused.stdout, why="a session that is open to others")
