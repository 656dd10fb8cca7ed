"""The clips of a page: their frames, every patch column in colours, every CLS column as a matrix, and the curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from frame.pipeline.store import Cache
from frame.pipeline.store.columns import FRAMES
from frame.pipeline.view import text
from frame.pipeline.view.choose import CLIP_BYTES, ShownClip, read_frames
from frame.pipeline.view.curves import (
    Chart,
    axis_floor,
    chart,
    mean_cosine,
    similarity,
    similarity_picture,
    unit,
)
from frame.pipeline.view.pictures import Projection, colour_range, colours, exact_uri, fit_projection, photo_uris

_LEAST_PHOTO_BYTES = CLIP_BYTES // 4  # left to the frames however much the features take


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One column of one clip. ``pictures``: a data URI a shown frame; for a matrix, one in all; none where the tokens
    have no known grid. ``wide`` is a picture's width over its height. ``low``: what a matrix shows darkest."""

    column: str
    kind: str  # "colours" | "matrix" | "none"
    pictures: tuple[str, ...]
    wide: float
    low: float
    chart: Chart | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipView:
    """One clip as the template takes it. ``steps``: what each shown frame is, in words; ``interval``: milliseconds
    from one to the next when played; ``photos``: data URIs, none where the cache keeps no frames."""

    name: str
    facts: tuple[tuple[str, str], ...]
    steps: tuple[str, ...]
    interval: int
    frames: int
    photos: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Track:
    """One column followed through one clip: ``values`` are projected tokens ``[tokens, 3]``, or CLS vectors."""

    to_first: list[float] = field(default_factory=list)
    to_previous: list[float] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)


def view_clips(cache: Cache, chosen: Sequence[ShownClip]) -> tuple[list[ClipView], dict[str, float]]:
    """The chosen clips, and for every patch column the share of its variance that the three colours hold.

    Raises ``CacheError`` where a row is damaged.
    """
    panels: dict[int, list[Panel]] = {clip.position: [] for clip in chosen}
    tracks: dict[str, dict[int, _Track]] = {}
    explained: dict[str, float] = {}
    for column in _features(cache):
        clips = [clip for clip in chosen if column in clip.columns]
        projection = _fit(cache, column, clips) if clips and len(cache.columns[column].shape) == 2 else None
        if projection is not None:
            explained[column] = sum(projection.explained)
        tracks[column] = {clip.position: _follow(cache, clip, column, projection) for clip in clips}
    lows = {clip.position: _floor(tracks, clip.position) for clip in chosen}
    for column, found in tracks.items():
        for position, panel in _panels(cache, column, found, lows):
            panels[position].append(panel)
    return [_view(cache, clip, panels[clip.position]) for clip in chosen], explained


def _features(cache: Cache) -> list[str]:
    """Columns of tokens, then columns of one vector a frame."""
    ranks = {name: len(column.shape) for name, column in cache.columns.items() if name != FRAMES}
    return [name for rank in (2, 1) for name, found in ranks.items() if found == rank]


def _fit(cache: Cache, column: str, clips: Sequence[ShownClip]) -> Projection:
    def tokens() -> Iterator[np.ndarray]:
        for clip in clips:
            for _, value in read_frames(cache, clip, column, clip.frames):
                yield value

    return fit_projection(tokens())


def _follow(cache: Cache, clip: ShownClip, column: str, projection: Projection | None) -> _Track:
    """Shown frames compared with the first, and each with the one just before it, shown or not."""
    track, shown = _Track(), set(clip.frames)
    wanted = tuple(sorted(shown | {number - 1 for number in shown if number}))
    first = previous = np.empty(0)
    for number, value in read_frames(cache, clip, column, wanted):
        here = unit(value)
        if number == 0:
            first = here
        if number in shown:
            track.to_first.append(mean_cosine(here, first))
            track.values.append(value if projection is None else projection(value))
            if number:
                track.to_previous.append(mean_cosine(here, previous))
        previous = here
    return track


