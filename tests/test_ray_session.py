"""Ray sessions with real Ray: what they open, what they print, what they leave behind."""

from __future__ import annotations

import http.server
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from frame.manifests.errors import InputError
from frame.pipeline import ray_local, ray_ports, ray_watchdog
from frame.pipeline.ray_cluster import check_address
from frame.pipeline.ray_ports import Listener, answer_without_token, complaints, session_listeners
from frame.pipeline.ray_session import RaySession, quiet_ray_data, ray_session

STORE = 100 * 2**20


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaySession]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_ADDRESS", "198.51.100.1:6379")  # a local session must not follow it
        with ray_session(address=None, cpus=2, object_store_bytes=STORE) as running:
            yield running


def ray() -> Any:
    return importlib.import_module("ray")


def run_python(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def wait_until_gone(root: Path, driver: int, *, seconds: float) -> list[int]:
    """The processes of the session that are left after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while (left := list(ray_watchdog.session_processes(root, driver))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


# A session ------------------------------------------------------------------------------------------------------------


def test_tasks_and_actors_run_and_import_frame(session: RaySession) -> None:
    def where() -> str | None:
        return importlib.import_module("frame.manifests.errors").__file__

    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

    counter = ray().remote(Counter).remote()
    assert session.local
    assert session.cpus == 2
    assert session.warnings == ()
    assert Path(ray().get(ray().remote(where).remote())).name == "errors.py"
    assert ray().get([counter.add.remote() for _ in range(3)]) == [1, 2, 3]


@pytest.mark.usefixtures("session")
def test_ray_data_prints_nothing_and_brings_our_errors(capfd: pytest.CaptureFixture[str]) -> None:
    data = importlib.import_module("ray.data")
    quiet_ray_data()

    class Picky:
        def __call__(self, table: Any) -> Any:
            if table.num_rows and table.column("item")[0].as_py() == 3:
                raise InputError(what="three", where="here", why="because", fix="do")
            return table

    rows = data.from_items([1, 2, 3], override_num_blocks=3).map_batches(
        Picky, batch_size=1, batch_format="pyarrow", num_cpus=0.5, compute=data.ActorPoolStrategy(size=1)
    )
    with pytest.raises(ray().exceptions.RayTaskError) as caught:
        for _ in rows.iter_rows():
            pass
    assert isinstance(caught.value.cause, InputError)
    assert caught.value.cause.screen() == "three\n  where: here\n  why:   because\n  do:    do"
    assert capfd.readouterr() == ("", "")


def test_the_last_words_of_a_dead_worker(session: RaySession, capfd: pytest.CaptureFixture[str]) -> None:
    def die() -> None:
        os.write(2, b"a native library gave up\n")
        os._exit(3)

    with pytest.raises(ray().exceptions.WorkerCrashedError):
        ray().get(ray().remote(max_retries=0)(die).remote())
    assert session.last_words(lines=1).endswith("a native library gave up")
    assert capfd.readouterr() == ("", "")


JOIN = """
import sys
from frame.manifests.errors import InputError
from frame.pipeline.ray_session import ray_session
try:
    with ray_session(address=sys.argv[1], cpus=None) as session:
        import ray
        print(session.local, session.cpus, ray.get(ray.remote(lambda: 42).remote()))
except InputError as error:
    print(error)
    sys.exit(2)
"""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # lets Ray call this machine 127.0.0.1, as our session does


def test_a_running_cluster_is_joined_with_its_token_and_goes_on(session: RaySession) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ray_local.session_token()}
    joined = run_python(JOIN, session.address, **LOOPBACK, **token)
    assert (joined.returncode, joined.stdout, joined.stderr) == (0, "False 2 42\n", "")
    assert ray().get(ray().remote(lambda: 1).remote()) == 1


def test_a_cluster_does_not_take_a_wrong_token(session: RaySession) -> None:
    refused = run_python(JOIN, session.address, **LOOPBACK, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 2
    assert "did not take this process in" in refused.stdout
    assert "token is missing or incorrect" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.usefixtures("session")
def test_a_batch_systems_signal_leaves_the_session_in_order() -> None:
    with pytest.raises(SystemExit, match="143"):
        signal.raise_signal(signal.SIGTERM)


def test_one_session_at_a_time_in_a_process(session: RaySession) -> None:
    with pytest.raises(InputError, match="already running"), ray_session(address=None, cpus=1):
        pass
    with pytest.raises(InputError, match="already running"), ray_session(address=session.address, cpus=None):
        pass


# Ends -----------------------------------------------------------------------------------------------------------------

DRIVER = """
import os, sys, time
from frame.pipeline.ray_session import ray_session
try:
    with ray_session(address=None, cpus=2, object_store_bytes=100 * 2**20) as session:
        import ray

        @ray.remote(num_cpus=0)
        class Sleeper:
            def child(self):
                import subprocess
                return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

        sleeper = Sleeper.remote()
        print(session.logs.parents[2], ray.get(sleeper.child.remote()), flush=True)
        time.sleep(1000)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def test_two_sessions_at_once_and_nothing_left_of_either() -> None:
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        for _ in range(2)
    ]
    try:
        lines = [driver.stdout.readline().decode().split() for driver in drivers if driver.stdout]
        roots = [Path(line[0]) for line in lines]
        assert roots[0] != roots[1]
        agents = [agent for driver in drivers for agent in family(driver.pid) if is_alive(agent)]
        assert len(agents) > 15
        drivers[0].kill()
        os.killpg(drivers[1].pid, signal.SIGINT)  # Ctrl-C reaches the whole foreground group
        outputs = [driver.communicate(timeout=60) for driver in drivers]
        assert drivers[0].returncode == -signal.SIGKILL
        assert b"run the same command again" in outputs[0][1]  # what it could not say itself
        assert (drivers[1].returncode, outputs[1]) == (130, (b"interrupted\n", b""))
        left = [wait_until_gone(root, driver.pid, seconds=10) for root, driver in zip(roots, drivers, strict=True)]
        assert left == [[], []]
        # Not only what is recognised as the session's: none of the processes that were there is.
        assert [pid for pid in [*agents, *(int(line[1]) for line in lines)] if is_alive(pid)] == []
        deadline = time.monotonic() + 5
        while any(root.exists() for root in roots) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(root.exists() for root in roots)
    finally:
        for driver in drivers:
            driver.kill()
            driver.communicate()


