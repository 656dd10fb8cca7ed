"""Receipts: the small files, written last, that commit a unit.

A receipt names every file of its unit with bytes and sha256, every column with its rows, what its encoding lost and
the running moments of its targets, and every clip that failed, with the reason. What no receipt names does not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import FORMAT, RECEIPTS, sealed, unseal

_RECEIPT_NAME = re.compile(r"^(\d{6,})\.json$")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of a unit: its size and digest, where its members lie, and their checksums.

    ``members`` maps an array's name to ``[first, offset, bytes, [crc32c, ...]]``. In a tar there is one for each clip,
    ``first`` its row in the unit, with a checksum a row, or one for the whole member where that is a single picture. In
    a Zarr shard there is one for all of it, with a checksum a chunk.
    """

    bytes: int
    sha256: str
    columns: tuple[str, ...]
    members: dict[str, list[list[Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnEntry:
    """One column of a unit: rows written, the teacher's digest, the loss of the encoding, moments, software."""

    rows: int
    teacher: str
    loss: dict[str, float] | None
    moments: dict[str, Any] | None
    software: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a clip has no rows in some columns of a unit. ``reason`` is a short code, ``detail`` one line."""

    reason: str
    detail: str
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """The parsed receipt of one unit."""

    unit: int
    plan_id: str
    files: dict[str, FileEntry]
    columns: dict[str, ColumnEntry]
    failed: dict[str, Failure]

    def to_bytes(self) -> bytes:
        """The content of ``receipts/<unit>.json``."""
        return sealed(
            {
                "format": FORMAT,
                "unit": self.unit,
                "plan": self.plan_id,
                "files": {name: _slots(entry) for name, entry in self.files.items()},
                "columns": {name: _slots(entry) for name, entry in self.columns.items()},
                "failed": {clip: _slots(entry) for clip, entry in self.failed.items()},
            }
        )


def _slots(entry: FileEntry | ColumnEntry | Failure) -> dict[str, Any]:
    values = {key: getattr(entry, key) for key in type(entry).__slots__}
    return {key: list(item) if isinstance(item, tuple) else item for key, item in values.items()}


def receipt_path(cache: Path, unit: int) -> Path:
    """Where the receipt of ``unit`` lies."""
    return cache / RECEIPTS / f"{unit:06d}.json"


def read_receipt(cache: Path, unit: int, *, plan_id: str) -> Receipt | None:
    """The receipt of ``unit``, or None when the unit is not committed.

    Raises ``CacheError`` when the receipt is damaged, belongs to another unit, or to another plan.
    """
    path = receipt_path(cache, unit)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    value = unseal(data, where=path)
    try:
        receipt = Receipt(
            unit=value["unit"],
            plan_id=value["plan"],
            files={
                name: FileEntry(**{**item, "columns": tuple(item["columns"])}) for name, item in value["files"].items()
            },
            columns={name: ColumnEntry(**item) for name, item in value["columns"].items()},
            failed={
                clip: Failure(**{**item, "columns": tuple(item["columns"])}) for clip, item in value["failed"].items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CacheError(what="A receipt lacks something it must have.", where=str(path)) from error
    if receipt.unit != unit or receipt.plan_id != plan_id:
        raise CacheError(
            what="A receipt does not belong to this cache's plan.",
            where=str(path),
            why=f"it commits unit {receipt.unit} of plan {receipt.plan_id[:12]}, not unit {unit} of {plan_id[:12]}",
            fix="`frame-cache build CACHE` makes the unit again.",
        )
    return receipt


def receipt_units(cache: Path) -> list[int]:
    """Units that have a receipt file, valid or not, in order."""
    folder = cache / RECEIPTS
    if not folder.is_dir():
        return []
    matches = (_RECEIPT_NAME.match(path.name) for path in folder.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def moments_of(values: np.ndarray) -> dict[str, Any]:
    """Count, mean and summed squared deviation of every channel over all tokens of ``[rows, ..., width]``."""
    tokens = values.reshape(-1, values.shape[-1]).astype(np.float64)
    if not len(tokens):
        return {"count": 0, "mean": [0.0] * values.shape[-1], "m2": [0.0] * values.shape[-1]}
    mean = tokens.mean(axis=0)
    return {"count": len(tokens), "mean": mean.tolist(), "m2": np.square(tokens - mean).sum(axis=0).tolist()}


def merge_moments(parts: list[dict[str, Any]], width: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Combine ``moments_of`` several parts, in their order, into (count, mean ``[width]``, variance ``[width]``).

    Chan, Golub and LeVeque's pairwise update: no cancellation, whatever the mean.
    """
    count, mean, m2 = 0, np.zeros(width), np.zeros(width)
    for part in parts:
        if not part["count"]:
            continue
        total = count + part["count"]
        delta = np.asarray(part["mean"]) - mean
        m2 = m2 + np.asarray(part["m2"]) + np.square(delta) * (count * part["count"] / total)
        mean = mean + delta * (part["count"] / total)
        count = total
    return count, mean, m2 / max(count, 1)
