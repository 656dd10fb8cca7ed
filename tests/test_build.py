"""A whole build by the command, with real Ray. Those that are killed are in tests/faults."""

from __future__ import annotations

from pathlib import Path

from forge import Forge
from test_stages import TEACHER

PLAN = ("--teachers", TEACHER, "--weights", "random", "--size", "64", "--unit-rows", "24", "--batch-rows", "8")
RUN = ("--workers", "1", "--max-failures", "1")


def test_an_interrupted_build_waits_for_the_threads_of_ray_data(clips: Path, forge: Forge, tmp_path: Path) -> None:
    """One that still used Ray while its session ends would now and then end this process, silently, with code 1."""
    arguments = ("build", "--dataset", "folder", "--source", clips, "--out", tmp_path / "cache", *PLAN, *RUN)
    done = forge.run(*arguments, hook="hooks:interrupted_in_a_slow_loop", seconds=100)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.index("the loop ended") < done.stderr.index("the session ends")
