"""What happens in a generated clip: which sprites, where each is in every frame, and how the camera moves.

Everything here is geometry in pixels, a pure function of (seed, clip index, class, frames, size). Coordinates are
(x, y) with the centre of the top left pixel at (0, 0); angles are radians, clockwise on the screen.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]

_MEETING = 20  # the frame at which the main sprite and one that stands in its way are together
TEXTURES = ("stripes", "checks", "dots", "rings")


def _regular(corners: int, turn: float = -np.pi / 2) -> Floats:
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> Floats:
    radii = np.tile([1.0, 0.5], 5)[:, None]
    return radii * _regular(10)


def _cross() -> Floats:
    a, b = 0.36, 0.93
    return np.array(
        [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a]]
    )


def _arrow() -> Floats:
    return np.array([[1.0, 0], [0.1, 0.85], [0.1, 0.36], [-0.9, 0.36], [-0.9, -0.36], [0.1, -0.36], [0.1, -0.85]])


# Corners in units of the radius; the disc has none.
OUTLINES: dict[str, Floats] = {
    "disc": np.zeros((0, 2)),
    "square": _regular(4, np.pi / 4),
    "triangle": _regular(3),
    "hexagon": _regular(6),
    "star": _star(),
    "cross": _cross(),
    "arrow": _arrow(),
}


def _tips(shape: str) -> Floats:
    """Keypoints of a shape in units of its radius: the centre, then points a little inside of its corners."""
    if shape == "arrow":  # its barbs are too sharp for points drawn towards the centre to stay inside
        return np.array([[0, 0], [0.7, 0], [0.2, 0.6], [-0.72, 0.22], [-0.72, -0.22], [0.2, -0.6]])
    corners = {"disc": _regular(4), "star": _star()[::2], "cross": _regular(4)}.get(shape, OUTLINES[shape])
    inset = {"disc": 0.75, "star": 0.72, "cross": 0.75, "triangle": 0.66}.get(shape, 0.78)
    return np.concatenate([np.zeros((1, 2)), inset * corners])


KEYPOINTS: dict[str, Floats] = {shape: _tips(shape) for shape in OUTLINES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """Where a sprite is, frame by frame: centre [T, 2] and radius [T] in pixels, angle [T]."""

    centre: Floats
    radius: Floats
    angle: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Sprite:
    """One object. ``depth`` orders the drawing: what has more lies nearer and hides the others."""

    shape: str
    colour: Colour
    texture: str
    motion: str
    depth: int
    path: Path  # on the screen, the camera's motion taken into account


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A clip before it is drawn. The first sprite is the one whose motion gives the clip its class."""

    label: str
    frames: int
    size: int
    sprites: tuple[Sprite, ...]
    camera: Floats  # [T, 2]: how far the background has moved to the left and up since the camera's rest
    ground: int  # seed of the background


@dataclass(frozen=True, slots=True)
class _Track:
    """A path in units of the frame's side, before the camera moves."""

    x: Floats
    y: Floats
    scale: Floats
    angle: Floats


Motion = Callable[[np.random.Generator, Floats], _Track]


def _to_and_fro(t: Floats, period: float, phase: float) -> Floats:
    """A triangle wave between 0 and 1, so that a clip of any length stays in the picture."""
    return np.abs(((t / period + phase) % 1.0) * 2 - 1)


def _slide(rng: np.random.Generator, t: Floats) -> _Track:
    along = _to_and_fro(t, rng.uniform(60, 84), rng.choice([0.0, 0.5]))
    y0, y1 = rng.uniform(0.3, 0.7, 2)
    return _Track(0.2 + 0.6 * along, y0 + (y1 - y0) * along, np.ones_like(t), np.zeros_like(t) + rng.uniform(-0.4, 0.4))


def _bounce(rng: np.random.Generator, t: Floats) -> _Track:
    along = _to_and_fro(t, rng.uniform(90, 130), rng.choice([0.0, 0.5]))
    hop = (t / rng.uniform(22, 30) + rng.uniform()) % 1.0
    return _Track(0.22 + 0.56 * along, 0.76 - 0.44 * 4 * hop * (1 - hop), np.ones_like(t), np.zeros_like(t))


def _orbit(rng: np.random.Generator, t: Floats) -> _Track:
    turn = rng.choice([-1, 1]) * 2 * np.pi * t / rng.uniform(36, 50) + rng.uniform(0, 2 * np.pi)
    return _Track(0.5 + 0.26 * np.cos(turn), 0.5 + 0.26 * np.sin(turn), np.ones_like(t), np.zeros_like(t))


def _spin(rng: np.random.Generator, t: Floats) -> _Track:
    turn = rng.choice([-1, 1]) * 2 * np.pi * t / rng.uniform(26, 40)
    x, y = rng.uniform(0.38, 0.62, 2)
    return _Track(np.full_like(t, x), np.full_like(t, y), np.full_like(t, 1.2), turn + rng.uniform(0, 2 * np.pi))


def _grow(rng: np.random.Generator, t: Floats) -> _Track:
    x, y = rng.uniform(0.4, 0.6, 2)
    swell = 1.15 + 0.5 * np.sin(2 * np.pi * (t / rng.uniform(34, 48) + rng.uniform()))
    return _Track(np.full_like(t, x), np.full_like(t, y), swell, np.full_like(t, rng.uniform(-0.4, 0.4)))


