"""Second stage: a unit's frames in, its encoded columns out. One actor an accelerator, or one a CPU worker."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pyarrow as pa

from frame.manifests.errors import InputError
from frame.pipeline.block import Block, Failures, pack, unpack
from frame.pipeline.teach import Made, TeacherBench, TeacherPlan

_NOT_FINITE = ("features-not-finite", "a teacher's output is NaN, infinite, or too large for the encoding")


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
    began = time.time()  # of the wall clock: workers and driver compare it, perhaps across machines
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
        "teaching_since": began,
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
