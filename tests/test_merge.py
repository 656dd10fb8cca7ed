"""Caches built apart become one: what comes out, what is said, and what keeps them apart, each by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_caches import CLS, FIRST_COLUMNS, LATER, PATCH, Made, add_column, make_cache, quick_disk, tree, unit_data

from frame.manifests.errors import InputError
from frame.pipeline.report import info_json, merged_json, merged_text
from frame.pipeline.store import Cache, CacheError, CacheMeta, disk, open_cache
from frame.pipeline.store.card import write_card
from frame.pipeline.store.export import export
from frame.pipeline.store.files import sha256_bytes, writer_folder
from frame.pipeline.store.index import SCHEMA, index_bytes
from frame.pipeline.store.merge import Merging, plan_merge
from frame.pipeline.store.repack import plan_repack, repack
from frame.pipeline.store.stats import write_statistics
from frame.pipeline.store.verify import verify
from frame.pipeline.store.writer import commit_unit, with_metadata, write_metadata

STORES = ["zarr", "webdataset"]
ENCODINGS = ["float16", "int8", "residual"]
GOOD = (3, 5, 8, 2, 11, 4)


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_disk():
        yield


def merged(caches: Sequence[Cache], path: Path, **options: Any) -> tuple[Cache, Merging]:
    merging = plan_merge(caches, path, **options)
    copy = repack(path, merging.packing)
    assert verify(copy).problems == ()
    return copy, merging


def remade(made: Made, path: Path, *, seed: int | None = None, **changes: Any) -> Made:
    """The same cache at another place with other metadata, or another index (``table``), or other values."""
    table: pa.Table = changes.pop("table", made.table)
    meta, files = with_metadata(replace(made.meta, **changes, index_sha256=sha256_bytes(index_bytes(table))))
    full = dict(made.full)
    if seed is not None:
        full[PATCH] = full[PATCH].copy()
        full[PATCH][seed] += 1
    other = replace(made, path=path, meta=meta, table=table, full=full)
    path.mkdir()
    with writer_folder(path) as tmp:
        write_metadata(path, meta, files, index_bytes(table), tmp=tmp)
        for unit in other.units:
            commit_unit(path, meta, table, unit_data(other, unit, FIRST_COLUMNS), tmp=tmp)
        write_statistics(other.open(), tmp=tmp)
        write_card(other.open(), tmp=tmp)
    return other


def edited(table: pa.Table, clip: str, **fields: Any) -> pa.Table:
    """The index with other fields of one clip."""
    rows = [{**row, **fields} if row["clip"] == clip else row for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def contents(cache: Cache) -> dict[str, Any]:
    """What every clip is: its row without its place, its values as bytes or why there are none."""
    failed, found = cache.failed(), {}
    for row in cache.index.to_pylist():
        start, stop = row["first_row"], row["first_row"] + row["n_frames"]
        held: Any = failed.get(row["clip"])
        if not held:
            held = {column: cache.read(column, start, stop).tobytes() for column in cache.columns}
        found[row["clip"]] = ({**row, "first_row": 0, "unit": 0}, held)
    return found


# Caches of one plan.


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_units_built_on_two_disks_are_what_one_build_makes(tmp_path: Path, store: Any, encoding: Any) -> None:
    """Byte for byte: clip c4 is longer than a unit, and each disk has one half of it."""
    whole = make_cache(tmp_path / "whole", lengths=GOOD, store=store, encoding=encoding)
    a, b = (
        make_cache(tmp_path / name, lengths=GOOD, store=store, encoding=encoding, units=units)
        for name, units in (("a", [0, 1, 3]), ("b", [2, 3, 4]))
    )
    before = tree(tmp_path)
    copy, merging = merged([a.open(), b.open()], tmp_path / "c")
    assert copy.meta == whole.meta
    assert tree(copy.path) == tree(whole.path)
    assert {name: data for name, data in tree(tmp_path).items() if not name.startswith("c/")} == before
    assert merging.twice == ("c4",)
    assert merging.won == {}


@pytest.mark.parametrize(("store", "other"), [("zarr", "webdataset"), ("webdataset", "zarr")])
def test_parts_exported_by_units_are_whole_again(tmp_path: Path, store: Any, other: Any) -> None:
    made = make_cache(tmp_path / "a", lengths=GOOD, store=store)
    parts = [
        export(made.open(), tmp_path / f"{number}", to=to, units=units)
        for number, (to, units) in enumerate([(store, [0]), (other, [4, 1]), (store, [1, 2])])
    ]
    copy, merging = merged(parts, tmp_path / "c", to=store)
    assert copy.expected_units == [0, 1, 2, 4]
    everything, _ = merged([*parts, export(made.open(), tmp_path / "3", to=other, units=[3])], tmp_path / "d", to=store)
    assert tree(everything.path) == tree(made.path)
    assert len(merging.clips) == 3


@pytest.mark.parametrize("store", STORES)
def test_columns_of_other_teachers_join(tmp_path: Path, store: Any) -> None:
    whole = add_column(make_cache(tmp_path / "whole", lengths=GOOD, store=store), failed=[3])
    a = export(whole.open(), tmp_path / "a", to=store, columns=["frames", PATCH])
    b = export(whole.open(), tmp_path / "b", to=store, columns=["frames", LATER, CLS])
    copy, merging = merged([a, b], tmp_path / "c")
    expected = export(whole.open(), tmp_path / "expected", to=store)
    assert contents(copy) == contents(expected)
    if store == "zarr":  # of a unit with fewer rows than before, sums may end in another bit
        assert tree(copy.path) == tree(expected.path)
    assert ("c3" in merging.won) == (store == "webdataset")  # there the frames of c3 went with its features


def test_the_same_unit_with_other_values_is_a_conflict(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", lengths=GOOD, failed=())
    other = remade(made, tmp_path / "b", seed=9)
    with pytest.raises(InputError) as error:
        plan_merge([made.open(), other.open()], tmp_path / "c")
    screen = error.value.screen()
    assert f"clip c2, values of {PATCH}: unit 1 of {made.path} and unit 1 of {other.path} differ" in screen
    assert "more" not in screen
    assert "nothing was written" in screen
    assert not (tmp_path / "c").exists()


def test_a_unit_that_is_nowhere_is_named(tmp_path: Path) -> None:
    a, b = (make_cache(tmp_path / name, lengths=GOOD, units=units) for name, units in (("a", [0]), ("b", [1, 3])))
    with pytest.raises(InputError, match=rf"column {CLS}: of c3, c4, c5 committed in none of the caches"):
        plan_merge([a.open(), b.open()], tmp_path / "c")


# Caches of different clips.


@pytest.mark.parametrize(("store", "other"), [("zarr", "webdataset"), ("webdataset", "zarr")])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_clips_of_two_laboratories(tmp_path: Path, store: Any, other: Any, encoding: Any) -> None:
    """In units of other lengths, in either store; a clip that both have is taken once."""
    made = make_cache(tmp_path / "whole", encoding=encoding)
    a = repack(tmp_path / "a", plan_repack(made.open(), to=store, clips=["c5", "c0", "c1", "c2"], rows_per_unit=5))
    b = repack(tmp_path / "b", plan_repack(made.open(), to=other, clips=["c6", "c3", "c0", "c4", "c2"]))
    copy, merging = merged([a, b], tmp_path / "c")
    assert copy.index.column("clip").to_pylist() == ["c0", "c1", "c2", "c5", "c3", "c4", "c6"]
    assert contents(copy) == contents(made.open())
    assert set(merging.twice) == {"c0", "c2"}
    assert merging.clips == (4, 5)
    assert (copy.meta.rows_per_unit, copy.meta.store) == (5, store)
    assert [item["plan"] for item in copy.meta.build["merged_from"]] == [a.meta.plan_id, b.meta.plan_id]
    assert copy.meta.dataset == {"name": "folder", "clips": 7}
    again, _ = merged([a, b], tmp_path / "again")
    assert tree(again.path) == tree(copy.path)
    text = merged_text({**info_json(copy), "merged": json.loads(json.dumps(merged_json(merging)))})
    assert "7 clips (of 4 + 5)" in text
    assert "taken once  2 clips that several have alike: " in text


@settings(max_examples=15)
@given(data=st.data(), encoding=st.sampled_from(ENCODINGS))
def test_exports_of_any_partition_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, encoding: Any
) -> None:
    lengths = data.draw(st.lists(st.integers(0, 20), min_size=2, max_size=6))
    failed = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    owner = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    root = tmp_path_factory.mktemp("merge")
    made = make_cache(root / "a", lengths=lengths, failed=sorted(failed), encoding=encoding)
    parts = []
    for number in sorted({0, 1, *owner}):
        clips = [f"c{i}" for i, one in enumerate(owner) if one == number] or ["c0"]
        size, to = data.draw(st.integers(1, 24)), data.draw(st.sampled_from(STORES))
        packing = plan_repack(made.open(), to=to, clips=clips, rows_per_unit=size)  # type: ignore[arg-type]
        parts.append(repack(root / f"{number}", packing))
    copy, merging = merged(parts, root / "c", to=data.draw(st.sampled_from(STORES)))
    assert contents(copy) == contents(made.open())
    assert merging.won == {}


@pytest.mark.parametrize("store", STORES)
def test_the_good_one_wins_over_the_failed_one(tmp_path: Path, store: Any) -> None:
    bad = make_cache(tmp_path / "a", lengths=GOOD, failed=(1, 4), store=store)
    good = make_cache(tmp_path / "b", lengths=GOOD, failed=(0, 4), store=store)
    for number, (first, second) in enumerate([(bad, good), (good, bad)]):
        same, merging = merged([first.open(), second.open()], tmp_path / f"same{number}")
        assert set(same.failed()) == {"c4"}
        assert same.failed()["c4"] == ("corrupt", "clip 4 is bad")
        assert {clip: item for clip, (item, _) in merging.won.items()} == {"c0": bad.path, "c1": good.path}
        assert np.array_equal(same.read(PATCH, 0, 3), bad.values(PATCH)[:3])
    other = remade(bad, tmp_path / "d", build={"batch_rows": 8, "encoding": "float16"})
    apart, merging = merged([other.open(), good.open()], tmp_path / "e")
    assert set(apart.failed()) == {"c4"}
    assert set(merging.won) == {"c0", "c1"}
    assert any("build, batch_rows: 8 in" in note for note in merging.notes)


def test_a_clip_that_could_not_be_probed_in_one(tmp_path: Path) -> None:
    gone = make_cache(tmp_path / "a", lengths=(3, 0, 4), failed=())
    good = make_cache(tmp_path / "b", lengths=(3, 6, 4, 2), failed=(), units=())
    rows = np.concatenate([gone.full[PATCH][:3], gone.full[PATCH][3:7]])
    for name in ("frames", PATCH, CLS):
        for start, stop, first in ((0, 3, 0), (16, 20, 3)):  # c0 and c2 as in the other cache
            good.full[name][start:stop] = gone.full[name][first : first + stop - start]
    good = remade(good, tmp_path / "c")
    copy, merging = merged([gone.open(), good.open()], tmp_path / "d")
    assert copy.failed() == {}
    assert merging.won == {"c1": (good.path, gone.path)}
    assert merging.twice == ("c0", "c2")
    assert np.array_equal(copy.read(PATCH, 0, 3), rows[:3])
    index = copy.index.to_pylist()
    assert [(row["clip"], row["n_frames"]) for row in index] == [("c0", 3), ("c1", 6), ("c2", 4), ("c3", 2)]


# What keeps them apart.


def _steps(meta: CacheMeta) -> dict[str, Any]:
    column = meta.columns[PATCH]
    assert column.steps is not None
    step = (*column.steps.step[:3], 0.5, *column.steps.step[4:])
    return {"columns": {**meta.columns, PATCH: replace(column, steps=replace(column.steps, step=step))}}


CONFLICTS: list[tuple[Any, list[str]]] = [
    (lambda meta: {"geometry": {**meta.geometry, "fit": "squash"}}, ["geometry, fit: 'crop' in A, 'squash' in B"]),
    (lambda _: {"sampling": {"fps": 5.0}}, ["sampling, fps: 'native' in A, 5.0 in B"]),
    (_steps, [f"column {PATCH}, step[3]: 0.07", "0.5 in B"]),
    (
        lambda meta: {"teachers": {**meta.teachers, "dino": {"weights": "z"}}},
        ["teacher dino, weights sha256: 'a' in A, 'z' in B"],
    ),
    (
        lambda meta: {
            "teachers": {**meta.teachers, "dino": {"weights": {"sha256": "1"}, "mean": [0.5, 0.4]}},
            "geometry": {"size": 8},
        },
        [
            "geometry, fit: 'crop' in A, None in B",
            "geometry, size: 4 in A, 8 in B",
            "teacher dino, mean: None in A, [0.5, 0.4] in B",
            "teacher dino, weights sha256: 'a' in A, '1' in B",
        ],
    ),
]


@pytest.mark.parametrize(("change", "said"), CONFLICTS)
def test_every_difference_is_named(tmp_path: Path, change: Any, said: list[str]) -> None:
    made = make_cache(tmp_path / "A", encoding="residual")
    other = remade(made, tmp_path / "B", **change(made.meta))
    with pytest.raises(InputError) as error:
        plan_merge([made.open(), other.open()], tmp_path / "c")
    screen = error.value.screen().replace(f"{tmp_path}/", "")
    assert [text for text in said if text not in screen] == []
    assert not (tmp_path / "c").exists()


def test_other_encodings_are_named_and_the_list_is_short(tmp_path: Path) -> None:
    a, b = (make_cache(tmp_path / name, encoding=name) for name in ("float16", "residual"))  # type: ignore[arg-type]
    with pytest.raises(InputError) as error:
        plan_merge([a.open(), b.open()], tmp_path / "c")
    assert f"column {CLS}, encoding: 'float16' in {a.path}, 'residual' in {b.path}" in error.value.screen()
    assert "and 1 more" in error.value.screen()
    assert len(error.value.screen().splitlines()) < 12


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"split": "test"}, "clip c0, split: 'train' in A, 'test' in B"),
        ({"label": "other"}, "clip c0, label: 'label 0' in A, 'other' in B"),
        ({"source": "c0.avi"}, "clip c0, source: 'folder/c0.mp4' in A, 'c0.avi' in B"),
        ({"sha256": "another video"}, "clip c0, sha256: "),
        ({"timestamps": [0.0, 0.5, 1.0]}, "clip c0, timestamps[1]: 0.04 in A, 0.5 in B"),
    ],
)
def test_clips_of_one_name_that_differ_are_named(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    made = make_cache(tmp_path / "A")
    other = remade(made, tmp_path / "B", table=edited(made.table, "c0", **fields))
    with pytest.raises(InputError) as error:
        plan_merge([made.open(), other.open()], tmp_path / "c")
    assert said in error.value.screen().replace(f"{tmp_path}/", "")


def test_values_of_one_clip_that_differ_are_named(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    other = remade(made, tmp_path / "b", seed=1, build={"batch_rows": 8})
    with pytest.raises(InputError, match=rf"clip c0, values of {PATCH}: unit 0 of .*/a and unit 0 of .*/b differ"):
        plan_merge([made.open(), other.open()], tmp_path / "c")


def test_a_column_that_one_lacks_is_named(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "whole", failed=())
    a = repack(tmp_path / "a", plan_repack(made.open(), to="zarr", clips=["c0", "c1"]))
    b = repack(tmp_path / "b", plan_repack(made.open(), to="zarr", clips=["c3", "c4"], columns=["frames", PATCH]))
    with pytest.raises(InputError, match=rf"column {CLS}: of c3, c4 committed in none(.|\n)*b has no such column"):
        plan_merge([a, b], tmp_path / "c")


def test_names_and_licences_of_both_survive(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "whole", failed=())
    parts = []
    for name, clips, licence in (
        ("davis", ["c0"], "CC BY-NC 4.0"),
        ("ego4d", ["c1"], "an agreement"),
        ("davis", ["c3"], "CC0"),
    ):
        base = plan_repack(made.open(), to="zarr", clips=clips)
        dataset = {"name": name, "licence": licence, "clips": 1, "seed": 0, "per_class": len(parts), "limit": None}
        packing = replace(base, meta=replace(base.meta, dataset=dataset))
        parts.append(repack(tmp_path / f"{len(parts)}", packing))
    copy, _ = merged(parts, tmp_path / "c")
    assert copy.meta.dataset == {
        "name": "davis + ego4d",
        "licence": "davis: CC BY-NC 4.0; ego4d: an agreement; davis: CC0",
        "clips": 3,
        "seed": 0,
        "per_class": None,
        "limit": None,
    }
    assert [item["dataset"]["per_class"] for item in copy.meta.build["merged_from"]] == [0, 1, 2]
    card = (copy.path / "README.md").read_text()
    assert "license: other" in card
    assert "**davis: CC BY-NC 4.0; ego4d: an agreement; davis: CC0**" in card


def test_where_a_teacher_was_found_may_differ_and_is_said(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", lengths=(3, 4), failed=())
    hub, file = ({"weights": {"origin": name, "sha256": "1"}, "requested": name} for name in ("hub", "file"))
    a = remade(made, tmp_path / "b", teachers={**made.meta.teachers, "dino": hub})
    b = remade(made, tmp_path / "c", teachers={**made.meta.teachers, "dino": file}, rows_per_unit=4)
    copy, merging = merged([a.open(), b.open()], tmp_path / "d")
    assert merging.notes == (f"teacher dino: requested, weights origin differ; kept as in {a.path}",)
    assert copy.meta.teachers["dino"] == hub
    assert copy.meta.teacher_id(PATCH) == a.meta.teacher_id(PATCH)


@pytest.mark.parametrize("places", [["a"], ["a", "a"], []])
def test_it_takes_two_caches(tmp_path: Path, places: list[str]) -> None:
    make_cache(tmp_path / "a")
    with pytest.raises(InputError, match="two caches or more, each once"):
        plan_merge([open_cache(tmp_path / name) for name in places], tmp_path / "c")


def test_no_source_is_ever_written_to(tmp_path: Path) -> None:
    """Not even where it would become just what the merge makes."""
    a = make_cache(tmp_path / "a", lengths=GOOD, units=[0, 1])
    b = make_cache(tmp_path / "b", lengths=GOOD)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    before = tree(tmp_path)
    for place in (a.path, b.path, a.path / "sub", tmp_path / "link"):
        with pytest.raises(InputError, match="lies in one of the caches"):
            plan_merge([a.open(), b.open()], place)
    foreign = make_cache(tmp_path / "foreign", lengths=(3,), failed=())
    with pytest.raises(CacheError, match="another cache"):
        merged([a.open(), b.open()], foreign.path)
    assert {name: data for name, data in tree(tmp_path).items() if not name.startswith("foreign")} == before


def test_damage_in_what_both_have_is_no_conflict_but_damage(tmp_path: Path) -> None:
    """Wherever files have to be read; of those with one digest the first cache's are read when they are copied."""
    made = make_cache(tmp_path / "a", failed=())
    other = repack(tmp_path / "b", plan_repack(made.open(), to="zarr", rows_per_unit=4))
    path = other.path / "dino.patch/c/0/0/0"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheError, match="damaged") as error:
        plan_merge([made.open(), open_cache(other.path)], tmp_path / "c")
    assert error.value.where == str(path)


