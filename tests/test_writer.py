"""Committing units: whole, once, and without touching what is there already."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_caches import (
    CLS,
    FIRST_COLUMNS,
    LATER,
    PATCH,
    add_column,
    commit,
    make_cache,
    quick_disk,
    restore,
    tree,
    unit_data,
)

from frame.pipeline.store import CacheError, open_cache, writer
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.receipts import receipt_path
from frame.pipeline.store.writer import commit_unit, with_metadata, write_metadata

STORES = ["zarr", "webdataset"]
pytestmark = pytest.mark.parametrize("store", STORES)


@pytest.mark.parametrize("encoding", ["float16", "int8", "residual"])
def test_the_same_cache_has_the_same_bytes(tmp_path: Path, store: Any, encoding: Any) -> None:
    first, second = (make_cache(tmp_path / name, store=store, encoding=encoding) for name in ("a", "b"))
    assert first.meta == second.meta
    assert tree(first.path) == tree(second.path)


def test_no_time_host_or_process_is_in_any_name(tmp_path: Path, store: Any) -> None:
    names = set(tree(make_cache(tmp_path, store=store, lengths=(3, 4)).path))
    common = {"cache.json", "cache.copy.json", "index.parquet", "receipts/000000.json"}
    common |= {"README.md", f"stats/{PATCH}.json", f"stats/{CLS}.json"}
    if store == "webdataset":
        assert names == common | {"shards/000000.tar"}
    else:
        shards = {"frames/c/0/0/0/0", f"{PATCH}/c/0/0/0", f"{CLS}/c/0/0"}
        metadata = {"zarr.json", "frames/zarr.json", f"{PATCH}/zarr.json", f"{CLS}/zarr.json"}
        assert names == common | shards | metadata


def test_writing_a_unit_again_changes_nothing(tmp_path: Path, store: Any) -> None:
    made = add_column(make_cache(tmp_path, store=store), failed=[3])
    before = tree(tmp_path)
    for unit in made.units:
        commit(made, unit)
        commit(made, unit, [LATER])
    assert tree(tmp_path) == before


def test_a_later_column_leaves_every_other_file_as_it_was(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, store=store)
    before = tree(tmp_path)
    receipts = made.open().receipts()
    grown = add_column(made, failed=[3])
    after = tree(tmp_path)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {
        "README.md",
        "cache.json",
        "cache.copy.json",
        *(f"receipts/{unit:06d}.json" for unit in made.units),
    }
    for unit, receipt in grown.open().receipts().items():
        assert {name: receipt.columns[name] for name in FIRST_COLUMNS} == receipts[unit].columns
        assert {name: receipt.files[name] for name in receipts[unit].files} == receipts[unit].files
    assert grown.open().failed()["c3"] == ("gone", "clip 3 went away")


def test_the_order_in_which_columns_come_does_not_show(tmp_path: Path, store: Any) -> None:
    made = add_column(make_cache(tmp_path / "a", store=store), failed=[3])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    other = replace(made, path=tmp_path / "b")
    for unit in made.units:
        receipt_path(other.path, unit).unlink()
        commit(other, unit, [LATER])
        commit(other, unit)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_damaged_receipt_commits_nothing_and_is_replaced(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, store=store)
    before = tree(tmp_path)
    receipt_path(tmp_path, 0).write_bytes(b"{")
    commit(made, 0)
    assert tree(tmp_path) == before


def test_units_of_failed_clips_only_are_committed_like_any_other(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, lengths=(8, 8, 0), failed=(0,), store=store)
    cache = made.open()
    receipt = cache.receipt(0)
    assert receipt is not None
    assert receipt.columns[PATCH].rows == 0
    assert all((tmp_path / name).stat().st_size == entry.bytes for name, entry in receipt.files.items())
    assert cache.failed() == {"c0": ("corrupt", "clip 0 is bad"), "c2": ("empty", "no frames")}
    with pytest.raises(CacheError, match="corrupt"):
        cache.read(PATCH, 0, 1)
    assert np.array_equal(cache.read(PATCH, 8, 16), made.values(PATCH)[8:])


def test_clips_that_failed_leave_holes_anywhere_in_a_unit(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, lengths=(2,) * 8, failed=(0, 3, 7), rows_per_unit=16, store=store)
    for row in np.flatnonzero(made.readable(PATCH)):
        for column in FIRST_COLUMNS:
            assert np.array_equal(made.open().read(column, row, row + 1)[0], made.values(column)[row])


def test_metadata_are_written_last_things_last_and_only_where_they_differ(
    tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_cache(tmp_path, store=store)
    written: list[str] = []
    replace_path = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: (written.append(b.name), replace_path(a, b))[1])
    meta, files = with_metadata(made.meta)
    assert meta == made.meta
    index = (tmp_path / "index.parquet").read_bytes()
    with quick_disk(), writer_folder(tmp_path) as tmp:
        write_metadata(tmp_path, meta, files, index, tmp=tmp)
        assert written == []
        for name in tree(tmp_path):
            if name.endswith((".json", ".parquet")):
                (tmp_path / name).unlink()
        write_metadata(tmp_path, meta, files, index, tmp=tmp)
    assert written[-3:] == ["index.parquet", "cache.copy.json", "cache.json"]
    assert set(written[:-3]) == ({"zarr.json"} if store == "zarr" else set())


@pytest.mark.parametrize("wrong", ["shape", "dtype", "missing", "unknown", "half a clip", "a failed clip"])
def test_data_that_contradict_the_plan_are_a_bug_and_write_nothing(tmp_path: Path, store: Any, wrong: str) -> None:
    made = make_cache(tmp_path, lengths=(8, 8), failed=(), store=store, encoding="int8", units=[])
    data = unit_data(made, 0, FIRST_COLUMNS)
    values = dict(data.values)
    if wrong == "shape":
        values[PATCH] = values[PATCH][:, :2]
    elif wrong == "dtype":
        values[PATCH] = values[PATCH].astype(np.float16)
    elif wrong == "missing":
        del values[f"{PATCH}.scale"]
    elif wrong == "unknown":
        values["other"] = values[PATCH]
    elif wrong == "half a clip":
        values = {name: array[:5] for name, array in values.items()}
        data = replace(data, rows=data.rows[:5])
    else:
        data = replace(data, failed={"c0": ("corrupt", "and yet it has rows")})
    with quick_disk(), writer_folder(tmp_path) as tmp, pytest.raises(AssertionError):
        commit_unit(tmp_path, made.meta, made.table, replace(data, values=values), tmp=tmp)
    assert not (tmp_path / "receipts").exists()


def test_a_column_alone_cannot_replace_the_tar_it_shares(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, store=store)
    before = tree(tmp_path)
    if store == "webdataset":
        with pytest.raises(AssertionError, match="would be lost"):
            commit(made, 0, [PATCH])
    else:
        commit(made, 0, [PATCH])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_each_operation_failing_once_is_one_clear_error_and_the_next_try_succeeds(
    tmp_path: Path, store: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Nth flush or rename fails, N raised until nothing does; a unit is committed before, between and after."""
    expected = tree(make_cache(tmp_path / "whole", lengths=(3, 5, 9), store=store, units=[0, 1]).path)
    made = make_cache(tmp_path / "cache", lengths=(3, 5, 9), store=store, units=[0])
    before = tree(made.path)
    rename = Path.replace
    for number in range(100):
        count = 0

        def fails(number: int = number) -> None:
            nonlocal count
            count += 1
            if count == number + 1:
                raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch, writer_folder(made.path) as tmp:
            patch.setattr(os, "fsync", lambda _, fails=fails: fails())
            patch.setattr(Path, "replace", lambda a, b, fails=fails: (fails(), rename(a, b))[1])
            try:
                commit_unit(made.path, made.meta, made.table, unit_data(made, 1, FIRST_COLUMNS), tmp=tmp)
            except CacheError as error:
                assert ("full" in error.what) == (code == errno.ENOSPC)  # noqa: PT017
                assert Path(error.where).is_relative_to(made.path)  # noqa: PT017
            else:
                break
        assert open_cache(made.path).receipt(1) is None or tree(made.path) == expected
        commit(made, 1)
        assert tree(made.path) == expected
        restore(made.path, before)
    assert number > 5
    assert tree(made.path) == expected


def test_builds_that_add_different_columns_at_once_lose_none(
    tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read the receipt, both add to it, both write it: without the lock, one of them would be lost."""
    made = add_column(make_cache(tmp_path, store=store))
    expected = tree(tmp_path)
    previous = writer._previous

    def slowly(*arguments: Any) -> Any:
        receipt = previous(*arguments)
        time.sleep(0.02)
        return receipt

    monkeypatch.setattr(writer, "_previous", slowly)
    barrier = threading.Barrier(2)

    def build(columns: tuple[str, ...], tmp: Path) -> None:
        for unit in made.units:
            barrier.wait(timeout=60)
            commit_unit(tmp_path, made.meta, made.table, unit_data(made, unit, columns), tmp=tmp)

    for unit in made.units:
        receipt_path(tmp_path, unit).unlink()
    with quick_disk(), writer_folder(tmp_path) as one, writer_folder(tmp_path) as two, ThreadPoolExecutor(2) as pool:
        list(pool.map(build, (FIRST_COLUMNS, (LATER,)), (one, two)))
    assert tree(tmp_path) == expected
    assert set(open_cache(tmp_path).receipts()) == set(made.units)
