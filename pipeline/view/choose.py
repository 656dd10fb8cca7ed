"""Which clips a page shows, and which of their frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from frame.pipeline.store import Cache
from frame.pipeline.store.columns import FRAMES
from frame.pipeline.view.pictures import PICTURE_SIDE

MOST_FRAMES = 64
FEWEST_FRAMES = 8
CLIP_BYTES = 1_200_000
"""What the pictures of one clip may take of the page."""

_PHOTO_BYTES = 1 / 3  # a pixel, in base64, as measured on real video at the best quality used
_TOKEN_BYTES = 10 / 3  # a token, in base64


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownClip:
    """A clip that can be read: its row of the index, its readable columns, and the frames shown, from 0, increasing."""

    position: int
    row: dict[str, Any]
    columns: tuple[str, ...]
    frames: tuple[int, ...]


def choose_clips(cache: Cache, *, count: int, seed: int) -> list[ShownClip]:
    """Up to ``count`` clips by lot, one of each label and split before a second of any; in the cache's order."""
    index = cache.index
    kinds = list(zip(index["label"].to_pylist(), index["split"].to_pylist(), strict=True))
    first, frames = index["first_row"].to_numpy(), index["n_frames"].to_numpy()
    order = [int(position) for position in np.random.default_rng(seed).permutation(index.num_rows)]
    chosen: dict[int, tuple[str, ...]] = {}
    seen: set[tuple[str, str]] = set()
    for fresh in (True, False):
        for position in order:
            if len(chosen) >= count:
                break
            if position in chosen or (fresh and kinds[position] in seen):
                continue
            columns = _readable(cache, int(first[position]), int(frames[position]))
            if columns:
                chosen[position] = columns
                seen.add(kinds[position])
    return [_shown(cache, position, columns) for position, columns in sorted(chosen.items())]


def _shown(cache: Cache, position: int, columns: tuple[str, ...]) -> ShownClip:
    row = cache.index.slice(position, 1).to_pylist()[0]
    return ShownClip(position=position, row=row, columns=columns, frames=_even(row["n_frames"], most_frames(cache)))


def _readable(cache: Cache, begin: int, count: int) -> tuple[str, ...]:
    """Columns in which each of the ``count`` rows from ``begin`` on is committed and none failed."""
    size, end = cache.meta.rows_per_unit, begin + count
    units = range(begin // size, -(-end // size))

    def whole(column: str) -> bool:
        return all(
            committed(cache, column, unit)
            and bool(cache.readable(column, unit)[max(begin - unit * size, 0) : end - unit * size].all())
            for unit in units
        )

    return tuple(column for column in cache.columns if count and whole(column))


def committed(cache: Cache, column: str, unit: int) -> bool:
    """Whether the receipt of ``unit`` commits ``column`` as its teacher is today."""
    receipt = cache.receipt(unit)
    entry = receipt.columns.get(column) if receipt else None
    return entry is not None and entry.teacher == cache.meta.teacher_id(column)


def most_frames(cache: Cache) -> int:
    """How many frames of a clip fit into its share of the page."""
    side = min(cache.columns[FRAMES].shape[0], PICTURE_SIDE) if FRAMES in cache.columns else 0
    tokens = sum(column.shape[0] for name, column in cache.columns.items() if name != FRAMES and len(column.shape) == 2)
    each = side * side * _PHOTO_BYTES + tokens * _TOKEN_BYTES
    return MOST_FRAMES if not each else int(np.clip(CLIP_BYTES / each, FEWEST_FRAMES, MOST_FRAMES))


def _even(count: int, most: int) -> tuple[int, ...]:
    """At most ``most`` of ``count`` frames, evenly spread, the first and the last among them."""
    if count <= most:
        return tuple(range(count))
    return tuple(int(i) for i in np.linspace(0, count - 1, most).round())


def read_frames(
    cache: Cache, clip: ShownClip, column: str, frames: tuple[int, ...]
) -> Iterator[tuple[int, np.ndarray]]:
    """(frame of the clip, its value ``[*shape]``) for ``frames``, increasing; neighbours are read together."""
    begin = 0
    while begin < len(frames):
        end = begin + 1
        while end < len(frames) and end - begin < FEWEST_FRAMES and frames[end] == frames[end - 1] + 1:
            end += 1
        row = clip.row["first_row"] + frames[begin]
        values = cache.read(column, row, row + end - begin)
        yield from zip(frames[begin:end], values, strict=True)
        begin = end
