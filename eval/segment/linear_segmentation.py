"""Linear video segmentation: a head on frozen features of frame t - delta learns and predicts the label of frame t.

Independent of any dataset: what it needs of one is a ``LabelledClip``. H W pixels, h w grid, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

from frame.eval.encoder import Encoder
from frame.eval.segment.clip_features import ClipFeatures, Size, take_features
from frame.eval.segment.feature_store import Features, FeatureStore
from frame.eval.segment.head_training import HeadExamples, HeadRecipe, train_head
from frame.eval.segment.heads import HeadName, make_head, upsampled
from frame.eval.segment.labelled_clip import VOID, LabelledClip, Labels, possible_deltas
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationSettings:
    """``classes`` are the names of the ids from 0. ``deltas``: how many frame numbers the input lies before the label;
    0, the current frame, is always among them, since copy-last needs its head. ``size`` of the input (rows, columns) in
    pixels, None for a video's own; sides are rounded down to whole patches. Features are held in memory up to ``room``
    bytes.
    """

    classes: tuple[str, ...]
    deltas: tuple[int, ...] = (0,)
    head: HeadName = "linear"
    recipe: HeadRecipe
    size: Size | None = None
    room: int = 4 * GIB

    def __post_init__(self) -> None:
        if min(self.deltas, default=0) < 0:
            raise InputError(
                what="A delta is negative.",
                where=f"--deltas {','.join(map(str, self.deltas))}",
                fix="give numbers of frames from the input to the label: 0 is the current frame",
            )

    def all_deltas(self) -> list[int]:
        """Ascending, 0 first."""
        return sorted({0, *self.deltas})


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """The label of one test frame, and what was predicted: from frame ``source``, delta before, and by copying what
    the head for current frames says of ``source``. Ids [H, W] at the label's size.
    """

    clip: LabelledClip
    source: int
    target: int
    true: Labels
    predicted: Labels
    copied: Labels


# Gets (delta, all predictions for one clip, in order of their targets).
Consumer = Callable[[int, Sequence[Predicted]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What training for one delta came to: labels that had an input, of how many; ``loss`` is the mean of the last."""

    delta: int
    train_frames: tuple[int, int]
    test_frames: tuple[int, int]
    loss: float