def _floor(tracks: dict[str, dict[int, _Track]], position: int) -> float:
    """One axis for all the curves of a clip, so that they can be compared."""
    found = [track[position] for track in tracks.values() if position in track]
    return axis_floor([value for track in found for value in (*track.to_first, *track.to_previous)])


def _panels(
    cache: Cache, column: str, tracks: dict[int, _Track], lows: dict[int, float]
) -> Iterator[tuple[int, Panel]]:
    grid = _grid(cache, column)
    tokens = len(cache.columns[column].shape) == 2
    low, high = (
        colour_range([np.stack(track.values) for track in tracks.values()]) if tokens and tracks else (None, None)
    )
    for position, track in tracks.items():
        curves = chart(track.to_first, track.to_previous, low=lows[position]) if track.to_previous else None
        values = np.stack(track.values)
        if not tokens:
            yield position, _matrix(column, values, curves)
        elif grid is None or low is None or high is None:
            yield position, Panel(column=column, kind="none", pictures=(), wide=1.0, low=0.0, chart=curves)
        else:
            pictures = colours(values, low, high).reshape(len(values), *grid, 3)
            uris = tuple(exact_uri(picture) for picture in pictures)
            wide = grid[1] / grid[0]
            yield position, Panel(column=column, kind="colours", pictures=uris, wide=wide, low=0.0, chart=curves)


def _matrix(column: str, vectors: np.ndarray, curves: Chart | None) -> Panel:
    matrix = similarity(vectors)
    low = axis_floor([float(matrix.min())])
    uri = exact_uri(similarity_picture(matrix, low=low))
    return Panel(column=column, kind="matrix", pictures=(uri,), wide=1.0, low=low, chart=curves)


def _grid(cache: Cache, column: str) -> tuple[int, int] | None:
    """(rows, columns) of a patch column: as its teacher's record says; a square where the record says nothing."""
    tokens, teacher = cache.columns[column].shape[0], cache.columns[column].teacher
    recorded = cache.meta.teachers.get(teacher, {}).get("grid") if teacher else None
    if recorded is None:
        side = math.isqrt(tokens)
        recorded = (side, side)
    rows, columns = recorded
    return (rows, columns) if rows * columns == tokens else None


def _view(cache: Cache, clip: ShownClip, panels: list[Panel]) -> ClipView:
    row = clip.row
    photos: list[str] = []
    if FRAMES in clip.columns:
        taken = sum(len(uri) for panel in panels for uri in panel.pictures)
        frames = np.stack([value for _, value in read_frames(cache, clip, FRAMES, clip.frames)])
        photos = photo_uris(frames, budget=max(CLIP_BYTES - taken, _LEAST_PHOTO_BYTES))
    times = row["timestamps"]
    return ClipView(
        name=row["clip"],
        facts=_facts(clip),
        steps=tuple(f"frame {i + 1:,} of {len(times):,}, {times[i]:.3f} s" for i in clip.frames),
        interval=_interval([times[i] for i in clip.frames]),
        frames=len(times),
        photos=tuple(photos),
        panels=tuple(panels),
    )


def _facts(clip: ShownClip) -> tuple[tuple[str, str], ...]:
    row: dict[str, Any] = clip.row
    length = text.plural(row["n_frames"], "frame")
    if len(clip.frames) < row["n_frames"]:
        length += f", {len(clip.frames)} shown"
    segment = "" if row["start"] is None else f"{row['start']:.2f} to {row['end']:.2f} s" if row["end"] else ""
    rate = f", {row['fps']:.4g} fps" if row["fps"] else ""
    facts = (
        ("label", row["label"]),
        ("split", row["split"]),
        ("source", row["source"]),
        ("segment", segment),
        ("decoded", f"{row['width']} × {row['height']}{rate}"),
        ("kept", length),
    )
    return tuple((name, value) for name, value in facts if value)


def _interval(times: Sequence[float]) -> int:
    """Milliseconds a frame that play a clip about as fast as it was, and never faster than a page can follow."""
    if len(times) < 2:
        return 0
    return int(np.clip(1000 * (times[-1] - times[0]) / (len(times) - 1), 40, 500))
