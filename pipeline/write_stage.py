"""Third stage: a unit's encoded columns in, a committed unit out. CPU tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from frame.pipeline.block import ABOUT, Block, Failures, unpack
from frame.pipeline.kept_index import kept_index
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.objects import StorePath
from frame.pipeline.store.receipts import merge_moments
from frame.pipeline.store.writer import UnitData, commit_unit


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteStage:
    """Encoded columns in, a committed unit out. ``tmp`` is the build's temporary folder inside the cache."""

    cache: StorePath
    tmp: Path

    def __call__(self, table: pa.Table) -> pa.Table:
        """Commit the units in ``table`` and report on each: a row of JSON."""
        return pa.table({"report": [json.dumps(self._commit(block)) for block in unpack(table)]})

    def _commit(self, block: Block) -> dict[str, Any]:
        began = time.perf_counter()
        cache = open_cache(self.cache)
        data = unit_data(block)
        try:
            receipt = commit_unit(self.cache, cache.meta, kept_index(cache).index, data, tmp=self.tmp)
        except CacheError as error:
            return {"unit": data.unit, "error": [error.what, error.where, error.why, error.fix]}
        made = [entry.bytes for entry in receipt.files.values() if set(entry.columns) & set(data.software)]
        return {
            "unit": data.unit,
            "rows": len(data.rows),
            "bytes": sum(made),
            "failed": dict(data.failed),
            "loss": dict(data.loss),
            "teaching_since": block.header["teaching_since"],
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


def _about(
    what: str, block: Block, kept: list[int], combine: Callable[[np.ndarray], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
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
