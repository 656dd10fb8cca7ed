"""Small real trainings: a cache of moving squares with two real teachers' columns, and runs of a one-block student."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import test_stages
import torch
from small_videos import write_folder

from frame.manifests.progress import Progress, Tick
from frame.train.checkpoint import Checkpoint, checkpoint_steps, load_checkpoint
from frame.train.prepare import Request
from frame.train.run import Outcome, train
from frame.train.run_folder import read_metrics

SIZE = 64
LENGTHS = [24, 30, 21, 26, 40, 22, 25, 28]
TEACHERS = ("timm:test_vit", "other=timm:test_vit")
SMALL: dict[str, Any] = {
    "student": "vit_tiny",
    "depth": 1,
    "spatial": "test_vit.patch",
    "semantic": "other.cls",
    "batch_size": 8,
    "steps": 6,
    "workers": 0,
    "log": "none",
    "val_segments": 2,
}


def write_cache(folder: Path, *, store: str = "zarr", **changes: Any) -> Path:
    """Videos, and a finished cache of them."""
    videos = write_folder(folder / "videos", LENGTHS)
    prepared = test_stages.make(
        videos, folder / "cache", **{"teachers": TEACHERS, "size": SIZE, "unit_rows": 64, "store": store, **changes}
    )
    test_stages.run(prepared)
    return folder / "cache"


class StopAfter(Progress):
    """Sends this process a signal once ``steps`` steps are done; the loop sees it in the next one, then saves."""

    def __init__(self, steps: int, number: int = signal.SIGTERM) -> None:
        super().__init__(quiet=True)
        self._steps, self._number = steps, number

    @contextmanager
    def bar(self, what: str, *, total: int, unit: str) -> Iterator[Tick]:
        del what, total, unit
        done = [0]
        if not self._steps:
            os.kill(os.getpid(), self._number)

        def tick(amount: int = 1, remark: str = "") -> None:
            del remark
            done[0] += amount
            if done[0] == self._steps:
                os.kill(os.getpid(), self._number)

        yield tick


def stage1(
    cache: Path, out: Path, *, progress: Progress | None = None, resume: bool = False, **changes: Any
) -> Outcome:
    """A few steps of stage 1."""
    request = Request(stage="stage1", out=out, caches=(cache,), settings={**SMALL, **changes}, resume=resume)
    return train(request, progress or Progress(quiet=True))


def stage2(
    cache: Path, init: Path | None, out: Path, *, progress: Progress | None = None, resume: bool = False, **changes: Any
) -> Outcome:
    """A few steps of stage 2."""
    given = {name: SMALL[name] for name in ("batch_size", "steps", "workers", "log", "val_segments")}
    settings = {**given, "segment": 4, "max_stride": 2, **changes}
    request = Request(stage="stage2", out=out, caches=(cache,), init=init, settings=settings, resume=resume)
    return train(request, progress or Progress(quiet=True))


def last(run: Path) -> Checkpoint:
    """The newest checkpoint."""
    return load_checkpoint(run, checkpoint_steps(run)[-1])


def figures(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what depends on the clock."""
    timed = ("windows_per_second", "data_wait")
    return [{name: value for name, value in line.items() if name not in timed} for line in read_metrics(run)]


def assert_same_run(a: Path, b: Path) -> None:
    """Losses, parameters and the optimiser's state, to the bit."""
    assert figures(a) == figures(b)
    one, other = last(a), last(b)
    assert (one.step, one.state) == (other.step, other.state)
    for mine, theirs in ((one.model, other.model), (one.optimizer, other.optimizer)):
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
