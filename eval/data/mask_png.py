"""Id maps from PNG files: palette indices as they are stored, never colours.

H W pixels. A mask is a few thousand bytes that unpack to mostly zeros, and general readers spend most of their time on
unpacked bytes. The two kinds that datasets and their tools write (8-bit palette without filters, 8-bit grey with
horizontal differences) are therefore unpacked here, and only where something is; everything else goes through Pillow.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from isal import isal_zlib
from PIL import Image

from frame.eval.metrics.cut import Cut, Ids, cut_out
from frame.manifests.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_PIXELS = 1 << 28
_DAMAGED = cast(type[Exception], isal_zlib.IsalError)  # its stubs say that it is an instance
_LEFT = 1  # the filter that keeps differences from the pixel to the left


def read_ids(path: Path) -> Ids:
    """The ids of a mask, [H, W]: palette indices, or grey values (a 1-bit image has ids 0 and 1).

    Raises InputError for a file that is not there or damaged, and for a colour image, which has no ids.
    """
    return cut_rows(read_rows(path)).whole()


def read_rows(path: Path) -> Ids:
    """The rows of a mask as PNG stores them, [H, 1 + W], for ``cut_rows``: one byte that names the filter, then bytes
    of ids or of differences.

    Nearly all the time is spent unpacking, which other threads need not wait for. Raises InputError as ``read_ids``.
    """
    try:
        rows = _unpack(path.read_bytes())
        return np.pad(_by_pillow(path), ((0, 0), (1, 0))) if rows is None else rows
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            what="A mask cannot be read.",
            where=str(path),
            why="there is no such file" if isinstance(error, FileNotFoundError) else f"{error}",
        ) from error


def cut_rows(rows: Ids) -> Cut:
    """The part of a mask where anything is, from what ``read_rows`` gave."""
    return _summed(rows[:, 1:]) if rows[:, 0].any() else cut_out(rows[:, 1:])


def _by_pillow(path: Path) -> Ids:
    with Image.open(path) as image:
        if image.mode not in ("P", "L", "1"):
            raise InputError(
                what="A mask is a colour image, not a map of ids.",
                where=str(path),
                why=f"its mode is {image.mode}, with {len(image.getbands())} channels",
                fix="give 8-bit palette or grey PNGs, whose values are the ids",
            )
        return np.asarray(image).astype(np.uint8)


def _unpack(data: bytes) -> Ids | None:
    """The rows, or None for a file that is not of the two plain kinds, or not whole."""
    if not data.startswith(_SIGNATURE) or len(data) < 33:
        return None
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if depth != 8 or colour not in (_GREY, _PALETTE) or interlace or not 0 < width * height <= _PIXELS:
        return None
    size = height * (width + 1)
    inflater = isal_zlib.decompressobj()
    try:
        packed = inflater.decompress(b"".join(_parts(data)), size + 1)
    except (_DAMAGED, struct.error):
        return None
    if len(packed) != size or not inflater.eof:
        return None
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(height, width + 1)
    filters = rows[:, 0]
    return rows if not filters.any() or (filters == _LEFT).all() else None


def _parts(data: bytes) -> list[bytes]:
    """The compressed data; checksums of chunks are left to the one that zlib keeps over everything unpacked."""
    parts, at = [], len(_SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += length + 12
    return parts


def _summed(differences_HW: Ids) -> Cut:
    """Running sums along the rows, modulo 256, by doubling steps: only where there are differences."""
    part = cut_out(differences_HW)
    sums_hw = part.ids_hw.copy()
    longer_hw = np.empty_like(sums_hw)
    step = 1
    while step < sums_hw.shape[1]:
        longer_hw[:, :step] = sums_hw[:, :step]
        np.add(sums_hw[:, step:], sums_hw[:, :-step], out=longer_hw[:, step:])
        sums_hw, longer_hw = longer_hw, sums_hw
        step *= 2
    after = part.size[1] - part.right
    if after and sums_hw.size and sums_hw[:, -1].any():  # after the last difference, values stay
        sums_hw = np.pad(sums_hw, ((0, 0), (0, after)), mode="edge")
    return replace(part, ids_hw=sums_hw)
