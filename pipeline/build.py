"""The build: find what is missing or damaged, make it in one Ray Data pipeline, commit it unit by unit.

Building, resuming, adding a teacher and repairing are one operation: make the receipts that are not there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from frame.manifests.progress import Progress
from frame.pipeline.interrupts import remembered_interrupts
from frame.pipeline.options import RunOptions, share_of
from frame.pipeline.prepare import Prepared
from frame.pipeline.ray_pipeline import Pools, unit_reports
from frame.pipeline.ray_session import ray_session
from frame.pipeline.store import Cache, CacheError, open_cache
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.finish import finish
from frame.pipeline.store.local import add_timings
from frame.pipeline.store.verify import Problem, check_units


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a build did. ``seconds``: by stage, summed over workers; ``wall``: from the call to the last receipt;
    ``start``: the part of it before the first teacher began, spent on starting processes and loading weights."""

    units: int = 0
    rows: int = 0
    bytes: int = 0
    repaired: tuple[Problem, ...] = ()
    failed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    clips: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    workers: Mapping[str, int] = field(default_factory=dict)
    wall: float = 0.0
    start: float = 0.0
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
        left = finish(cache.path, tmp=tmp)
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
        for warning in session.warnings:
            progress.note(warning)
        pools = Pools.choose(session, workers=run.workers, units=len(todo))
        rows = sum(cache.planned_rows(unit) for unit in todo)
        with progress.bar("building", total=rows, unit="frames") as tick, remembered_interrupts() as again:
            began, first = time.time(), float("inf")
            with closing(unit_reports(prepared, todo, pools, session, tmp=tmp)) as reports:
                for report in reports:
                    if "error" in report:
                        what, where, why, fix = report["error"]
                        raise CacheError(what=what, where=where, why=why, fix=fix)
                    first = min(first, report["teaching_since"])
                    tick(cache.planned_rows(report["unit"]), _remark(report))
                    summary = _add(summary, report)
                    again()  # one that came while a callback of Ray was running is lost without this
            again()
            wall = time.time() - began
            start = min(max(first - began, 0.0), wall)
    summary = replace(
        summary,
        wall=wall,
        start=start,
        workers={"decode": pools.decoders, "teach": pools.teachers, "write": pools.writers},
    )
    timings = {key: getattr(summary, key) for key in ("units", "rows", "wall", "start", "seconds", "workers")}
    add_timings(cache.path, timings)
    return summary


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