def _hide(rng: np.random.Generator, t: Floats) -> _Track:
    """Behind the screen that stands in the middle, and out again."""
    along = _to_and_fro(t, rng.uniform(60, 76), rng.choice([0.0, 0.5]))
    y = np.full_like(t, rng.uniform(0.45, 0.55))
    return _Track(0.14 + 0.72 * along, y, np.full_like(t, 0.8), np.full_like(t, rng.uniform(-0.3, 0.3)))


MOTIONS: dict[str, Motion] = {
    "slide": _slide,
    "bounce": _bounce,
    "orbit": _orbit,
    "spin": _spin,
    "grow": _grow,
    "hide": _hide,
}
CLASSES = tuple(MOTIONS)


def make_scene(label: str, *, seed: int, index: int, frames: int, size: int) -> Scene:
    """The scene of clip ``index``. More frames only continue it; a greater size only magnifies it."""
    rng = np.random.default_rng([seed, index])
    # Placing looks at frame 20, so a shorter clip is worked out to there too and then cut.
    t = np.arange(max(frames, _MEETING + 1), dtype=np.float64)
    shapes = [str(shape) for shape in rng.permutation(list(OUTLINES))]
    colours = _colours(rng, 4)
    camera = _camera(rng, t)[:frames] * size
    main = MOTIONS[label](rng, t)
    tracks = [(label, main, rng.uniform(0.14, 0.17)), *_companions(rng, t, label, main)]
    # The screen to hide behind lies nearest, and the sprite that hides right behind it.
    depths = [int(depth) for depth in rng.permutation(len(tracks))]
    if label == "hide":
        depths = [len(tracks) - 2, len(tracks) - 1, *range(len(tracks) - 2)]
        shapes = _swapped(shapes, 1, "square")
    sprites = [
        Sprite(
            shape=shapes[k],
            colour=colours[k],
            texture=TEXTURES[int(rng.integers(len(TEXTURES)))],
            motion=motion,
            depth=depths[k],
            path=_on_screen(track, radius, camera, size),
        )
        for k, (motion, track, radius) in enumerate(tracks)
    ]
    ground = int(rng.integers(2**31))
    return Scene(label=label, frames=frames, size=size, sprites=tuple(sprites), camera=camera, ground=ground)


def _swapped(shapes: list[str], position: int, shape: str) -> list[str]:
    other = shapes.index(shape)
    shapes[position], shapes[other] = shapes[other], shapes[position]
    return shapes


def _companions(rng: np.random.Generator, t: Floats, label: str, main: _Track) -> list[tuple[str, _Track, float]]:
    """One to three other sprites that stand still: often one where the main one comes by, the others well apart."""
    taken = [np.array([main.x[0], main.y[0]])]
    placed: list[tuple[str, _Track, float]] = []
    if label == "hide":
        taken.append(np.array([0.5, 0.5]))
        placed.append(("still", _standing(t, 0.5, 0.5, 0.0), 0.25))
    elif rng.uniform() < 0.7:
        side, apart = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.2)
        x, y = np.clip([main.x[_MEETING] + apart * np.cos(side), main.y[_MEETING] + apart * np.sin(side)], 0.16, 0.84)
        taken.append(np.array([x, y]))
        placed.append(("still", _standing(t, x, y, rng.uniform(0, 2 * np.pi)), rng.uniform(0.11, 0.14)))
    for _ in range(int(rng.integers(1, 3))):
        spots = rng.uniform(0.18, 0.82, (24, 2))
        gaps = np.min([np.hypot(*(spots - spot).T) for spot in taken], axis=0)
        x, y = spot = spots[int(np.argmax(gaps))]
        taken.append(spot)
        placed.append(("still", _standing(t, x, y, rng.uniform(0, 2 * np.pi)), rng.uniform(0.11, 0.14)))
    return placed


def _standing(t: Floats, x: float, y: float, angle: float) -> _Track:
    return _Track(np.full_like(t, x), np.full_like(t, y), np.ones_like(t), np.full_like(t, angle))


def _camera(rng: np.random.Generator, t: Floats) -> Floats:
    """The camera's way [T, 2] in units of the frame's side: still, panning to and fro, or wandering."""
    kind = rng.choice(["still", "pan", "wander"], p=[0.2, 0.4, 0.4])
    reach = rng.uniform(0.06, 0.1) * (kind != "still")
    direction = rng.uniform(0, 2 * np.pi)
    phases = rng.uniform(0, 2 * np.pi, 2)
    periods = rng.uniform(50, 90, 2)
    waves = np.sin(2 * np.pi * t[:, None] / periods + phases)
    if kind == "pan":
        return np.asarray(reach * waves[:, :1] * np.array([np.cos(direction), np.sin(direction)]))
    return np.asarray(reach * waves)


def _on_screen(track: _Track, radius: float, camera: Floats, size: int) -> Path:
    frames = len(camera)
    centre = np.stack([track.x, track.y], axis=1)[:frames] * size - 0.5 - camera
    return Path(centre=centre, radius=radius * track.scale[:frames] * size, angle=track.angle[:frames])


def _colours(rng: np.random.Generator, count: int) -> list[Colour]:
    """Strong colours, as far apart on the wheel as their number allows."""
    start = rng.uniform()
    return [_rgb((start + k / count) % 1.0, rng.uniform(0.7, 0.9), rng.uniform(0.85, 1.0)) for k in range(count)]


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue
