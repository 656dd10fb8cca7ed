"""Receipts: the small files, written last, that commit a unit.

A receipt names every file of its unit with bytes and sha256, every column with its rows, what its encoding lost and
the running moments of its targets, and every clip that failed, with the reason. What no receipt names does not exist.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import FORMAT, MAX_JSON, RECEIPTS, damage, sealed, unseal
from frame.pipeline.store.objects import StorePath
from frame.pipeline.store.regular import read_small

_RECEIPT_NAME = re.compile(r"^(\d{6,12})\.json$", re.ASCII)
# Names of files that a unit may have, in either store. Whatever else a receipt might name is never even looked at.
_ZARR_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,140}/c/(\d{1,12})(/0){1,8}", re.ASCII)
_TAR_FILE = re.compile(r"shards/(\d{6,12})(\.[A-Za-z0-9][A-Za-z0-9_.-]{0,140})?\.tar", re.ASCII)


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


def receipt_path(cache: StorePath, unit: int) -> StorePath:
    """Where the receipt of ``unit`` lies."""
    return cache / RECEIPTS / f"{unit:06d}.json"


def read_receipt(cache: StorePath, unit: int, *, plan_id: str) -> Receipt | None:
    """The receipt of ``unit``, or None when the unit is not committed.

    Raises ``CacheError`` when the receipt is damaged, belongs to another unit, or to another plan.
    """
    path = receipt_path(cache, unit)
    try:
        data = read_small(path, most=MAX_JSON)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise damage(path, error.strerror or str(error)) from error
    return parse_receipt(data, where=path, unit=unit, plan_id=plan_id)


def parse_receipt(data: bytes, *, where: StorePath, unit: int, plan_id: str) -> Receipt:
    """The receipt in ``data``, read from ``where``; raises as ``read_receipt`` does."""
    value = unseal(data, where=where)
    try:
        if value["format"] != FORMAT:
            raise ValueError(f"format version {value['format']!r:.20}, this program reads {FORMAT}")
        receipt = Receipt(
            unit=value["unit"],
            plan_id=value["plan"],
            files={name: _file_entry(item) for name, item in value["files"].items()},
            columns={name: _column_entry(item) for name, item in value["columns"].items()},
            failed={
                clip: Failure(**{**item, "columns": tuple(item["columns"])}) for clip, item in value["failed"].items()
            },
        )
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise CacheError(what="A receipt lacks something it must have.", where=str(where), why=str(error)) from error
    if receipt.unit != unit or receipt.plan_id != plan_id:
        raise CacheError(
            what="A receipt does not belong to this cache's plan.",
            where=str(where),
            why=f"it commits unit {receipt.unit} of plan {receipt.plan_id[:12]}, not unit {unit} of {plan_id[:12]}",
            fix="`frame-cache build CACHE` makes the unit again.",
        )
    if strange := [name for name in receipt.files if not _may_hold(name, unit)]:
        raise damage(where, f"it names {strange[0]!r:.200}, which is no file of unit {unit}")
    return receipt


def _may_hold(name: str, unit: int) -> bool:
    match = _ZARR_FILE.fullmatch(name) or _TAR_FILE.fullmatch(name)
    return match is not None and int(match.group(1)) == unit


def _file_entry(item: dict[str, Any]) -> FileEntry:
    entry = FileEntry(**{**item, "columns": tuple(item["columns"])})
    places = [place for places in entry.members.values() for place in places]
    numbers = [entry.bytes, *(number for *place, _ in places for number in place)]
    sums = [check for _, _, _, checks in places for check in checks]
    if set(map(type, numbers + sums)) != {int} or max(map(abs, numbers)) > 1 << 60:
        raise ValueError("places and sizes are whole numbers")
    if sums and not 0 <= min(sums) <= max(sums) < 1 << 32:
        raise ValueError("a crc32c has 32 bits")
    return entry


def _column_entry(item: dict[str, Any]) -> ColumnEntry:
    entry = ColumnEntry(**item)
    rows_fit = type(entry.rows) is int and 0 <= entry.rows < 1 << 60
    if not rows_fit or (entry.moments is not None and not _are_moments(**entry.moments)):
        raise ValueError("rows or moments that are no numbers")
    return entry


def _are_moments(*, count: int, mean: list[float], m2: list[float]) -> bool:
    finite = all(type(value) in (int, float) and math.isfinite(value) for value in [*mean, *m2])
    return type(count) is int and count >= 0 and len(mean) == len(m2) and finite


def receipt_units(cache: StorePath) -> list[int]:
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
        if len(part["mean"]) != width:
            raise damage(Path(RECEIPTS), f"moments of {len(part['mean'])} channels, where the column has {width}")
        if not part["count"]:
            continue
        total = count + part["count"]
        delta = np.asarray(part["mean"]) - mean
        m2 = m2 + np.asarray(part["m2"]) + np.square(delta) * (count * part["count"] / total)
        mean = mean + delta * (part["count"] / total)
        count = total
    return count, mean, m2 / max(count, 1)
