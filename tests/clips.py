"""Small videos whose every picture says its own number, so that a wrong one cannot pass for a right one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

BITS, CELL = 8, 16
SIZE = (BITS * CELL, 64)
"""Width and height of the pictures: a row of cells that are white for one and black for zero, over a grey field."""


def picture(number: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """The picture that shows ``number``, RGB [H, W, 3]. Its lower right is red: it has a right way up."""
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    for bit in range(BITS):
        image[: size[1] // 2, bit * size[0] // BITS : (bit + 1) * size[0] // BITS] = 255 * (number >> bit & 1)
    image[size[1] // 2 :, size[0] // 2 :] = (200, 40, 40)
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that a decoded picture shows."""
    height, width = image.shape[:2]
    cells = image[height // 4, width // BITS // 2 :: width // BITS].mean(axis=-1)
    return sum(1 << bit for bit, level in enumerate(cells) if level > 128)


def write_video(
    path: Path,
    ticks: Sequence[int],
    *,
    base: Fraction = Fraction(1, 1000),
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    rate: int = 25,
) -> Path:
    """A video whose k-th picture shows k and has the time ``ticks[k] * base``."""
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=rate))
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.time_base = base
        stream.codec_context.time_base = base
        stream.options = {"threads": "1", **(options or {})}
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(number % 256, size), format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = tick, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def steady(count: int, *, step: int = 40) -> list[int]:
    """Ticks of a constant rate."""
    return [step * number for number in range(count)]


def unsteady(count: int) -> list[int]:
    """Ticks of a variable rate: gaps of 20 to 180 milliseconds, in no simple order."""
    ticks = [0]
    for number in range(1, count):
        ticks.append(ticks[-1] + 20 + 40 * (number * number % 5))
    return ticks


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write the display matrix (a, b, c, d) into an MP4 file: stored (x, y) is shown at (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def cut_away(path: Path, milliseconds: int) -> None:
    """Move the beginning of an MP4 file's edit list, so that the pictures before it are decoded but not shown."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    timescale = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)[0]
    (duration, begin) = struct.unpack_from(">Ii", data, at + 8)
    struct.pack_into(">Ii", data, at + 8, duration - milliseconds, begin + milliseconds * timescale // 1000)
    path.write_bytes(data)
