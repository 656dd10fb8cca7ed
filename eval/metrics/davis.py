"""J and F of video object segmentation, as the official evaluator of DAVIS-2017 (semi-supervised) defines them.

T frames, K frames that are looked at together, O objects, H W pixels. The arithmetic on pixels is in ``mask_bits``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frame.eval.metrics.cut import Cut, Ids, cut_out
from frame.eval.metrics.mask_bits import GROUP, PRED_BITS, TRUE_BITS, matches, overlaps, together
from frame.manifests.errors import InputError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

VOID = 255
TOGETHER = 4  # frames: enough to outweigh the overhead of each step, few enough for the processor's cache
_TOLERANCE = 0.008  # of the image's diagonal
_RECALL = 0.5
_QUARTERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Of one measure over the frames of one object: nan where no frame was scored."""

    mean: float
    recall: float  # fraction of frames above 0.5
    decay: float  # mean of the first quarter less mean of the last


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectScores:
    """One object of one sequence."""

    j: Statistics
    f: Statistics

    def to_json(self) -> dict[str, float]:
        """Fractions by the names of the literature, J&F first."""
        parts = {"J": self.j, "F": self.f}
        named = {f"{key}_{what}": getattr(part, what) for key, part in parts.items() for what in Statistics.__slots__}
        return {"J&F_mean": (self.j.mean + self.f.mean) / 2} | named


def jaccard(pred_TOHW: Bools, true_TOHW: Bools) -> Floats:
    """Intersection over union of each object in each frame, [T, O]; 1 where both masks are empty."""
    scores = [frame_scores(pred, true)[0] for pred, true in zip(pred_TOHW, true_TOHW, strict=True)]
    return np.reshape(scores, pred_TOHW.shape[:2])


def boundary_f(pred_TOHW: Bools, true_TOHW: Bools) -> Floats:
    """The boundary measure of each object in each frame, [T, O]; see ``frame_scores``."""
    scores = [frame_scores(pred, true)[1] for pred, true in zip(pred_TOHW, true_TOHW, strict=True)]
    return np.reshape(scores, pred_TOHW.shape[:2])


def frame_scores(pred_OHW: Bools, true_OHW: Bools) -> Floats:
    """J and F of each object in one frame, [2, O]. Objects may lie over each other.

    F is 2PR / (P + R) of the boundary pixels that have one of the other mask within ``tolerance``, a disk. Without a
    predicted boundary P = 1 and R = 0, without a true one the reverse, and F is 1 without either.
    """
    if pred_OHW.shape != true_OHW.shape:
        raise ValueError(f"masks of {pred_OHW.shape} and {true_OHW.shape} cannot be compared")
    single = [
        score_cuts([(cut_out(pred_HW.astype(np.uint8)), cut_out(true_HW.astype(np.uint8)))], 1)[0]
        for pred_HW, true_HW in zip(pred_OHW, true_OHW, strict=True)
    ]
    return np.concatenate(single, axis=1) if single else np.empty((2, 0))


def id_scores(pred_HW: Ids, true_HW: Ids, objects: int) -> Floats:
    """``frame_scores`` of the objects 1 to ``objects`` of two id maps, [2, O].

    255 in the true map is background, as in the official evaluator, which does not leave void pixels out here. An
    object that was not predicted has an empty mask. Raises InputError for a predicted id above ``objects``, and for
    maps of different sizes.
    """
    scores_2O: Floats = score_cuts([(cut_out(pred_HW), cut_out(true_HW))], objects)[0]
    return scores_2O


def score_cuts(pairs: Sequence[tuple[Cut, Cut]], objects: int, *, binary: bool = False) -> Floats:
    """``id_scores`` of several frames of a video at once, [K, 2, O], from the parts of their maps where anything is.

    ``binary``: all ids above 0 are object 1.
    """
    for pred, true in pairs:
        _check(pred, true, 255 if binary else objects)
    frames = [frame for frame in range(len(pairs)) for _ in range(2)]
    scores = [np.empty((len(pairs), 2, 0))]
    for first in range(1, objects + 1, GROUP):
        count = min(GROUP, objects + 1 - first)
        pred_bits, true_bits = np.zeros((2, 256), dtype=np.uint8)
        ids = slice(1, None) if binary else slice(first, first + count)
        pred_bits[ids], true_bits[ids] = (bits[: 1 if binary else count] for bits in (PRED_BITS, TRUE_BITS))
        cuts = [(cut, bits) for pair in pairs for cut, bits in zip(pair, (pred_bits, true_bits), strict=True)]
        bits_Khw = together(cuts, frames)
        f_KO = _f(*matches(bits_Khw, tolerance(*pairs[0][1].size), count))
        scores.append(np.stack([overlaps(bits_Khw, count), f_KO], axis=1))
    return np.concatenate(scores, axis=2)


