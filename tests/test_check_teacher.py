"""Only the teacher can tell that an intact feature belongs to another frame."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_stages import QUIET, make, run

from frame.pipeline.check_teacher import check_rows, readable_rows
from frame.pipeline.prepare import Prepared, resume
from frame.pipeline.store import open_cache
from frame.pipeline.store.export import _read_unit
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.verify import verify
from frame.pipeline.store.writer import commit_unit


@pytest.fixture(scope="module", params=["float16", "int8", "residual"])
def prepared(clips: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Prepared:
    path = tmp_path_factory.mktemp("sound") / "c"
    run(make(clips, path, encoding=request.param))
    return resume(path, progress=QUIET)


def test_a_sound_cache_agrees_with_its_teacher_on_every_row(prepared: Prepared) -> None:
    rows = readable_rows(prepared.cache)
    assert len(rows) == 74
    checks = check_rows(prepared, 16, seed=0)
    assert len({check.row for check in checks} & set(rows)) == 16
    assert [check.wrong for check in checks if check.wrong] == []
    assert all(check.agreement["frames"] == 0 for check in checks)


def test_features_of_the_neighbouring_frame_are_found_although_every_checksum_fits(
    prepared: Prepared, tmp_path: Path
) -> None:
    shutil.copytree(prepared.cache.path, tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    (data,) = _read_unit(cache, cache.meta, 0)
    for name in list(data.values):
        if name.startswith("test_vit.patch"):
            data.values[name] = np.roll(data.values[name], 1, axis=0)  # type: ignore[index]
    with writer_folder(cache.path) as tmp:
        commit_unit(cache.path, cache.meta, cache.index, data, tmp=tmp)
    shifted = Prepared(cache=open_cache(cache.path), source=prepared.source, teachers=prepared.teachers)
    summaries = ("stats", "README.md")
    assert not [problem for problem in verify(shifted.cache).problems if not problem.file.startswith(summaries)]
    checks = check_rows(shifted, 20, seed=0)
    wrong = [check.row for check in checks if check.wrong == ("test_vit.patch",)]
    assert wrong == [check.row for check in checks if check.row < cache.meta.rows_per_unit]
    assert wrong


def test_features_that_lost_more_than_their_receipt_says_are_found(prepared: Prepared, tmp_path: Path) -> None:
    shutil.copytree(prepared.cache.path, tmp_path / "c")
    cache, rng = open_cache(tmp_path / "c"), np.random.default_rng(0)
    (data,) = _read_unit(cache, cache.meta, 0)
    name = "test_vit.patch"
    values = data.values[name]
    noisy = values + rng.standard_normal(values.shape) * 0.15 * values.astype(np.float64).std()
    whole = values.dtype != np.float16
    data.values[name] = (np.rint(noisy).clip(-127, 127) if whole else noisy).astype(values.dtype)  # type: ignore[index]
    with writer_folder(cache.path) as tmp:
        commit_unit(cache.path, cache.meta, cache.index, data, tmp=tmp)
    worse = Prepared(cache=open_cache(cache.path), source=prepared.source, teachers=prepared.teachers)
    checks = check_rows(worse, 20, seed=0)
    wrong = [check.row for check in checks if check.wrong == (name,)]
    assert wrong == [check.row for check in checks if check.row < cache.meta.rows_per_unit]
    assert wrong


def test_a_source_that_is_gone_is_named(prepared: Prepared, tmp_path: Path) -> None:
    elsewhere = Prepared(cache=prepared.cache, source=tmp_path, teachers=prepared.teachers)
    assert {check.wrong[0].split(":")[1].strip() for check in check_rows(elsewhere, 5, seed=0)} == {"missing"}


def test_the_same_seed_draws_the_same_rows(prepared: Prepared) -> None:
    draws = [[check.row for check in check_rows(prepared, 4, seed=seed)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
