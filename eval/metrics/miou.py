"""Mean intersection over union from one confusion matrix, by the conventions of VIP, VSPW and CamVid.

K classes, N pixels of any shape; rows of the matrix are true classes, columns predicted ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_PIECE = 1 << 22  # pixels counted at a time, which bounds the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationScores:
    """What a confusion matrix says. Every value is a fraction, nan where nothing was counted."""

    present: float  # IoU, mean over the classes that occur in the truth: VSPW's own evaluator
    union: float  # IoU, mean over the classes that occur in the truth or the prediction: VIP, mmseg, Hugging Face
    every: float  # IoU, sum over all classes divided by their number: SegNet on CamVid
    accuracy: float  # of pixels
    class_accuracy: float  # mean over the classes that occur in the truth
    weighted: float  # IoU, classes weighted by their true pixels


def confusion(pred: NDArray[np.integer], true: NDArray[np.integer], classes: int) -> Counts:
    """How often each true class was predicted as each, [K, K], over all pixels of two arrays of one shape.

    Pixels whose truth is no class (void, 255) are left out together with what was predicted there. Where the truth is
    a class and the prediction is none, the pixel cannot be counted in a column and is left out too, as the
    evaluator of VIP does. Raises ValueError for arrays of different shapes.
    """
    if pred.shape != true.shape:
        raise ValueError(f"a prediction of {pred.shape} and a truth of {true.shape} cannot be compared")
    counts = np.zeros(classes * classes, dtype=np.int64)
    pred_N, true_N = pred.reshape(-1), true.reshape(-1)
    for at in range(0, len(true_N), _PIECE):
        pred_P = pred_N[at : at + _PIECE].astype(np.int64)
        true_P = true_N[at : at + _PIECE].astype(np.int64)
        known_P = (true_P >= 0) & (true_P < classes) & (pred_P >= 0) & (pred_P < classes)
        counts += np.bincount(true_P[known_P] * classes + pred_P[known_P], minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_iou(matrix_KK: Counts) -> Floats:
    """IoU of each class, [K]; nan for a class that occurs neither in the truth nor in the prediction."""
    hits_K = np.diag(matrix_KK).astype(float)
    union_K = matrix_KK.sum(axis=0) + matrix_KK.sum(axis=1) - hits_K
    return _divided(hits_K, union_K)


def segmentation_scores(matrix_KK: Counts) -> SegmentationScores:
    """All conventions at once; see the fields.

    They agree where every class occurs. A class that is predicted but never true counts as 0 in ``union`` and not at
    all in ``present``; one that occurs nowhere counts as 0 in ``every`` only. The background is a class like another.
    """
    iou_K, true_K = class_iou(matrix_KK), matrix_KK.sum(axis=1)
    present_K, pixels = true_K > 0, int(true_K.sum())
    hits_K = np.diag(matrix_KK)
    return SegmentationScores(
        present=_mean(iou_K[present_K]),
        union=_mean(iou_K[~np.isnan(iou_K)]),
        every=float(np.nansum(iou_K) / len(iou_K)) if pixels else float("nan"),
        accuracy=float(hits_K.sum() / pixels) if pixels else float("nan"),
        class_accuracy=_mean(hits_K[present_K] / true_K[present_K]),
        weighted=float((iou_K[present_K] * true_K[present_K]).sum() / pixels) if pixels else float("nan"),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


def _divided(above: Floats, below: Floats) -> Floats:
    quotients: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return quotients
