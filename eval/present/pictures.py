"""Pictures of what was found: masks over frames, strips of frames; kept as PNG.

T frames, H W pixels, h w grid.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frame.eval.encoder import Picture
from frame.eval.propagate.images import Ids, palette
from frame.model.files import replacing

VOID = 255
_COLOURS = 21  # of DAVIS's palette, the background aside
_OPACITY = 0.5
_GAP = 4  # pixels between the pictures of a strip
_LONGEST = 80  # characters of a file's name


def overlay(picture_HW3: Picture, mask_HW: Ids) -> Picture:
    """A picture with the objects of a mask of the same size in their colours, and a white line around each.

    Id 0 and id 255 (not labelled) leave the picture as it is. The colours are those of DAVIS, whose palette ends in
    greys that nobody can tell apart: ids above 21 begin with the first colour again.
    """
    if picture_HW3.shape[:2] != mask_HW.shape:
        raise ValueError(f"a mask of {mask_HW.shape} does not lie on a picture of {picture_HW3.shape[:2]}")
    shown_HW = np.where(mask_HW == VOID, 0, mask_HW).astype(np.uint8)
    inside_HW = shown_HW > 0
    mixed = picture_HW3.copy()
    colour_N3 = palette()[(shown_HW[inside_HW] - 1) % _COLOURS + 1].astype(np.float32)
    blend = (1 - _OPACITY) * picture_HW3[inside_HW] + _OPACITY * colour_N3
    mixed[inside_HW] = np.round(blend).astype(np.uint8)
    mixed[_outline(shown_HW)] = 255
    return mixed


def _outline(ids_HW: Ids) -> NDArray[np.bool_]:
    """The pixels of objects that touch another object or the background."""
    square = np.ones((3, 3), np.uint8)
    lowest, highest = cv2.erode(ids_HW, square), cv2.dilate(ids_HW, square)
    return np.asarray((lowest != highest) & (ids_HW > 0))


def strip(pictures: Sequence[Picture], *, height: int = 160) -> Picture:
    """Pictures side by side at one height, in their own proportions, with white gaps between them."""
    if not pictures:
        raise ValueError("a strip needs a picture")
    parts: list[Picture] = []
    for picture in pictures:
        parts += [_at_height(picture, height), np.full((height, _GAP, 3), 255, dtype=np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def stack(rows: Sequence[Picture]) -> Picture:
    """Strips below each other, white where one is shorter."""
    width = max(row.shape[1] for row in rows)
    parts: list[Picture] = []
    for row in rows:
        filled = np.full((row.shape[0] + _GAP, width, 3), 255, dtype=np.uint8)
        filled[: row.shape[0], : row.shape[1]] = row
        parts.append(filled)
    return np.concatenate(parts)[:-_GAP]


def _at_height(picture: Picture, height: int) -> Picture:
    rows, columns = picture.shape[:2]
    width = max(round(columns * height / rows), 1)
    # Averaging over areas when shrinking: thin outlines stay visible. Nearest when growing: patches stay squares.
    how = cv2.INTER_AREA if height <= rows else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), dtype=np.uint8)


def spread(count: int, most: int) -> list[int]:
    """Up to ``most`` places of ``count`` things, evenly spread, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))}) if count else []


def write_png(path: Path, picture_HW3: Picture) -> Path:
    """Write a picture whole or not at all; returns the path. Raises InputError where the disk refuses."""
    with replacing(path) as partial:
        Image.fromarray(picture_HW3).save(partial, "PNG")
    return path


def safe_name(text: str) -> str:
    """``text`` as part of a file's name: letters, digits, ``.``, ``-`` and ``_``; never empty, hidden or a path.

    Names that had to be changed get a digest of the original, so that two of them do not become one file.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:_LONGEST]
    if plain and plain == text:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest
