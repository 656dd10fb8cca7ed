"""Video consistency, VC8 and VC16 of VSPW: does the prediction stay the same where the truth does?

T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def consistency(pred_THW: NDArray[np.integer], true_THW: NDArray[np.integer], frames: int) -> list[float]:
    """One value for each window of ``frames`` frames of a video, in order.

    Of the pixels whose true id is the same in the whole window, the fraction whose predicted id is the same in the
    whole window, right or wrong; nan where there is no such pixel. The windows begin at 0 to T - frames - 1, as in the
    released script: the last possible one is missing, and a video of no more than ``frames`` frames has none. VCn is
    the mean over all windows of all videos, nan aside: ``mean_consistency``.
    """
    if pred_THW.shape != true_THW.shape:
        raise ValueError(f"a prediction of {pred_THW.shape} and a truth of {true_THW.shape} cannot be compared")
    if frames < 2:
        raise ValueError(f"a window of {frames} frames says nothing about consistency")
    return list(_windows(pred_THW, true_THW, frames))


def mean_consistency(values: list[float]) -> float:
    """The mean over windows, nan aside; nan without any."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _windows(pred_THW: NDArray[np.integer], true_THW: NDArray[np.integer], frames: int) -> Iterator[float]:
    # For how many frames each pixel has kept its id, in the truth and in the prediction.
    true_HW, pred_HW = (np.zeros(true_THW.shape[1:], dtype=np.int32) for _ in range(2))
    for at in range(len(true_THW) - 1):
        true_HW, pred_HW = _kept(true_HW, true_THW, at), _kept(pred_HW, pred_THW, at)
        if at >= frames - 1:
            steady_HW = true_HW >= frames
            count = np.count_nonzero(steady_HW)
            yield np.count_nonzero(steady_HW & (pred_HW >= frames)) / count if count else float("nan")


def _kept(before_HW: NDArray[np.int32], ids_THW: NDArray[np.integer], at: int) -> NDArray[np.int32]:
    return before_HW * (ids_THW[at] == ids_THW[at - 1]) + 1 if at else before_HW + 1