def linear_segmentation(
    train: Sequence[LabelledClip], test: Sequence[LabelledClip], encoder: Encoder, settings: SegmentationSettings,
    store: FeatureStore, consume: Consumer, progress: Progress,
) -> list[Trained]:  # fmt: skip
    """Train a head for each delta on ``train`` and hand every prediction for ``test`` to ``consume``, clip by clip.

    Clips of one name hold the same frames, whichever list they are in. Raises InputError where a delta has no frames,
    and for labels that are no classes.
    """
    deltas = settings.all_deltas()
    for delta in deltas:
        _require_pairs(delta, {"training": train, "test": test})
    wanted = [(clip, [pair[0] for delta in deltas for pair in clip.pairs(delta)]) for clip in (*train, *test)]
    keys = take_features(wanted, encoder, store, settings.size, progress)
    features = ClipFeatures(store, keys, settings.room)
    width = features(*next(iter(keys))).shape[-1]
    heads, trained = {}, []
    for delta in deltas:
        # Not the encoder's width: CLIP's is that of its embedding, which its patches do not have.
        head = make_head(settings.head, width, len(settings.classes), settings.recipe.seed)
        examples = _examples(train, delta, features, encoder.info.patch, settings)
        losses = train_head(head, examples, settings.recipe, encoder.device, progress, what=f"head {delta} ahead")
        heads[delta] = head
        counts = [(_pair_count(clips, delta), _pair_count(clips, 0)) for clips in (train, test)]
        tail = losses[-max(1, len(losses) // 20) :]
        trained.append(Trained(delta=delta, train_frames=counts[0], test_frames=counts[1], loss=float(np.mean(tail))))
    _test(test, heads, features, settings, encoder.device, consume, progress)
    return trained


def predict(head: nn.Module, features_hwD: Features, size: tuple[int, int], device: torch.device) -> Labels:
    """Class ids [H, W] at ``size``: the whole picture at once, scores upsampled, then the largest."""
    features_1Dhw = torch.from_numpy(np.array(features_hwD, dtype=np.float32)).permute(2, 0, 1)[None].to(device)
    with torch.inference_mode():
        ids_HW = upsampled(head(features_1Dhw), size)[0].argmax(dim=0)
    return ids_HW.to(torch.uint8).cpu().numpy()


def resized_labels(labels_HW: Labels, size: tuple[int, int]) -> Labels:
    """Nearest, by the pixels' centres."""
    if labels_HW.shape == size:
        return labels_HW
    resized = cv2.resize(labels_HW, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8)


def _test(
    test: Sequence[LabelledClip], heads: Mapping[int, nn.Module], features: ClipFeatures,
    settings: SegmentationSettings, device: torch.device, consume: Consumer, progress: Progress,
) -> None:  # fmt: skip
    total = sum(_pair_count(test, delta) for delta in heads)
    with progress.bar("predicting", total=total, unit="frames") as tick:
        for clip in test:
            for delta, head in heads.items():
                predictions = []
                for source, target in clip.pairs(delta):
                    true_HW = _label(clip, target, settings)
                    tokens_hwD = features(clip.name, source)
                    size = (true_HW.shape[0], true_HW.shape[1])
                    predicted_HW = predict(head, tokens_hwD, size, device)
                    copied_HW = predict(heads[0], tokens_hwD, size, device) if delta else predicted_HW
                    predictions.append(
                        Predicted(
                            clip=clip, source=source, target=target,
                            true=true_HW, predicted=predicted_HW, copied=copied_HW,
                        )
                    )  # fmt: skip
                    tick()
                if predictions:
                    consume(delta, predictions)


def _examples(
    train: Sequence[LabelledClip], delta: int, features: ClipFeatures, patch: int, settings: SegmentationSettings
) -> HeadExamples:
    """The pairs of a delta. Labels are held like features: in memory where these are, else read when needed."""
    pairs = [(clip, *pair) for clip in train for pair in clip.pairs(delta)]
    grids = []
    for clip, source, _ in pairs:
        rows, columns, _ = features(clip.name, source).shape
        grids.append((rows, columns))

    def label(place: int) -> Labels:
        clip, _, target = pairs[place]
        rows, columns = grids[place]
        return resized_labels(_label(clip, target, settings), (rows * patch, columns * patch))

    held = [label(place) for place in range(len(pairs))] if features.in_memory else None
    return HeadExamples(
        features=lambda place: features(pairs[place][0].name, pairs[place][1]),
        labels=label if held is None else held.__getitem__,
        grids=grids,
        patch=patch,
    )


def _label(clip: LabelledClip, number: int, settings: SegmentationSettings) -> Labels:
    labels_HW = clip.label(number)
    wrong = labels_HW[(labels_HW != VOID) & (labels_HW >= len(settings.classes))]
    if wrong.size:
        raise InputError(
            what="A label is no class.",
            where=f"{clip.name}, frame {number}",
            why=f"id {int(wrong[0])} of {len(settings.classes)} classes (0 to {len(settings.classes) - 1})",
            fix="check that the masks are of this dataset",
        )
    return labels_HW


def _pair_count(clips: Sequence[LabelledClip], delta: int) -> int:
    return sum(len(clip.pairs(delta)) for clip in clips)


def _require_pairs(delta: int, parts: Mapping[str, Sequence[LabelledClip]]) -> None:
    for part, clips in parts.items():
        if _pair_count(clips, delta):
            continue
        if not _pair_count(clips, 0):
            raise InputError(what=f"There are no labelled {part} frames whose pictures are at hand.")
        possible = possible_deltas(clips)
        raise InputError(
            what=f"No labelled {part} frame has a frame {delta} numbers before it.",
            where=f"--deltas {delta}",
            why="the frames at hand allow " + (", ".join(map(str, possible)) if possible else "none but 0"),
            fix="ask for one of these, or give the frames between the labels (of CamVid: --videos)",
        )
