"""The teachers' stage among those of ``striking``: by itself, because the others should not wait for its imports."""

from __future__ import annotations

import pyarrow as pa
from striking import after, before

from frame.pipeline.block import unpack
from frame.pipeline.teach_stage import TeachStage


class StruckTeach(TeachStage):
    """Teaches units."""

    def __call__(self, table: pa.Table) -> pa.Table:
        (unit,) = (block.unit for block in unpack(table))
        before("teach", unit)
        return after("teach", unit, super().__call__(table))
