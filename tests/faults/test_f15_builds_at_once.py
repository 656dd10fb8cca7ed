"""F15: two builds write one cache at the same time, whole, killed, or with another plan."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crews import Crews, complete
from forge import Forge
from ray_builds import ENCODING, PLAN, RUN, differences, fresh
from store_caches import CLS, FIRST_COLUMNS, PATCH, Made, make_cache
from tally import Fault
from test_stages import make

from frame.manifests.errors import InputError

UNITS = list(range(5))
SOON = 0.15  # seconds; about as long as a process takes for its part of a cache


@pytest.fixture(scope="module")
def crews() -> Iterator[Crews]:
    with Crews() as crews:
        yield crews


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A cache of which only the metadata are there, and the same one finished in peace."""

    planned: Made
    calm: Path

    def copy(self, path: Path) -> Path:
        return Path(shutil.copytree(self.planned.path, path))

    def complete(self, path: Path) -> int:
        return complete(path, self.planned)


@pytest.fixture(scope="module", params=["zarr", "webdataset"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    planned, calm = (
        make_cache(tmp_path_factory.mktemp("pair") / "cache", store=request.param, units=()) for _ in range(2)
    )
    complete(calm.path, calm)
    return Pair(planned=planned, calm=calm.path)


def jobs(rng: random.Random, *, tar: bool) -> list[dict[str, Any]]:
    """Two or three writers of one cache: of the same columns or of others, in orders of their own, some killed.

    What lies in one tar file is made together."""
    others = ([["frames", PATCH], [CLS]], [["frames"], [PATCH, CLS], [CLS]])
    parts = [FIRST_COLUMNS, FIRST_COLUMNS] if tar or rng.random() < 0.3 else rng.choice(others)
    return [
        {
            "units": rng.sample(UNITS, len(UNITS)),
            "columns": list(columns),
            "killed": rng.random() * SOON if rng.random() < 0.5 else None,
        }
        for columns in parts
    ]


@pytest.mark.fault("F15")
def test_writers_of_one_cache_lose_nothing_of_each_others(
    fault: Fault, crews: Crews, pair: Pair, tmp_path: Path
) -> None:
    tar = pair.planned.meta.store == "webdataset"
    for seed in range(fault.count(20)):
        path = pair.copy(tmp_path / str(seed))
        crew = jobs(random.Random(seed), tar=tar)
        with fault.trial(seed) as trial:
            codes = crews.run(path, crew)
            assert all(code == 0 or job["killed"] is not None for code, job in zip(codes, crew, strict=True)), codes
            with trial.recovering():
                lacking = pair.complete(path)
            alive = {name for code, job in zip(codes, crew, strict=True) for name in job["columns"] if code == 0}
            trial.lost += lacking if alive >= set(FIRST_COLUMNS) else 0
            trial.lost += len(differences(pair.calm, path))


@pytest.mark.fault("F15")
def test_receipts_written_without_the_lock_lose_columns(fault: Fault, crews: Crews, tmp_path: Path) -> None:
    made = make_cache(tmp_path / "cache", units=())
    common = {"units": UNITS, "killed": None}
    codes = crews.run(made.path, [common | {"columns": ["frames", PATCH]}, common | {"columns": [CLS]}], alone=False)
    assert codes == [0, 0]
    fault.control(caught=complete(made.path, made) > 0, why="receipts read, changed and written without the lock")


@pytest.mark.fault("F15")
def test_another_plan_is_refused_and_the_first_is_unaffected(fault: Fault, ray_source: Path, ray_calm: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in ray_calm.rglob("*")}
    others: list[dict[str, Any]] = [{"size": 32}, {"unit_rows": 48}, {"encoding": "int8"}, {"batch_rows": 4}]
    for seed, changes in enumerate(others):
        with fault.trial(seed) as trial:
            with pytest.raises(InputError, match=r"other options|planned"):
                make(ray_source, ray_calm, **{"encoding": ENCODING, **changes})
            trial.lost += {file: file.stat().st_mtime_ns for file in ray_calm.rglob("*")} != before


@pytest.mark.fault("F15")
@pytest.mark.timeout(600)
def test_three_builds_at_once_end_like_one(
    fault: Fault, ray_source: Path, ray_calm: Path, forge: Forge, tmp_path: Path
) -> None:
    """Two with the same plan, and one that comes with another."""
    for seed in range(fault.count(1)):
        path = tmp_path / str(seed)
        with fault.trial(seed) as trial:
            both = [forge.start(*fresh(ray_source, path)) for _ in range(2)]
            while not (path / "cache.json").exists():
                assert any(command.code is None for command in both), both[0].said
            other = ("build", "--dataset", "folder", "--source", ray_source, "--out", path, *PLAN, *RUN)
            third = forge.start(*other, "--size", "32")
            trial.hung += third.wait() is None
            assert third.code == 1, third.said
            assert "Traceback" not in third.said
            for command in both:
                trial.hung += command.wait() is None
                assert command.code == 0, command.said
            trial.lost += len(differences(ray_calm, path))
