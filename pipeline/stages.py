"""The three stages of a build, as Ray Data runs them: decode (CPU tasks), teach (one actor a GPU), write (CPU tasks).

One unit is one row from stage to stage. A clip that fails travels on as a name with a reason; its place in the batch is
filled with black frames, so that its neighbours' features are the same bytes whether it failed or not, and its rows are
dropped before anything is written.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from frame.manifests.errors import InputError
from frame.pipeline.block import Block, pack, unpack
from frame.pipeline.decode import ClipError, DecodeCage
from frame.pipeline.jobs import ClipPart, Segment, UnitJob, make_job, pieces
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.receipts import merge_moments
from frame.pipeline.store.writer import UnitData, commit_unit
from frame.pipeline.teach import ABOUT, Made, TeacherBench, TeacherPlan

Failures = dict[str, tuple[str, str]]
_NOT_FINITE = ("features-not-finite", "a teacher's output is NaN, infinite, or too large for the encoding")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeStage:
    """A unit's number in, its frames uint8 out. ``columns``: what each unit lacks."""

    cache: Path
    source: Path
    columns: Mapping[int, tuple[str, ...]]

    def __call__(self, table: pa.Table) -> pa.Table:
        """Decode the units of ``table`` (column ``item``)."""
        cache = open_cache(self.cache)
        with DecodeCage() as cage:
            jobs = [
                make_job(unit, self.columns[unit], cache.index, cache.row_map, source=self.source)
                for unit in table.column("item").to_pylist()
            ]
            return pa.concat_tables([_decode_unit(job, cage, cache.meta.build) for job in jobs])


def _decode_unit(job: UnitJob, cage: DecodeCage, build: Mapping[str, Any]) -> pa.Table:
    began = time.perf_counter()
    failed: Failures = dict(job.failed)
    images = {part.clip: _decode(part, cage, build["decoder"], failed) for part in job.parts}
    batches = pieces(job, batch_rows=build["batch_rows"])
    header = {
        "columns": job.columns,
        "batches": [[_describe(segment) for segment in segments] for segments in batches],
        "failed": failed,
        "seconds": {"decode": time.perf_counter() - began},
    }
    parts = {
        f"{number}.{i}": images[segment.part.clip][segment.first : segment.first + segment.count]
        for number, segments in enumerate(batches)
        for i, segment in enumerate(segments)
    }
    return pack(job.unit, header, parts)


def _describe(segment: Segment) -> dict[str, Any]:
    return {"clip": segment.part.clip, "row": segment.row, "count": segment.count}


def _decode(part: ClipPart, cage: DecodeCage, decoder: str, failed: Failures) -> np.ndarray:
    """The part's frames uint8 ``[n, H, W, 3]``, or small black ones where the clip fails."""
    try:
        return cage.decode(
            Path(part.source),
            part.timestamps,
            height=part.height,
            width=part.width,
            decoder=decoder,
            frame_rate=part.frame_rate,
            sha256=part.sha256,
        )
    except ClipError as error:
        failed[part.clip] = (error.reason, error.detail)
        return np.zeros((len(part.timestamps), 8, 8, 3), dtype=np.uint8)


class TeachStage:
    """Frames in, encoded columns out. Holds the teachers; one instance an accelerator, or one a CPU worker."""

    def __init__(self, plan: TeacherPlan) -> None:
        # An error raised here would come back as a dead actor with a page of trace: keep it for the first call.
        self._bench: TeacherBench | InputError
        try:
            self._bench = TeacherBench(plan)
        except InputError as error:
            self._bench = error

    def __call__(self, table: pa.Table) -> pa.Table:
        """Make the columns that each unit asks for."""
        if isinstance(self._bench, InputError):
            raise self._bench
        return pa.concat_tables([teach_unit(block, self._bench) for block in unpack(table)])


