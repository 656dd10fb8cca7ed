"""Our shards against zarr-python: the same bytes, and read by it to the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from frame.pipeline.store import zarr_unit
from frame.pipeline.store.columns import ArraySpec, Steps
from frame.pipeline.store.files import CacheError

SPECS = [
    ArraySpec(name="a", dtype="float16", shape=(3, 5), chunk_rows=1),
    ArraySpec(name="a", dtype="float16", shape=(5,), chunk_rows=4),
    ArraySpec(name="a", dtype="int8", shape=(3, 5), chunk_rows=2),
    ArraySpec(name="a", dtype="uint8", shape=(2, 2, 3), chunk_rows=1),
    ArraySpec(name="a", dtype="float16", shape=(1,), chunk_rows=8),
    ArraySpec(name="a", dtype="int16", shape=(3, 5), chunk_rows=4, steps=Steps(step=(0.5,) * 5, mean=(1.0,) * 5)),
]
UNIT = 8


def random_values(spec: ArraySpec, rows: int, seed: int = 0) -> np.ndarray:
    bits = np.random.default_rng(seed).integers(0, 256, (rows, spec.row_bytes), dtype=np.uint8)
    values = bits.view(spec.dtype).reshape(rows, *spec.shape)
    return np.nan_to_num(values, nan=1.0) if spec.dtype == "float16" else values


def open_stock(spec: ArraySpec, shards: list[bytes]) -> zarr.Array:
    """zarr-python's own view of an array with these shards."""
    names = [zarr_unit.shard_name(spec, unit).removeprefix("a/") for unit in range(len(shards))]
    files = {"zarr.json": zarr_unit.array_metadata(spec, rows=UNIT * len(shards), rows_per_unit=UNIT)}
    files |= dict(zip(names, shards, strict=True))
    return zarr.open_array(MemoryStore({name: _buffer(data) for name, data in files.items()}), mode="r")


def _buffer(data: bytes) -> Buffer:
    return zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(data)


@pytest.mark.parametrize("spec", SPECS)
def test_a_full_shard_has_the_bytes_that_zarr_python_writes(spec: ArraySpec) -> None:
    values = random_values(spec, UNIT)
    store = MemoryStore()
    array = zarr_unit._create(store, spec, rows=UNIT, rows_per_unit=UNIT)
    array[...] = differences(values, spec) if spec.steps else values
    theirs = zarr_unit._get(store, "/".join(["c", *("0" for _ in array.shape)]))
    assert bytes(zarr_unit.encode_shard(spec, np.arange(UNIT), values, rows_per_unit=UNIT)) == theirs


@settings(max_examples=60)
@given(data=st.data(), spec=st.sampled_from(SPECS))
def test_zarr_python_reads_what_was_written_and_fill_values_elsewhere(data: st.DataObject, spec: ArraySpec) -> None:
    masks = [np.array(data.draw(st.lists(st.booleans(), min_size=UNIT, max_size=UNIT))) for _ in range(2)]
    shards, expected = [], []
    for unit, mask in enumerate(masks):
        values = random_values(spec, UNIT, seed=unit)
        rows = np.flatnonzero(mask)
        shard = bytes(zarr_unit.encode_shard(spec, rows, values[rows], rows_per_unit=UNIT))
        assert shard == bytes(zarr_unit.encode_shard(spec, rows, values[rows].copy(), rows_per_unit=UNIT))
        shards.append(shard)
        expected.append(np.where(mask.reshape(-1, *[1] * len(spec.shape)), values, np.array(spec.fill, spec.dtype)))
    array = open_stock(spec, shards)
    assert array.shape == (2 * UNIT, *spec.shape)
    found = array[...]
    if spec.steps:
        there = np.concatenate(masks)
        np.testing.assert_array_equal(levels_of(found, spec)[there], np.concatenate(expected)[there])
    else:
        np.testing.assert_array_equal(found, np.concatenate(expected))


