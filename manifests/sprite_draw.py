"""Drawing a scene: the picture of a frame, and the mask that says which sprite is seen at each pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frame.manifests.sprite_scene import KEYPOINTS, OUTLINES, Floats, Scene, Sprite

_BORDER = 0.2  # of the side: how much more background there is on each side than is seen at rest


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One frame, drawn: ``image`` uint8 [S, S, 3] RGB; ``mask`` uint8 [S, S], 1 + the sprite's index, 0 = none.

    Of each sprite: ``area``, the pixels it would cover on an endless canvas; ``inside``, the share of them in the
    picture; ``hidden``, the share of those that nearer sprites cover; ``keypoints`` [K, 3]: x, y, 1 where it is seen.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    area: list[int]
    inside: list[float]
    hidden: list[float]
    keypoints: list[Floats]


@dataclass(frozen=True, slots=True)
class _Stamp:
    """A sprite on the pixels around it: colour [h, w, 3], coverage [h, w], what lies inside, corner."""

    colour: Floats
    alpha: Floats
    solid: NDArray[np.bool_]
    left: int
    top: int


def draw(scene: Scene) -> Iterator[Drawing]:
    """Every frame of a scene."""
    ground = _ground(scene)
    for t in range(scene.frames):
        yield _draw_frame(scene, ground, t)


def _draw_frame(scene: Scene, ground: Floats, t: int) -> Drawing:
    canvas = _view(ground, scene, t)
    mask = np.zeros((scene.size, scene.size), np.uint8)
    stamps = [_stamp(sprite, t) for sprite in scene.sprites]
    for k in sorted(range(len(stamps)), key=lambda k: scene.sprites[k].depth):
        _put(stamps[k], canvas, mask, k + 1)
    area = [int(stamp.solid.sum()) for stamp in stamps]
    inside = [int(_clip(stamp, scene.size)[1].sum()) for stamp in stamps]
    seen = np.bincount(mask.ravel(), minlength=len(stamps) + 1)[1:]
    return Drawing(
        image=np.clip(np.rint(canvas), 0, 255).astype(np.uint8),
        mask=mask,
        area=area,
        inside=[n / total for n, total in zip(inside, area, strict=True)],
        hidden=[1 - int(s) / n if n else 0.0 for s, n in zip(seen, inside, strict=True)],
        keypoints=[_keypoints(sprite, mask, k + 1, t) for k, sprite in enumerate(scene.sprites)],
    )


def _stamp(sprite: Sprite, t: int) -> _Stamp:
    (x, y), radius = sprite.path.centre[t], sprite.path.radius[t]
    reach = int(np.ceil(radius)) + 2
    left, top = int(np.floor(x)) - reach, int(np.floor(y)) - reach
    grid = np.arange(2 * reach + 2)
    dx, dy = np.meshgrid(grid + left - x, grid + top - y)
    cos, sin = np.cos(sprite.path.angle[t]), np.sin(sprite.path.angle[t])
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    distance = _distance(OUTLINES[sprite.shape], u, v) * radius
    # A pixel belongs to the sprite when its centre does; the edge itself fades over one pixel.
    return _Stamp(_paint(sprite, u, v, distance, radius), np.clip(0.5 - distance, 0, 1), distance <= 0, left, top)


def _distance(corners: Floats, u: Floats, v: Floats) -> Floats:
    """Signed distance [h, w] to a polygon, or to the unit disc where there are no corners; negative inside."""
    if not len(corners):
        return np.asarray(np.hypot(u, v) - 1)
    nearest = np.full(u.shape, np.inf)
    inside = np.zeros(u.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey, pu, pv = bx - ax, by - ay, u - ax, v - ay
        along = np.clip((pu * ex + pv * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, np.hypot(pu - along * ex, pv - along * ey))
        if ay != by:
            inside ^= ((v >= ay) != (v >= by)) & (u < ax + (v - ay) * ex / ey)
    return np.where(inside, -nearest, nearest)


def _paint(sprite: Sprite, u: Floats, v: Floats, distance: Floats, radius: float) -> Floats:
    """The sprite's surface [h, w, 3]: its colour, a darker pattern that turns with it, light from above, a dark rim."""
    wave = {
        "stripes": np.sin(9 * u),
        "checks": np.sin(7 * u) * np.sin(7 * v) * 1.5,
        "dots": np.cos(8 * u) + np.cos(8 * v) - 0.9,
        "rings": np.sin(10 * np.hypot(u - 0.2, v - 0.2)),
    }[sprite.texture]
    pattern = np.clip(0.5 + wave * radius / 9, 0, 1)  # as sharp as the pixels allow
    light = (1 - 0.3 * pattern) * (1 + 0.1 * (-u - v))
    rim = np.clip((distance + max(1.2, 0.06 * radius)) / 1.5, 0, 1)
    shade = light * (1 - 0.5 * rim)
    return np.asarray(shade[..., None] * np.array(sprite.colour, dtype=np.float64))


