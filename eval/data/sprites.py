"""The generated sprites as a test set: pictures as decoded, masks and keypoints from the files of truth beside them.

T frames, H W pixels, K keypoints.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frame.eval.data.lists import shown
from frame.eval.encoder import Picture
from frame.eval.segment.labelled_clip import Labels
from frame.manifests.errors import InputError
from frame.manifests.load import load_rows
from frame.pipeline.decode import ClipError, DecodeCage

_DECODER = "pyav"
_PIECE = 32  # pictures decoded at a time
_LARGEST = 1 << 30  # bytes of masks: what a file declares is checked before it is unpacked


@dataclass(frozen=True, kw_only=True, slots=True)
class SpriteClip:
    """One clip's files, below the folder of the set. ``split`` is that of ``frame-cache build``."""

    name: str
    split: str
    label: str
    video: Path
    masks: Path
    truth: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class SpriteTruth:
    """``masks`` uint8 [T, H, W]: the object seen at each pixel, 0 for none. ``shapes`` of the objects, in order of
    their ids from 1. ``keypoints`` [T, K, 3] of the main object: x, y, and 1 where it is seen.
    """

    masks: NDArray[np.uint8]
    shapes: tuple[str, ...]
    keypoints: NDArray[np.float64]


def sprite_clips(root: Path, sequences: Sequence[str] = ()) -> list[SpriteClip]:
    """The clips of a folder that ``frame-cache sprites`` has written, in order. Raises InputError for one that is not,
    for files that are missing, and for clips in ``sequences`` that are not there."""
    clips = []
    for row in load_rows("sprites", root):
        video = root / row.source
        paths = [root / "truth" / f"{video.stem}.{ending}" for ending in ("npz", "json")]
        absent = [path for path in paths if not path.is_file()]
        if absent:
            raise InputError(
                what="A clip has no truth.",
                where=str(absent[0]),
                why="no such file",
                fix="run `frame-cache sprites` on the folder with the same options: it mends what is missing",
            )
        clips.append(
            SpriteClip(
                name=video.stem, split=row.split, label=row.label, video=video, masks=paths[0], truth=paths[1]
            )
        )  # fmt: skip
    unknown = sorted(set(sequences) - {clip.name for clip in clips})
    if unknown:
        raise InputError(
            what="There are no such clips.",
            where=f"--sequences {shown(unknown)}",
            why=f"the folder has {shown([clip.name for clip in clips])}",
        )
    return [clip for clip in clips if not sequences or clip.name in sequences]


def read_pictures(clip: SpriteClip) -> list[Picture]:
    """Every frame of the video, RGB [H, W, 3]. Raises InputError for one that cannot be decoded."""
    cage = DecodeCage()
    try:
        probe = cage.probe(clip.video)
        pieces = cage.decode_pieces(
            clip.video, probe.timestamps, height=probe.height, width=probe.width,
            decoder=_DECODER, sha256=probe.sha256, piece=_PIECE,
        )  # fmt: skip
        return [picture for piece in pieces for picture in np.asarray(piece)]
    except ClipError as error:
        raise InputError(
            what="A clip cannot be decoded.",
            where=str(clip.video),
            why=str(error),
            fix="run `frame-cache sprites` on the folder with the same options: it mends what is damaged",
        ) from error
    finally:
        cage.close()


def read_truth(clip: SpriteClip) -> SpriteTruth:
    """Masks, shapes and keypoints. Raises InputError for damaged files."""
    try:
        stored = json.loads(clip.truth.read_text(encoding="utf-8"))
        masks_THW = _masks(clip.masks)
        objects: list[dict[str, Any]] = stored["objects"]
        keypoints_TK3 = np.asarray(objects[0]["keypoints"], dtype=np.float64)
        if keypoints_TK3.ndim != 3 or keypoints_TK3.shape[0] != len(masks_THW) or keypoints_TK3.shape[2] != 3:
            raise ValueError(f"{len(masks_THW)} masks, keypoints {keypoints_TK3.shape}")
        shapes = tuple(str(one["shape"]) for one in objects)
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            what="The truth of a clip is damaged.",
            where=f"{clip.masks}, {clip.truth.name}",
            why=f"{type(error).__name__}: {error}",
            fix="run `frame-cache sprites` on the folder with the same options: it mends what is damaged",
        ) from error
    return SpriteTruth(masks=masks_THW, shapes=shapes, keypoints=keypoints_TK3)


def shape_labels(truth: SpriteTruth, classes: Sequence[str]) -> list[Labels]:
    """Of each frame, the class of the shape seen at each pixel: 0 for the background, else its place in ``classes``."""
    classes_by_id = np.array([0, *(classes.index(shape) for shape in truth.shapes)], dtype=np.uint8)
    return list(classes_by_id[truth.masks])


def _masks(path: Path) -> NDArray[np.uint8]:
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
            raise ValueError(f"it declares more than {_LARGEST} bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        masks_THW = arrays["masks"]
    if masks_THW.ndim != 3 or masks_THW.dtype != np.uint8 or not len(masks_THW):
        raise ValueError(f"masks are {masks_THW.dtype} {masks_THW.shape}")
    return np.asarray(masks_THW)
