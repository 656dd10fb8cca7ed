"""Joining a Ray cluster that somebody else runs: its address, its token, its resources."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.ray_process import QUIET, environment, import_ray, native_stderr, reason, refuse_used_ray

_ONE_TRY = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # by itself Ray asks a silent address 20 times, half a minute each


@contextmanager
def joined_ray(address: str) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Join the cluster at ``address`` (HOST:PORT) and leave it again; yields the module ray, and warnings."""
    check_address(address)
    refuse_used_ray("cluster")
    with environment(QUIET | _ONE_TRY), native_stderr():
        ray = import_ray("cluster")
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise InputError(
                what="The Ray cluster did not take this process in.",
                where=address,
                why=reason(error),
                fix="run on a node of the cluster, with its versions of Python and Ray, and with its token: "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE (docs/cluster/slurm_ray.sbatch does)",
            ) from error
    try:
        yield ray, _warnings(address)
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """InputError unless ``address`` is HOST:PORT of something that listens.

    Never "local" or "auto", which may start or find a cluster nobody named; never Ray Client or the job server.
    """
    if "://" in address:
        raise InputError(
            what="Ray Client and job addresses are not supported.",
            where=address,
            why="they run the whole build in a server process whose port executes whatever reaches it",
            fix="run on a node of the cluster and give HOST:PORT, the address that `ray start` printed there",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InputError(
            what="This is not the address of a Ray cluster.",
            where=address or "(empty)",
            fix="give HOST:PORT, the address that `ray start` printed; leave --address out to work on this machine",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            what="Nothing answers at the address of the Ray cluster.",
            where=address,
            why=str(error),
            fix="check the address (`ray status` on the cluster's head) and that this machine may reach it",
        ) from error


def _warnings(address: str) -> tuple[str, ...]:
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return ()
    return (f"the Ray cluster at {address} asks for no token: whoever reaches its ports can run programs as you",)
