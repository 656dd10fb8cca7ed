"""``stats/<column>.json``: per-channel mean and standard deviation of the targets, from the receipts' moments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from frame.pipeline.store.columns import Column
from frame.pipeline.store.files import ensure_durable
from frame.pipeline.store.layout import STATS, sealed
from frame.pipeline.store.receipts import merge_moments

if TYPE_CHECKING:
    from frame.pipeline.store.reader import Cache
    from frame.pipeline.store.receipts import Receipt


def stats_name(column: str) -> str:
    """The file's path inside the cache."""
    return f"{STATS}/{column}.json"


def stats_bytes(column: Column, receipts: Mapping[int, Receipt]) -> bytes:
    """The file's content: units are combined in their order, so the same receipts give the same bytes."""
    entries = [receipt.columns[column.name] for _, receipt in sorted(receipts.items())]
    parts = [entry.moments for entry in entries if entry.moments is not None]
    count, mean, variance = merge_moments(parts, column.shape[-1])
    value = {"column": column.name, "tokens": count, "mean": mean.tolist(), "std": np.sqrt(variance).tolist()}
    return sealed(value)


def write_statistics(cache: Cache, *, tmp: Path) -> None:
    """Write the statistics of every column; call it only when every unit is committed."""
    receipts = cache.receipts()
    for column in cache.meta.columns.values():
        if column.teacher is None:
            continue
        ensure_durable(cache.path / stats_name(column.name), stats_bytes(column, receipts), tmp=tmp)
