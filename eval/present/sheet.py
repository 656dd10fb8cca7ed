"""Panels beside each other: as one picture with a row a moment, and as the pictures of a film."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frame.eval.encoder import Picture
from frame.eval.present.pictures import spread, stack, strip
from frame.model.files import replacing

WIDEST = 1200
"""Pixels: what a page of documentation shows without shrinking it."""
MOST_BYTES = 600_000

_MOMENTS = 4
_TILE = 240  # rows of a picture, where there is room
_CAPTION = 40  # rows of the two lines above a picture
_LABEL = 72  # columns of the text before a row
_GAP = 4
_SIZE = 14  # of the letters
_LINE = 18
_INK, _SOFT = "#1c1f23", "#5d646d"  # as on the pages
_BESIDE = 3  # pictures in a row of the film
_SMALLER = (1.0, 0.85, 0.7, 0.55, 0.4)  # of the widest, until the file is small enough


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A column of the sheet and a part of the film: one picture a frame, of whatever size, in the proportions of the
    first panel's; above it ``caption`` and, less loud, ``remark``."""

    caption: str
    pictures: Sequence[Picture]
    remark: str = ""


def write_sheet(path: Path, panels: Sequence[Panel], labels: Sequence[str], note: str) -> Path:
    """Some moments of the panels as a PNG of at most ``WIDEST`` pixels and about ``MOST_BYTES``; returns the path.

    ``labels`` say what each frame is, ``note`` stands below all. Raises InputError where the disk refuses.
    """
    data = b""
    for factor in _SMALLER:
        file = io.BytesIO()
        Image.fromarray(sheet(panels, labels, note, width=round(WIDEST * factor))).save(file, "PNG", optimize=True)
        data = file.getvalue()
        if len(data) <= MOST_BYTES:
            break
    with replacing(path) as partial:
        partial.write_bytes(data)
    return path


def sheet(panels: Sequence[Panel], labels: Sequence[str], note: str, *, width: int) -> Picture:
    """A column a panel and a row for each of up to four moments, at most ``width`` pixels wide."""
    rows, columns = panels[0].pictures[0].shape[:2]
    wide = min(round(_TILE * columns / rows), (width - _LABEL) // len(panels) - _GAP)
    size = (max(round(wide * rows / columns), 1), max(wide, 1))
    moments = spread(len(panels[0].pictures), _MOMENTS)
    head = [_blank(_CAPTION, _LABEL), *(_captions(panel, size[1]) for panel in panels)]
    lines = [
        [_text([labels[moment]], (size[0], _LABEL), (_INK,)), *(tile(panel.pictures[moment], size) for panel in panels)]
        for moment in moments
    ]
    body = [_across(parts) for parts in (head, *lines)]
    return stack([*body, *([_note(note, body[0].shape[1])] if note else [])])


def film(panels: Sequence[Panel]) -> Iterator[Picture]:
    """The panels beside and below each other, a picture a frame."""
    rows, columns = panels[0].pictures[0].shape[:2]
    size = (_TILE, max(round(_TILE * columns / rows), 1))
    heads = [_captions(panel, size[1]) for panel in panels]
    across = 2 if len(panels) == 4 else _BESIDE
    for number in range(len(panels[0].pictures)):
        tiles = [
            np.concatenate([head, tile(panel.pictures[number], size)])
            for head, panel in zip(heads, panels, strict=True)
        ]
        lines = [tiles[begin : begin + across] for begin in range(0, len(tiles), across)]
        yield stack([strip(line, height=_TILE + _CAPTION) for line in lines])


def tile(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture at ``size`` (rows, columns): averaged where it shrinks, in flat squares where it grows, so that patches
    stay patches."""
    how = cv2.INTER_AREA if picture.shape[0] >= size[0] else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=how), dtype=np.uint8)


def _captions(panel: Panel, wide: int) -> Picture:
    return _text([panel.caption, panel.remark], (_CAPTION, wide), (_INK, _SOFT))


def _note(text: str, wide: int) -> Picture:
    letters = max(int(wide / (0.47 * _SIZE)), 1)  # of this font, a letter is about half as wide as high
    lines = textwrap.wrap(text, letters)
    return _text(lines, (_LINE * len(lines) + _GAP, wide), (_SOFT,))


def _text(lines: Sequence[str], size: tuple[int, int], colours: Sequence[str]) -> Picture:
    """Lines on white, the last colour for all that have none; what is too long loses its beginning, as the end of a
    path says more."""
    picture = Image.fromarray(_blank(*size))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=_SIZE)
    for number, line in enumerate(lines):
        shown = line
        while shown and font.getlength(shown) > size[1] - _GAP:
            shown = shown[1:]
        draw.text((2, 2 + number * _LINE), shown, fill=colours[min(number, len(colours) - 1)], font=font)
    return np.asarray(picture)


def _across(parts: Sequence[Picture]) -> Picture:
    gap = _blank(parts[0].shape[0], _GAP)
    return np.concatenate([piece for part in parts for piece in (part, gap)], axis=1)[:, :-_GAP]


def _blank(rows: int, columns: int) -> Picture:
    return np.full((rows, columns, 3), 255, dtype=np.uint8)
