"""The scores of one delta: confusion of what was predicted and of what was copied, and video consistency.

K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from frame.eval.metrics.consistency import consistency, mean_consistency
from frame.eval.metrics.miou import SegmentationScores, class_iou, confusion, segmentation_scores
from frame.eval.segment.linear_segmentation import Predicted

# camvid: the sum over all classes divided by their number (SegNet). vspw: the mean over classes that occur in the truth
# (VSPW's evaluator), with the mean over classes that occur at all beside it. present: as vspw, alone.
Convention = Literal["camvid", "vspw", "present"]


class DeltaScores:
    """Adds up predictions; one confusion matrix over all frames. Void pixels count nowhere, but in the consistency,
    whose released script takes a steady void for a steady label.
    """

    def __init__(self, classes: int, convention: Convention, windows: Sequence[int] = ()) -> None:
        self._convention = convention
        self._predicted_KK, self._copied_KK = (np.zeros((classes, classes), dtype=np.int64) for _ in range(2))
        self._windows: dict[int, list[float]] = {frames: [] for frames in windows}
        self._copies = False

    def add(self, predictions: Sequence[Predicted]) -> None:
        """All predictions for one clip, in order."""
        classes = len(self._predicted_KK)
        for one in predictions:
            self._predicted_KK += confusion(one.predicted, one.true, classes)
            self._copied_KK += confusion(one.copied, one.true, classes)
            self._copies |= one.source != one.target
        if self._windows:
            pred_THW, true_THW = (np.stack([getattr(one, name) for one in predictions]) for name in _BOTH)
            for frames, values in self._windows.items():
                values += consistency(pred_THW, true_THW, frames)

    def totals(self, suffix: str) -> dict[str, float]:
        """By name, the headline first; a score that nothing was counted for is left out."""
        predicted, copied = segmentation_scores(self._predicted_KK), segmentation_scores(self._copied_KK)
        scores = {f"mIoU{suffix}": self._headline(predicted)}
        if self._copies:
            scores[f"copy_last{suffix}"] = self._headline(copied)
        if self._convention == "vspw":
            scores[f"mIoU_union{suffix}"] = predicted.union
        scores[f"accuracy{suffix}"] = predicted.accuracy
        for frames, values in self._windows.items():
            scores[f"vc{frames}{suffix}"] = mean_consistency(values)
        return {name: value for name, value in scores.items() if np.isfinite(value)}

    def by_class(self, suffix: str) -> dict[str, NDArray[np.float64]]:
        """IoU of each class, nan where it does not occur, under the names of their means."""
        columns = {f"mIoU{suffix}": class_iou(self._predicted_KK)}
        if self._copies:
            columns[f"copy_last{suffix}"] = class_iou(self._copied_KK)
        return columns

    def labelled_pixels(self) -> NDArray[np.int64]:
        """Of each class, in the labels."""
        counts: NDArray[np.int64] = self._predicted_KK.sum(axis=1)
        return counts

    def notes(self) -> list[str]:
        """What a reader must know of the convention, and of scores that are left out."""
        empty = [f"vc{frames}" for frames, values in self._windows.items() if not np.isfinite(mean_consistency(values))]
        short = [f"No video is long enough for {' and '.join(empty)}."] if empty else []
        return [_CONVENTIONS[self._convention], *short]

    def _headline(self, scores: SegmentationScores) -> float:
        return scores.every if self._convention == "camvid" else scores.present


_BOTH = ("predicted", "true")
_CONVENTIONS: dict[Convention, str] = {
    "camvid": "mIoU: the IoU of all classes, summed and divided by their number; a class that occurs nowhere counts 0.",
    "vspw": "mIoU: over the classes that occur in the labels (VSPW's evaluator). mIoU_union: over those that occur in "
    "labels or predictions (mmseg, Hugging Face).",
    "present": "mIoU: over the classes that occur in the labels.",
}
