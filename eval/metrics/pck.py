"""PCK, the percentage of correct keypoints, as UVC, CRW and CropMAE compute it on JHMDB.

J joints (15), T frames; points are [2, J, T], x before y, as JHMDB's own files have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frame.manifests.errors import InputError

Floats = NDArray[np.float64]

_BOX = 0.6  # of the diagonal of the box around the joints


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPoints:
    """One clip: predicted and true joints in pixels of the original picture, counted from 0, both [2, J, T].

    A joint that was not found has negative predicted coordinates. See ``from_cells``.
    """

    pred: Floats
    true: Floats


def from_cells(pred_2JT: Floats, *, cells: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Predicted cells of a feature grid as pixels of the original picture: cell / grid x picture, no half cell added.

    ``cells`` is the grid's height and width, ``size`` the picture's. A joint that was not found, (-1, -1), stays
    negative.
    """
    scale_2 = np.array([size[1] / cells[1], size[0] / cells[0]])
    return np.asarray(pred_2JT * scale_2[:, None, None], dtype=float)


def pck(clips: Sequence[ClipPoints], thresholds: Sequence[float]) -> dict[float, Floats]:
    """The fraction of correct joints at each threshold, [J] over all clips and frames; their plain mean is the score.

    A joint is correct within threshold x 0.6 x the diagonal of the box around the true joints of its frame. In that
    box are only the joints that the *prediction* has (x >= 0), as in the reference, and only those are counted: one
    that was not found is left out, not wrong. The first frame of a clip, which was given, is left out. nan for a
    joint that was never found. Raises InputError where predicted and true points are not of one shape.
    """
    relative = [_relative(clip) for clip in clips]
    if not relative:
        return {threshold: np.empty(0) for threshold in thresholds}
    distance_JN = np.concatenate(relative, axis=1)  # nan where a joint was not found
    found_J = (~np.isnan(distance_JN)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return {threshold: (distance_JN <= threshold).sum(axis=1) / found_J for threshold in thresholds}


def mean_pck(per_joint: dict[float, Floats]) -> dict[float, float]:
    """The unweighted mean over the joints that were ever found; nan without any."""
    return {
        threshold: float(np.nanmean(values_J)) if (~np.isnan(values_J)).any() else float("nan")
        for threshold, values_J in per_joint.items()
    }


def _relative(clip: ClipPoints) -> Floats:
    """Distances to the true joints in units of the box, [J, T - 1]."""
    if clip.pred.shape != clip.true.shape:
        raise InputError(
            what="Predicted and true joints cannot be compared.", why=f"{clip.pred.shape} and {clip.true.shape}"
        )
    pred_2JT, true_2JT = clip.pred[:, :, 1:], clip.true[:, :, 1:]
    found_JT = pred_2JT[0] >= 0
    low_2T = np.where(found_JT, true_2JT, np.inf).min(axis=1, initial=np.inf)
    high_2T = np.where(found_JT, true_2JT, -np.inf).max(axis=1, initial=-np.inf)
    box_T = _BOX * np.linalg.norm(high_2T - low_2T, axis=0)
    distance_JT = np.linalg.norm(pred_2JT - true_2JT, axis=0)
    # A joint that was found alone has a box without size. It is wrong even where it is exact: in the reference too,
    # where 0 / 0 is at most no threshold.
    relative_JT = np.divide(distance_JT, box_T, out=np.full(distance_JT.shape, np.inf), where=box_T > 0)
    return np.where(found_JT, relative_JT, np.nan)
