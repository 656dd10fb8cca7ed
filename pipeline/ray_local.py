"""Ray on this machine for one build: private while it runs, and gone afterwards however the build ends."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.ray_folder import new_folder
from frame.pipeline.ray_ports import complaints, session_listeners
from frame.pipeline.ray_process import QUIET, environment, import_ray, native_stderr, reason, refuse_used_ray
from frame.pipeline.ray_watchdog import IN_ORDER, MARK

_WATCHDOG = Path(__file__).with_name("ray_watchdog.py")
_LEAST_STORE = 80 * 2**20  # bytes; Ray refuses an object store below 75 MiB
_LONGEST_SOCKET = 107  # bytes in the path of a Unix socket on Linux
_LONGEST_FOLDER = _LONGEST_SOCKET - len(
    "/frame-12345678/r/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
)
_RAY_LABELS = (":job_id:", ":actor_name:", ":task_name:")  # lines by which Ray marks its workers' logs
_NOT_OURS = (  # what would lead a local session to somebody else's cluster, storage, token or code
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_GCS_SERVER_PORT",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_NAMESPACE",
    "RAY_REDIS_ADDRESS",
    "RAY_RUNTIME_ENV_HOOK",
)


@contextmanager
def local_ray(*, cpus: int | None, gpus: int | None, store: int | None) -> Iterator[tuple[Any, tuple[str, ...], Path]]:
    """Start Ray here and end it again; yields the module ray, warnings, and the folder of its logs.

    Refused (InputError) unless every port it opened is on the loopback interface and asks for the session's token.
    """
    refuse_used_ray("local")
    if not Path("/proc/self/net/tcp").exists():
        raise InputError(
            what="Ray is started on Linux only.",
            why="there is no /proc here to check its ports with",
            fix="build on a Linux machine or inside a Linux container",
        )
    if store is not None and store < _LEAST_STORE:
        raise InputError(what=f"{store} bytes are too few for Ray's object store.", fix=f"give {_LEAST_STORE} or more")
    root, lock = new_folder(short_folder())
    logs = root / "r" / "session_latest" / "logs"
    with _watchdog(root, lock):
        before = {(one.address, one.port) for one in session_listeners(os.getpid())}
        ray = _start(root, logs, num_cpus=cpus or usable_cpus(), num_gpus=gpus, object_store_memory=store)
        try:
            _check_ports(before)
            yield ray, _store_warnings(ray), logs
        finally:
            ray.shutdown()


def last_lines(folder: Path, pattern: str, lines: int) -> str:
    """The ends of the log files that match and say something, the latest last."""
    files = [file for file in folder.glob(pattern) if file.stat().st_size]
    files.sort(key=lambda file: file.stat().st_mtime)
    said: list[str] = []
    for file in files:
        text = file.read_text("utf-8", "replace").splitlines()
        said += [line for line in text if line.strip() and not line.startswith(_RAY_LABELS)][-lines:]
    return "\n".join(said)


@functools.cache
def usable_cpus() -> int:
    """Cores that this process may use: its affinity (which Slurm sets), within the quota of its container."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no such file outside a cgroup v2; "max" for no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def short_folder() -> Path:
    """Where a session's folder can lie: the Unix sockets below it must not exceed the system's longest path."""
    for folder in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if len(os.fsencode(folder)) <= _LONGEST_FOLDER and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        what="There is no folder for Ray's sockets.",
        where=tempfile.gettempdir(),
        why=f"its path is longer than {_LONGEST_FOLDER} bytes, and neither /tmp nor /var/tmp can be written",
        fix="set TMPDIR to a short path",
    )


def _start(root: Path, logs: Path, **resources: int | None) -> Any:
    """Import and start Ray with everything below ``root``; returns the module."""
    with environment(_guards(root)), native_stderr() as printed:
        try:
            ray = import_ray("local")
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(root / "r"),  # Ray opens its folder to everyone, so it lies inside the private one
                **resources,
            )
        except Exception as error:
            printed.seek(0)
            said = [reason(error), printed.read().decode("utf-8", "replace"), last_lines(logs, "*.err", 5)]
            raise InputError(
                what="Ray did not start on this machine.",
                why="\n".join(filter(None, said)),
                fix="see that memory, disk and process limits (ulimit -u, ulimit -n) leave room for it",
            ) from error
    return ray


def _guards(root: Path) -> dict[str, str | None]:
    """What Ray and its processes read from the environment; None removes a variable."""
    return {
        **dict.fromkeys(_NOT_OURS),
        **QUIET,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": session_token(),
        # Ray's switch for machines whose firewall asks about every port. It makes 127.0.0.1 this node's address, and
        # then, and only then, every one of its servers binds to the loopback interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a stage that claims no GPU sees none
        MARK: str(root),
    }


@functools.cache
def session_token() -> str:
    """One a process, because Ray keeps the first it reads; never in a file, an argument or a log."""
    return secrets.token_hex(32)


@contextmanager
def _watchdog(root: Path, lock: int) -> Iterator[None]:
    """A process that ends the session's processes and removes ``root`` when the block ends, or this process does.

    It holds ``lock`` as well, which is closed here.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WATCHDOG), str(root), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[lock],
        start_new_session=True,  # Ctrl-C reaches the driver alone
    )
    assert process.stdin is not None
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            process.stdin.write(IN_ORDER)
            process.stdin.close()
        os.close(lock)
        process.wait()  # it gives up by itself after its own deadline


def _check_ports(before: set[tuple[str, int]]) -> None:
    """InputError when a port that is not one of ``before`` is open to others. Ray has opened all its own by now."""
    mine = [one for one in session_listeners(os.getpid()) if (one.address, one.port) not in before]
    if found := complaints(mine):
        raise InputError(
            what="Ray was ended again at once, because it was not closed to others.",
            where="\n         ".join(found),
            why="whoever reaches such a port can run programs as you",
            fix="use the tested package versions (constraints.txt), or give the build a network of its own: "
            "unshare -rn sh -c 'ip link set lo up && frame-cache build ...'",
        )


def _store_warnings(ray: Any) -> tuple[str, ...]:
    size = int(ray.cluster_resources().get("object_store_memory", 0))
    room = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    if size <= room:
        return ()
    return (
        f"/dev/shm has {room >> 20} MiB and Ray's object store {size >> 20}: what travels between the stages goes over "
        "the disk (in a container: --shm-size)",
    )
