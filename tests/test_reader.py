"""Reading a cache against a NumPy model of it: both stores, all encodings, any layout, from threads and processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_caches import CLS, LATER, PATCH, Made, add_column, commit, make_cache

from frame.pipeline.store import Cache, CacheError, open_cache, reopen
from frame.pipeline.store.files import sha256_bytes
from frame.pipeline.store.layout import sealed

Kinds = tuple[Literal["zarr", "webdataset"], Literal["float16", "int8", "residual"]]
KINDS: list[Kinds] = [(s, e) for s in ("zarr", "webdataset") for e in ("float16", "int8", "residual")]  # type: ignore[misc]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def check_every_row(made: Made, cache: Cache) -> None:
    """Every row alone: what the model has, or an error."""
    for column in cache.columns:
        readable, values = made.readable(column), made.values(column)
        for row in range(made.meta.rows):
            if readable[row]:
                assert same(cache.read(column, row, row + 1), values[row : row + 1])
            else:
                with pytest.raises(CacheError, match=f"Row {row} of column '{column}' holds no frame"):
                    cache.read(column, row, row + 1)


@settings(max_examples=60)
@given(data=st.data(), kinds=st.sampled_from(KINDS), rows_per_unit=st.sampled_from([1, 3, 8]))
def test_any_range_of_any_layout_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kinds: Kinds, rows_per_unit: int
) -> None:
    lengths = data.draw(st.lists(st.integers(0, 3 * rows_per_unit), min_size=1, max_size=7))
    failed = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    path = tmp_path_factory.mktemp("cache")
    made = make_cache(
        path, lengths=lengths, failed=sorted(failed), store=kinds[0], encoding=kinds[1], rows_per_unit=rows_per_unit
    )
    cache = open_cache(path)
    for column in cache.columns:
        readable, values = made.readable(column), made.values(column)
        for _ in range(4):
            start = data.draw(st.integers(0, made.meta.rows))
            stop = data.draw(st.integers(start, made.meta.rows))
            if readable[start:stop].all():
                assert same(cache.read(column, start, stop), values[start:stop])
            else:
                with pytest.raises(CacheError, match="holds no frame"):
                    cache.read(column, start, stop)


@pytest.mark.parametrize(("store", "encoding"), KINDS)
def test_every_row_of_a_cache_with_a_column_added_later(tmp_path: Path, store: Any, encoding: Any) -> None:
    made = add_column(make_cache(tmp_path, store=store, encoding=encoding), failed=[3])
    cache = made.open()
    assert set(cache.columns) == {"frames", PATCH, CLS, LATER}
    check_every_row(made, cache)
    for clip in made.table.to_pylist():
        first, count = clip["first_row"], clip["n_frames"]
        if clip["clip"] not in made.failed[PATCH]:
            assert same(cache.read(PATCH, first, first + count), made.values(PATCH)[first : first + count])


def test_what_a_cache_says_of_itself(tmp_path: Path) -> None:
    made = make_cache(tmp_path, lengths=(3, 5, 0, 8), failed=(1,))
    cache = open_cache(str(tmp_path))
    assert cache.meta == made.meta
    assert cache.units == len(cache.receipts()) == 2
    assert cache.index.equals(made.table)
    assert cache.planned_rows(0) == 8
    assert cache.failed() == {"c1": ("corrupt", "clip 1 is bad"), "c2": ("empty", "no frames")}
    assert (cache.columns[PATCH].shape, cache.columns[PATCH].dtype) == ((3, 5), "float16")
    assert cache.columns["frames"].dtype == "uint8"
    assert cache.readable(PATCH, 0).tolist() == [True] * 3 + [False] * 5


def test_errors_say_which_row_and_why(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, lengths=(3, 5, 0, 7), failed=(1,)).open()
    with pytest.raises(CacheError) as error:
        cache.read(PATCH, 2, 5)
    assert error.value.what == "Row 3 of column 'dino.patch' holds no frame."
    assert error.value.why == "clip 'c1' failed: corrupt: clip 1 is bad"
    with pytest.raises(CacheError, match="unused row at the end of a unit"):
        cache.read(PATCH, 15, 16)
    with pytest.raises(CacheError, match=r"no column 'dino'(.|\n)*clip.cls, dino.patch, frames"):
        cache.read("dino", 0, 1)
    for start, stop in ((-1, 2), (0, 17), (5, 4)):
        with pytest.raises(IndexError, match="16"):
            cache.read(PATCH, start, stop)
    assert cache.read(PATCH, 16, 16).shape == (0, 3, 5)
    assert cache.read("frames", 4, 4).dtype == np.uint8


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_units_can_be_read_as_soon_as_they_are_committed(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, lengths=(8, 8, 8), failed=(), store=store, units=[1])
    cache = made.open()
    assert same(cache.read(PATCH, 8, 16), made.values(PATCH)[8:16])
    assert list(cache.receipts()) == [1]
    for start, stop in ((0, 1), (7, 9), (16, 24)):
        with pytest.raises(CacheError, match="not committed"):
            cache.read(PATCH, start, stop)
    commit(made, 0)
    assert same(cache.read(PATCH, 0, 16), made.values(PATCH)[:16])


def test_a_column_added_while_the_cache_is_open_needs_it_opened_again(tmp_path: Path) -> None:
    made = make_cache(tmp_path, failed=())
    before = made.open()
    before.read(CLS, 0, 2)
    grown = add_column(made)
    with pytest.raises(CacheError, match="no column"):
        before.read(LATER, 0, 1)
    assert same(before.read(CLS, 0, 3), made.values(CLS)[:3])
    assert same(open_cache(tmp_path).read(LATER, 0, 3), grown.values(LATER)[:3])


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_columns_of_another_teacher_are_not_read(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, failed=(), store=store)
    cache = Cache(tmp_path, made.meta)
    made.meta.teachers["dino"]["weights"] = "others"
    with pytest.raises(CacheError, match="not committed"):
        cache.read(PATCH, 0, 1)
    assert same(cache.read(CLS, 0, 1), made.values(CLS)[:1])


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_what_is_missing_is_an_error_and_never_zeros(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, failed=(), store=store)
    name = next(name for name, entry in made.open().receipt(0).files.items() if PATCH in entry.columns)  # type: ignore[union-attr]
    (tmp_path / name).unlink()
    with pytest.raises(CacheError, match="missing") as error:
        made.open().read(PATCH, 0, 1)
    assert error.value.where == str(tmp_path / name)
    assert same(made.open().read(PATCH, 8, 9), made.values(PATCH)[8:9])


def test_a_damaged_or_missing_index_is_an_error(tmp_path: Path) -> None:
    made = make_cache(tmp_path)
    path = tmp_path / "index.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match="checksum"):
        made.open().read(PATCH, 0, 1)
    path.unlink()
    with pytest.raises(CacheError, match="missing"):
        _ = made.open().index


def test_what_is_no_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no cache here(.|\n)*does not exist"):
        open_cache(tmp_path / "nowhere")
    with pytest.raises(CacheError, match=r"no cache here(.|\n)*cache.json is missing"):
        open_cache(tmp_path)
    (tmp_path / "cache.json").write_bytes(b"{}")
    with pytest.raises(CacheError, match="damaged"):
        open_cache(tmp_path)
    (tmp_path / "cache.json").write_bytes(sealed({"format": 2, "kind": "frame-cache"}))
    with pytest.raises(CacheError, match="format version 2"):
        open_cache(tmp_path)
    with pytest.raises(CacheError, match="no cache here"):
        open_cache(tmp_path / "cache.json")


def test_reopening_does_with_either_copy_of_the_metadata(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "cache", failed=())
    meta, copy = made.path / "cache.json", made.path / "cache.copy.json"
    data = meta.read_bytes()
    for damage in (b"", data[:-5], sealed({"format": 2, "kind": "frame-cache"})):
        meta.write_bytes(damage)
        with pytest.raises(CacheError):
            open_cache(made.path)
        assert same(reopen(made.path).read(PATCH, 0, 3), made.values(PATCH)[:3])
    meta.unlink()
    assert reopen(made.path).meta == made.meta
    copy.write_bytes(data[:-5])
    with pytest.raises(CacheError, match="no cache here"):
        reopen(made.path)
    copy.unlink()
    with pytest.raises(CacheError, match="no cache here"):
        reopen(made.path)
    meta.write_bytes(data)
    assert reopen(made.path).meta == made.meta


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_a_copy_sent_to_another_process_reads_the_same(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, store=store)
    cache = made.open()
    cache.read(PATCH, 0, 3)
    sent = pickle.dumps(cache)
    assert len(sent) < 5000
    check_every_row(made, pickle.loads(sent))  # noqa: S301


def test_forked_processes_share_an_open_cache(tmp_path: Path) -> None:
    """In an interpreter of its own: this one has threads by now, and forking it would be the test's own danger."""
    code = """
import multiprocessing, sys
import numpy as np
from frame.pipeline.store import open_cache
caches = [open_cache(path) for path in sys.argv[1:]]
def digest(job):
    cache, row = caches[job[0]], job[1]
    return cache.read("dino.patch", row, row + 3).tobytes() + cache.read("frames", row, row + 1).tobytes()
jobs = [(int(r) % 2, int(r) % 14) for r in np.random.default_rng(0).integers(0, 1000, 300)]
here = [digest(job) for job in jobs]
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map(digest, jobs, chunksize=1) == here
assert [digest(job) for job in jobs] == here
"""
    stores: tuple[Any, ...] = ("zarr", "webdataset")
    for store in stores:
        make_cache(tmp_path / store, lengths=(8, 8), failed=(), store=store, encoding="int8")
    command = [sys.executable, "-c", code, *(str(tmp_path / store) for store in stores)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_threads_share_a_cache_that_keeps_few_files_open(
    tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_cache(tmp_path, lengths=(4,) * 12, failed=(), store=store, rows_per_unit=4, encoding="int8")
    cache = made.open()
    monkeypatch.setattr(cache, "_most_open", 2)
    expected = {column: made.values(column) for column in cache.columns}
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def read_many(seed: int) -> int:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            column = list(expected)[rng.integers(3)]
            start = int(rng.integers(0, 40))
            stop = int(rng.integers(start, min(start + 10, 48)))
            assert same(cache.read(column, start, stop), expected[column][start:stop])
        return seed

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read_many, range(8))) == list(range(8))
    assert len(os.listdir("/proc/self/fd")) - before <= 4  # noqa: PTH208


def test_more_shards_than_a_process_may_open(tmp_path: Path) -> None:
    code = """
import resource, sys
from frame.pipeline.store import open_cache
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
cache = open_cache(sys.argv[1])
for turn in range(2):
    for row in range(cache.meta.rows):
        for column in cache.columns:
            cache.read(column, row, row + 1)
print(cache.meta.rows)
"""
    make_cache(tmp_path, lengths=(1,) * 60, failed=(), rows_per_unit=1)
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "60\n"


def test_importing_the_store_needs_no_torch() -> None:
    heavy = {"torch", "ray", "webdataset", "av", "decord", "timm"}
    code = f"import sys, frame.pipeline.store; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "set()\n", done.stderr


def test_the_index_is_checked_against_cache_json(tmp_path: Path) -> None:
    made = make_cache(tmp_path)
    assert sha256_bytes((tmp_path / "index.parquet").read_bytes()) == made.meta.index_sha256
