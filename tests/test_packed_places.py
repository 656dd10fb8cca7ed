"""Packed rows by offset: what is read of a chunk, and what is refused before anything is unpacked."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frame.pipeline.store import packing, zarr_unit
from frame.pipeline.store.columns import ArraySpec, Steps
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.packed_places import PackedPlaces, tar_packed, zarr_packed
from frame.pipeline.store.places import OpenFile
from frame.pipeline.store.receipts import FileEntry

STEPS = Steps(step=(0.5,) * 60, mean=(0.0,) * 60)
SPEC = ArraySpec(name="a", dtype="int16", shape=(2, 60), chunk_rows=4, steps=STEPS)
UNIT = 16
LEVELS = np.random.default_rng(0).integers(-200, 200, (UNIT, 2, 60)).astype(np.int16)


def open_zarr(path: Path, rows: np.ndarray) -> PackedPlaces:
    shard = bytes(zarr_unit.encode_shard(SPEC, rows, LEVELS[rows], rows_per_unit=UNIT))
    path.write_bytes(shard)
    checks = zarr_unit.chunk_checks(SPEC, shard, rows_per_unit=UNIT)
    entry = FileEntry(bytes=len(shard), sha256="", columns=("a",), members={"a": [[0, 0, len(shard), checks]]})
    return zarr_packed(OpenFile(path, expected_bytes=len(shard)), SPEC, entry, rows_per_unit=UNIT)


def open_tar(path: Path, chunks: list[tuple[int, bytes]]) -> PackedPlaces:
    """Chunks at their first rows, one behind the other in a file."""
    data, members = b"", []
    for row, chunk in chunks:
        members.append([row, len(data), len(chunk), [google_crc32c.value(chunk)]])
        data += chunk
    path.write_bytes(data)
    entry = FileEntry(bytes=len(data), sha256="", columns=("a",), members={"a": members})
    return tar_packed(OpenFile(path, expected_bytes=len(data)), SPEC, entry, rows_per_unit=UNIT)


def packed(low: int, high: int) -> tuple[int, bytes]:
    return low, packing.pack([LEVELS[low:high]])[0]


@settings(max_examples=80)
@given(data=st.data())
def test_any_rows_of_any_chunks(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=UNIT, max_size=UNIT)))
    places = open_zarr(tmp_path_factory.mktemp("zarr") / "shard", rows)
    low = data.draw(st.integers(0, UNIT))
    high = data.draw(st.integers(low, UNIT))
    there = set((rows // 4).tolist())
    if there >= {row // 4 for row in range(low, high)}:
        found = places.read(low, high)
        written = [row for row in range(low, high) if row in rows]
        assert np.array_equal(found[[row - low for row in written]], LEVELS[written])
    else:
        with pytest.raises(CacheError, match="never written"):
            places.read(low, high)


def test_chunks_of_a_tar_end_with_their_clips(tmp_path: Path) -> None:
    places = open_tar(tmp_path / "tar", [packed(8, 12), packed(0, 4), packed(4, 6), packed(12, 13)])
    for low in range(UNIT):
        for high in range(low, UNIT + 1):
            wanted = set(range(low, high))
            if wanted <= {*range(6), *range(8, 13)}:
                assert np.array_equal(places.read(low, high), LEVELS[low:high])
            else:
                with pytest.raises(CacheError, match=r"holds|never"):
                    places.read(low, high)


def test_a_chunk_that_holds_more_than_a_chunk_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes of zeros in a few hundred bytes, with a fitting checksum; and one row too many."""
    bomb = bytearray(packing.pack([np.zeros((4, 2, 60), np.int16)])[0])
    bomb[4:8] = struct.pack("<I", SPEC.row_bytes * 8_000_000)

    def never(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(packing, "unpack", never)
    for chunk in (bytes(bomb), packing.pack([np.zeros((5, 2, 60), np.int16)])[0]):
        with pytest.raises(CacheError, match="is none: it holds"):
            open_tar(tmp_path / "tar", [(0, chunk)]).read(0, 1)


def test_a_flipped_bit_of_any_byte_is_found(tmp_path: Path) -> None:
    places = open_tar(tmp_path / "tar", [packed(0, 4)])
    good = (tmp_path / "tar").read_bytes()
    for at in range(len(good)):
        flipped = bytearray(good)
        flipped[at] ^= 1 << (at % 8)
        (tmp_path / "tar").write_bytes(flipped)
        with pytest.raises(CacheError, match="checksum"):
            places.read(3, 4)


@pytest.mark.parametrize(
    "members",
    [
        [[0, 0, 40, [1]], [0, 50, 40, [1]]],
        [[0, 0, 60, [1]], [4, 50, 40, [1]]],
        [[-1, 0, 40, [1]]],
        [[UNIT, 0, 40, [1]]],
        [[0, -1, 40, [1]]],
        [[0, 0, 0, [1]]],
        [[0, 90, 40, [1]]],
        [[0, 0, 40, [1, 2]]],
        [[0, 0, 1 << 20, [1]]],
    ],
)
def test_impossible_places_are_refused(tmp_path: Path, members: list[list[object]]) -> None:
    (tmp_path / "tar").write_bytes(bytes(100))
    entry = FileEntry(bytes=100, sha256="", columns=("a",), members={"a": members})
    with pytest.raises(CacheError, match=r"impossible|on top of"):
        tar_packed(OpenFile(tmp_path / "tar", expected_bytes=100), SPEC, entry, rows_per_unit=UNIT)
