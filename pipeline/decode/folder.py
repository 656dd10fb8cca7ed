"""A folder of pictures as a video: natural order of names, a clock of a fixed rate."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from frame.pipeline.decode.container import check_size
from frame.pipeline.decode.errors import ClipError
from frame.pipeline.decode.limits import Limits
from frame.pipeline.decode.source import identity, refusal

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Kinds of picture that Pillow turns into 8-bit RGB faithfully. 16-bit ones it would cut off at 255."""


_PHOTOGRAPHS = ("JPEG", "MPO", "TIFF", "WEBP")
"""Formats whose EXIF rotation is honoured: cameras write them, and it stands in front of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """The pictures of a folder, in order. ``height`` and ``width`` are after a photograph's own rotation (EXIF)."""

    path: Path
    names: tuple[str, ...]
    height: int
    width: int
    codec: str
    bytes: int
    sha256: str

    def seconds(self, rate: float) -> tuple[float, ...]:
        """The time of each picture."""
        return tuple(number / rate for number in range(len(self.names)))


def natural(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Sorting key under which ``frame_2`` comes before ``frame_10``; of equals, the one that sorts first as text."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part), name


def scan_folder(path: Path, limits: Limits) -> Folder:
    """Look at every picture's size and read every byte for the digest. Decodes nothing. Raises ClipError."""
    names = _names(path)
    if len(names) > limits.frames:
        raise ClipError("too-many-frames", f"more than {limits.frames} pictures")
    digest, total = hashlib.sha256(), 0
    height, width, codec = _look(path / names[0], limits)
    for name in names:
        data = _bytes(path / name)
        total += len(data)
        # Each part behind its length, so that bytes cannot move from a name to a picture unnoticed.
        for part in (name.encode("utf-8", "surrogateescape"), data):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        size = _look(path / name, limits)[:2]
        if size != (height, width):
            raise ClipError("size-changes", f"from {width} x {height} to {size[1]} x {size[0]} at {name}")
    return Folder(
        path=path, names=names, height=height, width=width, codec=codec, bytes=total, sha256=digest.hexdigest()
    )


def folder_identity(path: Path) -> tuple[object, ...]:
    """What stays as it is while nobody writes to the folder's pictures. Raises ClipError."""
    try:
        return path, *((name, identity((path / name).stat())) for name in _names(path))
    except OSError as error:
        raise refusal(error) from None


class FolderReader:
    """Hands over the pictures with the ``numbers``, in order."""

    name = "pillow"

    def __init__(self, folder: Folder, numbers: list[int], limits: Limits) -> None:
        self._folder, self._numbers, self._limits = folder, numbers, limits

    def read(self, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` uint8 [n, H, W, 3] with the next n pictures. Raises ClipError."""
        numbers, self._numbers = self._numbers[: len(out)], self._numbers[len(out) :]
        for slot, number in enumerate(numbers):
            name = self._folder.names[number]
            try:
                with _open(self._folder.path / name, self._limits) as image:
                    picture = np.asarray(_upright(image).convert("RGB"))
            except (OSError, SyntaxError, ValueError, EOFError) as error:
                raise ClipError("decoder-error", f"{name}: {type(error).__name__}") from None
            if picture.shape != out.shape[1:]:
                raise ClipError("size-changes", f"{name} is {picture.shape[1]} x {picture.shape[0]}")
            out[slot] = picture


def _names(path: Path) -> tuple[str, ...]:
    try:
        entries = [entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES]
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    except OSError as error:
        raise refusal(error) from None
    if not names:
        raise ClipError("empty", f"the folder has no picture ({', '.join(SUFFIXES)})")
    return tuple(sorted(names, key=natural))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise refusal(error) from None


def _open(path: Path, limits: Limits) -> Image.Image:
    with warnings.catch_warnings():
        # The limit on pixels is checked right below, on every picture.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            raise ClipError("decoder-error", f"{path.name} is not a picture") from None
        except Image.DecompressionBombError:
            raise ClipError("too-large", f"{path.name} is more than {limits.pixels} pixels") from None
    check_size(image.width, image.height, limits)
    if image.mode not in _MODES:
        raise ClipError("picture-unsupported", f"{path.name}: pixels of kind {image.mode}")
    return image


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if image.format in _PHOTOGRAPHS else image


def _look(path: Path, limits: Limits) -> tuple[int, int, str]:
    """Height, width and format of a picture, from its header."""
    try:
        with _open(path, limits) as image:
            turned = image.format in _PHOTOGRAPHS and image.getexif().get(0x0112, 1) >= 5
            size = (image.width, image.height) if turned else (image.height, image.width)
            return *size, (image.format or "picture").lower()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ClipError("decoder-error", f"{path.name}: {type(error).__name__}") from None
