"""F25: builds and trains again and again with faults mixed at random, and compares both with a calm run's.

A script: ``make soak MINUTES=60``. The faults come from a seed, the moments at which they strike from the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import striking
from conftest import README
from forge import Command, Forge
from ray_builds import (
    RUN,
    broken_units,
    committed,
    differences,
    kill,
    left_of,
    processes_of,
    session_of,
    wait_for_units,
    workers_of,
)
from small_runs import LENGTHS, TEACHERS, assert_same_run
from small_videos import write_folder
from tally import Fault, Trial, keep_row
from test_stages import make, run

from frame.pipeline.build import finish
from frame.pipeline.store.files import writer_folder
from frame.train.run_folder import read_metrics

PLAN = (
    "--teachers",
    ",".join(TEACHERS),
    "--weights",
    "random",
    "--size",
    "64",
    "--unit-rows",
    "24",
    "--batch-rows",
    "8",
)
TRAIN = ("--student", "vit_tiny", "--spatial", "test_vit.patch", "--semantic", "other.cls", "--batch-size", "8")
STEPS = ("--set", "depth=1", "--set", "val_segments=2", "--steps", "60", "--workers", "1", "--log", "none", "--resume")
SOON = 8.0  # seconds; about as long as a build or a training takes
BUILD_FAULTS = ("worker", "driver", "all", "full disk", "two builds", "interrupt")
TRAIN_FAULTS = ("preempted", "killed")


class Soak:
    """A calm cache and a calm run, and those that faults strike."""

    def __init__(self, folder: Path, forge: Forge, rng: random.Random) -> None:
        self.folder, self._forge, self._rng = folder, forge, rng
        self.source = write_folder(folder / "videos", LENGTHS, bad=1)
        self.calm, self.struck = folder / "calm", folder / "struck"
        self.calm_run, self.struck_run = folder / "calm-run", folder / "struck-run"
        prepared = make(self.source, self.calm, teachers=TEACHERS)
        self.units = prepared.cache.units
        run(prepared)
        with writer_folder(self.calm) as tmp:
            assert finish(self.calm, tmp=tmp) == 0
        command = self.train(self.calm_run)
        assert command.wait() == 0, command.said
        self.caches = self.runs = 0

    def build(self, *, strikes: Path | None = None) -> Command:
        hook = {"hook": "striking:install", "folder": str(strikes)} if strikes else {}
        source = ("--dataset", "folder", "--source", self.source, "--out", self.struck)
        return self._forge.start("build", *source, *PLAN, *RUN, **hook)

    def train(self, out: Path) -> Command:
        return self._forge.start("stage1", "--cache", self.calm, "--out", out, *TRAIN, *STEPS, program="train")

    def strike(self, kind: str, trial: Trial) -> None:
        """One fault, and what must be so right after it."""
        if kind in TRAIN_FAULTS:
            self._strike_training(kind, trial)
            return
        if (self.struck / "stats").exists():
            self.compare_caches(trial)
            shutil.rmtree(self.struck)
        strikes = self._order(kind)
        commands = [self.build(strikes=strikes) for _ in range(1 + (kind == "two builds"))]
        self._wait(commands[0])
        session = session_of(commands[0].pid)
        {
            "worker": lambda pid: kill(*workers_of(pid)[:1]),
            "driver": kill,
            "all": lambda pid: kill(*processes_of(pid)),
            "interrupt": lambda pid: os.kill(pid, signal.SIGINT),
            "two builds": lambda pid: kill(pid) if self._rng.random() < 0.5 else None,
        }.get(kind, lambda _: None)(commands[0].pid)
        for command in commands:
            trial.hung += command.wait() is None
            assert "Traceback" not in command.said, command.said
        trial.hung += left_of(session, commands[0].pid)
        trial.undetected += broken_units(self.struck)

    def _order(self, kind: str) -> Path | None:
        if kind != "full disk":
            return None
        strikes = self.folder / f"strikes-{time.monotonic_ns()}"
        (strikes / "careless").mkdir(parents=True)
        striking.order(strikes, "write", self._rng.randrange(self.units), "full")
        return strikes

    def _wait(self, command: Command) -> None:
        """Until an odd moment: early, or once some more units are there."""
        if self._rng.random() < 0.3:
            time.sleep(self._rng.random() * SOON)
        else:
            wait_for_units(command, self.struck, committed(self.struck) + 1)

    def _strike_training(self, kind: str, trial: Trial) -> None:
        command = self.train(self.struck_run)
        steps = self._rng.randrange(1, 30) + len(read_metrics(self.struck_run))
        while command.code is None and len(read_metrics(self.struck_run)) < steps:
            time.sleep(0.02)
        if command.code is None:
            os.kill(command.pid, signal.SIGTERM if kind == "preempted" else signal.SIGKILL)
        trial.hung += command.wait() is None
        assert command.code in (0, 75, -signal.SIGKILL), command.said
        if command.code == 0:
            self.compare_runs(trial)
            shutil.rmtree(self.struck_run)

    def compare_caches(self, trial: Trial) -> None:
        self.caches += 1
        trial.lost += len(differences(self.calm, self.struck))

    def compare_runs(self, trial: Trial) -> None:
        self.runs += 1
        try:
            assert_same_run(self.calm_run, self.struck_run)
        except AssertionError:
            trial.lost += 1
            raise

    def end(self, trial: Trial) -> None:
        """Let both end in peace, and compare."""
        with trial.recovering():
            commands = [(self.build(), self.compare_caches), (self.train(self.struck_run), self.compare_runs)]
            for command, compare in commands:
                trial.hung += command.wait() is None
                assert command.code == 0, command.said
                compare(trial)


def main() -> None:
    """Strike until the minutes are up, end in peace, and put the row into the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    fault, counts = Fault(code="F25", scale=1), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    forge = Forge(folder)
    try:
        _soak(Soak(folder, forge, random.Random(chosen.seed)), chosen.minutes, chosen.seed, fault, counts)
    finally:
        forge.close()
        print(fault.row(), flush=True)
    keep_row(README, fault)
    shutil.rmtree(folder)


def _soak(soak: Soak, minutes: float, seed: int, fault: Fault, counts: Counter[str]) -> None:
    until, rng = time.monotonic() + 60 * minutes, random.Random(seed)
    while time.monotonic() < until:
        kind = rng.choice(BUILD_FAULTS + TRAIN_FAULTS)
        with fault.trial(seed) as trial:
            soak.strike(kind, trial)
        counts[kind] += 1
        print(dict(sorted(counts.items())), flush=True)
    with fault.trial(seed) as trial:
        soak.end(trial)
    print(f"{soak.caches} caches and {soak.runs} runs were the same as the calm ones", flush=True)


if __name__ == "__main__":
    main()
