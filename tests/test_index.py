"""Which clip owns which rows."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_caches import make_table

from frame.pipeline.store.index import RowMap, failed_at_plan, index_bytes, read_index

LENGTHS = st.lists(st.integers(0, 20), min_size=1, max_size=12)
UNITS = st.sampled_from([1, 2, 5, 8, 16])


@given(lengths=LENGTHS, rows_per_unit=UNITS)
def test_every_row_of_every_clip_is_found_in_its_unit_once(lengths: list[int], rows_per_unit: int) -> None:
    table, rows = make_table(lengths, rows_per_unit)
    rows_of = RowMap(table, rows_per_unit=rows_per_unit)
    found = {}
    for unit in range(rows // rows_per_unit):
        parts = rows_of.clips(unit)
        assert [part.start for part in parts] == sorted(part.start for part in parts)
        for part in parts:
            assert 0 <= part.start < part.stop <= rows_per_unit
            for i in range(part.stop - part.start):
                row = unit * rows_per_unit + part.start + i
                assert row not in found
                found[row] = (part.clip, part.position, part.first_frame + i)
    expected = {
        clip["first_row"] + frame: (clip["clip"], position, frame)
        for position, clip in enumerate(table.to_pylist())
        for frame in range(clip["n_frames"])
    }
    assert found == expected


@given(lengths=LENGTHS, rows_per_unit=UNITS)
def test_clips_without_rows_belong_to_one_unit_each(lengths: list[int], rows_per_unit: int) -> None:
    table, rows = make_table(lengths, rows_per_unit)
    rows_of = RowMap(table, rows_per_unit=rows_per_unit)
    rowless = [position for unit in range(rows // rows_per_unit) for position in rows_of.rowless(unit)]
    assert sorted(rowless) == [i for i, length in enumerate(lengths) if not length]


def test_clips_that_overlap_or_are_out_of_order_are_refused() -> None:
    table, _ = make_table([4, 4], 8)
    for first in ([0, 3], [4, 0]):
        wrong = table.set_column(table.schema.get_field_index("first_row"), "first_row", pa.array(first, pa.int64()))
        with pytest.raises(ValueError, match="overlap"):
            RowMap(wrong, rows_per_unit=8)


def test_the_same_table_gives_the_same_bytes_and_comes_back_as_it_was() -> None:
    table, _ = make_table([4, 0, 12], 8)
    data = index_bytes(table)
    assert index_bytes(table) == data
    assert index_bytes(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == data
    assert read_index(data).equals(table)


def test_the_reason_of_a_clip_that_failed_when_probed() -> None:
    table, _ = make_table([4, 0], 8)
    assert failed_at_plan(table, 1) == ("empty", "no frames")