@settings(max_examples=10)
@given(kill=st.integers(0, 60), to=st.sampled_from(STORES))
def test_one_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, kill: int, to: Any
) -> None:
    root = tmp_path_factory.mktemp("killed")
    made = make_cache(root / "a")
    parts = [
        repack(root / f"{number}", plan_repack(made.open(), to="zarr", clips=clips))
        for number, clips in enumerate([["c0", "c3"], ["c3", "c5", "c6"]])
    ]
    whole = tree(merged(parts, root / "calm", to=to)[0].path)
    calls, rename = iter(range(1 << 30)), disk.rename

    def killed(*given: Any) -> Any:
        if next(calls) == kill:
            raise KeyboardInterrupt
        return rename(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "rename", killed)
        patch.setattr(disk, "remove_tree", lambda _: None)
        try:
            merged(parts, root / "b", to=to)
        except KeyboardInterrupt:
            assert tree(root / "b") != whole
    assert tree(merged(parts, root / "b", to=to)[0].path) == whole


def test_a_tick_for_every_clip_of_every_cache(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a")
    other = remade(made, tmp_path / "b", build={"batch_rows": 8})
    ticks: list[int] = []
    plan_merge([made.open(), other.open()], tmp_path / "c", tick=lambda: ticks.append(1))
    assert len(ticks) == 14
