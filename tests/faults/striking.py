"""Stages of a build whose workers are killed at chosen units, from inside: before, in the midst of, and after the work.

A strike is a file in a folder, ``STAGE-UNIT-WHEN-NUMBER``; the worker that gets to rename it dies (or, where WHEN is
``full``, finds the disk full). Imported by the
build's own process (see ``forge``) and by its Ray workers.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import uuid
from pathlib import Path

import pyarrow as pa

from frame.pipeline.block import unpack
from frame.pipeline.decode_stage import DecodeStage
from frame.pipeline.store import disk
from frame.pipeline.write_stage import WriteStage

_FOLDER = "FRAME_TEST_STRIKES"  # in the environment, which Ray's workers have from the build
STAGES = ("decode", "teach", "write")
WHEN = ("before", "during", "after")


def install(*, folder: str) -> None:
    """In the process of a build: its stages look into ``folder`` from now on."""
    from struck_teacher import StruckTeach

    from frame.pipeline import ray_pipeline

    os.environ[_FOLDER] = folder
    ray_pipeline.DecodeStage = StruckDecode
    ray_pipeline.TeachStage = StruckTeach
    ray_pipeline.WriteStage = StruckWrite


def order(folder: Path, stage: str, unit: int, when: str, *, times: int = 1) -> None:
    """Let the next workers that make ``unit`` in ``stage`` be killed."""
    for number in range(times):
        (folder / f"{stage}-{unit}-{when}-{number}").touch()


def pending(folder: Path) -> list[str]:
    """Strikes that have not come."""
    return sorted(path.name for path in folder.iterdir() if "-" in path.name and not path.suffix)


class StruckDecode(DecodeStage):
    """Decodes units."""

    def __call__(self, table: pa.Table) -> pa.Table:
        unit = table.column("item")[0].as_py()
        before("decode", unit)
        return after("decode", unit, super().__call__(table))


class StruckWrite(WriteStage):
    """Commits units. Writes a careless store besides: a file for each attempt, as many pipelines do."""

    def __call__(self, table: pa.Table) -> pa.Table:
        (unit,) = (block.unit for block in unpack(table))
        (Path(os.environ[_FOLDER]) / "careless" / f"{unit}-{uuid.uuid4().hex}").touch()
        before("write", unit)
        return after("write", unit, super().__call__(table))


def before(stage: str, unit: int) -> None:
    if _due(stage, unit, "before"):
        _die()
    if _due(stage, unit, "full"):
        _fill()
    if _due(stage, unit, "during"):
        threading.Timer(random.random() / 50, _die).start()


def after(stage: str, unit: int, made: pa.Table) -> pa.Table:
    if _due(stage, unit, "after"):
        _die()
    return made


def _due(stage: str, unit: int, when: str) -> bool:
    for path in sorted(Path(os.environ[_FOLDER]).glob(f"{stage}-{unit}-{when}-?")):
        try:
            path.rename(path.with_suffix(".done"))
        except FileNotFoundError:
            continue  # another attempt took it
        return True
    return False


def _fill() -> None:
    """From now on this process finds the disk full."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.write = refuse


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
