"""First stage: a unit's number in, its frames out. CPU tasks; the decoder itself runs in a process that can be killed.

A clip that fails travels on as a name with a reason; its place in the batch is filled with black frames, so that its
neighbours' features are the same bytes whether it failed or not, and its rows are dropped before anything is written.
"""

from __future__ import annotations

import atexit
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from frame.pipeline.block import Failures, pack
from frame.pipeline.decode import ClipError, DecodeCage
from frame.pipeline.jobs import ClipPart, Segment, UnitJob, make_job, pieces
from frame.pipeline.kept_index import kept_index
from frame.pipeline.store import open_cache
from frame.pipeline.store.objects import StorePath


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeStage:
    """A unit's number in, its frames uint8 out. ``columns``: what each unit lacks."""

    cache: StorePath
    source: Path
    columns: Mapping[int, tuple[str, ...]]

    def __call__(self, table: pa.Table) -> pa.Table:
        """Decode the units of ``table`` (column ``item``)."""
        cache = open_cache(self.cache)
        known = kept_index(cache)
        jobs = [
            make_job(unit, self.columns[unit], known.index, known.row_map, source=self.source)
            for unit in table.column("item").to_pylist()
        ]
        return pa.concat_tables([_decode_unit(job, _cage(), cache.meta.build) for job in jobs])


@functools.cache
def _cage() -> DecodeCage:
    """This process's cage. Ray gives one process many units, and starting a decoder costs as much as decoding one."""
    cage = DecodeCage()
    atexit.register(cage.close)
    return cage


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
