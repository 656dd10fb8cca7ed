"""Linear video segmentation as a result: CamVid, VSPW, or any ``SegmentationData``; current and future frames.

Scores: ``mIoU`` of the current frame, ``mIoU@D`` of the label D frame numbers after the input, ``copy_last@D`` of the
floor that says of that label what the head for current frames says of the input. In the items, one a class, the same
names stand for the class's own IoU. H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from frame.eval.data.camvid import open_camvid
from frame.eval.data.vspw import TRAIN_EVERY, open_vspw
from frame.eval.encoder import Encoder, Picture, open_encoder
from frame.eval.present.pictures import overlay, safe_name, spread, strip, write_png
from frame.eval.request import Request
from frame.eval.result import PICTURES, Result, data_digest
from frame.eval.segment.clip_features import Size
from frame.eval.segment.feature_store import FeatureStore, StoredType
from frame.eval.segment.head_training import recipe_for
from frame.eval.segment.heads import HeadName
from frame.eval.segment.labelled_clip import VOID, LabelledClip, Labels, SegmentationData
from frame.eval.segment.linear_segmentation import Predicted, SegmentationSettings, Trained, linear_segmentation
from frame.eval.segment.segmentation_scores import Convention, DeltaScores
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

CAMVID_SIZE: Size = (360, 480)
FEATURES = "features"
_SHOWN = 4  # pictures of the current frame, and as many of the farthest future
_WINDOWS = (8, 16)  # frames over which VSPW's video consistency looks

_CACHED = (
    "Heads learn from cached features of whole, unchanged frames: DINOv2's recipe with random crops and flips of the "
    "feature maps, without photometric distortion and without resizing by 0.5 to 2."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOptions:
    """What a person chooses of a head and its training. ``features``: the store's folder, None for one below OUT."""

    deltas: tuple[int, ...] = (0,)
    head: HeadName = "linear"
    schedule: str = "full"
    size: Size | None = None
    features: Path | None = None
    stored: StoredType = "float16"
    seed: int = 0

    def preset(self) -> str:
        """The recipe's name: two results of different heads or schedules never share one."""
        return f"dinov2-{self.head}" + ("" if self.schedule == "full" else f"-{self.schedule}")

    def settings(self, classes: tuple[str, ...]) -> SegmentationSettings:
        """As the evaluation takes them."""
        recipe = recipe_for(self.schedule, self.seed)
        return SegmentationSettings(classes=classes, deltas=self.deltas, head=self.head, recipe=recipe, size=self.size)


def camvid(
    request: Request, options: HeadOptions, progress: Progress, *, split: Literal["test", "val"] = "test",
    videos: Path | None = None, first: Mapping[str, int] | None = None,
) -> Result:  # fmt: skip
    """CamVid with SegNet's labels, trained on ``train``; mIoU over the 11 classes. See ``open_camvid`` for frames."""
    data = open_camvid(request.data, split=split, sequences=request.sequences, videos=videos, first=first)
    progress.note(data.source)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    return segmentation_result(
        "camvid", data, encoder, options, out=request.out, progress=progress, convention="camvid"
    )


def vspw(
    request: Request, options: HeadOptions, progress: Progress, *, split: Literal["val", "test"] = "val",
    train_every: int = TRAIN_EVERY,
) -> Result:  # fmt: skip
    """VSPW: mIoU by its own evaluator and by the other convention, and video consistency over 8 and 16 frames."""
    data = open_vspw(request.data, split=split, sequences=request.sequences, train_every=train_every)
    progress.note(data.source)
    encoder = open_encoder(request.encoder, weights=request.weights, device=request.device)
    return segmentation_result(
        "vspw", data, encoder, options, out=request.out, progress=progress, convention="vspw", windows=_WINDOWS
    )


def segmentation_result(
    task: str, data: SegmentationData, encoder: Encoder, options: HeadOptions, *, out: Path, progress: Progress,
    convention: Convention, windows: Sequence[int] = (),
) -> Result:  # fmt: skip
    """Take the features, train a head for each delta, predict, score and show.

    ``convention``: which mIoU is the headline (see ``DeltaScores``); ``windows``: video consistency over so many
    frames. Pictures go below ``out``, features to ``options.features`` or ``out``. Raises InputError for data that do
    not allow a delta.
    """
    settings = options.settings(data.classes)
    store = FeatureStore(options.features or out / FEATURES, options.stored)
    scores = {delta: DeltaScores(len(data.classes), convention, tuple(windows)) for delta in settings.all_deltas()}
    shown = _Shown(out, _places(data.test, settings.all_deltas()))

    def consume(delta: int, predictions: Sequence[Predicted]) -> None:
        scores[delta].add(predictions)
        shown.add(delta, predictions)

    trained = linear_segmentation(data.train, data.test, encoder, settings, store, consume, progress)
    totals = {name: value for delta, one in scores.items() for name, value in one.totals(_suffix(delta)).items()}
    # The headline of every delta before the lesser figures of any.
    first = [name for name in totals if name.split("@")[0] in ("mIoU", "copy_last")]
    ordered = {name: totals[name] for name in [*first, *(name for name in totals if name not in first)]}
    return Result(
        task=task, preset=options.preset(), encoder=encoder.info.to_json(),
        scores=ordered, items=_items(data.classes, scores),
        data=_data_json(data, trained),
        options=_options_json(options, settings, data, convention, windows),
        notes=_notes(data, encoder, options, scores, trained), pictures=shown.paths,
    )  # fmt: skip


