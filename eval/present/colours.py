"""Features as colours that mean the same in every frame and, as well as that can be, for every encoder.

T frames, h w grid, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from frame.pipeline.view.pictures import colour_range, colours, fit_projection

_SAMPLE = 20_000  # patches that a projection is fitted on: more do not move the colours that one sees

Floats = NDArray[np.float32]


def pca_colours(patches_ThwD: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Patch tokens of frames as RGB [T, h, w, 3]: their first three principal components.

    One projection serves all the frames given, so that a colour means the same in each of them. The tokens are
    compared by direction (unit length), as every evaluation here compares them. The same tokens give the same
    colours; a component without variation is mid-grey.
    """
    return common_colours([patches_ThwD])[0]


def common_colours(encoders: Sequence[NDArray[np.floating]]) -> list[NDArray[np.uint8]]:
    """Patch tokens [T, h, w, D] of several encoders on the same frames as RGB [T, h, w, 3], in like colours.

    Each encoder has principal components of its own, whose order and signs, and directions where two are about as
    strong, say nothing. They are therefore turned (or mirrored) together to agree with the first encoder's as well as
    an orthogonal matrix can make them (Procrustes): the same thing gets like colours where the encoders tell things
    apart alike, and features that differ by a rotation get the same ones. Grids and widths may differ.
    """
    found = [_scores(patches_ThwD) for patches_ThwD in encoders]
    turned = [found[0], *(scores @ turn(scores, found[0]) for scores in found[1:])]
    return [_painted(scores_Thw3) for scores_Thw3 in turned]


def turn(scores_Thw3: Floats, to_Thw3: Floats) -> Floats:
    """The orthogonal matrix [3, 3] that brings scores closest to others of the same frames: ``scores @ turn``."""
    size = (min(scores_Thw3.shape[1], to_Thw3.shape[1]), min(scores_Thw3.shape[2], to_Thw3.shape[2]))
    a_N3, b_N3 = (_at(scores, size).reshape(-1, 3).astype(np.float64) for scores in (scores_Thw3, to_Thw3))
    left, _, right = np.linalg.svd(a_N3.T @ b_N3)
    return np.asarray(left @ right, dtype=np.float32)


def _scores(patches_ThwD: NDArray[np.floating]) -> Floats:
    """The first three principal components [T, h, w, 3], each of variance 1, or zero where nothing varies.

    The variances are made equal because the colours are: each component fills its channel, whatever its share.
    """
    every = max(patches_ThwD[..., 0].size // _SAMPLE, 1)
    sample_ND = patches_ThwD.reshape(-1, patches_ThwD.shape[-1])[::every]
    project = fit_projection([_directions(sample_ND)])
    scores_Thw3 = np.stack([project(_directions(patches_hwD)) for patches_hwD in patches_ThwD])
    spread = scores_Thw3.std(axis=(0, 1, 2))
    return np.asarray(scores_Thw3 / np.where(spread > 0, spread, 1), dtype=np.float32)


def _painted(scores_Thw3: Floats) -> NDArray[np.uint8]:
    low, high = colour_range(list(scores_Thw3))
    return np.stack([colours(part, low, high) for part in scores_Thw3])


def _at(scores_Thw3: Floats, size: tuple[int, int]) -> Floats:
    """Scores on a grid of ``size`` (rows, columns), averaged over areas."""
    if scores_Thw3.shape[1:3] == size:
        return scores_Thw3
    return np.stack(
        [
            np.asarray(cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)
            for part in scores_Thw3
        ]
    )


def _directions(tokens: NDArray[np.floating]) -> Floats:
    """Tokens [..., D] at unit length."""
    exact = np.asarray(tokens, dtype=np.float32)
    return np.asarray(exact / np.maximum(np.linalg.norm(exact, axis=-1, keepdims=True), 1e-12), dtype=np.float32)
