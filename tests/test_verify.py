"""Nothing that happens to a cache's files goes unnoticed: flips, cuts, deletions, swaps, stale and strange files.

Every fault must be found by ``verify``, with the file's name, and no reader may take it for data. Two weaker checks,
of sizes alone and without the chunks' checksums, must fail on the same faults: else these tests could not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from store_caches import CLS, FIRST_COLUMNS, PATCH, Made, add_column, commit, make_cache, restore, tree, unit_data

from frame.pipeline.store import Cache, CacheError, open_cache, reopen
from frame.pipeline.store.layout import sealed
from frame.pipeline.store.receipts import receipt_path
from frame.pipeline.store.verify import Problem, check_unit, check_units, verify

STORES = ["zarr", "webdataset"]


@pytest.fixture(params=STORES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Three units with a failed clip, and a column added later."""
    made = make_cache(tmp_path / "cache", lengths=(3, 5, 0, 11, 4), failed=(0,), store=request.param, encoding="int8")
    return add_column(made)


def is_shard(name: str) -> bool:
    return "/c/" in name or name.startswith("shards/")


def problems_of(made: Made) -> list[Problem]:
    """What ``verify`` says is wrong, as the command runs it."""
    return list(verify(reopen(made.path)).problems)


def read_silently(made: Made) -> list[str]:
    """Reads everything, clip by clip; names whatever came back without an error and is not what was written."""
    wrong = []
    try:
        cache = made.open()
        clips = cache.index.to_pylist()
    except CacheError:
        return []
    for column in cache.columns:
        values = made.values(column)
        for clip in clips:
            start, stop = clip["first_row"], clip["first_row"] + clip["n_frames"]
            try:
                found = cache.read(column, start, stop)
            except CacheError:
                continue
            if clip["clip"] in made.failed[column] or not np.array_equal(found, values[start:stop]):
                wrong.append(f"{column} of {clip['clip']}")
    return wrong


def flips(files: dict[str, bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """Single flipped bits: half of them in files taken at random, half in bytes taken at random."""
    rng = random.Random(0)
    names = sorted(files)
    for number in range(count):
        weights = None if number % 2 else [len(files[name]) for name in names]
        (name,) = rng.choices(names, weights)
        data = bytearray(files[name])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield name, bytes(data)


def cuts(files: dict[str, bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """Files cut at random places, at borders of 512 bytes, and before their last byte."""
    rng = random.Random(1)
    names = sorted(files)
    for number in range(count):
        data = files[name := rng.choice(names)]
        where = (rng.randrange(len(data)), rng.randrange(len(data) // 512 + 1) * 512, len(data) - 1)[number % 3]
        yield name, data[: min(where, len(data) - 1)]


def test_an_intact_cache_has_no_problems(made: Made) -> None:
    report = verify(made.open())
    assert report.problems == report.damage == ()
    assert (report.units, report.unfinished) == (made.meta.units, ())
    shards = [data for name, data in tree(made.path).items() if is_shard(name)]
    assert (report.files, report.bytes) == (len(shards), sum(map(len, shards)))
    assert read_silently(made) == []


@pytest.mark.parametrize(("faults", "count"), [(flips, 300), (cuts, 50)])
def test_every_flipped_bit_and_every_cut_is_found_and_none_is_read(made: Made, faults: Any, count: int) -> None:
    files = tree(made.path)
    tried = 0
    for name, data in faults(files, count):
        (made.path / name).write_bytes(data)
        named = {problem.file for problem in problems_of(made)}
        assert name in named, f"{name}: verify named {named}"
        assert len(named) == 1, "one damaged file is one named file"
        assert read_silently(made) == [], name
        (made.path / name).write_bytes(files[name])
        tried += 1
    assert tried == count
    assert problems_of(made) == []


def test_every_deleted_file_is_found_and_none_is_read(made: Made) -> None:
    files = tree(made.path)
    for name in random.Random(2).sample(sorted(files), min(20, len(files))):
        (made.path / name).unlink()
        problems = {problem.file: problem.kind for problem in problems_of(made)}
        assert problems[name] == "missing"
        assert read_silently(made) == []
        if not name.startswith("receipts/"):  # without its receipt, all of a unit's files are left over
            assert set(problems) == {name}
        restore(made.path, files)


class Whatever:
    """A checksum that fits everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def test_the_controls_checks_of_sizes_and_readers_without_checksums_miss_flips(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of these found everything, the tests above would show nothing."""
    monkeypatch.setattr(google_crc32c, "value", lambda _: Whatever())
    files = {name: data for name, data in tree(made.path).items() if is_shard(name)}
    missed = silent = 0
    for name, data in flips(files, 60):
        (made.path / name).write_bytes(data)
        missed += not any(state.problems for state in check_units(made.open(), made.units, deep=False))
        silent += bool(read_silently(made))
        (made.path / name).write_bytes(files[name])
    assert missed == 60
    assert silent > 0


def shards_of(made: Made, unit: int) -> dict[str, tuple[str, ...]]:
    """The unit's files and the columns in each."""
    receipt = made.open().receipt(unit)
    assert receipt is not None
    return {name: entry.columns for name, entry in receipt.files.items()}


def test_swapped_shards_are_both_named(made: Made) -> None:
    files = tree(made.path)
    for first, second in zip(shards_of(made, 1), shards_of(made, 2), strict=True):
        (made.path / first).write_bytes(files[second])
        (made.path / second).write_bytes(files[first])
        assert {problem.file for problem in problems_of(made)} == {first, second}
        restore(made.path, files)


def test_the_shard_of_another_build_of_the_same_size_is_named(made: Made) -> None:
    other = make_cache(made.path.parent / "b", seed=9, **same_layout(made))
    for name in shards_of(other, 1):
        if made.meta.store == "zarr":  # pictures of other noise make tars of other sizes
            assert (made.path / name).stat().st_size == (other.path / name).stat().st_size
        (made.path / name).write_bytes((other.path / name).read_bytes())
        (problem,) = problems_of(made)
        assert (problem.file, problem.kind, problem.unit) == (name, "damaged", 1)
        restore(made.path, {**tree(made.path), name: (made.path / name).read_bytes()})
        commit(made, 1)


def same_layout(made: Made) -> dict[str, Any]:
    return {"lengths": (3, 5, 0, 11, 4), "failed": (0,), "store": made.meta.store, "encoding": "int8"}


def test_receipts_of_other_units_plans_and_teachers_are_stale(made: Made) -> None:
    files = tree(made.path)
    (made.path / "receipts/000001.json").write_bytes(files["receipts/000002.json"])
    stale = {problem.file: problem.kind for problem in problems_of(made)}
    assert stale["receipts/000001.json"] == "stale"
    assert read_silently(made) == []

    other = make_cache(made.path.parent / "other", **{**same_layout(made), "lengths": (3, 5, 0, 11, 5)})
    (made.path / "receipts/000001.json").write_bytes((other.path / "receipts/000001.json").read_bytes())
    stale = {problem.file: problem.kind for problem in problems_of(made)}
    assert stale["receipts/000001.json"] == "stale"
    assert read_silently(made) == []
    restore(made.path, files)

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
