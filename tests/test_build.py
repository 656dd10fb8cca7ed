"""A whole build by the command, with real Ray. Those that are killed are in tests/faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from test_stages import TEACHER

PLAN = ("--teachers", TEACHER, "--weights", "random", "--size", "64", "--unit-rows", "24", "--batch-rows", "8")
RUN = ("--workers", "1", "--max-failures", "1")


def test_an_interrupted_build_waits_for_the_threads_of_ray_data(clips: Path, tmp_path: Path) -> None:
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
    arguments = ("build", "--dataset", "folder", "--source", clips, "--out", tmp_path / "cache", *PLAN, *RUN)
    called = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(called, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.index("the loop ended") < done.stderr.index("the session ends")
