"""The part of an id map where anything is: most of a mask is background, which needs neither memory nor time.

H W pixels of the whole map, h w of the part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A part of an id map, and where in the map it lies. All other pixels of the map are 0."""

    ids_hw: Ids
    top: int
    left: int
    size: tuple[int, int]  # height and width of the whole map

    @property
    def bottom(self) -> int:
        """The first row below the part."""
        return self.top + len(self.ids_hw)

    @property
    def right(self) -> int:
        """The first column right of the part."""
        return self.left + int(self.ids_hw.shape[1])

    def whole(self) -> Ids:
        """The whole map, [H, W]."""
        ids_HW = np.zeros(self.size, dtype=np.uint8)
        ids_HW[self.top : self.bottom, self.left : self.right] = self.ids_hw
        return ids_HW


def cut_out(ids_HW: Ids) -> Cut:
    """The smallest part that holds every pixel above 0; of an empty map nothing. No copy is made."""
    tall = _extent(ids_HW.max(axis=1))
    wide = _extent(ids_HW[tall].max(axis=0, initial=0))
    size = (ids_HW.shape[0], ids_HW.shape[1])
    return Cut(ids_hw=ids_HW[tall, wide], top=tall.start, left=wide.start, size=size)


def _extent(most: Ids) -> slice:
    places = np.flatnonzero(most)
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)
