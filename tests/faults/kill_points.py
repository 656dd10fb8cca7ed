"""Kills a command before and after each of its system calls, in a process of its own each time, and resumes it.

    python kill_points.py SUBJECT FOLDER [BROKEN]

prints a line of JSON for each kill. This process only forks: it loads no more than it needs, so that a fork takes
milliseconds. ``BROKEN`` is a deliberately broken variant, of which every few kills are tried.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from broken import BROKEN
from commits import Command, begin, cache_commands, commands_of, differences, one_after_the_other
from disks import Call, instead_of, standing_in
from store_caches import quick_disk

from frame.manifests.errors import InputError
from frame.pipeline.store import tar_unit
from frame.pipeline.store.layout import canonical

_DEADLINE = 120  # seconds; what takes longer hangs
_STRIDE = 5


def main(subject: str, folder: Path, broken: str = "") -> None:
    """Try every point of ``subject``: "zarr new", "webdataset later", "run resumed", …"""
    kind, name = subject.split()
    with ExitStack() as stack:
        stack.enter_context(quick_disk())
        stack.enter_context(one_after_the_other())
        command = _command(kind, name, folder, stack)
        if broken:
            stack.enter_context(BROKEN[broken]())
        seen: set[object] = set()
        for number in itertools.count(0, _STRIDE if broken else 1):
            for when in ("before", "after"):
                outcome = _kill(command, folder / "cache", number, when, seen)
                print(json.dumps(outcome), flush=True)
                if not outcome["killed"]:
                    return


def _command(kind: str, name: str, folder: Path, stack: ExitStack) -> Command:
    if kind == "webdataset":
        _encode_elsewhere(folder, stack)
    return commands_of(kind, folder)[name]


def _encode_elsewhere(folder: Path, stack: ExitStack) -> None:
    """Have tar files encoded in another process: their encoder loads torch, which makes a fork take much longer."""
    with mock.patch.object(tar_unit, "encode_tar", _remembering(folder, tar_unit.encode_tar)):
        child = os.fork()
        if child == 0:
            cache_commands("webdataset", folder)
            os._exit(0)
        os.waitpid(child, 0)
    stack.enter_context(mock.patch.object(tar_unit, "encode_tar", _remembering(folder, None)))


def _remembering(folder: Path, encode: Any) -> Any:
    def call(samples: Any) -> Any:
        samples = list(samples)
        about = [[each.key, each.first_row, sorted(each.arrays)] for each in samples]
        place = folder / canonical(about).hex()[-200:]
        if encode is not None:
            tar, members = encode(samples)
            place.with_suffix(".tar").write_bytes(tar)
            place.with_suffix(".json").write_text(json.dumps(members))
        return place.with_suffix(".tar").read_bytes(), json.loads(place.with_suffix(".json").read_text())

    return call


def _kill(command: Command, path: Path, number: int, when: str, seen: set[object]) -> dict[str, Any]:
    begin(command, path)
    status, said = _in_a_process(command, path, number, when)
    killed, hung = status == signal.SIGKILL, status == signal.SIGALRM
    outcome: dict[str, Any] = {"at": number, "when": when, "killed": killed, "hung": hung, "status": status}
    state = (_state(path), tuple(said))
    if not killed or state not in seen:  # two kills that leave the very same folder are resumed once
        seen.add(state)
        outcome |= _looked_at(command, path, said if killed else [])
    shutil.rmtree(path, ignore_errors=True)
    return outcome


def _state(path: Path) -> object:
    """All names and contents; names made at random stand for each other."""
    found = sorted((str(each.relative_to(path)), each) for each in path.rglob("*"))
    return tuple(
        (re.sub(r"[0-9a-f]{32}", "*", name), each.read_bytes() if each.is_file() else b"") for name, each in found
    )


def _looked_at(command: Command, path: Path, said: list[str]) -> dict[str, Any]:
    findings = command.findings(path, said)
    began = time.monotonic()
    problem = _resume(command, path)
    seconds = time.monotonic() - began
    differing = differences(command, path)
    return {
        "lost": [*findings.lost, *differing, *filter(None, [problem])],
        "torn": findings.torn,
        "seconds": seconds,
    }


def _in_a_process(command: Command, path: Path, number: int, when: str) -> tuple[int, list[str]]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(_DEADLINE)
        with _exiting(), standing_in(instead_of(number, lambda call: _die(call, when))):
            command.run(path, lambda what: (os.write(writing, f"{what}\n".encode()), None)[1])
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return status, said.read().split()


def _die(call: Call, when: str) -> None:
    try:
        if when == "after":
            call.perform()
    finally:  # it may be one that is refused
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _exiting() -> Iterator[None]:
    try:
        yield
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _resume(command: Command, path: Path) -> str:
    try:
        command.run(path, lambda _: None)
    except (InputError, AssertionError) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
