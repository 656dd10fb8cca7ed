"""Where the rows of a clip lie in a cache, or in several that have the same clip, and what became of them there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frame.pipeline.store.reader import Cache
from frame.pipeline.store.receipts import Failure, Receipt
from frame.pipeline.store.verify import file_names

_RECEIPTS = 4  # kept at a time: rows are asked for in their order, and a receipt of a large unit takes megabytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unit:
    """What is committed of a unit, small enough to keep for all of them."""

    columns: frozenset[str]
    failed: dict[str, Failure]


class Shelf:
    """A cache that clips are taken from."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.first_rows = cache.index.column("first_row").to_numpy()
        self._expected = frozenset(cache.expected_units)
        self._makers = {name: cache.meta.teacher_id(name) for name in cache.columns}
        self._units: dict[int, _Unit] = {}
        self._receipts: dict[int, Receipt | None] = {}

    def receipt(self, unit: int) -> Receipt | None:
        """The receipt of a unit. Raises ``CacheError`` when it is damaged."""
        if unit not in self._receipts:
            while len(self._receipts) >= _RECEIPTS:
                self._receipts.pop(next(iter(self._receipts)))
            self._receipts[unit] = self.cache.receipt(unit)
        return self._receipts[unit]

    def committed(self, column: str, unit: int) -> bool:
        """Is the column of the unit there, made by the teacher that the cache names?"""
        return column in self._unit(unit).columns

    def failure(self, column: str, unit: int, clip: str) -> Failure | None:
        """Why a clip has no rows in a column of a unit that is committed; None if it has them."""
        failure = self._unit(unit).failed.get(clip)
        return failure if failure and column in failure.columns else None

    def digests(self, column: str, unit: int) -> list[str]:
        """The sha256 of the files that hold a committed column of a unit."""
        receipt, meta = self.receipt(unit), self.cache.meta
        assert receipt is not None
        names = file_names(meta, meta.columns[column], unit)
        return [receipt.files[name].sha256 for name in names if name in receipt.files]

    def has_any_of(self, positions: np.ndarray) -> np.ndarray:
        """Which clips at these positions of the index have a unit that the cache is meant to have, bool ``[n]``: all
        clips, but for caches that are parts of others."""
        if len(self._expected) == self.cache.units:
            return np.ones(len(positions), dtype=bool)
        index, size = self.cache.index, self.cache.meta.rows_per_unit
        first, count, unit = (index.column(name).to_numpy()[positions] for name in ("first_row", "n_frames", "unit"))
        low = np.where(count > 0, first // size, unit)
        high = np.where(count > 0, (first + count - 1) // size, unit)
        expected = np.zeros(self.cache.units + 1, dtype=np.int64)
        expected[1:] = np.cumsum(np.isin(np.arange(self.cache.units), list(self._expected)))
        return np.asarray(expected[high + 1] > expected[low])

    def _unit(self, unit: int) -> _Unit:
        if unit not in self._units:
            receipt = self.receipt(unit) if unit in self._expected else None
            made = receipt.columns.items() if receipt else ()
            self._units[unit] = _Unit(
                columns=frozenset(name for name, entry in made if entry.teacher == self._makers.get(name)),
                failed=dict(receipt.failed) if receipt else {},
            )
        return self._units[unit]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Rows ``[low, high)`` of one unit of one cache, all of one clip. ``failure``: they hold nothing, and why."""

    shelf: Shelf
    unit: int
    low: int
    high: int
    failure: Failure | None

    def read(self, column: str) -> dict[str, np.ndarray]:
        """The values as they are stored, by array name."""
        return self.shelf.cache.read_arrays(column, self.unit, self.low, self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """A cache that has a clip, and the clip's first row in it."""

    shelf: Shelf
    first_row: int

    def rows_left(self, frame: int) -> int:
        """How many rows the unit that holds this frame of the clip has from there on."""
        return -(self.first_row + frame) % self.shelf.cache.meta.rows_per_unit or self.shelf.cache.meta.rows_per_unit

    def stretch(self, column: str, clip: str, low: int, high: int) -> Stretch | None:
        """Where the clip's frames from ``low`` on lie, as far as they lie in one unit and are below ``high``; None
        where the column is not committed."""
        row, size = self.first_row + low, self.shelf.cache.meta.rows_per_unit
        unit = row // size
        if not self.shelf.committed(column, unit):
            return None
        start = row % size
        return Stretch(
            shelf=self.shelf,
            unit=unit,
            low=start,
            high=start + min(high - low, self.rows_left(low)),
            failure=self.shelf.failure(column, unit, clip),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Some frames of a clip in one column: where they lie, in their order, and why they cannot go if any of them
    failed in all caches."""

    stretches: tuple[Stretch, ...]
    failure: Failure | None


def locate(homes: Sequence[Home], clip: str, column: str, low: int, high: int) -> Piece | None:
    """Frames ``[low, high)`` of a clip, from the first of its homes that has each; None where one is committed in none
    of them."""
    found: list[Stretch] = []
    at = low
    while at < high:
        there = [stretch for home in homes if (stretch := home.stretch(column, clip, at, high)) is not None]
        if not there:
            return None
        best = next((stretch for stretch in there if stretch.failure is None), there[0])
        found.append(best)
        at += best.high - best.low
    failure = next((stretch.failure for stretch in found if stretch.failure), None)
    return Piece(stretches=tuple(found), failure=failure)