def object_count(first_HW: Ids) -> int:
    """How many objects a sequence has: the highest id of its first annotation, 255 aside."""
    return int(first_HW[first_HW != VOID].max(initial=0))


def sequence_scores(pred_THW: Ids, true_THW: Ids) -> list[ObjectScores]:
    """The scores of the objects of one sequence, from id maps of all its annotated frames.

    The first and the last annotated frame are not scored. The objects are those up to the highest id of the first
    true frame. With fewer than three frames nothing is scored: all values are nan. Raises InputError as ``id_scores``
    does.
    """
    if len(pred_THW) != len(true_THW):
        raise InputError(
            what="There are not as many predicted masks as annotations.",
            why=f"{len(pred_THW)} instead of {len(true_THW)}",
        )
    objects = object_count(true_THW[0]) if len(true_THW) else 0
    pairs = list(zip(pred_THW[1:-1], true_THW[1:-1], strict=True))
    frames: list[Floats] = []
    for at in range(0, len(pairs), TOGETHER):
        frames.extend(score_cuts([(cut_out(a), cut_out(b)) for a, b in pairs[at : at + TOGETHER]], objects))
    return summarise(frames, objects)


def summarise(frames: Sequence[Floats], objects: int) -> list[ObjectScores]:
    """The scores of each object from J and F of the scored frames, each [2, O]."""
    scores_T2O = np.stack(frames) if frames else np.empty((0, 2, objects))
    return [
        ObjectScores(j=statistics(scores_T2O[:, 0, number]), f=statistics(scores_T2O[:, 1, number]))
        for number in range(objects)
    ]


def statistics(values_T: Floats) -> Statistics:
    """Mean, recall and decay over the scored frames, nan aside.

    The quarters begin and end at round(linspace(1, T, 5)) and share those frames. The reference keeps these frame
    numbers as uint8: up to 255 frames the results are equal, above that its numbers wrap around and these do not.
    """
    if not np.isfinite(values_T).any():
        return Statistics(mean=float("nan"), recall=float("nan"), decay=float("nan"))
    # The reference adds 1e-10 so that halves are rounded up.
    bounds = (np.round(np.linspace(1, len(values_T), _QUARTERS + 1) + 1e-10) - 1).astype(int)
    first, last = values_T[bounds[0] : bounds[1] + 1], values_T[bounds[-2] : bounds[-1] + 1]
    known = [part[~np.isnan(part)] for part in (first, last)]
    decay = float(known[0].mean() - known[1].mean()) if all(part.size for part in known) else float("nan")
    # A frame without a value is not above 0.5: the reference counts it among the frames of the recall.
    recall = float(np.mean(np.nan_to_num(values_T) > _RECALL))
    return Statistics(mean=float(np.nanmean(values_T)), recall=recall, decay=decay)


def total(scores: Sequence[ObjectScores]) -> dict[str, float]:
    """The flat mean over all objects, whatever their sequence, of the values of ``ObjectScores.to_json``.

    Objects without a value (sequences of one or two frames) are left out; without any the result is empty.
    """
    rows = [values for values in (score.to_json() for score in scores) if not np.isnan(values["J&F_mean"])]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def tolerance(height: int, width: int) -> int:
    """How many pixels a boundary may be off: 8 for 480 x 854, 9 for 480 x 910."""
    return int(np.ceil(_TOLERANCE * np.linalg.norm((height, width))))


def _f(total_K2O: NDArray[np.int64], matched_K2O: NDArray[np.int64]) -> Floats:
    none_K2O = total_K2O == 0
    rates_K2O = np.where(none_K2O, 1.0, matched_K2O / np.where(none_K2O, 1, total_K2O))  # precision and recall
    both_KO = rates_K2O.sum(axis=1)
    f_KO: Floats = 2 * rates_K2O.prod(axis=1) / np.where(both_KO > 0, both_KO, 1.0)
    return f_KO


def _check(pred: Cut, true: Cut, most: int) -> None:
    if pred.size != true.size:
        raise InputError(
            what="A predicted mask has another size than the true one.",
            why=f"{pred.size[0]} x {pred.size[1]} pixels instead of {true.size[0]} x {true.size[1]}",
            fix="resize the prediction to the annotation (nearest neighbour)",
        )
    highest = int(pred.ids_hw.max(initial=0))
    if highest > most:
        raise InputError(
            what="A predicted mask has an object that the first annotation does not have.",
            why=f"id {highest}, but the ids end at {most}",
            fix="predict ids of the first frame's annotation only (0 is background; 255 is no id here)",
        )
