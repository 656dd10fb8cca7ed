"""A run's folder: who owns it, its settings, its metrics.

RUN/config.json      the resolved settings, what they were resolved against, and the recipe's name
    metrics.jsonl    a JSON object a line: "kind" train or val, "step", "epoch", and figures by name
    checkpoints/     see frame.train.checkpoint
    encoder/         the exported FrameEncoder
    curves.png
    trackers/        TensorBoard's or Weights & Biases' own files
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frame.manifests.errors import InputError
from frame.pipeline.store import disk
from frame.pipeline.store.files import disk_error, exclusive, make_root, write_durable, writer_folder
from frame.pipeline.store.layout import sealed, unseal

CONFIG, METRICS, ENCODER, CURVES, TRACKERS = "config.json", "metrics.jsonl", "encoder", "curves.png", "trackers"


def read_config(run: Path) -> dict[str, Any]:
    """The content of RUN/config.json. Raises ``InputError`` if there is no run, or its settings are damaged."""
    path = run / CONFIG
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            what="This is not a training run.",
            where=str(run),
            why=f"{CONFIG} cannot be read: {error.strerror}",
            fix="give a folder that `frame-train … --out RUN` made",
        ) from error
    try:
        value = unseal(data, where=path)
    except InputError as error:
        raise InputError(what="A run's settings are damaged.", where=str(path), why=error.why) from error
    if value.get("kind") != "frame-run":
        raise InputError(what="This is not a training run.", where=str(path), why="it is a file of something else")
    value.pop("sha256", None)
    return value


def write_config(run: Path, value: Mapping[str, Any], *, tmp: Path) -> None:
    """Write RUN/config.json, whole or not at all."""
    write_durable(run / CONFIG, sealed({"kind": "frame-run", "format": 1, **value}), tmp=tmp)


@contextlib.contextmanager
def owned(run: Path) -> Iterator[Path]:
    """Hold ``run`` for this process alone; yields a folder for files in the making.

    Raises ``InputError`` at once if another training has it.
    """

    def refuse() -> None:
        raise InputError(
            what="Another training is writing to this folder.",
            where=str(run),
            fix="wait for it, or give another --out",
        )

    try:
        make_root(run)
    except OSError as error:
        raise InputError(what="The run's folder cannot be made.", where=str(run), why=str(error)) from error
    with exclusive(run, waiting=refuse), writer_folder(run) as tmp:
        yield tmp


@dataclass(kw_only=True, slots=True)
class Metrics:
    """RUN/metrics.jsonl, open for appending from step ``after`` on."""

    path: Path

    @staticmethod
    def resumed(run: Path, *, upto: int, tmp: Path) -> Metrics:
        """Keep the lines up to step ``upto``, which a resumed run will not make again."""
        path = run / METRICS
        kept = [json.dumps(line) + "\n" for line in read_metrics(run) if line["step"] <= upto]
        write_durable(path, "".join(kept).encode(), tmp=tmp)
        return Metrics(path=path)

    def add(self, kind: str, step: int, epoch: float, figures: Mapping[str, float]) -> None:
        """Append one line."""
        line = json.dumps({"kind": kind, "step": step, "epoch": round(epoch, 6), **figures}) + "\n"
        try:
            descriptor = disk.append(self.path)
            try:
                disk.write_all(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def flush(self) -> None:
        """Make the lines so far survive a power cut."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                disk.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise disk_error(error, self.path) from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, in order; a line torn by a kill tells nothing and is left out."""
    path = run / METRICS
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                found.append(value)
    return found
