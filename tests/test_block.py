from __future__ import annotations

import numpy as np
import pyarrow as pa

from frame.pipeline.block import pack, unpack


def test_arrays_come_back_as_they_went() -> None:
    arrays = {
        "a": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "b": np.linspace(0, 1, 7, dtype=np.float16),
        "c": np.empty((0, 5), dtype=np.int8),
        "d": np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::-1],
    }
    (block,) = unpack(pack(5, {"x": [1, "two"]}, arrays))
    assert (block.unit, block.header) == (5, {"x": [1, "two"]})
    assert block.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert block.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(block.arrays[name], array)


def test_several_blocks_in_one_table_and_slices_of_it() -> None:
    table = pa.concat_tables([pack(unit, {}, {"x": np.full(unit, unit, dtype=np.uint8)}) for unit in range(5)])
    for whole in (table, table.combine_chunks()):
        assert [block.arrays["x"].tolist() for block in unpack(whole.slice(2, 2))] == [[2, 2], [3, 3, 3]]


def test_a_block_without_arrays() -> None:
    (block,) = unpack(pack(0, {}, {}))
    assert block.arrays == {}
