"""F02: workers of a running build are killed, by themselves at chosen units and from outside at random."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

import pytest
import striking
from forge import Command, Forge
from ray_builds import UNITS, committed, differences, fresh, kill, left_of, session_of, wait_for_units, workers_of
from tally import Fault, Trial

ROUND = 6  # kills in one build
FROM_OUTSIDE = 2


def strike(folder: Path, rng: random.Random) -> None:
    """Order the kills of one build, each at a unit of its own: in every stage; before, during and after the work."""
    (folder / "careless").mkdir(parents=True)
    # The control wants a write that is certain to be made twice, and one struck during it may be done by then.
    orders = [each for each in permutations(striking.WHEN) if each[striking.STAGES.index("write")] != "during"]
    chosen = list(zip(striking.STAGES, rng.choice(orders), strict=True))
    others = {(stage, when) for stage in striking.STAGES for when in striking.WHEN} - {*chosen}
    chosen += rng.sample(sorted(others), ROUND - FROM_OUTSIDE - len(chosen))
    for (stage, when), unit in zip(chosen, rng.sample(range(UNITS), len(chosen)), strict=True):
        striking.order(folder, stage, unit, when)


def kill_any(command: Command, path: Path, rng: random.Random) -> None:
    """Kill one worker or another, once a few units are committed."""
    for _ in range(FROM_OUTSIDE):
        assert wait_for_units(command, path, committed(path) + 1), command.said
        if workers := workers_of(command.pid):
            kill(rng.choice(workers))


@pytest.mark.fault("F02")
@pytest.mark.timeout(600)
def test_killed_workers_change_nothing(
    fault: Fault, ray_source: Path, ray_calm: Path, forge: Forge, tmp_path: Path
) -> None:
    for first in range(0, fault.count(ROUND), ROUND):
        rng = random.Random(first)
        path, folder = tmp_path / f"cache-{first}", tmp_path / f"strikes-{first}"
        strike(folder, rng)
        with ExitStack() as stack:
            trials = [stack.enter_context(fault.trial(first + number)) for number in range(ROUND)]
            command = forge.start(*fresh(ray_source, path), hook="striking:install", folder=str(folder))
            kill_any(command, path, rng)
            session = session_of(command.pid)
            _judge(command, trials, ray_calm, path)
            trials[0].hung += left_of(session, command.pid)
            assert striking.pending(folder) == []
        careless = Counter(int(file.name.partition("-")[0]) for file in (folder / "careless").iterdir())
        fault.control(
            caught=careless.keys() == set(range(UNITS)) and max(careless.values()) > 1,
            why="a stage that writes a file for each attempt, and so some units twice",
        )


def _judge(command: Command, trials: list[Trial], calm: Path, path: Path) -> None:
    code = command.wait()
    trials[0].hung += code is None
    assert code == 0, command.said
    for trial in trials:
        trial.lost += len(differences(calm, path))
        trial.duplicated += command.outcome["units_made"] != UNITS
