"""Propagation of body parts on VIP: mean IoU over 20 classes, from one confusion matrix over all frames of all videos.

The reference (UVC; CRW and CropMAE alike) counts the background as a class and the first frame as a frame. There UVC
keeps the given map, and CRW's kernel writes it as it comes back from the cells; so do their presets here. The memory of
an encoder holds past *annotated* frames, about a second apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frame.eval.data.vip import CLASSES, VipData, VipVideo, load_vip
from frame.eval.encoder import Encoder, Picture, open_encoder
from frame.eval.metrics.miou import Counts, class_iou, confusion, segmentation_scores
from frame.eval.present.pictures import overlay, safe_name, spread, strip, write_png
from frame.eval.propagate.images import Ids, picture_size_note, read_mask, read_picture, resize_nearest
from frame.eval.propagate.mask_propagation import mask_knobs, propagate_masks, scored
from frame.eval.propagate.preset import Preset, load_preset
from frame.eval.request import Request
from frame.eval.result import PICTURES, Result, data_digest
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

DEFAULT_PRESET = "siammae"
_SHOWN_VIDEOS, _SHOWN_FRAMES = 8, 5


def evaluate(request: Request, changes: Sequence[str], progress: Progress) -> Result:
    """``changes`` of single knobs as NAME=VALUE. Raises InputError for data that is not there or is damaged."""
    preset = load_preset("vip", request.preset or DEFAULT_PRESET, changes)
    data = load_vip(request.data, request.sequences)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    matrix_KK = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    pictures: list[str] = []
    chosen = spread(len(data.videos), _SHOWN_VIDEOS)
    with progress.bar("vip", total=sum(len(video.masks) for video in data.videos), unit="frames") as tick:
        for number, video in enumerate(data.videos):
            shown = spread(len(video.pictures), _SHOWN_FRAMES) if number in chosen else []
            overlays: list[Picture] = []
            for place, (pred_HW, true_HW) in enumerate(score_video(video, encoder, preset)):
                matrix_KK += confusion(pred_HW, true_HW, len(CLASSES))
                if place in shown:
                    overlays.append(_overlay(video.pictures[place], pred_HW))
                tick()
            if overlays:
                path = write_png(request.out / PICTURES / f"vip-{safe_name(video.name)}.png", strip(overlays))
                pictures.append(path.relative_to(request.out).as_posix())
    return Result(
        task="vip", preset=preset.name, encoder=encoder.info.to_json(), scores=_scores(matrix_KK, data),
        items=_items(matrix_KK), data=_data(data), options=preset.options() | {"memory": "annotated frames"},
        notes=_notes(matrix_KK, data, encoder, preset), pictures=pictures,
    )  # fmt: skip


def score_video(video: VipVideo, encoder: Encoder, preset: Preset) -> Iterator[tuple[Ids, Ids]]:
    """Of every annotated frame the predicted and the true ids, of one size. Raises InputError for damaged files."""
    first_HW = _read(video.masks[0])
    predicted = propagate_masks(encoder, preset, map(read_picture, video.pictures), first_HW)
    for place, (path, pred_HW) in enumerate(zip(video.masks, predicted, strict=True)):
        true_HW = scored(_read(path), preset)
        if place == 0 and mask_knobs(preset).labels == "nearest_ids":
            pred_HW = true_HW  # UVC writes the given map among its results
        height, width = true_HW.shape
        yield resize_nearest(pred_HW, (height, width), library="pillow"), true_HW


def _read(path: Path) -> Ids:
    ids_HW = read_mask(path)
    strange = sorted(set(np.unique(ids_HW).tolist()) - set(range(len(CLASSES))) - {255})
    if strange:
        raise InputError(
            what="A map has ids that are no body parts.", where=str(path),
            why=f"{strange[:8]}, of 0 to {len(CLASSES) - 1} (and 255, which is not counted)",
            fix="use Category_ids, not Human_ids or Instance_ids",
        )  # fmt: skip
    return ids_HW


def _overlay(path: Path, ids_HW: Ids) -> Picture:
    picture = read_picture(path)
    height, width = picture.shape[:2]
    return overlay(picture, resize_nearest(ids_HW, (height, width), library="opencv"))


def _scores(matrix_KK: Counts, data: VipData) -> dict[str, float]:
    found = segmentation_scores(matrix_KK)
    scores = {"mIoU": found.union, "accuracy": found.accuracy, "class_accuracy": found.class_accuracy}
    finite = {name: value for name, value in scores.items() if np.isfinite(value)}
    if not finite:
        raise InputError(what="Not one labelled pixel is in these videos.", where=str(data.root))
    return finite


def _items(matrix_KK: Counts) -> list[Mapping[str, Any]]:
    """Each class with its IoU under the name of their mean, left out where it occurs nowhere."""
    rows = zip(CLASSES, class_iou(matrix_KK), matrix_KK.sum(axis=1), strict=True)
    return [
        {"name": name, **({"mIoU": float(iou)} if np.isfinite(iou) else {}), "pixels": int(pixels)}
        for name, iou, pixels in rows
    ]


def _data(data: VipData) -> dict[str, Any]:
    files = [*data.lists, *(path for video in data.videos for path in (*video.pictures, *video.masks))]
    return {
        "root": str(data.root), "digest": data_digest(data.root, files), "videos": len(data.videos),
        "frames": sum(len(video.masks) for video in data.videos),
    }  # fmt: skip


def _notes(matrix_KK: Counts, data: VipData, encoder: Encoder, preset: Preset) -> list[str]:
    kept = mask_knobs(preset).labels == "nearest_ids"
    notes = [
        "The background is one of the classes, and the first frame of each video is counted, "
        + ("as it is given." if kept else "as its map comes back from the cells.")
    ]
    absent = [name for name, iou in zip(CLASSES, class_iou(matrix_KK), strict=True) if not np.isfinite(iou)]
    if absent:
        notes.append(f"Not in the mean, for they occur nowhere: {', '.join(absent)}.")
    if data.unlabelled:
        notes.append(f"{data.unlabelled} pictures without a map were not used.")
    if encoder.info.memory:
        notes.append(f"The encoder's memory held up to {encoder.info.memory} past annotated frames.")
    first = data.videos[0]
    return notes + picture_size_note(
        first.name, first.pictures[0], rule=preset.input.rule, sides=preset.input.sides, patch=encoder.info.patch
    )
