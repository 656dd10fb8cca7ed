"""The way a picture is meant to be held up: the display matrix as flips and a swap of axes."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from frame.pipeline.decode.errors import ClipError


@dataclass(frozen=True, slots=True)
class Orientation:
    """First swap rows and columns (``transpose``), then reverse columns (``flip_x``), then rows (``flip_y``)."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of ``image`` [H, W, 3] the right way up; [W, H, 3] when it is transposed."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    @property
    def degrees(self) -> int:
        """The rotation, clockwise, that this is, after a mirroring left to right where it is a mirroring too."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0


def orientation_of(frame: VideoFrame) -> Orientation:
    """How ``frame`` is to be turned. Raises ClipError when that is not by quarter turns.

    The display matrix maps stored (x, y) to shown (a x + c y, b x + d y). Its scale is left aside, as players do;
    a matrix without any is ignored, as FFmpeg does.
    """
    # PyAV's own annotation of this iterator is that of a mapping's keys.
    side_data = cast("Iterable[SideData]", frame.side_data)
    matrix = next((data for data in side_data if data.type is Type.DISPLAYMATRIX), None)
    if matrix is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if a * d == b * c:
        return Orientation()
    straight, crossed = math.hypot(a, d), math.hypot(b, c)
    if min(straight, crossed) > 0.01 * max(straight, crossed):
        raise ClipError("picture-unsupported", "turned by an angle that is not a quarter turn")
    if straight > crossed:
        return Orientation(flip_x=a < 0, flip_y=d < 0)
    return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
