"""One unit of work: which clips' frames go where, cut into batches that depend on the plan alone.

A *piece* is a fixed range of ``batch_rows`` unit rows and one batch of the teachers. Pieces never depend on what was
done before or on which clips fail, so that the same plan gives the same batches and the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from frame.pipeline.store.index import RowMap, failed_at_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPart:
    """Frames of one clip that belong to one unit: ``timestamps[i]`` goes to unit row ``first_row + i``."""

    clip: str
    source: str  # absolute path of the video or folder of frames
    first_row: int
    timestamps: tuple[float, ...]
    height: int
    width: int
    sha256: str
    frame_rate: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitJob:
    """What has to be made of one unit: ``columns``, out of ``parts``; ``failed`` clips have no rows at all."""

    unit: int
    columns: tuple[str, ...]
    parts: tuple[ClipPart, ...]
    failed: dict[str, tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A run of one clip's frames inside one piece: ``timestamps[first:first + count]`` of ``part``."""

    part: ClipPart
    first: int
    count: int

    @property
    def row(self) -> int:
        """Unit row of its first frame."""
        return self.part.first_row + self.first


def make_job(unit: int, columns: Sequence[str], index: pa.Table, rows: RowMap, *, source: Path) -> UnitJob:
    """The job of one unit, from the index."""
    parts = []
    for part in rows.clips(unit):
        clip: dict[str, Any] = index.slice(part.position, 1).to_pylist()[0]
        stop = part.first_frame + part.stop - part.start
        parts.append(
            ClipPart(
                clip=part.clip,
                source=str(source / clip["source"]),
                first_row=part.start,
                timestamps=tuple(clip["timestamps"][part.first_frame : stop]),
                height=clip["height"],
                width=clip["width"],
                sha256=clip["sha256"],
                frame_rate=clip["frame_rate"],
            )
        )
    names = index.column("clip")
    failed = {names[position].as_py(): failed_at_plan(index, position) for position in rows.rowless(unit)}
    return UnitJob(unit=unit, columns=tuple(columns), parts=tuple(parts), failed=failed)


def pieces(job: UnitJob, *, batch_rows: int) -> list[list[Segment]]:
    """The segments of every piece that has any, in row order."""
    found: dict[int, list[Segment]] = {}
    for part in job.parts:
        row, end = part.first_row, part.first_row + len(part.timestamps)
        while row < end:
            number = row // batch_rows
            stop = min(end, (number + 1) * batch_rows)
            found.setdefault(number, []).append(Segment(part=part, first=row - part.first_row, count=stop - row))
            row = stop
    return [found[number] for number in sorted(found)]
