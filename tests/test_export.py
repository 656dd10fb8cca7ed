"""Copies into the other store and back, parts of caches, and copies that were killed on the way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_caches import CLS, LATER, PATCH, Made, add_column, make_cache, quick_disk, tree

from frame.pipeline.store import Cache, CacheError, disk, open_cache
from frame.pipeline.store.export import export
from frame.pipeline.store.verify import verify

BOTH = [("zarr", "webdataset"), ("webdataset", "zarr")]


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_disk():
        yield


def same_values(made: Made, copy: Cache, columns: tuple[str, ...]) -> bool:
    """Every clip of every column reads as the model says."""
    for clip in made.table.to_pylist():
        start, stop = clip["first_row"], clip["first_row"] + clip["n_frames"]
        for column in columns:
            if clip["clip"] not in made.failed[column] and not np.array_equal(
                copy.read(column, start, stop), made.values(column)[start:stop]
            ):
                return False
    return True


@pytest.mark.parametrize(("store", "other"), BOTH)
@pytest.mark.parametrize("encoding", ["float16", "int8", "residual"])
def test_there_and_back_is_the_same_cache_byte_for_byte(tmp_path: Path, store: Any, other: Any, encoding: Any) -> None:
    made = make_cache(tmp_path / "a", store=store, encoding=encoding)
    there = export(made.open(), tmp_path / "b", to=other)
    assert there.meta.store == other
    assert verify(there).problems == ()
    assert same_values(made, there, ("frames", PATCH, CLS))
    assert there.failed() == made.open().failed()
    assert tree(tmp_path / "b") == tree(make_cache(tmp_path / "built", store=other, encoding=encoding).path)
    export(there, tmp_path / "c", to=store)
    assert tree(tmp_path / "c") == tree(tmp_path / "a")


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_into_the_same_store_is_a_plain_copy(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path / "a", store=store)
    export(made.open(), tmp_path / "b", to=store)
    assert tree(tmp_path / "b") == tree(tmp_path / "a")


@settings(max_examples=20)
@given(data=st.data(), pair=st.sampled_from(BOTH), encoding=st.sampled_from(["float16", "int8", "residual"]))
def test_any_layout_goes_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, pair: Any, encoding: Any
) -> None:
    lengths = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=6))
    failed = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    root = tmp_path_factory.mktemp("export")
    made = make_cache(root / "a", lengths=lengths, failed=sorted(failed), store=pair[0], encoding=encoding)
    export(export(made.open(), root / "b", to=pair[1]), root / "c", to=pair[0])
    assert tree(root / "c") == tree(root / "a")


@pytest.mark.parametrize(("store", "other"), BOTH)
def test_chosen_units_and_columns(tmp_path: Path, store: Any, other: Any) -> None:
    made = make_cache(tmp_path / "a", lengths=(8, 8, 8, 8), failed=(), store=store, encoding="int8")
    copy = export(made.open(), tmp_path / "b", to=other, units=[3, 1], columns=[CLS])
    assert set(copy.columns) == {CLS}
    assert set(copy.meta.teachers) == {"clip"}
    assert copy.expected_units == [1, 3]
    assert copy.index.equals(made.table)
    for unit in (1, 3):
        rows = slice(8 * unit, 8 * unit + 8)
        assert np.array_equal(copy.read(CLS, rows.start, rows.stop), made.values(CLS)[rows])
    with pytest.raises(CacheError, match="not committed"):
        copy.read(CLS, 0, 1)
    report = verify(copy)
    assert report.problems == ()
    assert report.units == 2
    again = export(copy, tmp_path / "c", to=store, units=[1])
    assert again.expected_units == [1]
    with pytest.raises(CacheError, match="no unit 0"):
        export(copy, tmp_path / "d", to=store, units=[0, 1])
    everything = export(made.open(), tmp_path / "e", to=other, units=[0, 1, 2, 3])
    assert everything.meta == export(made.open(), tmp_path / "f", to=other).meta


@pytest.mark.parametrize(
    ("choice", "what"),
    [
        ({"columns": ["nothing"]}, "no column 'nothing'"),
        ({"columns": []}, "Nothing is chosen"),
        ({"units": []}, "Nothing is chosen"),
        ({"units": [99]}, "no unit 99"),
        ({"units": [-1]}, "no unit -1"),
    ],
)
def test_what_is_not_there_cannot_be_exported(tmp_path: Path, choice: dict[str, Any], what: str) -> None:
    made = make_cache(tmp_path / "a")
    with pytest.raises(CacheError, match=what):
        export(made.open(), tmp_path / "b", to="zarr", **choice)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("store", "other"), BOTH)
def test_later_columns_join_the_others_in_a_copy(tmp_path: Path, store: Any, other: Any) -> None:
    made = add_column(make_cache(tmp_path / "a", store=store))
    copy = export(made.open(), tmp_path / "b", to=other)
    assert {column.part for column in copy.columns.values()} == {""}
    assert same_values(made, copy, ("frames", PATCH, CLS, LATER))
    assert verify(copy).problems == ()
    if other == "webdataset":
        names = [f"{unit:06d}.tar" for unit in made.units]
        assert sorted(path.name for path in (tmp_path / "b" / "shards").iterdir()) == names


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_clips_that_failed_in_one_column_only(tmp_path: Path, store: Any) -> None:
    """Zarr keeps each column's own clips; a tar's sample has all of its files or is not there."""
    made = add_column(make_cache(tmp_path / "a", store=store), failed=[3])
    first, stop = (made.table.to_pylist()[3][key] for key in ("first_row", "n_frames"))
    stop += first

    into_zarr = export(made.open(), tmp_path / "z", to="zarr")
    assert same_values(made, into_zarr, ("frames", PATCH, CLS, LATER))
    with pytest.raises(CacheError, match="clip 3 went away"):
        into_zarr.read(LATER, first, stop)
    assert verify(into_zarr).problems == ()

    into_tar = export(made.open(), tmp_path / "w", to="webdataset")
    for column in ("frames", PATCH, LATER):
        with pytest.raises(CacheError, match="clip 3 went away"):
            into_tar.read(column, first, stop)
    assert verify(into_tar).problems == ()
    kept = made.readable(LATER)
    tokens = made.values(PATCH)[kept].astype(np.float64).reshape(-1, 5)
    np.testing.assert_allclose(into_tar.stats(PATCH)[0], tokens.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(into_tar.stats(PATCH)[1], tokens.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("store", "other"), BOTH)
def test_a_killed_export_goes_on_from_wherever_it_stopped(
    tmp_path: Path, store: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each of its file operations in turn, its temporary folder left as a dead process leaves it."""
    made = make_cache(tmp_path / "a", store=store, lengths=(3, 5, 9))
    expected = tree(export(made.open(), tmp_path / "whole", to=other).path)
    replace_path, remove = Path.replace, shutil.rmtree
    for stop_at in range(len(expected) + 1):
        target = tmp_path / f"b{stop_at}"
        left = stop_at

        def stop(source: Path, destination: Path) -> Path:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return replace_path(source, destination)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stop)
            patch.setattr(disk, "remove_tree", lambda _: None)
            if stop_at < len(expected):
                with pytest.raises(KeyboardInterrupt):
                    export(made.open(), target, to=other)
                assert (target / "tmp").exists()
                assert len(tree(target)) > stop_at
            else:
                export(made.open(), target, to=other)
        export(made.open(), target, to=other)
        assert tree(target) == expected
        assert not (target / "tmp").exists()
        remove(target)


