"""Whole builds by the command, with real Ray, killed and doubled on the way. Few, because each start takes seconds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_videos import write_folder
from test_stages import TEACHER, make, run, tree

from frame.pipeline.build import finish

KILLS = int(os.environ.get("FRAME_KILLS", "3"))
PLAN = ("--teachers", TEACHER, "--weights", "random", "--size", "64", "--unit-rows", "24", "--batch-rows", "8")
RUN = ("--workers", "1", "--max-failures", "1")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "frame.pipeline.cli", *map(str, arguments)]


def frame_cache(*arguments: str | Path, code: int = 0) -> Any:
    done = subprocess.run(command(*arguments, "--json"), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 260 frames in a dozen units."""
    return write_folder(tmp_path_factory.mktemp("source"), [20, 24, 30, 11, 22, 7, 24, 18, 60, 24, 20], bad=1)


@pytest.fixture(scope="module")
def calm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that the stages make one after the other in this process, without Ray, undisturbed."""
    path = tmp_path_factory.mktemp("calm") / "cache"
    run(make(source, path))
    assert finish(path, tmp=tmp_path_factory.mktemp("tmp")) == 0
    return path


def differences(a: Path, b: Path) -> list[str]:
    one, two = tree(a), tree(b)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def test_killed_and_resumed_is_the_same_as_undisturbed(source: Path, calm: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    build = command("build", "--dataset", "folder", "--source", source, "--out", path, *PLAN, *RUN)
    rng = random.Random(0)
    for number in range(KILLS):
        victim = subprocess.Popen(build, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        # Each time once a few more units are committed, at an odd moment after that; the first time by Ctrl-C.
        _wait(victim, path, receipts=1 + (number * 10) // KILLS)
        time.sleep(rng.random() * 0.2)
        if number:
            victim.kill()
            victim.communicate(timeout=60)
        else:
            victim.send_signal(signal.SIGINT)
            _, said = victim.communicate(timeout=60)
            assert victim.returncode == 130, said
            assert f"frame-cache build {path}" in said
            assert "Traceback" not in said
            assert not (path / "tmp").exists()
        build = command("build", path, *RUN)
    outcome = frame_cache(*build[3:])
    assert outcome["failed"].keys() == {"text_00"}
    assert (outcome["clips"], outcome["units_missing"]) == (12, 0)
    assert set(outcome["stage_seconds"]) >= {"decode", "teacher", "encode", "write"}
    assert differences(calm, path) == []


def _wait(process: subprocess.Popen[str], path: Path, *, receipts: int) -> None:
    folder = path / "receipts"
    while process.poll() is None:
        if folder.is_dir() and len(list(folder.iterdir())) >= receipts:
            return
        time.sleep(0.01)


def test_two_builds_at_once_end_like_one(source: Path, calm: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    build = command("build", "--dataset", "folder", "--source", source, "--out", path, *PLAN, *RUN)
    both = [subprocess.Popen(build, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said.decode()
    assert differences(calm, path) == []


def test_an_interrupted_build_waits_for_the_threads_of_ray_data(source: Path, tmp_path: Path) -> None:
    """One that still used Ray while its session ends would now and then end this process, silently, with code 1."""
    code = """
import sys, time
from frame.pipeline import build, cli, ray_pipeline

def interrupted(report):
    raise KeyboardInterrupt

def slowed():
    quiet()
    import ray
    from ray.data._internal.execution.streaming_executor import StreamingExecutor
    step, shutdown = StreamingExecutor._scheduling_loop_step, ray.shutdown
    ray.shutdown = lambda: (print("the session ends", file=sys.stderr, flush=True), shutdown())
    def slow(self, topology):
        more = step(self, topology)
        if self._shutdown:
            time.sleep(3)  # Ray Data waits for two seconds
            print("the loop ended", file=sys.stderr, flush=True)
        return more
    StreamingExecutor._scheduling_loop_step = slow

quiet, ray_pipeline.quiet_ray_data, build._remark = ray_pipeline.quiet_ray_data, slowed, interrupted
cli.main()
"""
    arguments = ("build", "--dataset", "folder", "--source", source, "--out", tmp_path / "cache", *PLAN, *RUN)
    called = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(called, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.index("the loop ended") < done.stderr.index("the session ends")