def differences(levels: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """What a packed array holds, by the documented formula."""
    chunks = levels.reshape(-1, spec.chunk_rows, *spec.shape).astype(np.int64)
    return (np.diff(chunks, axis=1, prepend=0) + 128).astype(np.uint16).reshape(levels.shape)


def levels_of(stored: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """The levels behind what a stock reader sees, by the documented formula."""
    chunks = stored.reshape(-1, spec.chunk_rows, *spec.shape) - np.uint16(128)
    return np.cumsum(chunks, axis=1, dtype=np.uint16).view(np.int16).reshape(stored.shape)


def test_rows_never_written_are_nan_to_stock_readers_of_features() -> None:
    spec = SPECS[1]
    shard = bytes(zarr_unit.encode_shard(spec, np.array([5]), random_values(spec, 1), rows_per_unit=UNIT))
    values = open_stock(spec, [shard])[...]
    assert np.isnan(values[np.arange(UNIT) != 5]).all()
    assert not np.isnan(values[5]).any()


def test_a_unit_without_any_row_is_an_index_of_missing_chunks() -> None:
    for spec in SPECS:
        none = np.empty((0, *spec.shape), spec.dtype)
        shard = bytes(zarr_unit.encode_shard(spec, np.empty(0, np.int64), none, rows_per_unit=UNIT))
        assert len(shard) == zarr_unit.index_bytes(spec, UNIT)
        offsets, lengths = zarr_unit.locate(spec, shard, Path("x"), size=len(shard))
        assert (offsets == -1).all()
        assert not lengths.any()


def test_a_flipped_bit_is_an_error_in_zarr_python_too() -> None:
    spec = SPECS[0]
    shard = bytearray(zarr_unit.encode_shard(spec, np.arange(UNIT), random_values(spec, UNIT), rows_per_unit=UNIT))
    shard[40] ^= 4
    with pytest.raises(ValueError, match="checksum"):
        open_stock(spec, [bytes(shard)])[...]


def test_metadata_are_as_zarr_python_writes_them_and_hold_no_version_or_time() -> None:
    spec = SPECS[0]
    data = zarr_unit.array_metadata(spec, rows=2 * UNIT, rows_per_unit=UNIT)
    assert zarr_unit.array_metadata(spec, rows=2 * UNIT, rows_per_unit=UNIT) == data
    value = json.loads(data)
    assert value["shape"] == [16, 3, 5]
    assert value["fill_value"] == "NaN"
    (sharding,) = value["codecs"]
    assert sharding["configuration"]["chunk_shape"] == [1, 3, 5]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "crc32c"]
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    assert sharding["configuration"]["index_location"] == "end"
    assert json.loads(zarr_unit.group_metadata())["node_type"] == "group"


def sealed_index(entries: list[list[int]]) -> bytes:
    data = np.array(entries, dtype="<u8").tobytes()
    return data + google_crc32c.value(data).to_bytes(4, "little")


def test_an_index_is_believed_only_if_it_is_intact_and_possible() -> None:
    spec, missing = SPECS[0], [2**64 - 1] * 2
    stored = spec.row_bytes + 4
    good = [[0, stored], missing, *([stored, stored] for _ in range(6))]
    size = 2 * stored + zarr_unit.index_bytes(spec, UNIT)
    offsets, lengths = zarr_unit.locate(spec, sealed_index(good), Path("x"), size=size)
    assert offsets.tolist() == [0, -1, *[stored] * 6]
    assert lengths.tolist() == [stored - 4, 0, *[stored - 4] * 6]
    for wrong in ([stored + 1, stored], [2**63, stored], [2**64 - 2, stored], [0, stored + 1], [0, 0], [0, 2**64 - 1]):
        with pytest.raises(CacheError, match="impossible"):
            zarr_unit.locate(spec, sealed_index([wrong, *good[1:]]), Path("x"), size=size)
    for i in range(len(sealed_index(good))):
        flipped = bytearray(sealed_index(good))
        flipped[i] ^= 1 << (i % 8)
        with pytest.raises(CacheError, match="not intact"):
            zarr_unit.locate(spec, bytes(flipped), Path("x"), size=size)
