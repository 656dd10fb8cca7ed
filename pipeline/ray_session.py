"""Ray for one build: started on this machine and ended with it, or a running cluster joined by its address."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.ray_cluster import joined_ray
from frame.pipeline.ray_local import last_lines, local_ray


@dataclass(frozen=True, kw_only=True, slots=True)
class RaySession:
    """A running session. ``cpus``, ``gpus``: of the whole cluster where one was joined. ``logs``: local ones only."""

    address: str
    local: bool
    cpus: int
    gpus: int
    warnings: tuple[str, ...]
    logs: Path | None

    def last_words(self, lines: int = 20) -> str:
        """What worker processes printed as errors before they ended; a crash in native code leaves no other trace."""
        return last_lines(self.logs, "worker-*.err", lines) if self.logs else ""


@contextmanager
def ray_session(
    *, address: str | None, cpus: int | None, gpus: int | None = None, object_store_bytes: int | None = None
) -> Iterator[RaySession]:
    """Start Ray on this machine (``address`` None), or join the cluster at ``address``, for the ``with`` block.

    ``cpus``, ``gpus``: what Ray may hand out, None for all that this process may use. ``object_store_bytes``: shared
    memory for what travels between the stages, None for Ray's own choice (30 % of the memory). All three are a
    cluster's owner's to set, and refused together with an address.

    Import ray inside the block, never before: Ray reads how to guard itself when it is imported. Enter it in the main
    thread. InputError where Ray cannot start, is not safe, or was used before. When the block ends, by whatever
    exception, all processes of a local session are gone; after a SIGKILL of this process they are within seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        # The kernel ends Ray's processes together with the *thread* that started them.
        raise RuntimeError("ray_session must be entered in the main thread")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            with local_ray(cpus=cpus, gpus=gpus, store=object_store_bytes) as (ray, remarks, logs):
                _give_back(handler)
                yield _describe(ray, local=True, remarks=remarks, logs=logs)
        else:
            _refuse_claims(address, cpus, gpus, object_store_bytes)
            with joined_ray(address) as (ray, remarks):
                _give_back(handler)
                yield _describe(ray, local=False, remarks=remarks, logs=None)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


def quiet_ray_data() -> None:
    """Keep Ray Data's bars, plans and stack traces off the terminal; its log file has them, and failures are raised.

    An error of ours raised inside a stage then arrives as a ``RayTaskError`` whose ``cause`` is that error itself.
    """
    data = importlib.import_module("ray.data")
    with warnings.catch_warnings():
        # The first context warns of the deprecated settings that its own defaults still set.
        warnings.simplefilter("ignore", DeprecationWarning)
        context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    # Its telemetry asks for a Prometheus server, and a thread of it uses Ray for as long as the process lives.
    os.environ["RAY_DATA_USAGE_DISABLED"] = "1"
    for printer in logging.getLogger("ray.data").handlers:
        if isinstance(printer, logging.StreamHandler) and not isinstance(printer, logging.FileHandler):
            printer.setLevel(logging.CRITICAL)


def _give_back(handler: Any) -> None:
    """Put the caller's handler of SIGTERM back. Where there was none, leave the ``with`` block, and so end the session:
    Ray's own handler prints a native stack trace first."""
    signal.signal(signal.SIGTERM, _leave if handler in (signal.SIG_DFL, None) else handler)


def _leave(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def _refuse_claims(address: str, *claims: int | None) -> None:
    if any(claim is not None for claim in claims):
        raise InputError(
            what="A cluster's processors, GPUs and memory are its owner's to set.",
            where=address,
            fix="leave them out, or leave out --address",
        )


def _describe(ray: Any, *, local: bool, remarks: tuple[str, ...], logs: Path | None) -> RaySession:
    resources = ray.cluster_resources()
    return RaySession(
        address=ray.get_runtime_context().gcs_address,
        local=local,
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        warnings=remarks,
        logs=logs,
    )
