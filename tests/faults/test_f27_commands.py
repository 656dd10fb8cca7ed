"""F27 through the commands: a build with real Ray into an object store, and a training from it, over connections that
break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import s3_server
import torch
from forge import Forge
from s3_server import BUCKET, Way, at_random, calm
from small_runs import SMALL, assert_same_run
from tally import Fault
from test_stages import QUIET, TEACHER, make, run, tree

from frame.pipeline.commands import info_command, verify_command, view_command
from frame.pipeline.prepare import resume
from frame.pipeline.store import open_cache
from frame.pipeline.store.finish import finish
from frame.pipeline.store.objects import ObjectPath, names_below
from frame.train.batches import SegmentReader, Steps
from frame.train.windows import Segment, WindowPlan, WindowShape, find_spans, fitting

PLAN = ("--teachers", TEACHER, "--weights", "random", "--size", "64", "--unit-rows", "24", "--batch-rows", "8")
COLUMNS = ("frames", "test_vit.patch", "other.cls")


def command(forge: Forge, *arguments: object, **how: Any) -> Any:
    """What it printed. It takes the way to the server from this process's environment."""
    done = forge.run(*arguments, "--json", seconds=280, **how)
    assert done.returncode == 0, done.stderr + done.stdout
    said = done.stderr + done.stdout
    assert "Traceback" not in said
    assert s3_server.SECRET not in said
    return json.loads(done.stdout)


@pytest.fixture
def uploaded(train_cache: Path, way: Way) -> ObjectPath:
    """The cache that trainings of the tests use, in the object store."""
    way.begin(calm)
    there = ObjectPath(BUCKET, "train/cache")
    if not names_below(there):
        for name, data in tree(train_cache).items():
            (there / name).write_bytes(data)
    return there


def segments(cache: Path | ObjectPath, seed: int) -> list[Segment]:
    shape = WindowShape(windows=2, past=3, future=1)
    spans = fitting(find_spans(open_cache(cache), 0, COLUMNS, splits_wanted="train", seed=seed), shape)
    return WindowPlan(spans, shape, seed=seed, max_stride=2).segments(0, 6)


@pytest.mark.fault("F27")
def test_training_reads_the_same_batches_over_broken_connections(
    fault: Fault, way: Way, uploaded: ObjectPath, train_cache: Path
) -> None:
    steps = {name: Steps(first=-3, stop=2) for name in COLUMNS}
    disk = SegmentReader([open_cache(train_cache)], steps)
    for seed in range(fault.count(4)):
        with fault.trial(seed) as trial:
            way.begin(at_random(seed, 0.3))
            there = SegmentReader([open_cache(uploaded)], steps)
            for segment in segments(uploaded, seed):
                one, other = disk.read([segment]), there.read([segment])
                trial.undetected += any(not torch.equal(one.columns[name], other.columns[name]) for name in COLUMNS)
            assert way.broken


@pytest.mark.fault("F27")
def test_the_command_trains_over_broken_connections(
    fault: Fault, way: Way, uploaded: ObjectPath, stage1_run: Path, forge: Forge, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = [f"{name}={value}" for name, value in SMALL.items() if name not in ("workers", "log")]
    options = [part for text in settings for part in ("--set", text)]
    with fault.trial(0) as trial:
        way.begin(at_random(0, 0.15))
        arguments = ("stage1", "--cache", uploaded, "--out", out, *options, "--workers", "1", "--log", "none")
        command(forge, *arguments, program="train")
        assert way.broken
        trial.undetected += not _same(out, stage1_run)
    record = json.loads((out / "config.json").read_text())
    assert [entry["path"] for entry in record["caches"]] == [str(uploaded)]


def _same(one: Path, other: Path) -> bool:
    try:
        assert_same_run(one, other)
    except AssertionError:
        return False
    return True


@pytest.mark.fault("F27")
def test_the_commands_build_and_repair_over_broken_connections(
    fault: Fault, way: Way, clips: Path, forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ObjectPath(BUCKET, "ray/cache")
    run(make(clips, tmp_path / "calm"))
    assert finish(tmp_path / "calm", tmp=tmp_path) == 0
    expected = tree(tmp_path / "calm")
    with fault.trial(1) as trial:
        way.begin(at_random(1, 0.1))
        arguments = ("build", "--dataset", "folder", "--source", clips, "--out", there, *PLAN)
        outcome = command(forge, *arguments, "--workers", 1, "--max-failures", 1)
        assert way.broken
        assert (outcome["cache"], outcome["units_missing"]) == (str(there), 0)
        way.begin(calm)
        trial.lost += content(there) != expected
    with fault.trial(2) as trial:  # a unit is gone: it is made again, from what is remembered of the sources
        (there / "receipts/000001.json").unlink()
        (there / "frames/c/1/0/0/0").unlink()
        assert verify_command(there, rows=0, source=None, weights=(), seed=0, as_json=False) == 1
        assert f"frame-cache build {there}" in capsys.readouterr().out
        way.begin(at_random(2, 0.2))
        with trial.recovering():
            run(resume(there, progress=QUIET), [1])
            assert finish(there, tmp=tmp_path) == 0
        way.begin(calm)
        trial.lost += content(there) != expected
    assert verify_command(there, rows=0, source=None, weights=(), seed=0, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == str(there)
    info_command(there, as_json=False)
    assert capsys.readouterr().out.startswith(f"{there}\n")
    view_command(there, out=tmp_path / "page.html", clips=2, seed=0)
    beside = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(beside) == 2  # where the sources lie, and how long it took
    page = (tmp_path / "page.html").read_bytes()
    for secret in (s3_server.SECRET, s3_server.KEY_ID):
        assert not [data for data in (*beside, *expected.values(), page) if secret.encode() in data]


def content(root: ObjectPath) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in names_below(root)}
