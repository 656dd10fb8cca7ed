"""Differences in time: every level comes back, in a stock buffer, and nothing but a packed chunk is unpacked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numcodecs import blosc

from frame.pipeline.store import packing

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 7))


def unpacked(data: bytes, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    return packing.unpack(np.frombuffer(data, np.uint8), np.empty((rows, *shape), np.uint16))


@settings(max_examples=200)
@given(levels=SHAPES.flatmap(lambda shape: arrays(np.int16, shape)))
def test_whatever_int16_holds_comes_back(levels: np.ndarray) -> None:
    (data,) = packing.pack([levels])
    assert packing.packed_rows(data[:16], size=len(data), row_bytes=levels[0].nbytes) == len(levels)
    for rows in range(1, len(levels) + 1):
        assert np.array_equal(unpacked(data, rows, levels.shape[1:]), levels[:rows])


@settings(max_examples=60)
@given(levels=SHAPES.flatmap(lambda shape: arrays(np.int16, shape)))
def test_the_formula_of_the_documentation(levels: np.ndarray) -> None:
    """What another program does: unpack with Blosc, take 128 off, add up along time, in 16 bits."""
    (data,) = packing.pack([levels])
    stored = np.frombuffer(blosc.decompress(data), "<u2").reshape(levels.shape)
    with np.errstate(over="ignore"):
        again = np.cumsum(stored - np.uint16(128), axis=0, dtype=np.uint16).view(np.int16)
    assert np.array_equal(again, levels)


def large(rows: int = 8) -> np.ndarray:
    """Rows of several blocks, and a little like features."""
    rng = np.random.default_rng(0)
    return np.rint(np.cumsum(rng.standard_normal((rows, 128, 512)) * 3, axis=0)).astype(np.int16)


def test_a_part_of_a_chunk_is_unpacked_from_a_part_of_its_blocks() -> None:
    levels = large()
    (data,) = packing.pack([levels])
    for rows in range(1, 9):
        cut = packing._prefix(np.frombuffer(data, np.uint8), rows * levels[0].nbytes)
        assert np.array_equal(unpacked(data, rows, levels.shape[1:]), levels[:rows])
        assert len(cut) == len(data) if rows > 6 else len(cut) < len(data) * (rows + 2) / 8


def test_rows_larger_than_a_block_come_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_MOST_BLOCK", 1 << 15)
    levels = large()
    (data,) = packing.pack([levels])
    for rows in (1, 3, 8):
        assert np.array_equal(unpacked(data, rows, levels.shape[1:]), levels[:rows])
    levels = np.arange(3 * 50_000, dtype=np.int64).astype(np.int16).reshape(3, 50_000)  # a block is no part of a row
    (data,) = packing.pack([levels])
    for rows in (1, 2, 3):
        assert np.array_equal(unpacked(data, rows, levels.shape[1:]), levels[:rows])


def test_the_same_levels_have_the_same_bytes_however_many_threads_numcodecs_may_use() -> None:
    """With several threads on one buffer, Blosc's blocks lie in the order in which they were done."""
    levels = large()
    before = blosc.set_nthreads(4)
    try:
        assert len({packing.pack([levels])[0] for _ in range(20)}) == 1
    finally:
        blosc.set_nthreads(before)


def test_small_differences_take_few_bits_and_random_ones_no_more_than_they_had() -> None:
    levels = large()
    (data,) = packing.pack([levels])
    assert len(data) < levels.nbytes / 3.5
    noise = np.random.default_rng(1).integers(-32768, 32768, (4, 64, 512)).astype(np.int16)
    (data,) = packing.pack([noise])
    assert len(data) <= packing.most_bytes(noise.nbytes)
    assert np.array_equal(unpacked(data, 2, noise.shape[1:]), noise[:2])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_other_levels_and_never_a_crash(data: st.DataObject) -> None:
    """A checksum comes before; what passes it may still be hostile."""
    levels = np.random.default_rng(0).integers(-9, 9, (4, 16, 32)).astype(np.int16)
    packed = bytearray(packing.pack([levels])[0])
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = unpacked(bytes(packed), data.draw(st.integers(1, 4)), (16, 32))
    except ValueError:
        return
    assert found.shape[1:] == (16, 32)


def test_what_is_no_packed_chunk_says_so() -> None:
    (data,) = packing.pack([np.zeros((4, 64), np.int16)])
    for wrong, why in (
        (data[:10], "too short"),
        (data + b"!", "header"),
        (b"\0" * 100, "header"),
    ):
        with pytest.raises(ValueError, match=why):
            unpacked(wrong, 4, (64,))
    (small,) = packing.pack([np.zeros((2, 64), np.int16)])
    with pytest.raises(ValueError, match="holds 2 rows where 4"):
        unpacked(small, 4, (64,))


@pytest.mark.parametrize(("row", "block"), [(2, 1 << 18), (75264, 301056), (1 << 18, 1 << 18), (1 << 26, 1 << 24)])
def test_a_block_is_whole_rows_of_a_quarter_of_a_megabyte(row: int, block: int) -> None:
    assert packing.block_bytes(row) == block
