"""The build: find what is missing or damaged, make it in one Ray Data pipeline, commit it unit by unit.

Building, resuming, adding a teacher and repairing are one operation: make the receipts that are not there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from frame.pipeline.local import add_timings
from frame.pipeline.options import RunOptions, share_of
from frame.pipeline.prepare import Prepared
from frame.pipeline.progress import Progress
from frame.pipeline.ray_session import RaySession, quiet_ray_data, ray_session
from frame.pipeline.stages import DecodeStage, TeachStage, WriteStage
from frame.pipeline.store import Cache, CacheError, open_cache
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.layout import RECEIPTS, SHARDS, STATS
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.verify import Problem, check_statistics, check_units, leftovers


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a build did. ``seconds``: by stage, summed over workers; ``wall``: from the first unit to the last."""

    units: int = 0
    rows: int = 0
    bytes: int = 0
    repaired: tuple[Problem, ...] = ()
    failed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    clips: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    workers: Mapping[str, int] = field(default_factory=dict)
    wall: float = 0.0
    left: int = 0

    @property
    def failed_share(self) -> float:
        """Failed clips over all clips of the cache."""
        return len(self.failed) / max(self.clips, 1)


def build(prepared: Prepared, run: RunOptions, progress: Progress) -> Summary:
    """Make every missing or damaged unit of this share, and the statistics once all units are there."""
    cache = prepared.cache
    todo, damage = missing_work(cache, run, progress)
    for problem in damage:
        progress.note(f"repairing {problem.file}: {problem.detail}")
    summary = Summary(repaired=tuple(damage))
    with writer_folder(cache.path) as tmp:
        if todo:
            summary = _run_pipeline(prepared, todo, run, progress, tmp=tmp, summary=summary)
        left = _finish(cache.path, tmp=tmp)
    failed = open_cache(cache.path).failed()
    return replace(summary, failed=failed, clips=cache.index.num_rows, left=left)


def missing_work(cache: Cache, run: RunOptions, progress: Progress) -> tuple[dict[int, tuple[str, ...]], list[Problem]]:
    """The columns that each unit of this share lacks, and the damage found on the way."""
    expected = cache.expected_units
    units = [expected[i] for i in share_of(len(expected), run.units)]
    with progress.bar("checking", total=len(units), unit="units") as tick:
        states = check_units(cache, units, deep=run.deep_check, tick=lambda _: tick())
    todo: dict[int, tuple[str, ...]] = {}
    damage: list[Problem] = []
    for state in states:
        broken = _whole_parts(cache, state.broken_columns)
        if broken:
            todo[state.unit] = tuple(name for name in cache.columns if name in broken)
        damage += [
            problem for problem in state.problems if problem.kind != "missing" or "receipts/" not in problem.file
        ]
    return todo, damage


def _whole_parts(cache: Cache, broken: frozenset[str]) -> set[str]:
    """Columns that share a tar file are made together."""
    if cache.meta.store == "zarr":
        return set(broken)
    parts = {cache.columns[name].part for name in broken}
    return {name for name, column in cache.columns.items() if column.part in parts}


def _run_pipeline(
    prepared: Prepared,
    todo: dict[int, tuple[str, ...]],
    run: RunOptions,
    progress: Progress,
    *,
    tmp: Path,
    summary: Summary,
) -> Summary:
    cache = prepared.cache
    with ray_session(address=run.address, cpus=None, object_store_bytes=None) as session:
        pools = Pools.choose(session, workers=run.workers, units=len(todo))
        rows = sum(cache.planned_rows(unit) for unit in todo)
        with progress.bar("building", total=rows, unit="frames") as tick:
            began = time.monotonic()
            for report in _reports(prepared, todo, pools, tmp=tmp):
                if "error" in report:
                    what, where, why, fix = report["error"]
                    raise CacheError(what=what, where=where, why=why, fix=fix)
                tick(cache.planned_rows(report["unit"]), _remark(report))
                summary = _add(summary, report)
            wall = time.monotonic() - began
    summary = replace(
        summary, wall=wall, workers={"decode": pools.decoders, "teach": pools.teachers, "write": pools.writers}
    )
    add_timings(
        cache.path, {"units": summary.units, "rows": summary.rows, "wall": wall, "seconds": dict(summary.seconds)}
    )
    return summary


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
                gpus=session.gpus / teachers,
            )
        teachers = min(workers or cpus, units)
        return cls(
            decoders=max(1, min(units, cpus // 2)),
            teachers=teachers,
            writers=max(1, min(units, cpus // 4)),
            threads=max(1, cpus // (workers or cpus)),
            gpus=0.0,
        )


def _reports(
    prepared: Prepared, todo: dict[int, tuple[str, ...]], pools: Pools, *, tmp: Path
) -> Iterator[dict[str, Any]]:
    """Run the pipeline over the units; yields what the write stage says of each as it is committed."""
    # Not at the top of the file: Ray reads how to guard its ports when it is imported, so the session comes first.
    import ray.data
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    quiet_ray_data()
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = None  # a unit is one row of one block; it must never be joined with another
    cache = prepared.cache.path.absolute()
    units = _order(todo)
    data = ray.data.from_items(units, override_num_blocks=len(units))
    data = data.map_batches(
        DecodeStage(cache=cache, source=prepared.source.absolute(), columns=todo),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0.1,
        compute=TaskPoolStrategy(size=pools.decoders),
    )
    data = data.map_batches(
        TeachStage,
        fn_constructor_args=(replace(prepared.teachers, threads=pools.threads),),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0.2,
        num_gpus=pools.gpus or None,
        compute=ActorPoolStrategy(min_size=pools.teachers, max_size=pools.teachers),
    )
    data = data.map_batches(
        WriteStage(cache=cache, tmp=tmp.absolute()),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0.05,
        compute=TaskPoolStrategy(size=pools.writers),
    )
    for row in data.iter_rows():
        yield json.loads(row["report"])


def _order(todo: Mapping[int, Any]) -> list[int]:
    """Units in an order of this process's own: two builds of one cache then rarely make the same unit twice."""
    units = sorted(todo)
    start = int.from_bytes(os.urandom(4), "big") % len(units)
    return units[start:] + units[:start]


def _remark(report: Mapping[str, Any]) -> str:
    return f"unit {report['unit']}" + (f", {len(report['failed'])} clips failed" if report["failed"] else "")


def _add(summary: Summary, report: Mapping[str, Any]) -> Summary:
    seconds = dict(summary.seconds)
    for name, spent in report["seconds"].items():
        seconds[name] = seconds.get(name, 0.0) + spent
    return replace(
        summary,
        units=summary.units + 1,
        rows=summary.rows + report["rows"],
        bytes=summary.bytes + report["bytes"],
        seconds=seconds,
    )


def _finish(path: Path, *, tmp: Path) -> int:
    """Write the statistics and remove leftovers once every unit is committed; the number of units still missing."""
    cache = open_cache(path)
    states = check_units(cache, cache.expected_units, deep=False)
    left = sum(bool(state.broken_columns) for state in states)
    if not left:
        write_statistics(cache, tmp=tmp)
        for problem in leftovers(cache, states):
            if Path(problem.file).parts[0] in _ours(cache):
                (path / problem.file).unlink(missing_ok=True)
        if problems := check_statistics(cache):
            raise CacheError(what="The statistics did not reach the disk.", where=str(path / problems[0].file))
    return left


def _ours(cache: Cache) -> set[str]:
    """Folders that only builds write into. What else a person keeps inside the cache's folder is not touched."""
    return {*cache.meta.arrays(), SHARDS, RECEIPTS, STATS}
