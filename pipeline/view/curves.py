"""How features move through a clip: cosines as curves, and frames compared with frames as a small picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Dark to light through evenly brighter colours (the anchors of matplotlib's viridis, CC0).
_SCALE = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], dtype=np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``[..., width]`` at length one, float32; a vector of zeros stays as it is."""
    values = vectors.astype(np.float32)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    normed: np.ndarray = values / np.where(length > 0, length, 1)
    return normed


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of unit vectors ``[..., width]`` that lie at the same place, averaged over the places."""
    return min(float(np.sum(a * b, axis=-1).mean()), 1.0)


def similarity(vectors: np.ndarray) -> np.ndarray:
    """Cosine of every pair of ``[n, width]``, float32 ``[n, n]``."""
    normed = unit(vectors)
    cosines: np.ndarray = np.clip(normed @ normed.T, -1.0, 1.0)
    return cosines


def similarity_picture(matrix: np.ndarray, *, low: float) -> np.ndarray:
    """Cosines ``[n, n]`` from ``low`` (dark) to 1 (light) as RGB, uint8 ``[n, n, 3]``."""
    place = np.clip((matrix - low) / (1.0 - low), 0.0, 1.0) * (len(_SCALE) - 1)
    below = np.minimum(place.astype(int), len(_SCALE) - 2)
    part = (place - below)[..., None]
    colours: np.ndarray = np.round(_SCALE[below] * (1 - part) + _SCALE[below + 1] * part).astype(np.uint8)
    return colours


def axis_floor(values: Sequence[float]) -> float:
    """Where an axis begins that ends at 1 and holds all ``values``: a round number below 1."""
    lowest = min(values, default=1.0)
    step = 0.1 if lowest < 0.9 else 0.01
    return round(min(math.floor(lowest / step + 1e-9) * step, 1.0 - step), 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Two curves over the shown frames, as SVG paths in a box of 100 x 100.

    ``low`` is the cosine at the bottom, 1 is at the top; ``words`` say what one sees.
    """

    to_first: str
    to_previous: str
    low: float
    words: str


def chart(to_first: Sequence[float], to_previous: Sequence[float], *, low: float) -> Chart:
    """``to_first``: a value a shown frame, two or more; ``to_previous``: the same without the first frame."""
    words = (
        f"Cosine to the first frame: {to_first[-1]:.2f} at the end, {min(to_first):.2f} at its lowest. "
        f"Cosine to the previous frame: {np.mean(to_previous):.3f} on average, {min(to_previous):.3f} at its lowest."
    )
    last = len(to_first) - 1
    return Chart(
        to_first=_path(to_first, begin=0, last=last, low=low),
        to_previous=_path(to_previous, begin=1, last=last, low=low),
        low=low,
        words=words,
    )


def _path(values: Sequence[float], *, begin: int, last: int, low: float) -> str:
    points = [f"{100 * (begin + i) / last:.2f} {100 * (1 - value) / (1 - low):.2f}" for i, value in enumerate(values)]
    return "M" + "L".join(points)
