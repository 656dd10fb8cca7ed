"""What is done in the process of a command before it begins (see ``forge``): strictness, and faults put into it."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any, NoReturn


def strict() -> None:
    """As ``python -W error::RuntimeWarning`` does it."""
    warnings.simplefilter("error", RuntimeWarning)


def poisoned() -> None:
    """A training whose third step and those after it have a loss that is no number."""
    from frame.train import update

    strict()
    real, calls = update.not_finite, []

    def not_finite(values: Any) -> list[str]:
        calls.append(0)
        return ["patch"] if len(calls) > 2 else real(values)

    update.not_finite = not_finite


def interrupted_in_a_slow_loop() -> None:
    """A build that is interrupted by its first unit, while Ray Data's own loop takes longer to end than Ray Data waits
    for it. Both ends are said."""
    from frame.pipeline import build, ray_pipeline

    quiet = ray_pipeline.quiet_ray_data

    def interrupted(_: object) -> NoReturn:
        raise KeyboardInterrupt

    def slowed() -> None:
        quiet()
        import ray
        from ray.data._internal.execution.streaming_executor import StreamingExecutor

        step, shutdown = StreamingExecutor._scheduling_loop_step, ray.shutdown

        def slow(self: Any, topology: Any) -> Any:
            more = step(self, topology)
            if self._shutdown:
                time.sleep(3)  # Ray Data waits for two seconds
                print("the loop ended", file=sys.stderr, flush=True)
            return more

        ray.shutdown = lambda: (print("the session ends", file=sys.stderr, flush=True), shutdown())
        StreamingExecutor._scheduling_loop_step = slow

    ray_pipeline.quiet_ray_data, build._remark = slowed, interrupted
