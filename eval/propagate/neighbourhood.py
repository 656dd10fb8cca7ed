"""Which cells of a grid count as near each other, without a mask of (hw)^2.

a b the two sides of the grid, Q queries in ``begin``..``end`` along a, K keys in ``first``..``last`` along a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Shape = Literal["square", "circle", "none"]

# Masks of bands kept at hand: those of a video's inner bands are all the same, a few at the borders differ.
_KEPT = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Queries ``begin`` to ``end`` along the first side of a grid, and the keys that they can reach."""

    begin: int
    end: int
    first: int
    last: int
    short: int

    @property
    def queries(self) -> slice:
        """Their cells, in row-major order."""
        return slice(self.begin * self.short, self.end * self.short)

    @property
    def keys(self) -> slice:
        """The cells of the keys."""
        return slice(self.first * self.short, self.last * self.short)


def reach(shape: Shape, radius: float) -> int | None:
    """How many cells away along one side a key may be. None: any distance."""
    if shape == "none":
        return None
    return math.floor(radius) if shape == "square" else math.ceil(radius) - 1


def bands(long: int, short: int, *, far: int | None, held: int, frames: int, least: int) -> list[Band]:
    """The grid's first side in bands of equal width, so that ``held`` similarities with ``frames`` frames are enough.

    A band has ``least`` queries, and whole lines of cells: for a large grid that may hold more.
    """

    def cost(width: int) -> int:
        keys = long if far is None else min(long, width + 2 * far)
        return frames * width * keys * short * short

    fewest = min(long, -(-least // short))
    width = next((width for width in range(long, fewest, -1) if cost(width) <= held), fewest)
    width = -(-long // -(-long // width))
    begins = range(0, long, width)
    ends = [min(long, begin + width) for begin in begins]
    whole = long if far is None else far
    return [
        Band(begin=begin, end=end, first=max(0, begin - whole), last=min(long, end + whole), short=short)
        for begin, end in zip(begins, ends, strict=True)
    ]


def within(shape: Shape, radius: float, da: Tensor, db: Tensor) -> Tensor:
    """Whether keys so many cells away count. The circle's border does not, the square's does."""
    if shape == "none":
        return torch.ones_like(da + db, dtype=torch.bool)
    if shape == "square":
        return (da.abs() <= radius) & (db.abs() <= radius)
    # The distance as float32, as the references compare it.
    return (da * da + db * db).float() ** 0.5 < radius


def near(shape: Shape, radius: float, band: Band, keys_QS: Tensor) -> Tensor:
    """Whether each query's selected keys, cells of the whole grid, count: bool [Q, S]."""
    queries_Q1 = torch.arange(band.queries.start, band.queries.stop, device=keys_QS.device)[:, None]
    return within(
        shape, radius, queries_Q1 // band.short - keys_QS // band.short, queries_Q1 % band.short - keys_QS % band.short
    )


def band_mask(shape: Shape, radius: float, band: Band, device: torch.device) -> Tensor:
    """What to add to the similarities of a band: 0, or -inf for a key that does not count. float32 [Q, K].

    ``none`` has a mask of one zero.
    """
    if shape == "none":
        return torch.zeros(1, 1, device=device)
    return _mask(
        shape, radius, band.begin - band.first, band.end - band.begin, band.last - band.first, band.short, device
    )


@lru_cache(maxsize=_KEPT)
def _mask(shape: Shape, radius: float, before: int, width: int, keys: int, short: int, device: torch.device) -> Tensor:
    a_Q, a_K = torch.arange(width, device=device) + before, torch.arange(keys, device=device)
    b = torch.arange(short, device=device)
    counts = within(
        shape, radius, a_Q[:, None, None, None] - a_K[:, None], b[:, None, None] - b
    )  # [width, short, keys, short]
    mask = torch.zeros(counts.shape, device=device).masked_fill_(~counts, float("-inf"))
    return mask.flatten(2, 3).flatten(0, 1)
