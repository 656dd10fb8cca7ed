"""Pictures and id maps from files, and the sizes that protocols bring them to.

H W pixels. Pictures are resized by OpenCV (bilinear, not antialiased), as the reference scripts do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from frame.eval.encoder import Picture
from frame.manifests.errors import InputError
from frame.model.files import replacing

Ids = NDArray[np.uint8]  # [H, W]
Size = tuple[int, int]  # height, width
Library = Literal["opencv", "pillow"]
Rule = Literal["short64", "long64", "short", "fixed", "native"]

_MULTIPLE = 64
_IDS = 256
_NAMED = 22  # colours of DAVIS' own palette


def read_picture(path: Path) -> Picture:
    """uint8 RGB [H, W, 3]. Raises InputError for a missing or broken file."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(what="A picture cannot be read.", where=str(path), why=error.strerror or str(error)) from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise InputError(
            what="A picture cannot be read.",
            where=str(path),
            why="it is empty" if not data.size else "it is no JPEG or PNG, or it is broken",
            fix="get the file anew",
        )
    return np.ascontiguousarray(picture[:, :, ::-1])


def read_mask(path: Path) -> Ids:
    """uint8 ids [H, W]: a palette's indices, or grey values; of a one-bit mask 0 and 1.

    Grey values saved as colours (three equal channels) are read too. Raises InputError for colours, which are no ids.
    """
    try:
        with Image.open(path) as image:
            image.load()
            values = np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            what="A mask cannot be read.", where=str(path), why=f"{type(error).__name__}: {error}", fix="get it anew"
        ) from error
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise InputError(
                what="A mask has colours instead of ids.",
                where=str(path),
                why="the ids are the indices of a palette PNG; something has saved it as RGB",
                fix="use the masks as the dataset ships them",
            )
        values = colours[..., 0]
    if values.dtype != np.uint8 and (values.min(initial=0) < 0 or values.max(initial=0) >= _IDS):
        raise InputError(what="A mask has ids above 255.", where=str(path), why=f"up to {values.max()}")
    return np.ascontiguousarray(values.astype(np.uint8))


def write_mask(path: Path, ids_HW: Ids) -> None:
    """A palette PNG with DAVIS's colours, which evaluators read by index."""
    image = Image.fromarray(ids_HW)
    image.putpalette(palette().reshape(-1).tolist())
    with replacing(path) as partial:
        image.save(partial, format="PNG")


def palette() -> NDArray[np.uint8]:
    """The colours of ids 0 to 255, RGB [256, 3]: DAVIS' own for its first 22 ids, Pascal VOC's rule above.

    The rule spreads the bits of an id over the high bits of three channels. DAVIS has 191 where the rule gives 192,
    and greys above id 21, which nobody could tell apart.
    """
    ids = np.arange(_IDS)
    rgb = np.zeros((_IDS, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (ids >> (3 * place + channel)) & 1
            rgb[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    rgb[:_NAMED][rgb[:_NAMED] == 192] = 191
    return rgb


def input_size(size: Size, *, rule: Rule, sides: tuple[int, ...], patch: int) -> Size:
    """What a picture of ``size`` (height, width) is resized to, whole patches a side.

    ``short64`` (DINO): the shorter side gets ``sides[0]``, the longer one keeps the ratio and is floored to a multiple
    of 64. ``long64`` (CropMAE on VIP): the same with the longer side given. ``short`` (VFS): the ratio is kept.
    ``fixed``: ``sides`` are height and width. ``native``: as it is.

    Patches that do not divide these numbers (14): a side that is given, or kept, goes to its *nearest* multiple of the
    patch (480 to 476, 880 to 882, 320 to 322), and where 64 is the multiple, the largest multiple of the patch up to
    64 is taken instead (56): 480 x 854 becomes 476 x 840, 34 x 60 cells.
    """
    height, width = size
    if rule in ("fixed", "native"):
        wanted = sides if rule == "fixed" else size
        return _nearest(wanted[0], patch), _nearest(wanted[1], patch)
    # Square pictures: the scripts fix the height.
    height_is_given = width >= height if rule != "long64" else height >= width
    side = _nearest(sides[0], patch)
    kept, given = (width, height) if height_is_given else (height, width)
    scaled = int(kept * (sides[0] / given) + 0.5) if rule == "short" else int(side * kept / given)
    other = _nearest(scaled, patch) if rule == "short" else _floored(scaled, patch)
    return (side, other) if height_is_given else (other, side)


def size_note(name: str, size: Size, *, rule: Rule, sides: tuple[int, ...], patch: int) -> list[str]:
    """A sentence for the result where the patches change the size that a protocol asks for; else nothing."""
    seen, asked = (input_size(size, rule=rule, sides=sides, patch=each) for each in (patch, 1))
    if seen == asked:
        return []
    return [
        f"Patches of {patch} pixels: {name} went in at {seen[0]} x {seen[1]} instead of {asked[0]} x {asked[1]} (sides "
        "to the nearest multiple of the patch; where 64 is the multiple, to the largest one of the patch up to 64)."
    ]


def picture_size_note(name: str, path: Path, *, rule: Rule, sides: tuple[int, ...], patch: int) -> list[str]:
    """``size_note`` for a picture in a file."""
    shape = read_picture(path).shape
    return size_note(name, (shape[0], shape[1]), rule=rule, sides=sides, patch=patch)


def resize_picture(picture: Picture, size: Size) -> Picture:
    """OpenCV's bilinear resize of uint8, without antialiasing; as it is where the size is right."""
    if picture.shape[:2] == size:
        return picture
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR))


def resize_float(picture: Picture, size: Size) -> NDArray[np.float32]:
    """The same without rounding: float32 from 0 to 255."""
    values = picture.astype(np.float32) / np.float32(255)
    if picture.shape[:2] != size:
        values = np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR))
    return values * np.float32(255)


def resize_nearest(values: NDArray[np.uint8], size: Size, *, library: Library) -> NDArray[np.uint8]:
    """Nearest neighbour. The two libraries choose different pixels, so a protocol names its own."""
    if values.shape[:2] == size:
        return values
    if library == "opencv":
        return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST))
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST))


def _floored(length: int, patch: int) -> int:
    multiple = _MULTIPLE if _MULTIPLE % patch == 0 else max(_MULTIPLE // patch, 1) * patch
    return max(length // multiple, 1) * multiple


def _nearest(length: int, patch: int) -> int:
    return max(int(length / patch + 0.5), 1) * patch
