"""``frame-train`` as a person meets it. What only looks at a command's end and its words is forked (see ``forge``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forge import Forge
from small_runs import SMALL, last, stage2

from frame.model import FrameEncoder
from frame.train.run_folder import read_metrics

OPTIONS = [
    *("--student", "vit_tiny", "--spatial", "test_vit.patch", "--semantic", "other.cls"),
    *("--batch-size", "8", "--set", "depth=1", "--set", "val_segments=2"),
]


def frame_train(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command, started for real."""
    code = "from frame.train.cli import main; main()"
    words = [sys.executable, "-W", "error::RuntimeWarning", "-c", code, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **more})


def forked(forge: Forge, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forge.run(*arguments, program="train", hook="hooks:strict", whole=False)


def test_importing_the_rooms_brings_no_teacher() -> None:
    code = (
        "import sys, frame.train, frame.model, frame.train.cli, frame.train.commands; "
        "print([n for n in ('ray', 'decord', 'open_clip', 'frame.pipeline.teachers', 'av') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_error_in_the_midst_ends_the_process_and_its_readers(
    train_cache: Path, forge: Forge, tmp_path: Path
) -> None:
    arguments = ["stage1", "--cache", str(train_cache), *OPTIONS, "--steps", "50", "--workers", "2", "--log", "none"]
    done = forge.run(*arguments, "--out", str(tmp_path / "a"), program="train", hook="hooks:poisoned")
    assert done.returncode == 1
    assert "infinite or no number" in done.stderr


def test_errors_are_one_screen(train_cache: Path, forge: Forge, tmp_path: Path) -> None:
    done = forked(forge, "stage1", "--cache", str(train_cache), "--out", str(tmp_path / "a"), "--spatial", "dino")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "other.patch, test_vit.patch" in done.stderr
    as_json = forked(forge, "stage1", "--cache", str(tmp_path), "--out", str(tmp_path / "a"), "--json")
    assert "no cache here" in json.loads(as_json.stdout)["error"]["what"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "depth"], "NAME=VALUE"),
        (["--set", "depth=1", "--set", "depth=2"], "twice"),
        (["--precision", "fp8"], "fp8"),
    ],
)
def test_wrong_use_exits_with_2(forge: Forge, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = forked(forge, "stage1", "--out", str(tmp_path / "a"), *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_recipes_and_settings_are_listed(forge: Forge) -> None:
    assert "s16-kinetics-ego4d" in forked(forge, "recipes").stdout
    assert "memory_frames" in forked(forge, "settings").stdout


def test_the_installed_command_prints_and_ends_with_its_exit_code() -> None:
    installed = str(Path(sys.executable).with_name("frame-train"))
    done = subprocess.run([installed, "recipes"], capture_output=True, text=True, check=True)
    assert "s16-kinetics-ego4d" in done.stdout
    wrong = subprocess.run([installed, "stage1", "--nope"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_a_run_is_exported_as_programs_that_give_the_same(
    train_cache: Path, stage1_run: Path, forge: Forge, tmp_path: Path
) -> None:
    stage2(train_cache, stage1_run, tmp_path / "second", steps=2)
    done = forked(forge, "export", str(tmp_path / "second"), "--out", str(tmp_path / "programs"), "--height", "32")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "programs").iterdir()} == {"frame.pt2", "step.pt2"}
    program = torch.export.load(tmp_path / "programs" / "frame.pt2").module()
    frames = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = FrameEncoder.from_pretrained(stage1_run).vit(frames)
    torch.testing.assert_close(program(frames)[0], expected[:, 0], rtol=1e-4, atol=1e-4)
    wrong = forked(forge, "export", str(stage1_run), "--out", str(tmp_path / "programs"), "--height", "33")
    assert "32 x 64" in wrong.stderr


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_trackers_write_into_the_run(train_cache: Path, tmp_path: Path, tracker: str) -> None:
    arguments = ["stage1", "--cache", str(train_cache), "--out", str(tmp_path / "a"), *OPTIONS, "--steps", "2"]
    done = frame_train(*arguments, "--log", tracker, "--workers", "0", "--json", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["step"] == 2
    files = [path for path in (tmp_path / "a" / "trackers").rglob("*") if path.is_file()]
    assert any(("tfevents" in path.name) if tracker == "tensorboard" else path.suffix == ".wandb" for path in files)


def test_two_ranks_train_as_one(train_cache: Path, forge: Forge, tmp_path: Path) -> None:
    """Two real processes under torch's launcher with gloo: the same windows, gradients averaged, one run folder."""
    arguments = ["stage1", "--cache", str(train_cache), *OPTIONS, "--steps", "4", "--workers", "0", "--log", "none"]
    one = forked(forge, *arguments, "--out", str(tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    # Without the two dashes torch's launcher takes `--log` for one of its own options.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    two = subprocess.run(
        [*launch, "frame.train.cli", *arguments, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert two.returncode == 0, two.stderr[-3000:]
    mine, theirs = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")
    assert [(line["kind"], line["step"]) for line in mine] == [(line["kind"], line["step"]) for line in theirs]
    for a, b in zip(mine, theirs, strict=True):
        assert a["patch"] == pytest.approx(b["patch"], rel=1e-4)
        assert a["cls"] == pytest.approx(b["cls"], rel=1e-4)
    a_model, b_model = last(tmp_path / "one").model, last(tmp_path / "two").model
    difference = max(float((a_model[name] - b_model[name]).abs().max()) for name in a_model)
    assert difference < 1e-3
    assert SMALL["batch_size"] == 8
