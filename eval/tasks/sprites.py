"""The generated sprites, where everything is known: objects and keypoints propagated, shapes segmented linearly.

Objects: the masks of a clip's first frame, carried through it and scored by J and F. Keypoints: those of the main
object, as JHMDB's joints; the ones that are hidden in a frame are left out there. Shapes: a linear head for background
and seven shapes, current frame and two frames ahead. Propagation is on validation clips; the head learns on training
clips. T frames, H W pixels, J keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from frame.eval.data.sprites import SpriteClip, SpriteTruth, read_pictures, read_truth, shape_labels, sprite_clips
from frame.eval.encoder import Encoder, Picture, open_encoder
from frame.eval.metrics.davis import sequence_scores
from frame.eval.metrics.pck import ClipPoints, from_cells, mean_pck, pck
from frame.eval.present.pictures import overlay, safe_name, spread, stack, strip, write_png
from frame.eval.propagate.images import Ids, Size, input_size
from frame.eval.propagate.joints import Floats, joint_labels, read_joints, to_cells
from frame.eval.propagate.mask_propagation import prepared, propagate_masks
from frame.eval.propagate.preset import JointKnobs, Preset, load_preset
from frame.eval.propagate.propagation import Propagator
from frame.eval.request import Request
from frame.eval.result import PICTURES, Result, data_digest
from frame.eval.segment.labelled_clip import LabelledClip, Labels, SegmentationData
from frame.eval.tasks.segmentation import HeadOptions, segmentation_result
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.manifests.sprite_scene import OUTLINES

CLASSES = ("background", *OUTLINES)
_KNOBS = ("rule=native", "sides=", "copy=")  # sprites are squares of whole patches already
_JOINTS = JointKnobs(sigma=0.5, best=5)
_THRESHOLDS = (0.2, 0.5)  # of the box around a sprite's few keypoints: 0.1 would be a third of a patch
_AHEAD = 2
_LABELLED = 4  # the head learns and is tested on every fourth frame: neighbours tell it nothing new
_FEWEST = 3
_SHOWN, _FRAMES = 4, 6  # clips in pictures, and frames of each


@dataclass(frozen=True, kw_only=True, slots=True)
class _Clip:
    """A clip in memory, and where it came from."""

    files: SpriteClip
    pictures: Sequence[Picture]
    truth: SpriteTruth


def evaluate(request: Request, progress: Progress, *, schedule: str = "short", seed: int = 0) -> Result:
    """All three, into one result. Raises InputError for a folder without validation clips, or of one frame each."""
    preset = load_preset("davis", request.preset or "dino", _KNOBS)
    preset = replace(preset, name=preset.name.partition("+")[0])
    files = sprite_clips(request.data, request.sequences)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    clips = [_read(clip) for clip in files]
    test = [clip for clip in clips if clip.files.split == "val"]
    if not test or not any(clip.files.split == "train" for clip in clips):
        raise InputError(
            what="There are no clips to test on, or none to learn from.",
            where=str(request.data),
            why=f"{len(clips)} clips, {len(test)} of them for validation",
            fix="make more: `frame-cache sprites FOLDER --clips 24`",
        )
    items, pictures = [], []
    places = spread(len(test), _SHOWN)
    with progress.bar("propagating", total=len(test), unit="clips") as tick:
        for place, clip in enumerate(test):
            predicted = list(propagate_masks(encoder, preset, clip.pictures, clip.truth.masks[0]))
            points = _propagate_points(encoder, preset, clip)
            items.append(_item(clip, predicted, points))
            if place in places:
                path = request.out / PICTURES / f"{safe_name(clip.files.name)}.png"
                write_png(path, _picture(clip, predicted))
                pictures.append(path.relative_to(request.out).as_posix())
            tick()
    options = HeadOptions(deltas=(0, _AHEAD), schedule=schedule, seed=seed)
    segmented = segmentation_result(
        "sprites", _segmentation(request, clips), encoder, options, out=request.out, progress=progress,
        convention="present",
    )  # fmt: skip
    return _result(request, preset, encoder, files, items, pictures, segmented)


def _result(
    request: Request, preset: Preset, encoder: Encoder, files: Sequence[SpriteClip], items: Sequence[dict[str, Any]],
    pictures: Sequence[str], segmented: Result,
) -> Result:  # fmt: skip
    names = dict.fromkeys(name for item in items for name in item if name != "name")
    means = {name: float(np.mean([item[name] for item in items if name in item])) for name in names}
    paths = [path for clip in files for path in (clip.video, clip.masks, clip.truth)]
    return Result(
        task="sprites", preset=f"{preset.name}, {segmented.preset}", encoder=encoder.info.to_json(),
        scores={**means, **segmented.scores}, items=items,
        data={
            "root": str(request.data), "digest": data_digest(request.data, paths),
            "clips": len(files), "propagated": len(items),
        },
        options={"propagation": preset.options(), "sigma": _JOINTS.sigma, "best": _JOINTS.best, **segmented.options},
        notes=[
            "Generated videos. J and F are means over the objects of each clip, then over clips; PCK is over the "
            "keypoints of each clip's main object that are seen, then over clips.",
            *segmented.notes,
        ],
        pictures=[*pictures, *segmented.pictures],
    )  # fmt: skip


def _read(files: SpriteClip) -> _Clip:
    pictures, truth = read_pictures(files), read_truth(files)
    if len(pictures) < _FEWEST:
        raise InputError(
            what="A clip is too short to be scored.",
            where=str(files.video),
            why=f"{len(pictures)} frames: the first and the last are not scored",
            fix="make longer ones: `frame-cache sprites FOLDER --frames 20`",
        )
    if len(pictures) != len(truth.masks) or pictures[0].shape[:2] != truth.masks.shape[1:]:
        raise InputError(
            what="A clip and its truth do not fit each other.",
            where=str(files.video),
            why=f"{len(pictures)} frames of {pictures[0].shape[:2]}, masks {truth.masks.shape}",
            fix="run `frame-cache sprites` on the folder with the same options: it mends what is damaged",
        )
    return _Clip(files=files, pictures=pictures, truth=truth)


def _item(clip: _Clip, predicted: Sequence[Ids], points: ClipPoints) -> dict[str, Any]:
    scored = [one.to_json() for one in sequence_scores(np.stack(predicted), clip.truth.masks)]
    item: dict[str, Any] = {"name": clip.files.name}
    if not scored:
        return item
    for name, key in (("J&F", "J&F_mean"), ("J", "J_mean"), ("F", "F_mean")):
        item[name] = float(np.mean([one[key] for one in scored]))
    item |= _shares(points)
    return item


def _shares(points: ClipPoints) -> dict[str, float]:
    shares = mean_pck(pck([points], _THRESHOLDS))
    return {f"PCK@{threshold}": share for threshold, share in shares.items() if np.isfinite(share)}


def _propagate_points(encoder: Encoder, preset: Preset, clip: _Clip) -> ClipPoints:
    """Keypoints of the main object; one that is hidden counts neither there nor at the start."""
    size = (clip.pictures[0].shape[0], clip.pictures[0].shape[1])
    patch = encoder.info.patch
    seen = input_size(size, rule=preset.input.rule, sides=preset.input.sides, patch=patch)
    cells = (seen[0] // patch, seen[1] // patch)
    true_2JT = clip.truth.keypoints[..., :2].transpose(2, 1, 0)
    shown_JT = clip.truth.keypoints[..., 2].T > 0
    start_2J = to_cells(true_2JT[..., 0], picture=size, resized=seen, patch=patch)
    found = list(_follow(encoder, preset, clip, seen, joint_labels(start_2J, cells, sigma=_JOINTS.sigma)))
    pred_2JT = from_cells(np.stack(found, axis=2), cells=cells, size=size)
    countable_JT = shown_JT & shown_JT[:, :1]
    return ClipPoints(pred=np.where(countable_JT, pred_2JT, -1.0), true=true_2JT)


def _follow(encoder: Encoder, preset: Preset, clip: _Clip, seen: Size, first_hwC: Tensor) -> Iterator[Floats]:
    """The keypoints of each frame in cells, [2, J], from the label map of the first."""
    propagator = Propagator(preset.propagation)
    frames = (prepared(picture, preset.input, seen) for picture in clip.pictures)
    labels_hwC = first_hwC.to(encoder.device)
    for number, tokens in enumerate(encoder.stream(frames, std=preset.input.std)):
        if number == 0:
            propagator.begin(tokens.patches, labels_hwC)
        else:
            labels_hwC = propagator.step(tokens.patches)
        yield read_joints(labels_hwC, top=_JOINTS.best).double().cpu().numpy()


def _segmentation(request: Request, clips: Sequence[_Clip]) -> SegmentationData:
    parts: dict[str, list[LabelledClip]] = {"train": [], "val": []}
    for clip in clips:
        if clip.files.split in parts:
            parts[clip.files.split].append(_labelled(clip))
    files = [path for clip in clips for path in (clip.files.video, clip.files.masks, clip.files.truth)]
    return SegmentationData(
        root=request.data, train=parts["train"], test=parts["val"], classes=CLASSES,
        source="Frames: every frame of the generated videos.", files=files, facts={"frames": "videos"},
    )  # fmt: skip


def _labelled(clip: _Clip) -> LabelledClip:
    labels = shape_labels(clip.truth, CLASSES)
    numbers = range(len(clip.pictures))
    labelled = numbers[::_LABELLED]

    def pictures(wanted: Sequence[int]) -> Iterator[Picture]:
        return (clip.pictures[number] for number in wanted)

    def label(number: int) -> Labels:
        return labels[number]

    return LabelledClip(name=clip.files.name, numbers=numbers, labelled=labelled, pictures=pictures, label=label)


def _picture(clip: _Clip, predicted: Sequence[Ids]) -> Picture:
    """Frames with the predicted masks above, with the true ones below."""
    places = spread(len(predicted), _FRAMES)
    rows = [
        strip([overlay(clip.pictures[place], masks[place]) for place in places])
        for masks in (predicted, clip.truth.masks)
    ]
    return stack(rows)
