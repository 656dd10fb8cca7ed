"""Which clips a page shows, and which of their frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from frame.pipeline.store import Cache
from frame.pipeline.store.layout import FRAMES
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
    """Up to ``count`` clips by lot, one of each label before a second of any; in the cache's order."""
    order = np.random.default_rng(seed).permutation(cache.index.num_rows)
    positions = [int(position) for position in order]
    chosen: dict[int, ShownClip] = {}
    labels: set[tuple[str, str]] = set()
    for fresh in (True, False):
        for position in positions:
            if len(chosen) >= count:
                break
            kind = (cache.index["label"][position].as_py(), cache.index["split"][position].as_py())
            if position in chosen or (fresh and kind in labels):
                continue
            clip = _shown(cache, position)
            if clip is not None:
                chosen[position] = clip
                labels.add(kind)
    return [chosen[position] for position in sorted(chosen)]


def _shown(cache: Cache, position: int) -> ShownClip | None:
    row = cache.index.slice(position, 1).to_pylist()[0]
    columns = tuple(name for name in cache.columns if row["n_frames"] and _readable(cache, name, row))
    if not columns:
        return None
    return ShownClip(position=position, row=row, columns=columns, frames=_even(row["n_frames"], most_frames(cache)))


def _readable(cache: Cache, column: str, row: dict[str, Any]) -> bool:
    """Whether every frame of the clip is committed in ``column`` and none failed."""
    size, begin = cache.meta.rows_per_unit, row["first_row"]
    end = begin + row["n_frames"]
    for unit in range(begin // size, -(-end // size)):
        if not committed(cache, column, unit):
            return False
        if not cache.readable(column, unit)[max(begin - unit * size, 0) : end - unit * size].all():
            return False
    return True


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