def family(root: int) -> set[int]:
    return ray_ports._family(root) - {root}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_watchdog_ends_orphans_and_spares_all_others(tmp_path: Path) -> None:
    root = tmp_path / "a folder, session=1"
    (root / "logs").mkdir(parents=True)
    marked = os.environ | {ray_watchdog.MARK: str(root)}
    # Grandchildren whose parents are gone, in sessions of their own: one by its mark, one by its open log alone.
    subprocess.run(["sh", "-c", "(setsid sleep 1000 &) ; exit"], env=marked, check=True)
    with (root / "logs" / "x.err").open("w") as log:
        subprocess.run(["sh", "-c", "(setsid sleep 1000 &) ; exit"], stderr=log, check=True)
        ours = subprocess.Popen(["sleep", "1000"], stderr=log)  # a child of the driver, which is this process
    other = subprocess.Popen(["sleep", "1000"], env=os.environ | {ray_watchdog.MARK: f"{root}2"})
    try:
        assert len(list(ray_watchdog.session_processes(root, os.getpid()))) == 2
        with ray_local._watchdog(root, os.open(root / "lock", os.O_RDWR | os.O_CREAT)):
            assert root.exists()
        assert list(ray_watchdog.session_processes(root, os.getpid())) == []
        assert not root.exists()
        assert [ours.poll(), other.poll()] == [None, None]
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


# Refusals -------------------------------------------------------------------------------------------------------------


def test_ray_imported_too_early_is_refused() -> None:
    code = (
        "import ray\nfrom frame.pipeline.ray_session import ray_session\n"
        "with ray_session(address=None, cpus=1):\n    print('started')\n"
    )
    refused = run_python(code)
    assert refused.returncode != 0
    assert "import ray inside the session only" in refused.stderr
    assert "started" not in refused.stdout


def test_only_the_main_thread_may_start_one() -> None:
    def start() -> None:
        with ray_session(address=None, cpus=1):
            raise AssertionError

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="main thread"):
        pool.submit(start).result()


def test_a_store_below_rays_least_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(InputError, match="too few"), ray_session(address=None, cpus=1, object_store_bytes=1000):
        pass


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265", "ray://"])
def test_ray_client_and_job_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="not supported"), ray_session(address=address, cpus=None):
        pass


@pytest.mark.parametrize("address", ["", "auto", "local", "head", ":6379", "head:", "head:port", "head:٣", "h:65536"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="not the address"):
        check_address(address)


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError, match="Nothing answers"):
        check_address(f"127.0.0.1:{port}")


def test_a_clusters_resources_are_not_ours_to_set() -> None:
    with pytest.raises(InputError, match="owner's to set"), ray_session(address="head:6379", cpus=4):
        pass


# Parts ----------------------------------------------------------------------------------------------------------------


def test_a_long_tmpdir_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = ray_local.short_folder()
    assert folder in (Path("/tmp"), Path("/var/tmp"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="no folder for Ray's sockets"):
        ray_local.short_folder()


def test_usable_cpus_respects_the_affinity() -> None:
    assert 1 <= ray_local.usable_cpus() <= len(os.sched_getaffinity(0))


def test_listeners_are_found_with_their_addresses() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as plain,
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as everywhere,
        socket.create_server(("::ffff:127.0.0.1", 0), family=socket.AF_INET6, dualstack_ipv6=True) as mapped,
    ):
        found = {one.port: one for one in session_listeners(os.getpid())}
        assert found[plain.getsockname()[1]].address == "127.0.0.1"
        assert found[everywhere.getsockname()[1]].address == "::"
        assert found[mapped.getsockname()[1]].address == "127.0.0.1"
        assert [one.split()[0] for one in complaints([found[everywhere.getsockname()[1]]])] == [
            f"[::]:{everywhere.getsockname()[1]}"
        ]


@contextmanager
def http_server(*, post: int, page: bytes = b"") -> Iterator[Listener]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(post)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Listener(pid=1, process="x", address="127.0.0.1", port=server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("post", "page", "guarded"),
    [
        (401, b"", True),
        (403, b"", True),
        (200, b"", False),
        (404, b"", False),
        (500, b"", False),
        (405, b"<html>", False),
        (405, b"# HELP process_cpu_seconds_total\n", True),
    ],
)
def test_only_a_refusal_counts_as_guarded(post: int, page: bytes, guarded: bool) -> None:
    with http_server(post=post, page=page) as listener:
        assert (answer_without_token(listener) == "") is guarded


def test_a_port_that_does_not_speak_http_is_no_web_server() -> None:
    frame = b"\x00\x00\x18\x04\x00\x00\x00\x00\x00"  # how HTTP/2, and so gRPC, begins

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(frame)
            connection.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        listener = Listener(pid=1, process="x", address="127.0.0.1", port=server.getsockname()[1])
        assert answer_without_token(listener) == ""
        thread.join()
