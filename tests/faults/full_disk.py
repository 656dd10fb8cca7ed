"""Runs commands on a disk that is full, and again when there is room: a tmpfs of its own, or a limit on a file's size.

    python full_disk.py tmpfs|limit FOLDER TRIALS

prints a line of JSON for each trial. For a tmpfs it has to run in a mount namespace of its own: unshare --mount.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from commits import Command, begin, commands_of, differences, one_after_the_other
from store_caches import quick_disk

from frame.manifests.errors import InputError

_PAGE = 4096
_MEGABYTES = (2, 8, 64)


def main(how: str, folder: Path, trials: int) -> None:
    """A trial for every command, as many as asked for, each with another share of the room that it needs."""
    for kind in ("zarr", "webdataset", "run"):
        for name, command in commands_of(kind, folder / kind).items():
            for number in range(trials):
                share = (number + 0.5) / trials
                with _disk(how, folder / "disk", _MEGABYTES[number % 3]) as path:
                    outcome = _trial(command, path / "it", partial(_FILL[how], share=share, whole=command.whole))
                print(json.dumps({"subject": f"{kind} {name}", "share": share, **outcome}), flush=True)


def _trial(command: Command, path: Path, fill: Callable[[Path], Callable[[], None]]) -> dict[str, Any]:
    begin(command, path)
    promised: list[str] = []
    text = ""
    free = fill(path.parent)
    try:
        command.run(path, promised.append)
    except InputError as error:
        text = str(error)
    finally:
        free()
    found = command.findings(path, promised)
    began = time.monotonic()
    command.run(path, lambda _: None)
    seconds = time.monotonic() - began
    lost = [*found.lost, *differences(command, path)]
    shutil.rmtree(path)
    return {"text": text, "lost": lost, "torn": found.torn, "seconds": seconds}


@contextmanager
def _disk(how: str, path: Path, megabytes: int) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    if how == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)], check=True)
    yield path
    if how == "tmpfs":
        subprocess.run(["umount", str(path)], check=True)


def _fill(disk: Path, share: float, whole: Mapping[str, bytes]) -> Callable[[], None]:
    """Fill the disk but for ``share`` of what the files still to be written need."""
    there = {path.name for path in disk.rglob("*")}
    need = sum(-(-len(data) // _PAGE) * _PAGE for name, data in whole.items() if Path(name).name not in there)
    status = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - int(share * need) // _PAGE * _PAGE)
    return ballast.unlink


def _limit(_: Path, share: float, whole: Mapping[str, bytes]) -> Callable[[], None]:
    """No file may be larger than all but some of those to be written."""
    sizes = sorted(map(len, whole.values()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[int(share * len(sizes))] - 1, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


_FILL = {"tmpfs": _fill, "limit": _limit}


if __name__ == "__main__":
    with quick_disk(), one_after_the_other():
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
