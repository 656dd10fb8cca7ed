"""The figures of training runs, from RUN/config.json and RUN/metrics.jsonl alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.view.plots import Point

CONFIG, METRICS = "config.json", "metrics.jsonl"
_NO_FIGURES = ("kind", "step", "epoch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run's figures: ``val`` and ``train`` map a metric to its points, steps increasing. ``unread``: lines in the
    midst of the file that are no figures; ``epochs``: how far it came."""

    name: str
    about: str
    val: Mapping[str, tuple[Point, ...]]
    train: Mapping[str, tuple[Point, ...]]
    epochs: float
    unread: int

    @property
    def steps(self) -> int:
        """The last step of which there is a figure."""
        return max(points[-1][0] for points in (*self.val.values(), *self.train.values()))


def read_run(folder: Path, name: str) -> Run:
    """The figures of one run; where a step was logged twice, the later line counts.

    Raises ``InputError`` where the folder is no run, or nothing was measured yet.
    """
    config = _config(folder)
    found: dict[str, dict[str, dict[int, float]]] = {"val": {}, "train": {}}
    epochs, lines, unread = 0.0, _lines(folder / METRICS), 0
    for number, text in enumerate(lines):
        line = _parsed(text)
        if line is None:
            unread += number + 1 < len(lines)  # a torn last line is what a run that is stopped leaves
            continue
        epochs = max(epochs, float(line["epoch"])) if _finite(line.get("epoch")) else epochs
        for metric, value in line.items():
            if metric not in _NO_FIGURES and _finite(value):
                found[line["kind"]].setdefault(metric, {})[line["step"]] = float(value)
    if not any(found.values()):
        raise InputError(
            what="This run has no metrics.",
            where=str(folder / METRICS),
            why=f"none of its {len(lines)} lines can be read" if lines else "the file is empty, or not there",
            fix="train it to its first validation, or leave out this --run",
        )
    val, train = (
        {metric: tuple(sorted(points.items())) for metric, points in found[kind].items()} for kind in ("val", "train")
    )
    return Run(name=name, about=_about(config), val=val, train=train, epochs=epochs, unread=unread)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is damaged"
        raise InputError(
            what="This is not a training run.",
            where=str(path),
            why=why,
            fix="give a folder that `frame-train … --out RUN` made: --run RUN",
        ) from error
    if not isinstance(value, dict):
        raise InputError(what="This is not a training run.", where=str(path), why="it is a file of something else")
    settings = value.get("settings")
    return {**(settings if isinstance(settings, dict) else {}), **value}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(what="A run's metrics cannot be read.", where=str(path), why=why) from error


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(line, dict) and line.get("kind") in ("train", "val") and type(line.get("step")) is int
    return line if sound and line["step"] >= 0 else None


def _finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(str(value)))


def _about(config: Mapping[str, Any]) -> str:
    """``stage 2, memory of 5 frames``."""
    stage = str(config.get("stage", "")).replace("stage", "stage ")
    frames = config.get("memory_frames")
    if stage != "stage 2" or type(frames) is not int:
        return stage
    return f"{stage}, " + (f"memory of {frames} frame{'s' * (frames != 1)}" if frames else "no memory")


def run_names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as much of what they lie in as tells them apart."""
    parts = [folder.expanduser().resolve().parts for folder in folders]
    twice = next((folder for folder, own in zip(folders, parts, strict=True) if parts.count(own) > 1), None)
    if twice is not None:
        raise InputError(what="A run is given twice.", where=f"--run {twice}", fix="keep one")
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(names):
            break
    return names
