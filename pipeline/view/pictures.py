"""Features as colours, and pictures as data URIs.

A column's tokens are projected on their first three principal components, which become red, green and blue. One
projection serves all the tokens it was fitted on, so that a colour means the same thing in every frame and clip.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

PICTURE_SIDE = 256
"""Frames are shown at most this wide, in pixels."""

_COMPONENTS = 3
_PERCENTILES = (
    2.0,
    98.0,
)  # of each component; what lies outside is clipped, so that a few outliers do not set the scale
_QUALITIES = (75, 55, 35, 20)
# A component whose share of the tokens' power is below this is rounding, not variation (float16 values, float32 sums).
_NOISE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """``mean`` float32 ``[width]``; ``axes`` float32 ``[width, 3]``, zero where there is no further variation;
    ``explained``: the share of the variance, 0 to 1, that lies along each axis."""

    mean: np.ndarray
    axes: np.ndarray
    explained: tuple[float, float, float]

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens ``[..., width]`` to float32 ``[..., 3]``."""
        points: np.ndarray = (tokens.astype(np.float32) - self.mean) @ self.axes
        return points


def fit_projection(batches: Iterable[np.ndarray]) -> Projection:
    """Principal components of all tokens in ``batches``, each ``[..., width]`` and read once; at least one token.

    An axis points to where its largest entry is positive, so that the same tokens always get the same colours.
    """
    count, mean, scatter = _moments(batches)
    values, vectors = np.linalg.eigh(scatter / count)
    order = np.argsort(values)[::-1][:_COMPONENTS]
    power = float(mean @ mean + np.trace(scatter) / count)
    total = float(np.trace(scatter) / count)
    axes = np.zeros((len(mean), _COMPONENTS))
    explained = [0.0] * _COMPONENTS
    for i, component in enumerate(order):
        if values[component] > _NOISE * power:
            axis = vectors[:, component]
            axes[:, i] = axis * np.sign(axis[np.abs(axis).argmax()])
            explained[i] = float(values[component] / total)
    red, green, blue = explained
    return Projection(mean=mean.astype(np.float32), axes=axes.astype(np.float32), explained=(red, green, blue))


def _moments(batches: Iterable[np.ndarray]) -> tuple[int, np.ndarray, np.ndarray]:
    """Count, mean ``[width]`` and summed outer products of the deviations ``[width, width]``, in float64."""
    count, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
    for batch in batches:
        tokens = batch.reshape(-1, batch.shape[-1]).astype(np.float32)
        here = tokens.mean(axis=0, dtype=np.float64)
        centred = tokens - here.astype(np.float32)
        outer = (centred.T @ centred).astype(np.float64)
        if not count:
            count, mean, scatter = len(tokens), here, outer
            continue
        # Chan, Golub and LeVeque: nothing cancels, however large the mean is.
        delta, total = here - mean, count + len(tokens)
        scatter += outer + np.outer(delta, delta) * (count * len(tokens) / total)
        mean = mean + delta * (len(tokens) / total)
        count = total
    if not count:
        raise ValueError("a projection needs at least one token")
    return count, mean, scatter


def colour_range(points: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The values of each component, float32 ``[3]`` twice, that become black and full colour in all of ``points``."""
    every = np.concatenate([part.reshape(-1, _COMPONENTS) for part in points])
    low, high = np.percentile(every, _PERCENTILES, axis=0)
    flat = high <= low  # variation in fewer tokens than the percentiles leave out
    low, high = np.where(flat, every.min(axis=0), low), np.where(flat, every.max(axis=0), high)
    return low.astype(np.float32), high.astype(np.float32)


def colours(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Projected tokens ``[..., 3]`` to RGB, uint8; a component without variation is mid-grey."""
    span = high - low
    scaled = np.where(span > 0, (points - low) / np.where(span > 0, span, 1), 0.5)
    return np.round(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)


def exact_uri(picture: np.ndarray) -> str:
    """uint8 ``[H, W, 3]`` as a lossless data URI."""
    return _uri(_webp(picture, lossless=True, quality=100, method=4))


def photo_uris(pictures: np.ndarray, *, budget: int) -> list[str]:
    """Frames uint8 ``[n, H, W, 3]`` as data URIs of ``budget`` bytes together, as far as quality 20 can do it."""
    small = [_shrunk(picture) for picture in pictures]
    uris: list[str] = []
    for quality in _QUALITIES:
        uris = [_uri(_webp(picture, lossless=False, quality=quality, method=2)) for picture in small]
        if sum(map(len, uris)) <= budget:
            break
    return uris


def _shrunk(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = PICTURE_SIDE / max(height, width)
    if factor >= 1:
        return picture
    target = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(Image.fromarray(picture).resize(target, Image.Resampling.LANCZOS))


def _webp(picture: np.ndarray, *, lossless: bool, quality: int, method: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "WEBP", lossless=lossless, quality=quality, method=method)
    return out.getvalue()


def _uri(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
