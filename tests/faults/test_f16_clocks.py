"""F16: a build whose clock is wrong, jumps or goes back, over files of any date, makes the same bytes."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray_builds import differences
from tally import Fault
from test_stages import QUIET, make, run

from frame.pipeline.build import finish
from frame.pipeline.prepare import resume
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.verify import check_units

DAY, IN_2100 = 86400.0, 4102444800.0
_RNG = random.Random(0)
CLOCKS: dict[str, Callable[[float], float]] = {
    "a day ahead": lambda now: now + DAY,
    "a day behind": lambda now: now - DAY,
    "in 1970": lambda now: now % 100.0,
    "in 2100": lambda now: IN_2100 + now % 100.0,
    "going back": lambda now: 2e9 - now,
    "jumping": lambda now: now + _RNG.uniform(-DAY, DAY),
}
STORES = ("zarr", "webdataset")


@contextmanager
def clock(shown: Callable[[float], float]) -> Iterator[None]:
    """Everything that asks this process what time it is gets what is ``shown``."""
    real, local, utc = time.time, time.localtime, time.gmtime

    def now() -> float:
        return shown(real())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", now)
        patch.setattr(time, "time_ns", lambda: int(now() * 1e9))
        patch.setattr(time, "localtime", lambda *given: local(*(given or (now(),))))
        patch.setattr(time, "gmtime", lambda *given: utc(*(given or (now(),))))
        yield


def date_files(folder: Path) -> None:
    """Give every file and folder another date, from 1970 to 2100."""
    for path, second in zip(sorted(folder.rglob("*")), itertools.cycle((0, int(IN_2100), 1_000_000_000)), strict=False):
        os.utime(path, (second, second))


def some(clips: Path, out: Path, store: str) -> Any:
    return make(clips, out, store=store, limit=3, unit_rows=16)


@pytest.fixture(scope="module")
def calm(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The cache that a calm clock makes, in each store."""
    made = {}
    for store in STORES:
        made[store] = tmp_path_factory.mktemp("calm") / "cache"
        run(some(clips, made[store], store))
        assert finish(made[store], tmp=tmp_path_factory.mktemp("tmp")) == 0
    return made


@pytest.mark.fault("F16")
def test_no_clock_and_no_date_is_in_the_outcome(
    fault: Fault, clips: Path, calm: dict[str, Path], tmp_path: Path
) -> None:
    """Half of a cache is built and resumed under such a clock, over files that were dated anew in between."""
    for seed in range(fault.count(len(CLOCKS), most=len(CLOCKS) * len(STORES))):
        shown, store = list(CLOCKS.values())[seed % len(CLOCKS)], STORES[(seed + seed // len(CLOCKS)) % len(STORES)]
        path = tmp_path / str(seed)
        with fault.trial(seed) as trial, clock(shown):
            run(some(clips, path, store), [0])
            date_files(path)
            with trial.recovering():
                resumed = resume(path, progress=QUIET)
                states = check_units(resumed.cache, resumed.cache.expected_units, deep=True)
                missing = [state.unit for state in states if state.broken_columns]
                assert 0 < len(missing) < len(states)
                run(resumed, missing)
                with writer_folder(path) as tmp:
                    assert finish(path, tmp=tmp) == 0
            trial.lost += len(differences(calm[store], path))


@pytest.mark.fault("F16")
def test_a_date_in_a_receipt_would_be_noticed(
    fault: Fault, clips: Path, calm: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frame.pipeline import write_stage

    honest = write_stage.unit_data

    def dated(block: Any) -> Any:
        data = honest(block)
        for software in data.software.values():
            software["built"] = str(time.time())
        return data

    monkeypatch.setattr(write_stage, "unit_data", dated)
    path = tmp_path / "cache"
    run(some(clips, path, "zarr"))
    with writer_folder(path) as tmp:
        finish(path, tmp=tmp)
    fault.control(caught=differences(calm["zarr"], path) != [], why="the time of the build in its receipts")
