"""``frame.train.run``: whole trainings on a real small cache."""

from __future__ import annotations

import itertools
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import StopAfter, assert_same_run, figures, last, stage1, stage2

from frame.manifests.errors import InputError
from frame.model import FrameEncoder
from frame.train.checkpoint import FOLDER, checkpoint_steps
from frame.train.run_folder import read_config, read_metrics
from frame.train.update import Updater


def test_a_run_leaves_its_folder_whole(stage1_run: Path) -> None:
    names = {path.name for path in stage1_run.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "checkpoints", "encoder", "curves.png"}
    record = read_config(stage1_run)
    assert record["settings"]["lr"] > 0
    assert record["settings"]["segment"] == 1
    assert sum(record["parameters"].values()) > 100_000
    lines = read_metrics(stage1_run)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["kind"] == "val"
    assert lines[0]["step"] == 0
    assert {"patch", "cls", "patch_cosine", "cls_cosine"} <= lines[0].keys()
    assert (stage1_run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_losses_fall(train_cache: Path, tmp_path: Path) -> None:
    stage1(train_cache, tmp_path / "a", steps=30, lr=2e-3, eval_every=30)
    validations = [line for line in read_metrics(tmp_path / "a") if line["kind"] == "val"]
    assert validations[-1]["patch"] < 0.8 * validations[0]["patch"]
    assert validations[-1]["cls"] < 0.8 * validations[0]["cls"]


def test_the_exported_encoder_is_the_best_checkpoints(stage1_run: Path) -> None:
    best = last(stage1_run).state["run"]["best_step"]
    exported = FrameEncoder.from_pretrained(stage1_run).state_dict()
    from frame.train.checkpoint import load_checkpoint

    kept = load_checkpoint(stage1_run, best).model
    assert {f"encoder.{name}" for name in exported} == set(kept)
    assert all(torch.equal(value, kept[f"encoder.{name}"]) for name, value in exported.items())


def test_an_interrupt_at_the_keyboard_saves_too(train_cache: Path, tmp_path: Path) -> None:
    outcome = stage1(train_cache, tmp_path / "a", progress=StopAfter(1, signal.SIGINT))
    assert outcome.exit_code == 130
    assert checkpoint_steps(tmp_path / "a")[-1] == 2


def test_accumulation_gives_the_step_of_the_whole_batch(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    stage1(train_cache, tmp_path / "a", accumulate=4)
    for mine, whole in zip(figures(tmp_path / "a"), figures(stage1_run), strict=True):
        assert mine["patch"] == pytest.approx(whole["patch"], rel=2e-3)
        assert mine["cls"] == pytest.approx(whole["cls"], rel=2e-3)


def test_a_longer_run_goes_on_where_a_shorter_ended(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    stage1(train_cache, tmp_path / "a", steps=4)
    stage1(train_cache, tmp_path / "a", steps=6, resume=True)
    mine, whole = (last(run).model for run in (tmp_path / "a", stage1_run))
    assert all(torch.equal(mine[name], whole[name]) for name in whole)


def test_validation_does_not_depend_on_the_size_of_batches(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    stage1(train_cache, tmp_path / "a", steps=1, batch_size=3, val_segments=2)
    mine, whole = figures(tmp_path / "a")[0], figures(stage1_run)[0]
    assert all(mine[name] == pytest.approx(whole[name], rel=1e-5, abs=1e-6) for name in ("patch", "cls", "cls_cosine"))


def test_resuming_a_run_that_has_ended_changes_nothing(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "a"
    shutil.copytree(stage1_run, run)
    stage1(train_cache, run, resume=True)
    assert_same_run(run, stage1_run)


def test_as_many_steps_as_are_behind_end_a_run(train_cache: Path, tmp_path: Path) -> None:
    stage1(train_cache, tmp_path / "a", progress=StopAfter(3))
    outcome = stage1(train_cache, tmp_path / "a", steps=4, resume=True)
    assert (outcome.state.ended, outcome.state.step) == ("steps", 4)
    assert (tmp_path / "a" / "encoder" / "config.json").exists()


def test_a_run_that_only_gets_worse_exports_its_beginning(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    outcome = stage2(train_cache, stage1_run, tmp_path / "a", steps=6, lr=50.0, clip=0.0, eval_every=2)
    assert outcome.state.best_step == 0
    exported, began = FrameEncoder.from_pretrained(tmp_path / "a"), FrameEncoder.from_pretrained(stage1_run)
    assert torch.equal(exported.spatial.head.weight, began.spatial.head.weight)
    assert exported.memory is not None
    assert not exported.memory.layers[0].proj.weight.any()


def test_a_small_batch_makes_small_segments(train_cache: Path, stage1_run: Path, tmp_path: Path) -> None:
    stage2(train_cache, stage1_run, tmp_path / "a", steps=1, batch_size=4, segment=0)
    settings = read_config(tmp_path / "a")["settings"]
    assert (settings["batch_size"], settings["segment"]) == (4, 4)


def test_a_resumed_run_never_drops_its_last_intact_checkpoint(train_cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "a"
    stage1(train_cache, run, checkpoint_every=1, eval_every=100, progress=StopAfter(4))
    for step in checkpoint_steps(run)[-2:]:
        if step > 4:
            (run / FOLDER / f"{step:08d}" / "model.safetensors").write_bytes(b"")
    stage1(train_cache, run, checkpoint_every=1, eval_every=100, resume=True, progress=StopAfter(0))
    assert stage1(train_cache, run, resume=True, eval_every=100).state.ended == "steps"


def test_early_stopping_ends_a_run_that_no_longer_improves(train_cache: Path, tmp_path: Path) -> None:
    outcome = stage1(train_cache, tmp_path / "a", steps=60, lr=1e-9, eval_every=1, patience=2)
    assert outcome.state.ended == "early"
    assert outcome.state.step < 60
    assert outcome.state.best_step is not None
    assert outcome.state.step - outcome.state.best_step == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling": "none"},
        {"scaling": "gradient"},
        {"cls_loss": "mse"},
        {"loss_dropout": 0.5},
        {"standardise": True},
        {"optimizer": "adamw"},
        {"spatial_depth": 2},
        {"clip": 0.0},
    ],
    ids=str,
)
def test_every_ablation_of_stage1_trains_and_changes_the_outcome(
    train_cache: Path, stage1_run: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    stage1(train_cache, tmp_path / "a", steps=3, **changes)
    assert figures(tmp_path / "a")[-1] != [line for line in figures(stage1_run) if line["step"] == 3][-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_frames": 1},
        {"memory_frames": 7},
        {"memory_frames": 0},
        {"memory_layers": 2},
        {"anticipation": False},
        {"encoder": "finetune"},
        {"future_weight": 0.25},
        {"future_spatial": 1, "future_semantic": 8},
        {"scaling": "gradient"},
        {"scaling": "gradient", "memory_frames": 0},
        {"share": 0.5},
    ],
    ids=str,
)
def test_every_ablation_of_stage2_trains(
    train_cache: Path, stage1_run: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    stage2(train_cache, stage1_run, tmp_path / "a", steps=2, **changes)
    lines = [line for line in figures(tmp_path / "a") if line["kind"] == "train"]
    names = {"patch", "cls", "future_patch", "future_cls"} & lines[0].keys()
    assert ("future_patch" in names) == (changes.get("anticipation") is not False)
    assert all(math.isfinite(line[name]) for line in lines for name in names)


def test_stage2_from_scratch_needs_no_first_stage(train_cache: Path, tmp_path: Path) -> None:
    columns = {"spatial": "test_vit.patch", "semantic": "other.cls", "student": "vit_tiny", "depth": 1}
    stage2(train_cache, None, tmp_path / "a", steps=2, encoder="scratch", **columns)
    assert FrameEncoder.from_pretrained(tmp_path / "a").memory is not None


def test_stage2_starts_exactly_at_stage1_and_leaves_the_encoder_alone(
    train_cache: Path, stage1_run: Path, tmp_path: Path
) -> None:
    stage2(train_cache, stage1_run, tmp_path / "a", steps=3)
    before, after = FrameEncoder.from_pretrained(stage1_run), FrameEncoder.from_pretrained(tmp_path / "a")
    kept = before.vit.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in after.vit.state_dict().items())
    moved = [name for name, value in after.state_dict().items() if name.startswith("memory") and value.any()]
    assert "memory.layers.0.proj.weight" in moved
    first = next(line for line in figures(tmp_path / "a") if line["kind"] == "val")
    without = tmp_path / "without"
    stage2(train_cache, stage1_run, without, steps=1, memory_frames=0)
    untrained = next(line for line in figures(without) if line["kind"] == "val")
    assert first["patch"] == pytest.approx(untrained["patch"], rel=1e-6)
    assert first["future_patch"] == pytest.approx(untrained["future_patch"], rel=1e-6)


def test_a_loss_that_is_no_number_stops_before_the_update_and_names_the_rows(
    train_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Updater._part, itertools.count()

    def poisoned_from_the_second_step_on(self: Updater, *args: Any, **kwargs: Any) -> Any:
        found = real(self, *args, **kwargs)
        return {**found, "patch": found["patch"] * math.nan} if next(calls) else found

    monkeypatch.setattr(Updater, "_part", poisoned_from_the_second_step_on)
    with pytest.raises(InputError, match="infinite or no number") as caught:
        stage1(train_cache, tmp_path / "a", checkpoint_every=1)
    assert "clip_0" in caught.value.where
    assert "patch" in caught.value.why
    assert checkpoint_steps(tmp_path / "a") == [0, 1]
    assert [line["step"] for line in read_metrics(tmp_path / "a") if line["kind"] == "train"] == [1]


def test_a_damaged_shard_stops_training_with_its_name(train_cache: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(train_cache, cache)
    for shard in sorted((cache / "test_vit.patch" / "c").rglob("*")):
        if shard.is_file():
            data = bytearray(shard.read_bytes())
            data[len(data) // 3] ^= 16
            shard.write_bytes(data)
    with pytest.raises(InputError, match="damaged") as caught:
        stage1(cache, tmp_path / "a", steps=30)
    assert "test_vit.patch" in caught.value.where


def test_a_run_that_has_only_its_first_checkpoint_goes_on_from_it(
    train_cache: Path, stage1_run: Path, tmp_path: Path
) -> None:
    stage1(train_cache, tmp_path / "a", progress=StopAfter(0), checkpoint_every=1)
    shutil.rmtree(tmp_path / "a" / FOLDER / "00000001")
    stage1(train_cache, tmp_path / "a", resume=True)
    assert_same_run(tmp_path / "a", stage1_run)
