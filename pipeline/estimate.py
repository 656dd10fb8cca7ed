"""What a build will cost: bytes from the plan, hours from a short measurement of decoder, teachers and disk."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from frame.pipeline.decode import ClipError, DecodeCage
from frame.pipeline.encodings import Trial
from frame.pipeline.plan import Plan
from frame.pipeline.store.columns import Column
from frame.pipeline.store.files import disk_error
from frame.pipeline.store.layout import CacheMeta
from frame.pipeline.store.objects import ObjectPath, StorePath
from frame.pipeline.teach import TeacherBench, TeacherPlan

_SAMPLE_CLIPS = 3
_SAMPLE_FRAMES = 64
_DISK_BYTES = 64 << 20
_OBJECT_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Rates are rows a second of one decoder, of all this machine's teacher workers, and of the disk; ``hours`` is
    for this machine alone, with decoding, teaching and writing side by side."""

    clips: int
    failed: int
    rows: int
    units: int
    rows_per_unit: int
    column_bytes: dict[str, int]
    free_bytes: int | None  # None where nobody says, as in an object store
    decode_rate: float
    teach_rate: float
    write_rate: float
    device: str
    trials: tuple[Trial, ...] = ()

    @property
    def bytes(self) -> int:
        """All columns together."""
        return sum(self.column_bytes.values())

    @property
    def limit(self) -> tuple[str, float]:
        """The slowest of decode, teacher and disk, and its rows a second."""
        rates = {
            "decode": self.decode_rate * (os.cpu_count() or 1),
            "teacher": self.teach_rate,
            "disk": self.write_rate,
        }
        if self.device == "cpu":
            # Decoders and teachers share the same cores: their times add up.
            rates["teacher"] = 1.0 / (1.0 / rates["teacher"] + 1.0 / rates["decode"])
        name = min(rates, key=lambda key: rates[key])
        return name, rates[name]

    @property
    def hours(self) -> float:
        """Hours on this machine."""
        return self.rows / self.limit[1] / 3600

    def to_json(self) -> dict[str, Any]:
        """Everything, for scripts."""
        values = {key: getattr(self, key) for key in self.__slots__}
        values["trials"] = [asdict(trial) for trial in self.trials]
        return {**values, "bytes": self.bytes, "limit": self.limit[0], "hours": self.hours}


def estimate(plan: Plan, teachers: TeacherPlan, source: Path, out: StorePath) -> Estimate:
    """Measure for a few seconds, and count."""
    rows = int(plan.index.column("n_frames").to_numpy().sum())
    images, decode_rate = _measure_decode(plan.index, plan.meta, source)
    place = _existing(out)
    stored = {name: _stored_bytes(column, rows, plan.trials) for name, column in plan.meta.columns.items()}
    teach_rate, device = _measure_teachers(teachers, tuple(plan.meta.columns), images, plan.meta.build["batch_rows"])
    return Estimate(
        clips=plan.index.num_rows,
        failed=int((plan.index.column("n_frames").to_numpy() == 0).sum()),
        rows=rows,
        units=plan.meta.units,
        rows_per_unit=plan.meta.rows_per_unit,
        column_bytes=stored,
        free_bytes=shutil.disk_usage(place).free if isinstance(place, Path) else None,
        decode_rate=decode_rate,
        teach_rate=teach_rate,
        write_rate=_measure_disk(place) / max(sum(stored.values()) / max(rows, 1), 1),
        device=device,
        trials=plan.trials,
    )


def _stored_bytes(column: Column, rows: int, trials: Sequence[Trial]) -> int:
    """What a column will take: known, or for packed ones as the sample has it."""
    bits = [trial.bits for trial in trials if trial.column == column.name and trial.chosen]
    return round(rows * math.prod(column.shape) * bits[0] / 8) if bits else column.row_bytes * rows


def _measure_decode(index: pa.Table, meta: CacheMeta, source: Path) -> tuple[np.ndarray, float]:
    """Some frames uint8 ``[n, H, W, 3]`` of one clip, and the frames a second of one decoder over a few clips."""
    usable = np.flatnonzero(index.column("n_frames").to_numpy())
    chosen = usable[np.linspace(0, len(usable) - 1, min(_SAMPLE_CLIPS, len(usable))).astype(int)]
    images, count, began = np.zeros((1, 8, 8, 3), dtype=np.uint8), 0, 0.0
    with DecodeCage() as cage:
        for position in (chosen[0], *chosen):  # the first is decoded twice: the decoder's start is not its rate
            clip = index.slice(int(position), 1).to_pylist()[0]
            try:
                images = cage.decode(
                    source / clip["source"],
                    clip["timestamps"][:_SAMPLE_FRAMES],
                    height=clip["height"],
                    width=clip["width"],
                    decoder=meta.build["decoder"],
                    frame_rate=clip["frame_rate"],
                    sha256=None,
                )
            except ClipError:
                continue
            if began:
                count += len(images)
            else:
                began = time.perf_counter()
    return images, count / max(time.perf_counter() - began, 1e-9)


def _measure_teachers(
    teachers: TeacherPlan, columns: Sequence[str], images: np.ndarray, batch: int
) -> tuple[float, str]:
    bench = TeacherBench(replace(teachers, threads=1))
    frames = np.resize(images, (batch, *images.shape[1:]))
    made = bench.make(columns, [frames])
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 2.0:
        bench.make(columns, [frames])
        count += batch
    device = next(iter(made.software.values()))["device"]
    # A build runs one worker of one thread a core, or one worker an accelerator.
    workers = (os.cpu_count() or 1) if device == "cpu" else torch.cuda.device_count()
    return workers * count / (time.perf_counter() - began), device


def _measure_disk(folder: StorePath) -> float:
    """Bytes a second of a write that is flushed, as units are."""
    if isinstance(folder, ObjectPath):
        return _measure_put(folder)
    data = np.random.default_rng(0).bytes(_DISK_BYTES)
    path = folder / f".frame-cache-{uuid.uuid4().hex}.partial"
    began = time.perf_counter()
    try:
        with path.open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        path.unlink(missing_ok=True)
    return _DISK_BYTES / (time.perf_counter() - began)


def _measure_put(folder: ObjectPath) -> float:
    data = np.random.default_rng(0).bytes(_OBJECT_BYTES)
    path = folder / f".frame-cache-{uuid.uuid4().hex}.partial"
    began = time.perf_counter()
    try:
        path.write_bytes(data)
        return _OBJECT_BYTES / (time.perf_counter() - began)
    finally:
        path.unlink(missing_ok=True)


def _existing(path: StorePath) -> StorePath:
    if isinstance(path, ObjectPath):
        return path
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
