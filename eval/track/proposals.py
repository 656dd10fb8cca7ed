"""Masks that a frame may be cut into, whatever they show: from a folder, by superpixels, or by SAM.

M masks, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from frame.eval.encoder import Picture
from frame.manifests.errors import InputError
from frame.model.files import replacing

Masks = NDArray[np.bool_]  # [M, H, W]

SLIC, SAM = "slic", "sam:"
SUPERPIXELS = (12, 36, 108)  # how many superpixels a frame is cut into, once each: parts, objects, and between
# SAM 2's automatic generator; SAM 1's own default of the first is 0.88.
_SAM = {"points_per_batch": 64, "pred_iou_thresh": 0.8, "stability_score_thresh": 0.95, "crops_nms_thresh": 0.7}


class Proposals(Protocol):
    """Where masks come from. ``kind`` is what a result is called by: ``masks`` or ``superpixels``; ``note`` is a
    sentence for its reader."""

    kind: str
    note: str

    def masks(self, sequence: str, frame: str, picture_HW3: Picture) -> Masks:
        """The masks of one frame, none of them empty. They may overlap. Raises InputError."""


def open_proposals(text: str, *, keep: Path, device: torch.device) -> Proposals:
    """``slic``, ``sam:FOLDER`` with SAM's weights for ``transformers``, or a folder of masks.

    SAM's masks are kept below ``keep`` as run lengths, a folder of masks for the next encoder. Raises InputError.
    """
    if text == SLIC:
        return Superpixels()
    if text.startswith(SAM):
        return SamMasks(Path(text.removeprefix(SAM)).expanduser(), keep, device)
    return MaskFolder(Path(text).expanduser())


class MaskFolder:
    """``FOLDER/SEQUENCE/FRAME.png``: label maps of 8 or 16 bits, each value but 0 one mask; or ``FRAME.json``: a list
    of COCO run lengths (``{"size": [H, W], "counts": …}``), by themselves or as ``segmentation`` of annotations."""

    kind = "masks"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(
                what="There are no proposals.", where=f"--proposals {folder}", why="there is no such folder",
                fix="give a folder of masks, slic, or sam:FOLDER",
            )  # fmt: skip
        self.folder = folder
        self.note = "Proposals: masks from a folder."

    def masks(self, sequence: str, frame: str, picture_HW3: Picture) -> Masks:
        """See ``Proposals.masks``."""
        png, listed = (self.folder / sequence / f"{frame}.{suffix}" for suffix in ("png", "json"))
        path = png if png.exists() else listed
        if not path.exists():
            raise InputError(
                what="A frame has no proposals.", where=str(png), why=f"neither it nor {listed.name} is there",
                fix="give a label map (PNG) or run lengths (JSON) for every frame; an empty list means none",
            )  # fmt: skip
        masks_MHW = _label_map(path) if path is png else read_run_lengths(path, picture_HW3.shape[:2])
        if masks_MHW.shape[1:] != picture_HW3.shape[:2]:
            raise InputError(
                what="Proposals are not as large as their frame.", where=str(path),
                why=f"{masks_MHW.shape[1:]} instead of {picture_HW3.shape[:2]}", fix="make them from the same frames",
            )  # fmt: skip
        return masks_MHW[masks_MHW.any(axis=(1, 2))]


class Superpixels:
    """SLIC at a few sizes: no weights, and no objects either. A floor, not a stand-in for SAM."""

    kind = "superpixels"
    note = (
        "Proposals: SLIC superpixels, the fallback without weights. They follow no objects: compare encoders by the "
        "part of the oracle they reach, and nothing with figures from SAM's masks."
    )

    def masks(self, sequence: str, frame: str, picture_HW3: Picture) -> Masks:  # noqa: ARG002 - see Proposals
        """See ``Proposals.masks``."""
        from skimage.segmentation import slic

        maps = (slic(picture_HW3, n_segments=count, compactness=10.0, start_label=1) for count in SUPERPIXELS)
        return np.concatenate([split(labels_HW) for labels_HW in maps])


class SamMasks:
    """SAM or SAM 2 through ``transformers``, from weights in a folder, by its automatic generator (32 x 32 points)."""

    kind = "masks"

    def __init__(self, folder: Path, keep: Path, device: torch.device) -> None:
        if not folder.is_dir():
            raise InputError(
                what="There are no weights of SAM.", where=f"--proposals {SAM}{folder}", why="there is no such folder",
                fix="give the folder that save_pretrained or `hf download` made, or use slic",
            )  # fmt: skip
        try:
            from transformers import pipeline
        except ImportError as error:
            raise InputError(
                what="SAM needs the library transformers.", where=f"--proposals {SAM}{folder}", why=str(error),
                fix="pip install 'frame-encoder[sam]', or use slic or a folder of masks",
            ) from error  # fmt: skip
        try:
            self._generate: Any = pipeline(
                "mask-generation", model=str(folder), device=device, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            why = (str(error).splitlines() or [""])[0]
            raise InputError(
                what="SAM cannot be loaded.", where=f"--proposals {SAM}{folder}", why=why,
                fix="give a folder with config.json, preprocessor_config.json and model.safetensors of SAM or SAM 2",
            ) from error  # fmt: skip
        self._keep = keep / f"sam-{_folder_digest(folder)}"
        self.note = (
            f"Proposals: masks by SAM ({self._generate.model.config.model_type}), kept in "
            f"{keep.name}/{self._keep.name}, a folder of masks for the next encoder."
        )

    def masks(self, sequence: str, frame: str, picture_HW3: Picture) -> Masks:
        """See ``Proposals.masks``. Masks kept by an earlier call are taken from there."""
        path = self._keep / sequence / f"{frame}.json"
        if path.exists():
            return read_run_lengths(path, picture_HW3.shape[:2])
        found = self._generate(Image.fromarray(picture_HW3), **_SAM)["masks"]
        masks_MHW = np.array([np.asarray(mask, dtype=bool) for mask in found]).reshape(-1, *picture_HW3.shape[:2])
        masks_MHW = masks_MHW[masks_MHW.any(axis=(1, 2))]
        write_run_lengths(path, masks_MHW)
        return masks_MHW


def _folder_digest(folder: Path) -> str:
    """Of a model's settings and weights, and of how it is asked: other masks are kept in another folder."""
    whole = hashlib.sha256(json.dumps(_SAM).encode())
    for path in sorted(folder.glob("*.json")) + sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:8]


