"""Chosen clips, and caches in other units: what was stored comes out as it was, wherever its unit begins now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_caches import CLS, LATER, PATCH, Made, add_column, make_cache, quick_disk, tree

from frame.manifests.errors import InputError
from frame.pipeline.options import options_of
from frame.pipeline.store import Cache, CacheError, disk, open_cache
from frame.pipeline.store.export import export
from frame.pipeline.store.repack import Survey, plan_repack, repack, require_all_there, survey
from frame.pipeline.store.verify import verify

STORES = ["zarr", "webdataset"]
ENCODINGS = ["float16", "int8", "residual"]
COLUMNS = ("frames", PATCH, CLS)


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_disk():
        yield


def packed(source: Cache, path: Path, *, to: Any = "zarr", **choice: Any) -> Cache:
    packing = plan_repack(source, to=to, **choice)
    require_all_there(survey(packing), source)
    return repack(path, packing)


def require_same(made: Made, copy: Cache, clips: Collection[str], columns: tuple[str, ...] = COLUMNS) -> None:
    """Every chosen clip has its row in the index, its values or its failure, and nothing else is there."""
    rows = {row["clip"]: row for row in copy.index.to_pylist()}
    assert list(rows) == [name for name in made.table.column("clip").to_pylist() if name in clips]
    failed = copy.failed()
    for old in made.table.to_pylist():
        new = rows.get(old["clip"])
        if new is None:
            continue
        assert {**old, "first_row": 0, "unit": 0} == {**new, "first_row": 0, "unit": 0}
        for column in columns:
            start, stop = new["first_row"], new["first_row"] + new["n_frames"]
            why = made.failed[column].get(old["clip"])
            if why or not old["n_frames"]:
                assert failed[old["clip"]] == (why or ("empty", "no frames"))
                if why:
                    with pytest.raises(CacheError, match=r"is bad|went away"):
                        copy.read(column, start, stop)
                continue
            theirs = made.values(column)[old["first_row"] : old["first_row"] + old["n_frames"]]
            assert np.array_equal(copy.read(column, start, stop), theirs)
    assert verify(copy).problems == ()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("store", "other"), [("zarr", "webdataset"), ("webdataset", "zarr")])
def test_chosen_clips_come_out_whole(tmp_path: Path, store: Any, other: Any, encoding: Any) -> None:
    """Among them one longer than a unit, one that failed, and one that could not be probed."""
    made = make_cache(tmp_path / "a", store=store, encoding=encoding)
    clips = ["c6", "c5", "c1", "c2"]
    copy = packed(made.open(), tmp_path / "b", to=other, clips=clips)
    require_same(made, copy, clips)
    assert copy.meta.rows_per_unit == made.meta.rows_per_unit
    assert copy.meta.build == {**made.meta.build, "repacked_from": made.meta.plan_id}
    assert copy.meta.dataset["clips"] == 4
    assert tree(packed(made.open(), tmp_path / "c", to=other, clips=sorted(clips)).path) == tree(copy.path)


@settings(max_examples=25)
@given(data=st.data(), store=st.sampled_from(STORES), to=st.sampled_from(STORES), encoding=st.sampled_from(ENCODINGS))
def test_any_choice_in_any_units_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, store: Any, to: Any, encoding: Any
) -> None:
    lengths = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=6))
    failed = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    chosen = data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))
    size = data.draw(st.none() | st.integers(1, 24))
    root = tmp_path_factory.mktemp("repack")
    made = make_cache(root / "a", lengths=lengths, failed=sorted(failed), store=store, encoding=encoding)
    clips = {f"c{i}" for i in chosen}
    copy = packed(made.open(), root / "b", to=to, clips=clips, rows_per_unit=size)
    require_same(made, copy, clips)
    assert copy.meta.rows_per_unit == (size or made.meta.rows_per_unit)


def test_a_whole_cache_in_other_units(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", encoding="residual")
    everything = made.table.column("clip").to_pylist()
    for size in (1, 4, 64):
        copy = packed(made.open(), tmp_path / f"{size}", rows_per_unit=size)
        require_same(made, copy, everything)
        assert copy.meta.rows_per_unit == size
        for column in (PATCH, CLS):
            np.testing.assert_allclose(copy.stats(column), made.open().stats(column), rtol=1e-5, atol=1e-6)
    packed(open_cache(tmp_path / "64"), tmp_path / "back", rows_per_unit=8)
    assert tree(tmp_path / "a/dino.patch") == tree(tmp_path / "back/dino.patch")


def test_what_receipts_say_of_a_new_unit(tmp_path: Path) -> None:
    """Of the same rows the same; otherwise moments of what is there, and the worst of the units it came from."""
    made = make_cache(tmp_path / "a", lengths=(8, 4, 4), failed=())
    copy = packed(made.open(), tmp_path / "b", clips=["c0", "c2"])
    old, new = made.open().receipts(), copy.receipts()
    assert new[0].columns[PATCH].moments == old[0].columns[PATCH].moments
    assert new[0].columns[PATCH].loss == old[0].columns[PATCH].loss
    moments = new[1].columns[PATCH].moments
    assert moments is not None
    values = made.values(PATCH)[12:16].reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(moments["mean"], values.mean(axis=0))
    assert moments["count"] == len(values)
    assert new[1].columns[PATCH].loss == {"mean_cosine": 1.0, "worst_cosine": 0.5, "bits": 16.0}
    assert new[1].columns[PATCH].software == {"torch": "2"}
    assert new[1].columns["frames"].moments is None


def test_columns_are_chosen_with_clips(tmp_path: Path) -> None:
    made = add_column(make_cache(tmp_path / "a", store="webdataset"), failed=[3])
    copy = packed(made.open(), tmp_path / "b", clips=["c0", "c3", "c5"], columns=[CLS, LATER])
    assert set(copy.columns) == {CLS, LATER}
    assert set(copy.meta.teachers) == {"clip", "later"}
    require_same(made, copy, ["c0", "c3", "c5"], (CLS, LATER))
    tars = packed(made.open(), tmp_path / "c", to="webdataset", clips=["c0", "c3"])
    with pytest.raises(CacheError, match="clip 3 went away"):
        tars.read(CLS, 8, 16)  # a sample has all of its files or is not there
    assert verify(tars).problems == ()


def test_frames_beside_failed_ones_are_left_out_and_counted(tmp_path: Path) -> None:
    """Of a clip longer than a unit that failed in one of its units: in larger units the good frames go with the bad."""
    made = make_cache(tmp_path / "a", lengths=(16, 4), failed=())
    broken = made.open()
    receipt = broken.receipt(1)
    assert receipt is not None
    part = make_cache(tmp_path / "part", lengths=(16, 4), failed=(0,), units=[1])
    for name in tree(part.path):
        if "/c/1/" in name or name.endswith("000001.json"):
            (tmp_path / "a" / name).write_bytes((part.path / name).read_bytes())
    copied = plan_repack(broken, to="zarr")
    assert survey(copied) == Survey(missing={}, lost={})
    same = repack(tmp_path / "same", copied)
    assert np.array_equal(same.read(PATCH, 0, 8), made.values(PATCH)[:8])
    larger = plan_repack(broken, to="zarr", rows_per_unit=16)
    assert survey(larger) == Survey(missing={}, lost={"c0": 8})
    copy = repack(tmp_path / "b", larger)
    with pytest.raises(CacheError, match="clip 0 is bad"):
        copy.read(PATCH, 0, 8)
    assert np.array_equal(copy.read(PATCH, 16, 20), made.values(PATCH)[16:20])


def test_units_that_are_not_there_matter_where_a_chosen_clip_lies(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", lengths=(8, 8, 12), units=[0, 1, 2], failed=())
    copy = packed(made.open(), tmp_path / "b", clips=["c0", "c1"])
    require_same(made, copy, ["c0", "c1"])
    for clips in (["c1", "c2"], None):
        with pytest.raises(CacheError, match=r"Clip 'c2' is not committed(.|\n)*--clips"):
            packed(made.open(), tmp_path / "c", clips=clips)
    assert not (tmp_path / "c").exists()
    with pytest.raises(CacheError, match="not committed"):
        repack(tmp_path / "d", plan_repack(made.open(), to="zarr", clips=["c2"]))


def test_a_part_of_a_cache_gives_the_clips_that_it_has(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", lengths=(8, 8, 0, 8), failed=())
    part = export(made.open(), tmp_path / "part", to="zarr", units=[1])
    copy = packed(part, tmp_path / "b", rows_per_unit=4)
    require_same(made, copy, ["c1"])
    assert "units" not in copy.meta.build


@pytest.mark.parametrize(
    ("choice", "what"),
    [
        ({"clips": ["nope"]}, "There is no clip 'nope'."),
        ({"clips": [f"x{i}" for i in range(7)]}, "'x4', nor 2 more"),
        ({"clips": []}, "Nothing is chosen"),
        ({"clips": ["c0"], "columns": ["nope"]}, "no column 'nope'"),
        ({"rows_per_unit": 0}, "--unit-rows 0 makes no sense"),
        ({"rows_per_unit": 1 << 21}, "too large"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, choice: dict[str, Any], what: str) -> None:
    made = make_cache(tmp_path / "a")
    with pytest.raises(InputError, match=what):
        packed(made.open(), tmp_path / "b", **choice)
    assert not (tmp_path / "b").exists()


@settings(max_examples=10)
@given(kill=st.integers(0, 60), to=st.sampled_from(STORES))
def test_one_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, kill: int, to: Any
) -> None:
    root = tmp_path_factory.mktemp("killed")
    source = make_cache(root / "a", encoding="int8").open()
    clips = ["c0", "c1", "c5", "c6"]
    whole = tree(packed(source, root / "calm", to=to, clips=clips).path)
    calls, rename = iter(range(1 << 30)), disk.rename

    def killed(*given: Any) -> Any:
        if next(calls) == kill:
            raise KeyboardInterrupt
        return rename(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "rename", killed)
        patch.setattr(disk, "remove_tree", lambda _: None)
        try:
            packed(source, root / "b", to=to, clips=clips)
        except KeyboardInterrupt:
            assert tree(root / "b") != whole
    assert tree(packed(source, root / "b", to=to, clips=clips).path) == whole


def test_damage_on_the_way_is_mended_and_other_things_are_left_alone(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    before = tree(made.path)
    copy = packed(made.open(), tmp_path / "b", clips=["c0", "c5"])
    whole = tree(copy.path)
    (tmp_path / "b/frames/c/1/0/0/0").write_bytes(b"damaged")
    (tmp_path / "b/README.md").unlink()
    assert tree(packed(made.open(), tmp_path / "b", clips=["c0", "c5"]).path) == whole
    for place, choice in ((tmp_path / "b", ["c0"]), (made.path, ["c0"])):
        with pytest.raises(CacheError, match="another cache"):
            packed(made.open(), place, clips=choice)
    assert tree(made.path) == before
    assert tree(tmp_path / "b") == whole
    data = bytearray((made.path / "dino.patch/c/0/0/0").read_bytes())
    data[5] ^= 1
    (made.path / "dino.patch/c/0/0/0").write_bytes(data)
    with pytest.raises(CacheError, match="damaged"):
        packed(made.open(), tmp_path / "c", clips=["c0"])
    assert open_cache(tmp_path / "c").receipts() == {}


def test_a_copy_of_a_copy_is_no_option_of_a_build(tmp_path: Path) -> None:
    """The words that a copy leaves in ``build`` do not keep a build from repairing it."""
    made = make_cache(tmp_path / "a")
    copy = packed(made.open(), tmp_path / "b", clips=["c0"])
    assert copy.meta.build["repacked_from"] == made.meta.plan_id
    meta = replace(
        copy.meta,
        dataset={"name": "folder", "seed": 0, "per_class": None, "limit": None},
        teachers={"dino": {"requested": "dino_vits16"}},
        geometry={"size": 16, "fit": "crop"},
        sampling={"fps": None},
    )
    assert options_of(meta, Path()).batch_rows == 4
