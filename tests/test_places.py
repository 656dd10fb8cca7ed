"""Reading rows by offset: what is fetched, how, and what is refused."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frame.pipeline.store import places, zarr_unit
from frame.pipeline.store.columns import ArraySpec
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.places import OpenFile, Places, tar_places, zarr_places
from frame.pipeline.store.receipts import FileEntry

SPEC = ArraySpec(name="a", dtype="uint8", shape=(10,), chunk_rows=1)
UNIT = 16
VALUES = np.random.default_rng(0).integers(0, 256, (UNIT, 10), dtype=np.uint8)


def open_zarr(path: Path, rows: Sequence[int] = range(UNIT), spec: ArraySpec = SPEC) -> Places:
    chosen = np.array(rows, dtype=np.int64)
    shard = zarr_unit.encode_shard(spec, chosen, VALUES[chosen], rows_per_unit=UNIT)
    path.write_bytes(shard)
    return reopen_zarr(path, spec, bytes(shard))


def reopen_zarr(path: Path, spec: ArraySpec, committed: bytes) -> Places:
    """What lies at ``path`` now, as the receipt of ``committed`` has it."""
    checks = zarr_unit.chunk_checks(spec, committed, rows_per_unit=UNIT)
    members = {spec.name: [[0, 0, len(committed), checks]]}
    entry = FileEntry(bytes=len(committed), sha256="", columns=("a",), members=members)
    return zarr_places(OpenFile(path, expected_bytes=len(committed)), spec, entry, rows_per_unit=UNIT)


def open_scattered(path: Path, order: Sequence[int], gaps: Sequence[int]) -> Places:
    """Rows in any order in a file, with other bytes between them."""
    data, members = b"", []
    for row, gap in zip(order, gaps, strict=True):
        data += b"\xee" * gap
        members.append([row, len(data), 10, [google_crc32c.value(VALUES[row].tobytes())]])
        data += VALUES[row].tobytes()
    path.write_bytes(data)
    entry = FileEntry(bytes=len(data), sha256="", columns=("a",), members={"a": members})
    return tar_places(OpenFile(path, expected_bytes=len(data)), SPEC, entry, rows_per_unit=UNIT)


@settings(max_examples=60)
@given(data=st.data())
def test_rows_in_any_order_with_anything_between_them(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    order = data.draw(st.permutations(range(UNIT)))
    gaps = data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 7]), min_size=UNIT, max_size=UNIT))
    low = data.draw(st.integers(0, UNIT))
    high = data.draw(st.integers(low, UNIT))
    opened = open_scattered(tmp_path_factory.mktemp("places") / "file", order, gaps)
    np.testing.assert_array_equal(opened.read(low, high), VALUES[low:high])


@pytest.mark.parametrize("chunk_rows", [1, 4])
@pytest.mark.parametrize("batch", [1, 25, 1 << 20])
def test_every_range_of_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows: int, batch: int) -> None:
    monkeypatch.setattr(places, "_BATCH_BYTES", batch)
    opened = open_zarr(tmp_path / "s", spec=ArraySpec(name="a", dtype="uint8", shape=(10,), chunk_rows=chunk_rows))
    for low in range(UNIT + 1):
        for high in range(low, UNIT + 1):
            np.testing.assert_array_equal(opened.read(low, high), VALUES[low:high])


def test_neighbours_are_fetched_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    preadv = os.preadv
    opened = open_zarr(tmp_path / "s", rows=[0, 1, 2, 3, 8, 9, 10])
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: (calls.append(at), preadv(fd, buffers, at))[1])
    opened.read(0, 4)
    opened.read(8, 11)
    assert calls == [0, 4 * 14]


@pytest.mark.parametrize("most", [1, 3, 9, 14])
def test_a_read_that_stops_early_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    opened = open_zarr(tmp_path / "s")
    preadv = os.preadv

    def short(descriptor: int, buffers: Sequence[np.ndarray], offset: int) -> int:
        data = bytearray(most)
        count = preadv(descriptor, [data], offset)
        done = 0
        for buffer in buffers:
            part = data[done : min(done + len(buffer), count)]
            memoryview(buffer)[: len(part)] = part
            done += len(part)
        return done

    monkeypatch.setattr(os, "preadv", short)
    np.testing.assert_array_equal(opened.read(2, 9), VALUES[2:9])


def test_rows_never_written_are_an_error(tmp_path: Path) -> None:
    opened = open_zarr(tmp_path / "s", rows=[0, 1, 5, 6])
    np.testing.assert_array_equal(opened.read(5, 7), VALUES[5:7])
    for low, high in ((1, 3), (2, 3), (4, 6), (6, 8), (0, 16)):
        with pytest.raises(CacheError, match="never written"):
            opened.read(low, high)


def test_every_flipped_bit_of_what_is_read_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    open_zarr(tmp_path / "s")
    intact = (tmp_path / "s").read_bytes()
    for bit in range(0, 8 * UNIT * 14, 5):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << (bit % 8)
        (tmp_path / "s").write_bytes(damaged)
        opened = reopen_zarr(tmp_path / "s", SPEC, intact)
        row = bit // 8 // 14
        with pytest.raises(CacheError, match="checksum") as error:
            opened.read(max(row - 2, 0), row + 1)
        assert error.value.where == str(tmp_path / "s")


def test_another_units_intact_shard_of_the_same_size_is_not_read(tmp_path: Path) -> None:
    open_zarr(tmp_path / "mine")
    other = zarr_unit.encode_shard(SPEC, np.arange(UNIT), VALUES[::-1].copy(), rows_per_unit=UNIT)
    (tmp_path / "other").write_bytes(other)
    opened = reopen_zarr(tmp_path / "other", SPEC, (tmp_path / "mine").read_bytes())
    with pytest.raises(CacheError, match="not those its receipt names"):
        opened.read(3, 5)


def test_a_file_that_is_missing_cut_grown_or_no_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(CacheError, match="missing"):
        OpenFile(path, expected_bytes=3)
    path.write_bytes(b"1234")
    with pytest.raises(CacheError, match="4 bytes, its receipt says 3"):
        OpenFile(path, expected_bytes=3)
    entry = FileEntry(bytes=4, sha256="", columns=("a",), members={"a": [[0, 0, 4, [0] * UNIT]]})
    with pytest.raises(CacheError, match="too short"):
        zarr_places(OpenFile(path, expected_bytes=4), SPEC, entry, rows_per_unit=UNIT)
    with pytest.raises(CacheError):
        OpenFile(tmp_path, expected_bytes=tmp_path.stat().st_size).read_into([np.empty(1, np.uint8)], 0, wanted=1)


def test_a_file_cut_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    opened = open_zarr(tmp_path / "s")
    os.truncate(tmp_path / "s", 20)
    np.testing.assert_array_equal(opened.read(0, 1), VALUES[:1])
    with pytest.raises(CacheError, match="ends too early"):
        opened.read(0, 5)


def test_a_disk_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    opened = open_zarr(tmp_path / "s")
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(CacheError, match="Input/output error"):
        opened.read(0, 1)


def test_descriptors_close_with_their_last_user(tmp_path: Path) -> None:
    opened = open_zarr(tmp_path / "s")
    descriptor = opened.file.descriptor
    assert os.fstat(descriptor).st_size == (tmp_path / "s").stat().st_size
    del opened
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    "member",
    [[-1, 0, 10, [0]], [16, 0, 10, [0]], [15, 0, 20, [0, 0]], [0, -1, 10, [0]], [0, 155, 10, [0]], [0, 0, 0, []]],
)
def test_a_receipt_that_names_impossible_places_promises_nothing(tmp_path: Path, member: list[object]) -> None:
    path = tmp_path / "s"
    path.write_bytes(bytes(160))
    entry = FileEntry(bytes=160, sha256="", columns=("a",), members={"a": [member]})
    with pytest.raises(CacheError, match=r"impossible|never written"):
        tar_places(OpenFile(path, expected_bytes=160), SPEC, entry, rows_per_unit=UNIT).read(0, 1)


def test_a_picture_that_is_none_is_an_error_though_its_checksum_fits(tmp_path: Path) -> None:
    spec = ArraySpec(name="frames", dtype="uint8", shape=(2, 2, 3), chunk_rows=1)
    path = tmp_path / "s"
    path.write_bytes(b"no picture")
    members = {"frames": [[0, 0, 10, [google_crc32c.value(b"no picture")]]]}
    entry = FileEntry(bytes=10, sha256="", columns=("frames",), members=members)
    opened = tar_places(OpenFile(path, expected_bytes=10), spec, entry, rows_per_unit=UNIT)
    with pytest.raises(CacheError, match="picture of row 0") as error:
        opened.read(0, 1)
    assert error.value.where == str(path)
    with pytest.raises(CacheError, match="never written"):
        opened.read(1, 2)
