"""Propagation of joints on JHMDB: the percentage of correct keypoints (PCK), mean over 15 joints.

Joints enter as Gaussian dots on the grid of cells, travel as soft labels, and are read out as weighted means of the
best cells. The first frame is given and not counted; a joint that is not found is left out, as in the reference. J
joints, T frames, h w cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from frame.eval.data.jhmdb import JOINTS, PoseClip, PoseData, load_jhmdb, read_positions
from frame.eval.encoder import Encoder, Picture, open_encoder
from frame.eval.metrics.pck import ClipPoints, from_cells, mean_pck, pck
from frame.eval.present.pictures import safe_name, spread, strip, write_png
from frame.eval.propagate.images import input_size, palette, picture_size_note, read_picture
from frame.eval.propagate.joints import joint_labels, read_joints, to_cells
from frame.eval.propagate.mask_propagation import prepared
from frame.eval.propagate.preset import JointKnobs, Preset, load_preset
from frame.eval.propagate.propagation import Propagator
from frame.eval.request import Request
from frame.eval.result import PICTURES, Result, data_digest
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

DEFAULT_PRESET = "siammae"
THRESHOLDS = (0.1, 0.2)
_SHOWN_CLIPS, _SHOWN_FRAMES = 8, 5


def evaluate(request: Request, changes: Sequence[str], progress: Progress) -> Result:
    """``changes`` of single knobs as NAME=VALUE. Raises InputError for data that is not there or is damaged."""
    preset = load_preset("jhmdb", request.preset or DEFAULT_PRESET, changes)
    data = load_jhmdb(request.data, request.sequences)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    found: list[ClipPoints] = []
    pictures: list[str] = []
    uneven = 0
    chosen = spread(len(data.clips), _SHOWN_CLIPS)
    with progress.bar("jhmdb", total=len(data.clips), unit="clips") as tick:
        for number, clip in enumerate(data.clips):
            true_2JT = read_positions(clip.joints)
            uneven += true_2JT.shape[2] != len(clip.pictures)
            points = track_clip(clip, true_2JT, encoder, preset)
            found.append(points)
            if number in chosen:
                path = write_png(request.out / PICTURES / f"jhmdb-{safe_name(clip.name)}.png", _strip(clip, points))
                pictures.append(path.relative_to(request.out).as_posix())
            tick()
    per_joint = pck(found, THRESHOLDS)
    scores = {f"PCK@{threshold:g}": value for threshold, value in mean_pck(per_joint).items() if np.isfinite(value)}
    if not scores:
        raise InputError(
            what="There is nothing to score.", where=str(data.root),
            why="no clip has a second frame, or no joint was found in one",
        )  # fmt: skip
    return Result(
        task="jhmdb", preset=preset.name, encoder=encoder.info.to_json(), scores=scores, items=_items(per_joint),
        data=_data(data, found), options=preset.options(),
        notes=_notes(found, per_joint, uneven) + _size(data.clips[0], preset, encoder), pictures=pictures,
    )  # fmt: skip


def track_clip(clip: PoseClip, positions_2JT: NDArray[np.float64], encoder: Encoder, preset: Preset) -> ClipPoints:
    """Predicted and true joints of the frames that have both, in pixels of the original picture, counted from 0."""
    knobs = _knobs(preset)
    true_2JT = positions_2JT[:, :, : len(clip.pictures)]
    paths = clip.pictures[: true_2JT.shape[2]]
    first = read_picture(paths[0])
    picture, patch = (first.shape[0], first.shape[1]), encoder.info.patch
    size = input_size(picture, rule=preset.input.rule, sides=preset.input.sides, patch=patch)
    cells = (size[0] // patch, size[1] // patch)
    given_2J = to_cells(true_2JT[:, :, 0], picture=picture, resized=size, patch=patch)
    labels_hwC = joint_labels(given_2J, cells, sigma=knobs.sigma).to(encoder.device)
    propagator = Propagator(preset.propagation)
    frames = (prepared(read_picture(path), preset.input, size) for path in paths)
    read: list[NDArray[np.float64]] = []
    for number, tokens in enumerate(encoder.stream(frames, std=preset.input.std)):
        if number == 0:
            propagator.begin(tokens.patches, labels_hwC)
        else:
            labels_hwC = propagator.step(tokens.patches)
        read.append(read_joints(labels_hwC, top=knobs.best).double().cpu().numpy())
    pred_2JT = from_cells(np.stack(read, axis=-1), cells=cells, size=picture)
    return ClipPoints(pred=pred_2JT, true=true_2JT)


def _knobs(preset: Preset) -> JointKnobs:
    if preset.joints is None:
        raise ValueError(f"the preset {preset.name} for {preset.task} has no joints")
    return preset.joints


def _strip(clip: PoseClip, points: ClipPoints) -> Picture:
    """Some frames: predicted joints as discs, true ones as rings, each joint in its own colour."""
    places = spread(points.true.shape[2], _SHOWN_FRAMES)
    return strip([_drawn(clip.pictures[place], points, place) for place in places], height=240)


def _drawn(path: Path, points: ClipPoints, place: int) -> Picture:
    picture = read_picture(path)
    colours = palette()
    radius = max(picture.shape[1] // 80, 2)
    for joint in range(len(JOINTS)):
        colour = tuple(int(value) for value in colours[joint + 1])
        for positions_2JT, thickness in ((points.true, 1), (points.pred, -1)):
            x, y = positions_2JT[:, joint, place]
            if np.isfinite([x, y]).all() and 0 <= x < picture.shape[1] and 0 <= y < picture.shape[0]:
                cv2.circle(picture, (round(x), round(y)), radius + (thickness > 0), colour, thickness)
    return picture


def _items(per_joint: Mapping[float, NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Each joint, without a score where it was never found."""
    return [
        {"name": name}
        | {
            f"PCK@{threshold:g}": float(values[at])
            for threshold, values in per_joint.items()
            if np.isfinite(values[at])
        }
        for at, name in enumerate(JOINTS)
    ]


def _data(data: PoseData, found: Sequence[ClipPoints]) -> dict[str, Any]:
    files = [*data.lists, *(path for clip in data.clips for path in (*clip.pictures, clip.joints))]
    return {
        "root": str(data.root), "digest": data_digest(data.root, files), "clips": len(data.clips),
        "frames": sum(points.true.shape[2] for points in found),
    }  # fmt: skip


def _size(first: PoseClip, preset: Preset, encoder: Encoder) -> list[str]:
    return picture_size_note(
        first.name, first.pictures[0], rule=preset.input.rule, sides=preset.input.sides, patch=encoder.info.patch
    )


def _notes(found: Sequence[ClipPoints], per_joint: Mapping[float, NDArray[np.float64]], uneven: int) -> list[str]:
    notes = []
    if uneven:
        notes.append(f"{uneven} clips have more frames than joints, or fewer: both were cut to the shorter.")
    single = sum(points.true.shape[2] < 2 for points in found)
    if single:
        notes.append(f"{single} clips of one frame are not in the score: the first frame is given.")
    lost = sum(int((~(points.pred[0, :, 1:] >= 0)).sum()) for points in found)
    total = sum(points.pred[0, :, 1:].size for points in found)
    notes.append(f"{lost} of {total} joints were not found and are left out of the score, as in the reference.")
    never = [name for at, name in enumerate(JOINTS) if not np.isfinite(per_joint[THRESHOLDS[0]][at])]
    if never:
        notes.append(f"Never found, and not in the mean: {', '.join(never)}.")
    return notes
