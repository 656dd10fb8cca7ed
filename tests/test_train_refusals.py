"""What does not fit is refused before anything is written, with what differs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL, StopAfter, stage1, stage2, write_cache

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.train.prepare import Request
from frame.train.run import train

QUIET = Progress(quiet=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spatial": "dino.patch"}, r"no column 'dino.patch'.*test_vit.patch"),
        ({"spatial": "test_vit.cls"}, "no column 'test_vit.cls'"),
        ({"semantic": "test_vit.patch"}, "no column 'test_vit.patch'"),
        ({"semantic": ""}, "which one"),
        ({"patch": 24}, "no whole number of patches"),
        ({"patch": 8}, "8 x 8 patches of 8 pixels against 16"),
        ({"split": "test"}, "no clip to train on"),
        ({"precision": "fp16"}, "cannot train with --precision fp16"),
        ({"batch_size": 9, "accumulate": 2}, "cannot be shared out evenly"),
        ({"memory_frames": 3}, "no use for these settings"),
        ({"tokens": "student"}, "no use for these settings"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_cache(
    train_cache: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        stage1(train_cache, tmp_path / "a", **changes)
    assert not (tmp_path / "a" / "config.json").exists()


def test_stage2_from_what_is_no_finished_first_stage(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a training run"):
        stage2(train_cache, train_cache, tmp_path / "a")
    with pytest.raises(InputError, match="which one"):
        stage2(train_cache, None, tmp_path / "a")
    stage2(train_cache, stage1_run, tmp_path / "second", steps=1)
    with pytest.raises(InputError, match="this is a stage2 run"):
        stage2(train_cache, tmp_path / "second", tmp_path / "a")
    stage1(train_cache, tmp_path / "half", progress=StopAfter(1))
    with pytest.raises(InputError, match="has not ended"):
        stage2(train_cache, tmp_path / "half", tmp_path / "a")


def test_a_first_stage_that_does_not_fit(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)does not fit.*width.*192, here 384"):
        stage2(train_cache, stage1_run, tmp_path / "a", student="vit_small")
    smaller = write_cache(tmp_path / "other", size=48)
    with pytest.raises(InputError, match=r"(?s)pixels: \(64, 64\), here \(48, 48\)"):
        stage2(smaller, stage1_run, tmp_path / "a")


def test_settings_that_would_do_nothing_in_stage2(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)does not fit.*standardise: False, here True"):
        stage2(train_cache, stage1_run, tmp_path / "a", standardise=True)
    with pytest.raises(InputError, match="does not begin from a run"):
        stage2(train_cache, stage1_run, tmp_path / "a", encoder="scratch")


def test_clips_too_short_for_a_segment(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="long enough"):
        stage2(train_cache, stage1_run, tmp_path / "a", segment=60)


def test_a_new_run_over_an_old_one_and_over_foreign_files(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already holds a run"):
        stage1(train_cache, stage1_run)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not a run"):
        stage1(train_cache, tmp_path / "a")


def test_a_run_begun_with_a_relative_path_is_resumed_from_anywhere(
    train_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(train_cache.parent)
    stage1(Path(train_cache.name), tmp_path / "a", progress=StopAfter(1))
    monkeypatch.chdir(tmp_path)
    assert train(Request(stage="stage1", out=tmp_path / "a", resume=True), QUIET).state.ended == "steps"


@pytest.mark.parametrize("changes", [{"lr": 0.1}, {"seed": 4}, {"depth": 2}, {"batch_size": 16}], ids=str)
def test_a_resumed_run_with_other_options(train_cache: Path, stage1_run: Path, changes: dict[str, Any]) -> None:
    name = next(iter(changes))
    with pytest.raises(InputError, match=f"(?s)other options.*{name}: run .*, asked "):
        stage1(train_cache, stage1_run, resume=True, **changes)


def test_a_resumed_run_with_fewer_steps_than_it_has_made(train_cache: Path, stage1_run: Path) -> None:
    with pytest.raises(InputError, match="past step 4 already"):
        stage1(train_cache, stage1_run, resume=True, steps=4)


def test_a_resumed_run_of_the_other_stage(train_cache: Path, stage1_run: Path) -> None:
    with pytest.raises(InputError, match="This is a stage1 run"):
        stage2(train_cache, stage1_run, stage1_run, resume=True)


def test_a_resumed_run_on_another_cache(stage1_run: Path, tmp_path: Path) -> None:
    other = write_cache(tmp_path / "other", unit_rows=48)
    with pytest.raises(InputError, match=r"(?s)other data.*cache 1: plan"):
        stage1(other, stage1_run, resume=True)


def test_a_resumed_run_needs_no_option_repeated(train_cache: Path, tmp_path: Path) -> None:
    stage1(train_cache, tmp_path / "a", progress=StopAfter(2))
    done = train(Request(stage="stage1", out=tmp_path / "a", resume=True), QUIET)
    assert done.state.step == SMALL["steps"]


def test_caches_that_cannot_be_mixed(train_cache: Path, tmp_path: Path) -> None:
    twice = Request(stage="stage1", out=tmp_path / "a", caches=(train_cache, train_cache), settings=SMALL)
    with pytest.raises(InputError, match="given twice"):
        train(twice, QUIET)
    smaller = write_cache(tmp_path / "other", size=48)
    mixed = Request(stage="stage1", out=tmp_path / "a", caches=(train_cache, smaller), settings=SMALL)
    with pytest.raises(InputError, match=r"(?s)cannot be mixed.*frames is"):
        train(mixed, QUIET)


def test_two_caches_are_mixed(train_cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(train_cache, copy)
    request = Request(stage="stage1", out=tmp_path / "a", caches=(train_cache, copy), settings={**SMALL, "steps": 2})
    from frame.train.run_folder import read_config

    train(request, QUIET)
    assert read_config(tmp_path / "a")["segments_per_epoch"] == 12


def test_a_recipe_for_other_caches(train_cache: Path, tmp_path: Path) -> None:
    request = Request(stage="stage1", out=tmp_path / "a", caches=(train_cache,), recipe="s16-kinetics", settings=SMALL)
    with pytest.raises(InputError, match=r"(?s)for other caches.*kinetics.*400 pixels, these have 64"):
        train(request, QUIET)
