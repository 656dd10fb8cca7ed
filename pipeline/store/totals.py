"""What the receipts of a cache come to, column by column: rows, bytes, bits a value, and what the encoding lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frame.pipeline.store.columns import Column
from frame.pipeline.store.receipts import ColumnEntry, Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnTotals:
    """One column over all committed units. ``bits`` a value and the cosines with the teacher's float32 are None where
    no receipt says them: of ``frames``, and where no row is there."""

    rows: int
    units: int
    bytes: int
    bits: float | None
    mean_cosine: float | None
    worst_cosine: float | None


def column_totals(column: Column, receipts: Mapping[int, Receipt]) -> ColumnTotals:
    """The totals of ``column``. Receipts that lack it count as none."""
    entries = [entry for receipt in receipts.values() if (entry := receipt.columns.get(column.name)) is not None]
    losses = [(entry.rows, loss) for entry in entries if (loss := entry.loss) and is_loss(loss)]
    rows = sum(count for count, _ in losses)
    return ColumnTotals(
        rows=sum(entry.rows for entry in entries),
        units=len(entries),
        bytes=sum(_column_bytes(column, entry) for entry in entries),
        bits=sum(n * _bits(column, loss) for n, loss in losses) / rows if rows else None,
        mean_cosine=sum(n * loss["mean_cosine"] for n, loss in losses) / rows if rows else None,
        worst_cosine=min((loss["worst_cosine"] for _, loss in losses), default=None),
    )


def is_loss(loss: Any) -> bool:
    """Is it a loss, with figures? Receipts may come from anybody, and nobody has looked at this in them before."""
    if not isinstance(loss, dict):
        return False
    numbers = [loss.get("mean_cosine"), loss.get("worst_cosine"), loss.get("bits", 0.0)]
    return all(type(number) is float and math.isfinite(number) for number in numbers)


def _bits(column: Column, loss: Mapping[str, float]) -> float:
    # Receipts of earlier releases do not say; their encodings had a fixed size.
    return loss.get("bits", 8 * column.row_bytes / math.prod(column.shape))


def _column_bytes(column: Column, entry: ColumnEntry) -> int:
    loss = entry.loss if entry.loss and is_loss(entry.loss) else {}
    return round(entry.rows * math.prod(column.shape) * _bits(column, loss) / 8)