def split(labels_HW: NDArray[Any]) -> Masks:
    """One mask for each value of a label map but 0, [M, H, W], by ascending value."""
    values = np.unique(labels_HW)
    return np.asarray(labels_HW == values[values != 0, None, None])


def _label_map(path: Path) -> Masks:
    try:
        with Image.open(path) as opened:
            labels = np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(what="A label map cannot be read.", where=str(path), why=str(error)) from error
    if labels.ndim != 2:
        raise InputError(
            what="This is no label map.", where=str(path), why="it holds colours",
            fix="write one number a pixel, 8 or 16 bits, 0 where there is no mask",
        )  # fmt: skip
    return split(labels)


def read_run_lengths(path: Path, size: tuple[int, ...]) -> Masks:
    """The masks of a JSON file, [M, H, W]. Raises InputError for what is no list of run lengths of this size."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found["annotations"] if isinstance(found, dict) else found
        codes = [row.get("segmentation", row) for row in rows]
        masks = [decode_run_lengths(code, size) for code in codes]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            what="These are no run lengths.", where=str(path), why=f"{type(error).__name__}: {error}",
            fix=f'write a list of {{"size": [{size[0]}, {size[1]}], "counts": …}} as pycocotools does',
        ) from error  # fmt: skip
    return np.array(masks, dtype=bool).reshape(-1, *size)


def decode_run_lengths(code: Any, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """One mask [H, W] from COCO's run lengths, a list of counts or compressed. Raises ValueError.

    pycocotools hands out memory that it never wrote where counts are too few, so they are added up here first.
    """
    if [int(side) for side in code["size"]] != list(size):
        raise ValueError(f"size {code['size']} instead of {list(size)}")
    counts = code["counts"]
    runs = np.array(
        _uncompressed(counts) if isinstance(counts, str) else [int(count) for count in counts], dtype=object
    )
    if any(run < 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"the runs hold {sum(runs)} pixels instead of {size[0] * size[1]}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs.astype(np.int64)).reshape(size[1], size[0]).T


def _uncompressed(text: str) -> list[int]:
    """COCO's compressed counts: five bits a letter, least first; from the third on, the gap to the one but last."""
    counts: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{letter!r} is no letter of compressed counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("the compressed counts are cut short")
    return counts


def write_run_lengths(path: Path, masks_MHW: Masks) -> None:
    """Masks as a list of COCO's compressed run lengths."""
    from pycocotools import mask as coco

    codes = coco.encode(np.asfortranarray(masks_MHW.transpose(1, 2, 0), dtype=np.uint8)) if len(masks_MHW) else []
    rows = [{"size": list(map(int, code["size"])), "counts": code["counts"].decode("ascii")} for code in codes]
    with replacing(path) as partial:
        partial.write_text(json.dumps(rows), encoding="utf-8")


class Digest:
    """sha256 over all masks of an evaluation, in the order they were used: what tells two sets of proposals apart."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def add(self, names: Sequence[str], masks_MHW: Masks) -> None:
        """One frame's masks."""
        head = json.dumps([*names, *masks_MHW.shape]).encode()
        self._whole.update(head + np.packbits(masks_MHW).tobytes())

    def text(self) -> str:
        """Sixteen hexadecimal digits."""
        return self._whole.hexdigest()[:16]
