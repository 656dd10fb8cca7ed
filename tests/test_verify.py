"""What ``verify`` says of a cache: which file is wrong, how, and which columns that makes unreadable.

That nothing which happens to a cache's files goes unnoticed is shown in tests/faults (F08, F09, F10).
"""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from damage import STORES, is_shard, problems_of, read_silently, shards_of, three_units
from store_caches import CLS, FIRST_COLUMNS, PATCH, Made, add_column, commit, make_cache, tree, unit_data

from frame.pipeline.store import Cache, CacheError, open_cache
from frame.pipeline.store.layout import sealed
from frame.pipeline.store.receipts import FileEntry, receipt_path
from frame.pipeline.store.tar_check import strange_member
from frame.pipeline.store.tar_unit import Sample, encode_tar
from frame.pipeline.store.verify import check_unit, verify


@pytest.fixture(params=STORES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Three units with a failed clip, and a column added later."""
    return three_units(tmp_path / "cache", request.param)


def test_an_intact_cache_has_no_problems(made: Made) -> None:
    report = verify(made.open())
    assert report.problems == report.damage == ()
    assert (report.units, report.unfinished) == (made.meta.units, ())
    shards = [data for name, data in tree(made.path).items() if is_shard(name)]
    assert (report.files, report.bytes) == (len(shards), sum(map(len, shards)))
    assert read_silently(made) == []


@pytest.mark.parametrize("store", STORES)
def test_units_of_the_same_plan_with_other_steps_are_stale_and_never_read(tmp_path: Path, store: Any) -> None:
    """Built at another place, on another kind of processor: the same levels mean something else there."""
    ours, theirs = (make_cache(tmp_path / name, store=store, encoding="residual", units=()) for name in "ab")
    column = theirs.meta.columns[PATCH]
    assert column.steps is not None
    steps = replace(column.steps, step=tuple(1.001 * value for value in column.steps.step))
    theirs = replace(
        theirs, meta=replace(theirs.meta, columns={**theirs.meta.columns, PATCH: replace(column, steps=steps)})
    )
    for unit in theirs.units:
        commit(theirs, unit)
    for folder in ("receipts", "dino.patch/c", "clip.cls/c", "frames/c", "shards"):
        if (theirs.path / folder).exists():
            shutil.copytree(theirs.path / folder, ours.path / folder, dirs_exist_ok=True)
    cache = ours.open()
    for unit in ours.units:
        problems = check_unit(cache, unit, deep=True).problems
        assert {(problem.kind, problem.columns) for problem in problems} == {("stale", (PATCH,))}
    with pytest.raises(CacheError, match="not committed"):
        cache.read(PATCH, 0, 1)
    assert len(cache.read(CLS, 0, 1)) == 1


def test_receipts_of_other_units_and_teachers_are_stale(made: Made) -> None:
    data = (made.path / "receipts/000001.json").read_bytes()
    (made.path / "receipts/000001.json").write_bytes((made.path / "receipts/000002.json").read_bytes())
    assert ("receipts/000001.json", "stale") in {(problem.file, problem.kind) for problem in problems_of(made)}
    (made.path / "receipts/000001.json").write_bytes(data)

    teachers = {**made.meta.teachers, "dino": {"weights": "others"}}
    changed = Cache(made.path, replace(made.meta, teachers=teachers))
    for unit in made.units:
        (problem,) = check_unit(changed, unit, deep=True).problems
        assert (problem.kind, problem.columns) == ("stale", (PATCH,))


def test_damage_names_the_columns_it_makes_unreadable(made: Made) -> None:
    for name, columns in shards_of(made, 0).items():
        data = (made.path / name).read_bytes()
        (made.path / name).write_bytes(data[:-1])
        state = check_unit(made.open(), 0, deep=False)
        assert state.broken_columns == set(columns)
        (made.path / name).unlink()
        (problem,) = check_unit(made.open(), 0, deep=False).problems
        assert (problem.kind, problem.file) == ("missing", name)
        (made.path / name).write_bytes(data)
    receipt_path(made.path, 0).unlink()
    assert check_unit(made.open(), 0, deep=True).broken_columns == set(made.meta.columns)


def test_a_receipt_whose_rows_do_not_add_up_is_damage(made: Made) -> None:
    receipt = made.open().receipt(0)
    assert receipt is not None
    fewer = replace(receipt, columns={**receipt.columns, CLS: replace(receipt.columns[CLS], rows=4)})
    receipt_path(made.path, 0).write_bytes(fewer.to_bytes())
    (problem,) = check_unit(made.open(), 0, deep=True).problems
    assert (problem.kind, problem.columns) == ("damaged", (CLS,))
    assert "4 rows" in problem.detail
    files = {name: entry for name, entry in receipt.files.items() if "clip" not in name and "000000.tar" not in name}
    receipt_path(made.path, 0).write_bytes(replace(receipt, files=files).to_bytes())
    found = check_unit(made.open(), 0, deep=True)
    assert CLS in found.broken_columns
    assert any("not named" in problem.detail for problem in found.problems)


def test_files_that_nothing_commits_are_left_over(made: Made) -> None:
    for name in ("notes.txt", "frames/c/9/0/0/0", "shards/000009.tar", "receipts/000009.json", "stats/other.json"):
        (made.path / name).parent.mkdir(parents=True, exist_ok=True)
        (made.path / name).write_bytes(b"strange")
        assert [(problem.kind, problem.file) for problem in problems_of(made)] == [("leftover", name)]
        (made.path / name).unlink()
    (made.path / "tmp" / "writer").mkdir(parents=True)
    (made.path / "tmp" / "writer" / "x.partial").write_bytes(b"half")
    assert problems_of(made) == []


def test_many_faults_at_once_are_all_named(made: Made) -> None:
    files = tree(made.path)
    shards = [name for name in files if is_shard(name)]
    cut, flipped, gone = random.Random(3).sample(shards, 3)
    (made.path / cut).write_bytes(files[cut][:-7])
    (made.path / flipped).write_bytes(bytes([files[flipped][0] ^ 1]) + files[flipped][1:])
    (made.path / gone).unlink()
    others = {f"stats/{PATCH}.json", "cache.copy.json"} | ({"zarr.json"} if made.meta.store == "zarr" else set())
    for name in others:
        (made.path / name).write_bytes(files[name] + b" ")
    assert {problem.file for problem in problems_of(made)} == {cut, flipped, gone, *others}


def test_a_damaged_index_is_said_before_anything_else(made: Made) -> None:
    (made.path / "index.parquet").write_bytes(b"PAR1")
    assert [problem.file for problem in problems_of(made)] == ["index.parquet"]


@pytest.mark.parametrize("store", STORES)
def test_an_unfinished_cache_is_not_a_damaged_one(tmp_path: Path, store: Any) -> None:
    made = make_cache(tmp_path, failed=(), store=store, units=[0, 2])
    report = verify(made.open())
    assert report.damage == ()
    assert report.unfinished == (1, 3, 4)
    assert report.units == 2
    seen = []
    verify(made.open(), tick=seen.append)
    assert [state.unit for state in seen] == list(made.units)


def test_a_column_not_made_yet_is_unfinished_work(tmp_path: Path) -> None:
    made = add_column(make_cache(tmp_path, failed=()))
    receipt_path(tmp_path, 1).unlink()
    commit(made, 1)
    report = verify(made.open())
    assert report.unfinished == (1,)
    assert [(problem.kind, problem.columns) for problem in report.problems if problem.unit == 1] == [
        ("missing", ("later.cls",))
    ]


def test_a_sealed_lie_in_cache_json_is_seen_by_its_copy(made: Made) -> None:
    """Both copies are intact, and differ: somebody changed one with its checksum."""
    (made.path / "cache.copy.json").write_bytes(replace(made.meta, teachers={**made.meta.teachers, "x": {}}).to_bytes())
    (problem,) = [problem for problem in problems_of(made) if problem.file == "cache.copy.json"]
    assert problem.kind == "stale"
    (made.path / "cache.copy.json").write_bytes(sealed({"format": 1}))
    assert {problem.kind for problem in problems_of(made)} == {"damaged"}


def test_what_was_repaired_verifies(made: Made) -> None:
    files = tree(made.path)
    for name in shards_of(made, 1):
        (made.path / name).unlink()
    commit(made, 1)
    commit(made, 1, ["later.cls"])
    assert tree(made.path) == files
    assert problems_of(made) == []
    assert unit_data(made, 1, FIRST_COLUMNS).unit == 1
    assert open_cache(made.path).units == made.meta.units


def test_clips_whose_names_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """``a.b.json`` is the text of a clip ``a.b``, though there is a clip ``a``."""
    entry = FileEntry(bytes=0, sha256="", columns=("frames",), members={})
    tar, _ = encode_tar(Sample(key=name, first_row=0, info={}, arrays={}) for name in ("a.b", "a"))
    (tmp_path / "a.tar").write_bytes(tar)
    assert strange_member(tmp_path / "a.tar", entry, {}, {"a", "a.b"}) == ""
    assert "a.b.json" in strange_member(tmp_path / "a.tar", entry, {}, {"a"})
