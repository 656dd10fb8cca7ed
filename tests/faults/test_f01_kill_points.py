"""F01: SIGKILL before and after every system call of a commit, then the same command again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import script
from tally import Fault

pytestmark = pytest.mark.fault("F01")
SUBJECTS = ["zarr new", "webdataset later", "run new", "run resumed"]


def kills(subject: str, folder: Path, broken: str = "") -> Iterator[dict[str, Any]]:
    """What came of each kill of ``subject``, until one run comes through."""
    name, environment = script("kill_points.py")
    command = [sys.executable, name, subject, str(folder), *filter(None, [broken])]
    errors = subprocess.DEVNULL if broken else None  # a variant is left as soon as it is noticed
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout is not None
        try:
            yield from map(json.loads, process.stdout)
        finally:
            process.kill()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_kill_at_any_system_call_loses_nothing_and_leaves_no_trace(
    fault: Fault, tmp_path: Path, subject: str
) -> None:
    last: dict[str, Any] = {}
    for last in kills(subject, tmp_path):
        if not last["killed"] and not last["hung"]:
            break
        with fault.trial() as trial:
            trial.recovery, trial.hung = last.get("seconds", 0.0), last["hung"]
            trial.lost, trial.undetected = len(last.get("lost", [])), len(last.get("torn", []))
            assert trial.clean, last
    assert (last["status"], last["lost"]) == (0, []), f"the last run must come through: {last}"
    assert last["at"] > 50


@pytest.mark.parametrize("broken", ["in place", "exists"])
def test_a_broken_protocol_is_noticed(fault: Fault, tmp_path: Path, broken: str) -> None:
    caught = any(each.get("lost") or each.get("torn") for each in kills("zarr new", tmp_path, broken) if each["killed"])
    fault.control(caught=caught, why=f"the variant {broken!r}")