def _clip(stamp: _Stamp, size: int) -> tuple[tuple[slice, slice], NDArray[np.bool_], tuple[slice, slice]]:
    """Where a stamp meets the picture: the part of the picture, what is solid there, the part of the stamp."""
    height, width = stamp.solid.shape
    rows = slice(min(max(0, stamp.top), size), max(0, min(size, stamp.top + height)))
    cols = slice(min(max(0, stamp.left), size), max(0, min(size, stamp.left + width)))
    own = (slice(rows.start - stamp.top, rows.stop - stamp.top), slice(cols.start - stamp.left, cols.stop - stamp.left))
    if rows.stop <= rows.start or cols.stop <= cols.start:
        rows, cols, own = slice(0, 0), slice(0, 0), (slice(0, 0), slice(0, 0))
    return (rows, cols), stamp.solid[own], own


def _put(stamp: _Stamp, canvas: Floats, mask: NDArray[np.uint8], number: int) -> None:
    where, solid, own = _clip(stamp, len(mask))
    alpha = stamp.alpha[own][..., None]
    canvas[where] = canvas[where] * (1 - alpha) + stamp.colour[own] * alpha
    mask[where][solid] = number


def _keypoints(sprite: Sprite, mask: NDArray[np.uint8], number: int, t: int) -> Floats:
    cos, sin = np.cos(sprite.path.angle[t]), np.sin(sprite.path.angle[t])
    turned = KEYPOINTS[sprite.shape] @ np.array([[cos, sin], [-sin, cos]])
    points = np.round(sprite.path.centre[t] + sprite.path.radius[t] * turned, 3)
    cols, rows = np.rint(points).astype(int).T
    size = len(mask)
    within = (cols >= 0) & (cols < size) & (rows >= 0) & (rows < size)
    seen = within & (mask[rows.clip(0, size - 1), cols.clip(0, size - 1)] == number)
    return np.concatenate([points, seen[:, None].astype(np.float64)], axis=1)


def _ground(scene: Scene) -> Floats:
    """The background [L, L, 3], larger than the picture: muted hills of colour with finer and finer grain."""
    rng = np.random.default_rng(scene.ground)
    length = scene.size + 2 * round(_BORDER * scene.size) + 2
    tones = rng.uniform(60, 150, (3, 3)) * 0.6 + rng.uniform(60, 150, (3, 1)) * 0.4
    hills = np.stack([_noise(rng, length, 5) for _ in range(3)], axis=-1)
    hills = np.exp(3 * hills)
    colour = (hills / hills.sum(axis=-1, keepdims=True)) @ tones
    grain = sum(16 * 0.75**k * _noise(rng, length, cells) for k, cells in enumerate((10, 22, 48, 100)))
    return np.asarray(colour + np.asarray(grain)[..., None])


def _noise(rng: np.random.Generator, length: int, cells: int) -> Floats:
    """Smooth noise [length, length] of unit variance, with ``cells`` bumps a side."""
    values = Image.fromarray(rng.standard_normal((cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(values.resize((length, length), Image.Resampling.BICUBIC), dtype=np.float64)


def _view(ground: Floats, scene: Scene, t: int) -> Floats:
    """What the camera sees of the background [S, S, 3], at a fraction of a pixel."""
    start = scene.camera[t] + (len(ground) - scene.size) / 2
    left, top = (int(value) for value in np.floor(start))
    fx, fy = start - np.floor(start)
    size = scene.size
    block = ground[top : top + size + 1, left : left + size + 1]
    rows = block[:-1] * (1 - fy) + block[1:] * fy
    return np.asarray(rows[:, :-1] * (1 - fx) + rows[:, 1:] * fx)
