"""Stage 2 from the student's cached tokens instead of from pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import test_stages
from small_runs import figures, stage1, stage2, write_cache

from frame.manifests.errors import InputError
from frame.pipeline.prepare import resume
from frame.pipeline.teachers.student import expand_students


def add_student(cache: Path, run: Path) -> None:
    teachers, weights = expand_students((f"student={run}",), ())
    test_stages.run(resume(cache, progress=test_stages.QUIET, more_teachers=teachers, weights=weights))


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_losses_are_equal_from_pixels_and_from_cached_tokens(
    train_cache: Path, stage1_run: Path, tmp_path: Path, store: str
) -> None:
    cache = tmp_path / "cache"
    if store == "zarr":
        shutil.copytree(train_cache, cache)
        shutil.copy(train_cache.with_name("cache.build.json"), tmp_path / "cache.build.json")
        run = stage1_run
    else:
        cache = write_cache(tmp_path, store=store)
        run = tmp_path / "stage1"
        stage1(cache, run)
    stage2(cache, run, tmp_path / "pixels", steps=4)
    add_student(cache, run)
    stage2(cache, run, tmp_path / "tokens", steps=4, tokens="student")
    for one, other in zip(figures(tmp_path / "pixels"), figures(tmp_path / "tokens"), strict=True):
        assert one.keys() == other.keys()
        for name in ("patch", "cls", "future_patch", "future_cls"):
            assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6), (name, one["step"])
    another = tmp_path / "another"
    stage1(cache, another, steps=1, seed=5)
    with pytest.raises(InputError, match="tokens of another model"):
        stage2(cache, another, tmp_path / "no", tokens="student")
    with pytest.raises(InputError, match="no column"):
        stage2(cache, run, tmp_path / "no", tokens="pupil")
