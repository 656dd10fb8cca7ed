"""F05: the power goes after any system call, and what was not flushed is gone."""

from __future__ import annotations

import random
import re
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from broken import never_flushing
from commits import Command, Findings, begin, commands_of, differences, one_after_the_other
from disks import Call, standing_in
from power import CUTS, Disk, Killed
from store_caches import quick_disk, restore
from tally import Fault

pytestmark = pytest.mark.fault("F05")
SUBJECTS = ["zarr new", "webdataset later", "run new", "run resumed"]


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_disk(), one_after_the_other():
        yield


@pytest.fixture
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    kind, name = request.param.split()
    return commands_of(kind, tmp_path)[name]


def cuts(command: Command, path: Path, torn: Container[int] = ()) -> Iterator[tuple[int, dict[str, bytes], list[str]]]:
    """Run ``command``; the files that a cut leaves after each of its calls, and what was promised until then. After the
    calls ``torn`` there is a cut that leaves anything in between as well."""
    path.mkdir()
    begin(command, path)
    disk, promised, left = Disk(path), list[str](), []

    def act(call: Call) -> object:
        try:
            return disk.act(call)
        finally:
            left.append(every_way(call.number))

    def every_way(number: int) -> list[tuple[int, dict[str, bytes], list[str]]]:
        return [
            (number, disk.cut(how, random.Random(number)), [*promised])
            for how in CUTS
            if how != CUTS[2] or number in torn
        ]

    with standing_in(act) as called:
        command.run(path, promised.append)
    left.append(every_way(len(called)))
    for states in left:
        yield from states


def examined(command: Command, path: Path, files: dict[str, bytes], promised: list[str]) -> Findings:
    """What is wrong with what a cut left, and with what the same command makes of it."""
    path.mkdir()
    restore(path, files)
    found = command.findings(path, promised)
    command.run(path, lambda _: None)
    return Findings(lost=(*found.lost, *differences(command, path)), torn=found.torn)


@pytest.mark.parametrize("command", SUBJECTS, indirect=True)
def test_a_power_cut_leaves_the_state_before_or_after(fault: Fault, tmp_path: Path, command: Command) -> None:
    seen = set()
    torn = range(0, 1000, max(1, round(8 / fault.count(1))))
    for number, files, promised in cuts(command, tmp_path / "cache", torn):
        with fault.trial(number) as trial:
            names = sorted((re.sub(r"[0-9a-f]{32}", "*", name), data) for name, data in files.items())
            state = (tuple(names), tuple(promised))
            if state not in seen:
                seen.add(state)
                with trial.recovering():
                    found = examined(command, tmp_path / f"cut{len(seen)}", files, promised)
                trial.lost, trial.undetected = len(found.lost), len(found.torn)
                assert trial.clean, f"after call {number}: {found}"
    assert len(seen) > 10


@pytest.mark.parametrize("command", SUBJECTS, indirect=True)
def test_what_a_killed_writer_had_not_flushed_outlasts_a_cut_after_the_next_one_has_finished(
    fault: Fault, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "counted"
    path.mkdir()
    begin(command, path)
    with standing_in(lambda call: call.perform()) as called:
        command.run(path, lambda _: None)
    points = random.Random(0).sample(range(len(called)), fault.count(12, most=len(called)))
    for number in points:
        with fault.trial(number) as trial:
            path = tmp_path / f"killed{number}"
            path.mkdir()
            begin(command, path)
            disk = Disk(path)
            with standing_in(instead_of_all(disk, number)), suppress(Killed):
                command.run(path, lambda _: None)
            disk.dead = False
            with trial.recovering(), standing_in(disk.act):
                command.run(path, lambda _: None)
            left = disk.cut(CUTS[0], random.Random(0))
            trial.lost = sum(left.get(name) != data for name, data in command.whole.items())
            assert trial.clean, f"killed at call {number}: {sorted(command.whole.keys() - left.keys())}"


def instead_of_all(disk: Disk, number: int) -> object:
    """Every call goes to ``disk``, but the ``number``-th ends the process."""
    return lambda call: disk.die() if call.number == number else disk.act(call)


@pytest.mark.parametrize("command", ["zarr new", "webdataset later", "run new"], indirect=True)
def test_a_writer_that_does_not_flush_is_noticed(fault: Fault, tmp_path: Path, command: Command) -> None:
    with never_flushing():
        states = list(cuts(command, tmp_path / "cache"))
    found = []
    for _, files, promised in states[-2:]:  # when all is said to be done
        path = tmp_path / f"cut{len(found)}"
        path.mkdir()
        restore(path, files)
        found.append(command.findings(path, promised))
    only_flushed, names_first = found
    fault.control(caught=bool(only_flushed.lost and names_first.torn), why="that nothing was flushed")
