"""F03, F04: the process that runs a build is killed, alone or with all of its session, and the build goes on."""

from __future__ import annotations

import random
import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from forge import Command, Forge
from ray_builds import (
    PATIENCE,
    RUN,
    UNITS,
    broken_units,
    committed,
    differences,
    fresh,
    kill,
    left_of,
    processes_of,
    servers_of,
    session_of,
    wait_for_units,
)
from tally import Fault, Trial

ROUND = 6  # kills on the way to one cache
EARLY = 6.0  # seconds; Ray starts, workers load, nothing is committed yet


class Chain:
    """One cache, and the command that goes on with it each time."""

    def __init__(self, forge: Forge, source: Path, path: Path) -> None:
        self.path = path
        self._forge, self._again = forge, fresh(source, path)

    def start(self) -> Command:
        command = self._forge.start(*self._again)
        if (self.path / "cache.json").exists():
            self._again = ("build", self.path, *RUN)
        return command

    def run_until(self, rng: random.Random, number: int, of: int) -> Command:
        """Start it and wait: every other time for some more units, else for an odd moment before them."""
        command = self.start()
        if number % 2:
            time.sleep(rng.random() * EARLY)
        else:
            wait_for_units(command, self.path, committed(self.path) + max(1, (UNITS - 2 - committed(self.path)) // of))
            time.sleep(rng.random() * 0.1)
        return command

    def finish(self, trials: list[Trial], calm: Path) -> None:
        with trials[-1].recovering():
            command = self.start()
            code = command.wait()
        trials[-1].hung += code is None
        assert code == 0, command.said
        assert command.outcome["units_missing"] == 0
        assert command.outcome["failed"].keys() == {"text_00"}
        assert (
            set(command.outcome["stage_seconds"]) >= {"decode", "teacher", "encode", "write"}
            or not (command.outcome["units_made"])
        )
        for trial in trials:
            trial.lost += len(differences(calm, self.path))


def after_kill(trial: Trial, command: Command, session: tuple[Path, int] | None, path: Path) -> None:
    """What must be so at once: nobody is left, and what was committed is whole."""
    trial.hung += command.wait() is None
    trial.hung += left_of(session, command.pid)
    trial.undetected += broken_units(path)


def last_words(command: Command) -> str:
    """What it said, or what the session's watchdog says for it a little later."""
    until = time.monotonic() + PATIENCE
    while not command.said and time.monotonic() < until:
        time.sleep(0.05)
    return command.said


@pytest.mark.fault("F03")
@pytest.mark.timeout(900)
def test_a_killed_driver_takes_its_session_along_and_the_build_goes_on(
    fault: Fault, ray_source: Path, ray_calm: Path, forge: Forge, tmp_path: Path
) -> None:
    for first in range(0, fault.count(ROUND), ROUND):
        rng = random.Random(first)
        chain = Chain(forge, ray_source, tmp_path / f"cache-{first}")
        with ExitStack() as stack:
            trials = [stack.enter_context(fault.trial(first + number)) for number in range(ROUND)]
            for number, trial in enumerate(trials):
                command = chain.run_until(rng, number, ROUND // 2)
                session = session_of(command.pid)
                assert command.code is None, command.said
                kill(command.pid)
                after_kill(trial, command, session, chain.path)
            chain.finish(trials, ray_calm)


@pytest.mark.fault("F04")
@pytest.mark.timeout(900)
def test_all_processes_killed_at_once_and_the_build_goes_on(
    fault: Fault, ray_source: Path, ray_calm: Path, forge: Forge, tmp_path: Path
) -> None:
    """The third of each round kills Ray's own server alone: the driver cannot go on, and that is said."""
    most = 3
    for first in range(0, fault.count(most), most):
        rng = random.Random(first)
        chain = Chain(forge, ray_source, tmp_path / f"cache-{first}")
        with ExitStack() as stack:
            trials = [stack.enter_context(fault.trial(first + number)) for number in range(most)]
            folders = []
            for number, trial in enumerate(trials):
                command = chain.run_until(rng, number, 2)
                session = session_of(command.pid)
                folders += [session[0]] if session else []
                assert command.code is None, command.said
                kill(*(processes_of(command.pid) if number < 2 else servers_of(command.pid)))
                after_kill(trial, command, session, chain.path)
                if number == 2:
                    assert command.code == 1
                    assert re.search("go on with|run the same command again", last_words(command))
                    assert "Traceback" not in command.said
            chain.finish(trials, ray_calm)
            assert [folder for folder in folders if folder.exists()] == []


def test_an_interrupted_build_says_how_to_go_on(ray_source: Path, forge: Forge, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    command = forge.start(*(word for word in fresh(ray_source, path) if word != "--json"))
    assert wait_for_units(command, path, 1), command.said
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.said
    assert f"frame-cache build {path}" in command.said
    assert "Traceback" not in command.said
    assert not (path / "tmp").exists()
