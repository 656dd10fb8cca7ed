"""A machine that only trains has no teachers, no decoders and no Ray: every module of training can be imported there,
and both stages train."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import assert_same_run
from tally import Fault

from frame.train.run_folder import read_metrics

ABSENT = (
    *("ray", "decord", "av", "torchcodec", "open_clip", "transformers", "webdataset"),
    *("frame.pipeline.teachers", "frame.pipeline.decode", "frame.pipeline.teach", "frame.pipeline.decode_stage"),
)
BLOCKED = f"""
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        for absent in {ABSENT}:
            if name == absent or name.startswith(absent + "."):
                raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
"""
EVERYTHING = """
import frame.train, frame.model
for room in (frame.train, frame.model):
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
from frame.train.cli import main
for words in {words}:
    sys.argv = ["frame-train", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def blocked(code: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-W", "error::RuntimeWarning", "-c", BLOCKED + code]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.mark.fault("F24")
@pytest.mark.timeout(1200)
def test_everything_of_training_is_imported_and_both_stages_train(
    fault: Fault, train_cache: Path, stage1_run: Path, tmp_path: Path
) -> None:
    common = ["--cache", str(train_cache), "--batch-size", "8", "--log", "none", "--set", "val_segments=2"]
    first = [*("--student", "vit_tiny", "--set", "depth=1", "--spatial", "test_vit.patch", "--semantic", "other.cls")]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    words = [
        ["stage1", *common, *first, "--out", one, "--steps", "6", "--workers", "1"],
        ["stage2", *common, "--init", one, "--out", two, "--steps", "2", "--workers", "0", "--set", "segment=4"],
    ]
    with fault.trial() as trial:
        done = blocked(EVERYTHING.format(words=words))
        assert done.returncode == 0, done.stderr
        assert "Parameters:" in done.stdout
        trial.lost += [line["step"] for line in read_metrics(tmp_path / "two") if line["kind"] == "train"] != [1, 2]
        assert_same_run(tmp_path / "one", stage1_run)


@pytest.mark.fault("F24")
def test_what_is_blocked_cannot_be_had(fault: Fault) -> None:
    done = blocked("from frame.pipeline.teachers import load_teacher")
    fault.control(caught="frame.pipeline.teachers is blocked" in done.stderr, why="a teacher that is imported")
