from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from test_plan import planned, probe

from frame.pipeline.decode import ClipError
from frame.pipeline.jobs import make_job, pieces
from frame.pipeline.store.index import RowMap


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any), st.integers(1, 30), st.integers(1, 12))
def test_pieces_cover_every_row_of_a_unit_once_within_one_batch(lengths: list[int], unit: int, batch: int) -> None:
    plan = planned([probe(n) if n else ClipError("empty", "no bytes") for n in lengths], unit_rows=unit)
    rows = RowMap(plan.index, rows_per_unit=unit)
    for number in range(plan.meta.units):
        job = make_job(number, ("frames",), plan.index, rows, source=Path("/videos"))
        covered: list[int] = []
        for segments in pieces(job, batch_rows=batch):
            mine = [row for segment in segments for row in range(segment.row, segment.row + segment.count)]
            assert len({row // batch for row in mine}) == 1
            covered += mine
        wanted = [row for part in rows.clips(number) for row in range(part.start, part.stop)]
        assert covered == wanted


def test_a_job_names_the_frames_by_their_timestamps() -> None:
    plan = planned([probe(10)], unit_rows=4)
    rows = RowMap(plan.index, rows_per_unit=4)
    job = make_job(1, ("frames",), plan.index, rows, source=Path("/videos"))
    (part,) = job.parts
    assert part.source == "/videos/c000.mp4"
    assert part.timestamps == (0.4, 0.5, 0.6, 0.7)
    assert part.first_row == 0


def test_pieces_do_not_depend_on_which_columns_are_missing() -> None:
    plan = planned([probe(10), probe(3)], unit_rows=16)
    rows = RowMap(plan.index, rows_per_unit=16)
    jobs = [make_job(0, columns, plan.index, rows, source=Path("/v")) for columns in (("frames",), ("a", "b"))]
    assert pieces(jobs[0], batch_rows=5) == pieces(jobs[1], batch_rows=5)
