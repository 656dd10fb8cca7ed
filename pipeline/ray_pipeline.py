"""The Ray Data pipeline: units in, reports of committed units out, with back-pressure from the engine."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.decode_stage import DecodeStage
from frame.pipeline.prepare import Prepared
from frame.pipeline.ray_session import RaySession, quiet_ray_data
from frame.pipeline.ray_threads import ended_threads
from frame.pipeline.teach_stage import TeachStage
from frame.pipeline.write_stage import WriteStage

# A unit whose worker dies (out of memory, a crash of the driver library) is tried again in a fresh worker, but not for
# ever: Ray Data's own default is to try until the end of time.
_RETRIES = 2
# A teacher's worker lives through a build of weeks, in which it may die now and then, each time on another unit. One
# that dies as it loads its teachers is given up, too.
_RESTARTS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Pools:
    """How many of each worker, and what each claims of Ray's resources.

    A claim is a gate at scheduling, not a measure of work, and Ray Data keeps a reserve per operator: whole claims on a
    small machine leave the writers waiting for ever. So the sizes of the pools do the limiting, claims are tiny, and
    they differ between neighbours, because Ray Data fuses neighbouring stages with equal claims into one process.
    """

    decoders: int
    teachers: int
    writers: int
    threads: int | None
    gpus: float

    @classmethod
    def choose(cls, session: RaySession, *, workers: int | None, units: int) -> Pools:
        """Teachers: one a GPU, or as many CPU workers as asked for (one a core, with one thread each)."""
        cpus = max(int(session.cpus), 1)
        if session.gpus:
            teachers = workers or int(session.gpus)
            return cls(
                decoders=max(1, min(units, cpus - teachers)),
                teachers=teachers,
                writers=max(1, min(units, cpus // 4)),
                threads=None,
                gpus=1 / -(-teachers // int(session.gpus)),  # whole ones, or equal shares: Ray has no others
            )
        teachers = min(workers or cpus, units)
        return cls(
            decoders=max(1, min(units, cpus // 2)),
            teachers=teachers,
            writers=max(1, min(units, cpus // 4)),
            # One thread a worker, however many there are: sums in another order are other bytes.
            threads=1,
            gpus=0.0,
        )


def unit_reports(
    prepared: Prepared, todo: dict[int, tuple[str, ...]], pools: Pools, session: RaySession, *, tmp: Path
) -> Generator[dict[str, Any]]:
    """Run the pipeline over the units; yields what the write stage says of each as it is committed.

    Close it (``contextlib.closing``) before the session ends."""
    # Not at the top of the file: Ray reads how to guard its ports when it is imported, so the session comes first.
    import ray.data
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    quiet_ray_data()
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = None  # a unit is one row of one block; it must never be joined with another
    cache = prepared.cache.path.absolute()
    units = _order(todo)
    with warnings.catch_warnings():
        # Ray 2.60 announces another spelling for restarts and retries, which it does not have yet.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.* is deprecated")
        data = ray.data.from_items(units, override_num_blocks=len(units))
        data = data.map_batches(
            DecodeStage(cache=cache, source=prepared.source.absolute(), columns=todo),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0.1,
            compute=TaskPoolStrategy(size=pools.decoders),
            max_retries=_RETRIES,
        )
        data = data.map_batches(
            TeachStage,
            fn_constructor_args=(replace(prepared.teachers, threads=pools.threads),),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0.2,
            num_gpus=pools.gpus or None,
            compute=ActorPoolStrategy(min_size=pools.teachers, max_size=pools.teachers),
            max_restarts=_RESTARTS,
            max_task_retries=_RETRIES,
        )
        data = data.map_batches(
            WriteStage(cache=cache, tmp=tmp.absolute()),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0.05,
            compute=TaskPoolStrategy(size=pools.writers),
            max_retries=_RETRIES,
        )
    try:
        # Closed, and not left to the garbage collector: see `ended_threads`.
        with (
            ended_threads(),
            closing(iter(data.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0))) as batches,
        ):
            for batch in batches:
                yield json.loads(batch["report"][0].as_py())
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, InputError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:  # a worker, or the raylet: which of its kinds, depends on who saw it first
        raise InputError(
            what=f"A worker of the build died {_RETRIES + 1} times on the same unit, or Ray itself ended.",
            where=str(cache),
            why=session.last_words() or str(error).splitlines()[0],
            fix=f"Free memory or use fewer --workers, then go on with: frame-cache build {cache}",
        ) from error


def _order(todo: Mapping[int, Any]) -> list[int]:
    """Units in an order of this process's own: two builds of one cache then rarely make the same unit twice."""
    units = sorted(todo)
    start = int.from_bytes(os.urandom(4), "big") % len(units)
    return units[start:] + units[:start]