def teach_unit(block: Block, bench: TeacherBench) -> pa.Table:
    """All batches of one unit through the teachers."""
    columns, batches = block.header["columns"], block.header["batches"]
    made = [
        bench.make(columns, [block.arrays[f"{number}.{i}"] for i in range(len(segments))])
        for number, segments in enumerate(batches)
    ] or [bench.make(columns, [])]
    failed: Failures = dict(block.header["failed"])
    for segments, batch in zip(batches, made, strict=False):
        for segment, finite in zip(segments, batch.finite, strict=True):
            if not finite:
                failed.setdefault(segment["clip"], _NOT_FINITE)
    header = {
        "columns": columns,
        "segments": list(itertools.chain.from_iterable(batches)),
        "failed": failed,
        "software": made[0].software,
        "seconds": _sum_seconds([{"decode": block.header["seconds"]["decode"]}, *(batch.seconds for batch in made)]),
    }
    return pack(block.unit, header, _join(made))


def _join(made: list[Made]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([batch.arrays[name] for batch in made]) for name in made[0].arrays}


def _sum_seconds(parts: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = total.get(name, 0.0) + seconds
    return total


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteStage:
    """Encoded columns in, a committed unit out. ``tmp`` is the build's temporary folder inside the cache."""

    cache: Path
    tmp: Path

    def __call__(self, table: pa.Table) -> pa.Table:
        """Commit the units in ``table`` and report on each: a row of JSON."""
        return pa.table({"report": [json.dumps(self._commit(block)) for block in unpack(table)]})

    def _commit(self, block: Block) -> dict[str, Any]:
        began = time.perf_counter()
        cache = open_cache(self.cache)
        data = unit_data(block)
        try:
            receipt = commit_unit(self.cache, cache.meta, cache.index, data, tmp=self.tmp)
        except CacheError as error:
            return {"unit": data.unit, "error": [error.what, error.where, error.why, error.fix]}
        made = [entry.bytes for entry in receipt.files.values() if set(entry.columns) & set(data.software)]
        return {
            "unit": data.unit,
            "rows": len(data.rows),
            "bytes": sum(made),
            "failed": dict(data.failed),
            "loss": dict(data.loss),
            "seconds": {**block.header["seconds"], "write": time.perf_counter() - began},
        }


def unit_data(block: Block) -> UnitData:
    """What the store takes: the unit's rows without those of clips that failed anywhere in it."""
    header = block.header
    failed: Failures = {clip: (reason, detail) for clip, (reason, detail) in header["failed"].items()}
    segments = header["segments"]
    kept = [i for i, segment in enumerate(segments) if segment["clip"] not in failed]
    rows = np.concatenate([np.arange(s["row"], s["row"] + s["count"]) for s in segments] or [np.empty(0, np.int64)])
    alive = np.repeat([s["clip"] not in failed for s in segments], [s["count"] for s in segments]).astype(bool)
    values = {name: array for name, array in block.arrays.items() if not name.startswith(ABOUT)}
    if not alive.all():
        rows, values = rows[alive], {name: array[alive] for name, array in values.items()}
    return UnitData(
        unit=block.unit,
        rows=rows,
        values=values,
        loss=_about("loss", block, kept, _loss),
        moments=_about("moments", block, kept, _moments),
        failed=failed,
        software=header["software"],
    )


def _about(what: str, block: Block, kept: list[int], combine: Any) -> dict[str, dict[str, Any]]:
    prefix = f"{ABOUT}{what}:"
    found = {name.removeprefix(prefix): array for name, array in block.arrays.items() if name.startswith(prefix)}
    return {column: combine(array[kept]) for column, array in found.items()}


def _loss(segments: np.ndarray) -> dict[str, float]:
    """Mean and worst cosine of stored against computed tokens; segments are rows (tokens, sum, worst)."""
    if not len(segments):
        return {}
    return {
        "mean_cosine": float(segments[:, 1].sum() / segments[:, 0].sum()),
        "worst_cosine": float(segments[:, 2].min()),
    }


def _moments(segments: np.ndarray) -> dict[str, Any]:
    """Count, mean and summed squared deviation of every channel; segments are rows (count, mean, deviation)."""
    width = (segments.shape[1] - 1) // 2
    parts = [{"count": int(row[0]), "mean": row[1 : 1 + width], "m2": row[1 + width :]} for row in segments]
    count, mean, variance = merge_moments(parts, width)
    return {"count": count, "mean": mean.tolist(), "m2": (variance * count).tolist()}