def parse_size(text: str) -> Size | None:
    """``360x480`` (rows x columns), or ``native``. Raises InputError for anything else."""
    if text == "native":
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides):
        raise InputError(
            what="This is no input size.", where=f"--size {text}", fix="give ROWSxCOLUMNS, such as 360x480, or native"
        )
    return int(sides[0]), int(sides[1])


def parse_deltas(text: str) -> tuple[int, ...]:
    """``0,2,4``. Raises InputError for what is no number of frames."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(
            what="These are no deltas.", where=f"--deltas {text}", fix="give numbers of frames, such as 0,2,4,8"
        )
    return tuple(sorted({int(part) for part in parts}))


def parse_first(texts: Sequence[str]) -> dict[str, int]:
    """``NAME=N`` each: the raw number of a video's first frame. Raises InputError for anything else."""
    first = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals or not (number.isascii() and number.isdigit()):
            raise InputError(
                what="This says no first frame.", where=f"--first {text}", fix="give NAME=N, as 0001TP=6690"
            )
        first[name] = int(number)
    return first


class _Shown:
    """Strips of a few predictions: the input if it is another frame, the frame, its label, what was predicted."""

    def __init__(self, out: Path, places: Mapping[int, set[tuple[str, int]]]) -> None:
        self._out, self._places = out, places
        self.paths: list[str] = []

    def add(self, delta: int, predictions: Sequence[Predicted]) -> None:
        for one in predictions:
            if (one.clip.name, one.target) in self._places.get(delta, ()):
                name = f"{safe_name(one.clip.name)}-{one.target:06d}-ahead-{delta}.png"
                write_png(self._out / PICTURES / name, _strip(one))
                self.paths.append(f"{PICTURES}/{name}")


def _strip(one: Predicted) -> Picture:
    size = (one.true.shape[1], one.true.shape[0])
    numbers = sorted({one.source, one.target})
    pictures = [
        np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        for picture in one.clip.pictures(numbers)
    ]
    masks = [one.true, one.predicted] + ([one.copied] if one.source != one.target else [])
    return strip([*pictures, *(overlay(pictures[-1], _visible(mask_HW)) for mask_HW in masks)], height=240)


def _visible(ids_HW: Labels) -> Labels:
    """Ids from 1: class 0 is a class here, no background to leave out."""
    return np.where(ids_HW == VOID, VOID, np.minimum(ids_HW, VOID - 2) + 1).astype(np.uint8)


def _places(test: Sequence[LabelledClip], deltas: Sequence[int]) -> dict[int, set[tuple[str, int]]]:
    """Which (clip, target) are shown, of the first and the last delta."""
    places = {}
    for delta in {deltas[0], deltas[-1]}:
        every = [(clip.name, target) for clip in test for _, target in clip.pairs(delta)]
        places[delta] = {every[place] for place in spread(len(every), _SHOWN)}
    return places


def _suffix(delta: int) -> str:
    return f"@{delta}" if delta else ""


def _items(classes: Sequence[str], scores: Mapping[int, DeltaScores]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [{"name": name} for name in classes]
    for delta, one in scores.items():
        for column, values in one.by_class(_suffix(delta)).items():
            for item, value in zip(items, values, strict=True):
                if np.isfinite(value):
                    item[column] = float(value)
    return items


def _data_json(data: SegmentationData, trained: Sequence[Trained]) -> dict[str, Any]:
    return {
        "root": str(data.root),
        "digest": data_digest(data.root, data.files),
        **data.facts,
        "classes": len(data.classes),
        "train_videos": len(data.train),
        "test_videos": len(data.test),
        "deltas": [asdict(one) for one in trained],
    }


def _options_json(
    options: HeadOptions, settings: SegmentationSettings, data: SegmentationData, convention: str,
    windows: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    size = "native" if options.size is None else f"{options.size[0]}x{options.size[1]}"
    recipe = {**asdict(settings.recipe), "betas": list(settings.recipe.betas)}
    return {
        "deltas": settings.all_deltas(), "head": options.head, "schedule": options.schedule, **recipe,
        "size": size, "size_rule": "sides floored to whole patches", "inference": "whole picture",
        "stored": options.stored, "augmentation": "crops and flips of cached features", "miou": convention,
        "consistency_windows": list(windows), **data.facts,
    }  # fmt: skip


def _notes(
    data: SegmentationData, encoder: Encoder, options: HeadOptions, scores: Mapping[int, DeltaScores],
    trained: Sequence[Trained],
) -> list[str]:  # fmt: skip
    memory = encoder.info.memory
    past = f"the {memory} past frames at hand before it" if memory else "no past frames: it has no memory"
    size = "its own size" if options.size is None else f"{options.size[0]} x {options.size[1]} pixels"
    notes = [
        data.source,
        f"The encoder sees each frame with {past}.",
        f"Input: the whole picture at {size}, sides rounded down to whole patches of {encoder.info.patch}; predicted "
        "at once, without a sliding window; scored at the masks' own size.",
        _CACHED,
    ]
    for one in trained:
        if one.train_frames[0] < one.train_frames[1] or one.test_frames[0] < one.test_frames[1]:
            notes.append(
                f"Delta {one.delta}: {one.train_frames[0]} of {one.train_frames[1]} training and {one.test_frames[0]} "
                f"of {one.test_frames[1]} test labels have a frame so long before; scores @{one.delta} are over these."
            )
    absent = [name for name, count in zip(data.classes, scores[0].labelled_pixels(), strict=True) if not count]
    if absent:
        listed = ", ".join(absent[:20]) + (" …" if len(absent) > 20 else "")
        notes.append(f"{len(absent)} of {len(data.classes)} classes are in no label tested: {listed}.")
    return [*notes, *scores[0].notes()]
