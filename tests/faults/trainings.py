"""The trainings that faults befall: arguments of the command, and an undisturbed run to compare with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fresh import fresh_processes
from small_runs import figures

from frame.train.checkpoint import FOLDER, checkpoint_steps

STEPS = 60  # of which the last is in the 81st epoch: six clips, eight windows a step


def arguments(cache: Path, out: Path, *more: str, steps: int = STEPS, every: int = 1) -> list[str]:
    """Stage 1 with a student of one block, validated every third step, with a checkpoint every so many."""
    settings = {"depth": 1, "val_segments": 2, "eval_every": 3, "patience": 0, "checkpoint_every": every}
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    columns = ("--student", "vit_tiny", "--spatial", "test_vit.patch", "--semantic", "other.cls")
    given = ("--cache", str(cache), "--out", str(out), *columns, "--batch-size", "8", "--steps", str(steps))
    return ["stage1", *given, *sets, *_QUIET, *(more if "--workers" in more else (*more, "--workers", "0"))]


def second(cache: Path, init: Path, out: Path, *, steps: int) -> list[str]:
    """Stage 2 over a run of stage 1."""
    given = ("--cache", str(cache), "--init", str(init), "--out", str(out), "--batch-size", "8", "--steps", str(steps))
    sets = [word for name in ("segment=4", "max_stride=2", "val_segments=2") for word in ("--set", name)]
    return ["stage2", *given, *sets, *_QUIET, "--workers", "0"]


_QUIET = ("--log", "none", "--resume", "--json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calm:
    """An undisturbed run, and the receipt of the checkpoint that each of its steps made."""

    run: Path
    receipts: Path

    def agrees(self, run: Path, step: int) -> bool:
        """Whether the checkpoint of ``run`` after ``step`` has the same parameters, moments and state, byte for byte,
        and its losses and norms of gradients up to there are the same."""
        mine = run / FOLDER / f"{step:08d}" / "receipt.json"
        return (
            mine.is_file()
            and mine.read_bytes() == (self.receipts / str(step)).read_bytes()
            and figures(run) == [line for line in figures(self.run) if line["step"] <= step]
        )


def calm_run(folder: Path, words: list[str], out: Path, broken: str = "") -> Calm:
    """Train from the beginning to the end."""
    receipts = folder / "receipts"
    receipts.mkdir(parents=True)
    ended = fresh_processes().run(
        folder / "log", "recorded", arguments=words, receipts=str(receipts), broken=broken
    )  # fmt: skip
    assert ended.code == 0, ended.said
    return Calm(run=out, receipts=receipts)


_MADE: dict[Path, Calm] = {}


@pytest.fixture(scope="module")
def calm(train_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """Sixty steps of stage 1, made once for all that import this."""
    if train_cache not in _MADE:
        folder = tmp_path_factory.mktemp("calm")
        _MADE[train_cache] = calm_run(folder, arguments(train_cache, folder / "run"), folder / "run")
    return _MADE[train_cache]


def newest(run: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none yet."""
    return max(checkpoint_steps(run), default=0)


def outcome(said: str) -> dict[str, Any]:
    """What ``--json`` printed at the end."""
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found
