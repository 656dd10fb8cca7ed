"""``verify --against-teacher``: decode and compute random rows again, and compare with what is stored.

The costliest failure of feature caches is a feature that sits beside another frame's: every file is intact, every
checksum fits, and the training set is wrong. Only the teacher itself can tell.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frame.pipeline.decode import ClipError, DecodeCage
from frame.pipeline.prepare import Prepared
from frame.pipeline.store import Cache
from frame.pipeline.store.columns import FRAMES
from frame.pipeline.store.receipts import Receipt
from frame.pipeline.teach import TeacherBench

AGAIN = 0.99999
"""The cosine of a token with itself, computed again: in another batch, on another processor."""
LIMITS = {"float16": AGAIN, "int8": 0.999}
"""The worst token's cosine, whatever the receipts say. A ``residual`` column has the loss that was asked for."""
FRAME_LIMIT = 1  # grey levels: another processor may round a resized pixel the other way


@dataclass(frozen=True, kw_only=True, slots=True)
class RowCheck:
    """One recomputed row. ``agreement``: per column the worst token's cosine, for frames the largest difference."""

    row: int
    clip: str
    timestamp: float
    agreement: dict[str, float]
    wrong: tuple[str, ...]


def check_rows(prepared: Prepared, count: int, *, seed: int, tick: Callable[[], None] = lambda: None) -> list[RowCheck]:
    """Recompute ``count`` random rows of all columns."""
    cache = prepared.cache
    rows = readable_rows(cache)
    chosen = sorted(random.Random(seed).sample(rows, min(count, len(rows))))
    bench = TeacherBench(prepared.teachers)
    checks = []
    with DecodeCage() as cage:
        for row in chosen:
            checks.append(_check(prepared, row, bench, cage))
            tick()
    return checks


def readable_rows(cache: Cache) -> list[int]:
    """Rows that can be read in every column, of all committed units."""
    found: list[int] = []
    for unit, receipt in cache.receipts().items():
        if set(cache.columns) <= receipt.columns.keys():
            mask = np.logical_and.reduce([cache.readable(name, unit) for name in cache.columns])
            found += (np.flatnonzero(mask) + unit * cache.meta.rows_per_unit).tolist()
    return found


def _check(prepared: Prepared, row: int, bench: TeacherBench, cage: DecodeCage) -> RowCheck:
    cache = prepared.cache
    size = cache.meta.rows_per_unit
    part = next(part for part in cache.row_map.clips(row // size) if part.start <= row % size < part.stop)
    clip = cache.index.slice(part.position, 1).to_pylist()[0]
    timestamp = clip["timestamps"][row - clip["first_row"]]
    try:
        image = cage.decode(
            Path(prepared.source / clip["source"]),
            (timestamp,),
            height=clip["height"],
            width=clip["width"],
            decoder=cache.meta.build["decoder"],
            frame_rate=clip["frame_rate"],
            sha256=clip["sha256"],
        )
    except ClipError as error:
        text = f"source: {error.reason}: {error.detail}"
        return RowCheck(row=row, clip=part.clip, timestamp=timestamp, agreement={}, wrong=(text,))
    features = {name: made.numpy() for name, made in bench.features([image]).items()}
    pictures = bench.make((FRAMES,), [image]).arrays if FRAMES in cache.columns else {}
    agreement = {name: _agreement(cache, name, row, {**features, **pictures}[name]) for name in cache.columns}
    receipt = cache.receipt(row // size)
    return RowCheck(
        row=row,
        clip=part.clip,
        timestamp=timestamp,
        agreement=agreement,
        wrong=tuple(name for name, value in agreement.items() if not _fine(cache, receipt, name, value)),
    )


def _agreement(cache: Cache, name: str, row: int, made: np.ndarray) -> float:
    """Of what a reader gets with what the teacher says now, before it is encoded."""
    stored = cache.read(name, row, row + 1)
    if name == FRAMES:
        return float(np.abs(stored.astype(int) - made.astype(int)).max())
    a, b = stored.astype(np.float64), made.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(axis=-1) / np.maximum(norms, 1e-300)).min())


def _fine(cache: Cache, receipt: Receipt | None, name: str, value: float) -> bool:
    if name == FRAMES:
        return value <= FRAME_LIMIT
    entry = receipt.columns.get(name) if receipt else None
    promised = entry.loss["worst_cosine"] if entry and entry.loss else 1.0
    # Its loss and what comes of computing it again may turn a token the same way: their angles add up.
    angle = sum(math.acos(min(max(cosine, -1.0), 1.0)) for cosine in (promised, AGAIN))
    return value >= max(LIMITS.get(cache.columns[name].encoding, 0.0), math.cos(min(angle, math.pi)))
