"""Following objects by their regions' tokens: each frame's masks against a reference, the nearest one wins.

M masks of a frame, O objects, H W pixels, D width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from frame.eval.propagate.images import Ids
from frame.eval.track.proposals import Masks

Reference = Literal["first", "previous", "ema"]
Floats = NDArray[np.float32]
Choice = tuple[NDArray[np.intp], NDArray[np.floating]]  # which mask each object takes (-1: none), and how good it is

KEPT = 0.9  # of the reference's old value at each step of ``ema``


class RegionTracker:
    """Chooses each object's mask by the cosine of its token with a reference: the object in the annotated first frame
    (``first``), the mask chosen last (``previous``), or a running mean of both (``ema``)."""

    def __init__(self, reference: Reference, first_OD: Floats, present_O: NDArray[np.bool_]) -> None:
        """``present_O``: which objects the first frame shows. The others are never found."""
        self._reference, self._present = reference, present_O
        self._tokens_OD = directions(first_OD)

    def step(self, tokens_MD: Floats) -> Choice:
        """The masks chosen in the next frame, and their cosines. Without masks the references stay."""
        count = len(self._tokens_OD)
        if not len(tokens_MD) or not count:
            return np.full(count, -1), np.zeros(count)
        found_MD = directions(tokens_MD)
        cosine_OM = self._tokens_OD @ found_MD.T
        chosen_O = np.where(self._present, cosine_OM.argmax(axis=1), -1)
        if self._reference != "first":
            kept = KEPT if self._reference == "ema" else 0.0
            new_OD = directions(kept * self._tokens_OD + (1 - kept) * found_MD[chosen_O])
            self._tokens_OD = np.where(self._present[:, None], new_OD, self._tokens_OD)
        return chosen_O, cosine_OM.max(axis=1)


def directions(tokens: Floats) -> Floats:
    """Tokens [..., D] at unit length."""
    return np.asarray(tokens / np.maximum(np.linalg.norm(tokens, axis=-1, keepdims=True), 1e-12), dtype=np.float32)


def paint(masks_MHW: Masks, choice: Choice) -> Ids:
    """The id map of a choice. Where chosen masks overlap, the object with the better one has the pixel; of equals the
    one with the lower id."""
    ids_HW = np.zeros(masks_MHW.shape[1:], dtype=np.uint8)
    chosen_O, score_O = choice
    for number in sorted(range(len(chosen_O)), key=lambda number: (score_O[number], -number)):
        if chosen_O[number] >= 0:
            ids_HW[masks_MHW[chosen_O[number]]] = number + 1
    return ids_HW


def oracle(masks_MHW: Masks, true_HW: Ids, objects: int) -> Choice:
    """The masks that an all-knowing tracker takes: those of the highest IoU with each object, and that IoU. None where
    no mask meets the object."""
    if not len(masks_MHW):
        return np.full(objects, -1), np.zeros(objects)
    inside_MO = np.array([np.bincount(true_HW[mask], minlength=256) for mask in masks_MHW])[:, 1 : objects + 1]
    areas_M1 = np.count_nonzero(masks_MHW, axis=(1, 2))[:, None]
    whole_O = np.bincount(true_HW.reshape(-1), minlength=256)[1 : objects + 1]
    iou_MO = inside_MO / (areas_M1 + whole_O - inside_MO)
    best_O = iou_MO.max(axis=0)
    return np.where(best_O > 0, iou_MO.argmax(axis=0), -1), best_O