def test_a_damaged_unit_of_the_copy_is_made_again(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    export(made.open(), tmp_path / "b", to="webdataset")
    expected = tree(tmp_path / "b")
    (tmp_path / "b/shards/000001.tar").write_bytes(b"damaged")
    (tmp_path / f"b/stats/{PATCH}.json").unlink()
    ticks: list[int] = []
    export(made.open(), tmp_path / "b", to="webdataset", tick=lambda: ticks.append(1))
    assert len(ticks) == made.meta.units
    assert tree(tmp_path / "b") == expected


def test_what_lies_at_the_destination_is_never_touched(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    other = make_cache(tmp_path / "other", lengths=(3, 3))
    foreign = tmp_path / "foreign"
    (foreign / "sub").mkdir(parents=True)
    (foreign / "sub" / "zarr.json").write_text("somebody's")
    group = tmp_path / "group"
    group.mkdir()
    (group / "zarr.json").write_text("somebody's own Zarr group")
    a_file = tmp_path / "file"
    a_file.write_text("text")
    before = tree(tmp_path)
    for place, what in ((other.path, "another cache"), (foreign, "not empty"), (group, "zarr.json"), (a_file, "file")):
        with pytest.raises(CacheError, match=what) as error:
            export(made.open(), place, to="zarr")
        assert error.value.where == str(place)
        assert error.value.fix
    with pytest.raises(CacheError, match="another cache"):
        export(made.open(), tmp_path / "a", to="webdataset")
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert export(made.open(), tmp_path / "empty", to="zarr").meta == made.meta


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_a_damaged_source_is_refused_and_the_file_named(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path / "a", store=store, lengths=(8, 8), failed=())
    receipt = made.open().receipt(1)
    assert receipt is not None
    name, entry = next((name, entry) for name, entry in receipt.files.items() if PATCH in entry.columns)
    data = bytearray((tmp_path / "a" / name).read_bytes())
    at = (entry.members or {}).get(PATCH, [[0, 0]])[0][1]
    data[at] ^= 1
    (tmp_path / "a" / name).write_bytes(data)
    with pytest.raises(CacheError, match="damaged") as error:
        export(made.open(), tmp_path / "b", to="zarr")
    assert error.value.where == str(tmp_path / "a" / name)
    assert open_cache(tmp_path / "b").receipt(1) is None
    data[at] ^= 1
    (tmp_path / "a" / name).write_bytes(data)
    export(made.open(), tmp_path / "b", to="zarr")
    assert verify(open_cache(tmp_path / "b")).problems == ()


def test_units_that_are_not_there_yet_are_said_to_be_missing(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", units=[0], failed=())
    with pytest.raises(CacheError, match=r"Unit 1 is not committed(.|\n)*--units"):
        export(made.open(), tmp_path / "b", to="webdataset")
    export(made.open(), tmp_path / "c", to="webdataset", units=[0])


def test_a_destination_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    (tmp_path / "file").write_text("text")
    with pytest.raises(CacheError, match="could not be written"):
        export(made.open(), tmp_path / "file" / "b", to="zarr")
