"""Windows over random clips, strides and failures, against what the plain lists of the clips admit.

A window is some neighbouring frames of one clip that all can be read; an epoch has exactly as many segments as there
are runs of frames that admit one, times the visits; and what is drawn of a run is all that a closed formula counts.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from store_caches import CLS, LATER, PATCH, Made, add_column, make_cache
from tally import Fault

from frame.train.windows import WindowPlan, WindowShape, find_spans, fitting

PER_CACHE = 15  # examples


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Frames ``[start, stop)`` of a clip in one unit, all of which can be read."""

    clip: str
    start: int
    stop: int

    def count(self, shape: WindowShape, max_stride: int) -> int:
        """How many segments lie in it: for each stride that fits, one for each place of the first frame."""
        length, reach = self.stop - self.start, shape.reach
        return sum(max(length - reach * stride, 0) for stride in range(1, max_stride + 1))


def random_cache(path: Path, rng: random.Random) -> tuple[Made, set[str], set[str]]:
    """A cache of clips of 0 to 40 frames, and which of them failed in the first columns, and in a later one."""
    lengths = [rng.randrange(41) for _ in range(rng.randrange(4, 14))]
    lengths[rng.randrange(len(lengths))] = 40
    failed = [i for i in range(len(lengths)) if rng.random() < 0.2]
    made = make_cache(
        path,
        lengths=lengths,
        failed=failed,
        rows_per_unit=rng.choice([8, 16, 24, 64]),
        store=rng.choice(["zarr", "webdataset"]),
        seed=rng.randrange(1 << 30),
    )
    later = [i for i in range(len(lengths)) if rng.random() < 0.2]
    return add_column(made, failed=later), {f"c{i}" for i in failed}, {f"c{i}" for i in [*failed, *later]}


def runs_of(made: Made, unreadable: set[str]) -> list[Run]:
    """By the plain list of the clips: each clip that did not fail, cut at the edges of the units."""
    size, found = made.meta.rows_per_unit, []
    for clip in made.table.to_pylist():
        if clip["split"] != "train" or clip["clip"] in unreadable:
            continue
        first, end = clip["first_row"], clip["first_row"] + clip["n_frames"]
        edges = [first, *(row for row in range(first + 1, end) if row % size == 0), end]
        found += [Run(clip=clip["clip"], start=a, stop=b) for a, b in itertools.pairwise(edges) if a < b]
    return found


@pytest.mark.fault("F22")
def test_windows_are_those_that_the_clips_admit(fault: Fault, tmp_path: Path) -> None:
    total = fault.count(300)
    for number in range(-(-total // PER_CACHE)):
        made, bad, worse = random_cache(tmp_path / str(number), random.Random(number))
        cache = made.open()
        for seed in range(number * PER_CACHE, min((number + 1) * PER_CACHE, total)):
            rng = random.Random(seed)
            columns, unreadable = ([PATCH, LATER], worse) if rng.random() < 0.5 else (["frames", CLS], bad)
            shape = WindowShape(windows=rng.randint(1, 5), past=rng.randint(0, 6), future=rng.randint(0, 4))
            stride, visits = rng.randint(1, 4), rng.randint(1, 3)
            spans = fitting(find_spans(cache, 0, columns, splits_wanted="train", seed=0), shape)
            runs = [run for run in runs_of(made, unreadable) if run.stop - run.start > shape.reach]
            with fault.trial(seed) as trial:
                mine = [(span.clip, span.start, span.stop) for span in spans]
                trial.lost += mine != [(run.clip, run.start, run.stop) for run in runs]
                if not runs:
                    continue
                plan = WindowPlan(spans, shape, seed=seed, max_stride=stride, visits=visits)
                trial.lost += plan.per_epoch != len(runs) * visits
                faulty = [wrong_windows(plan, runs, rng.randrange(1 << 20)), wrong_counts(plan, runs, rng)]
                trial.undetected += any(faulty)
                assert not any(faulty), faulty


def wrong_windows(plan: WindowPlan, runs: list[Run], epoch: int) -> str:
    """Of an epoch, each window of which has to lie in one run, and each run is visited equally often."""
    shape, visits = plan.shape, dict.fromkeys(runs, 0)
    for segment in plan.segments(epoch * plan.per_epoch, (epoch + 1) * plan.per_epoch):
        (home,) = [run for run in runs if run.start <= segment.first < run.stop]
        visits[home] += 1
        for window in range(segment.windows):
            steps = range(window - shape.past, window + shape.future + 1)
            rows = [segment.row(step) for step in steps if segment.present(step)]
            if set(np.diff(rows)) - {segment.stride} or segment.clip != home.clip:
                return f"{segment}: its rows {rows} are not neighbours"
            if rows[0] < home.start or rows[-1] >= home.stop or len(rows) < shape.future + 1:
                return f"{segment} leaves {home}"
    return "" if set(visits.values()) == {plan.visits} else f"runs are not visited equally often: {visits}"


def wrong_counts(plan: WindowPlan, runs: list[Run], rng: random.Random) -> str:
    """Of the shortest run: what many epochs draw is all that its length admits, and no more."""
    run = min(runs, key=lambda run: run.stop - run.start)
    expected = min(run.count(plan.shape, plan.max_stride), 1000)
    if expected > 12:
        return ""  # drawing them all would take long, and a shorter run will come
    alone = WindowPlan(
        [span for span in plan.spans if span.start == run.start], plan.shape, rng.randrange(1 << 40), plan.max_stride
    )
    drawn = {(segment.stride, segment.first) for segment in alone.segments(0, 400)}
    return "" if len(drawn) == expected else f"{run} admits {expected} segments, {len(drawn)} were drawn"
