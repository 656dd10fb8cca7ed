"""F07: the disk is full: a real tmpfs where this process may mount one, and a limit on files' sizes in any case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from disks import script
from tally import Fault

pytestmark = pytest.mark.fault("F07")
SCREEN = 12  # lines


def namespace() -> list[str]:
    """A command that gives another one a mount namespace of its own, or nothing where that is not allowed."""
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    try:
        mount = "mount -t tmpfs -o size=1m tmpfs /mnt"
        done = subprocess.run([*command, "sh", "-c", mount], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return command if done.returncode == 0 else []


@pytest.mark.parametrize("how", ["tmpfs", "limit"])
def test_a_full_disk_is_said_on_one_screen_and_with_room_the_rest_is_made(
    fault: Fault, tmp_path: Path, how: str
) -> None:
    before = namespace() if how == "tmpfs" else []
    if how == "tmpfs" and not before:
        pytest.skip("this user may not mount a tmpfs")
    name, environment = script("full_disk.py")
    command = [*before, sys.executable, name, how, str(tmp_path), str(fault.count(5))]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    refused = 0
    for seed, outcome in enumerate(map(json.loads, process.stdout.splitlines())):
        with fault.trial(seed) as trial:
            trial.recovery, trial.undetected = outcome["seconds"], len(outcome["torn"])
            trial.lost = len(outcome["lost"])
            assert trial.clean, outcome
            text = outcome["text"]
            refused += bool(text)
            if text:
                assert "The disk is full." in text
                assert str(tmp_path / "disk") in text
                assert len(text.splitlines()) <= SCREEN
    assert refused > 10
