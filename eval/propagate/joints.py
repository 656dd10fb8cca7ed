"""Joints as maps of a feature grid and back: how JHMDB's poses enter label propagation, and how they leave it.

J joints; h w cells of the grid; C channels of a label map: the background, then the joints. Points are x before y, in
cells: the middle of cell (0, 0) is (0, 0), and no half cell is added anywhere (reference: UVC, CRW, CropMAE).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

SIGMA = 0.5  # of the dots, in cells
TOP = 5  # cells that a joint is read from (CRW's released script: 3)


def to_cells(points: Floats, *, picture: tuple[int, int], resized: tuple[int, int], patch: int) -> Floats:
    """Points [2, ...] in pixels of the picture, counted from 0, as cells: x (resized / picture) / patch.

    ``picture`` and ``resized`` are heights and widths. JHMDB's files count pixels from 1: subtract 1 first.
    """
    scale_2 = np.array([resized[1] / picture[1], resized[0] / picture[0]])
    return np.asarray(points * scale_2.reshape(2, *(1,) * (points.ndim - 1)) / patch, dtype=float)


def draw_dots(points_2J: Floats, cells: tuple[int, int], *, sigma: float = SIGMA) -> Floats:
    """One Gaussian dot a joint, [J, h, w], 1 in its middle and zero around; an empty map for one far outside.

    The dot covers the cells int(x - 3 sigma) to int(x + 3 sigma + 1) (4 x 4 for 0.5), the last one not included. As in
    the reference ``int`` cuts towards zero, which moves dots at the upper and left border inwards: x = 0.7 has its
    middle in cell 2, x = -0.4 in cell 1. Elsewhere the middle is cell floor(x + 0.5).
    """
    height, width = cells
    squares_Jw, inside_Jw = _across(points_2J[0], width, sigma)
    squares_Jh, inside_Jh = _across(points_2J[1], height, sigma)
    dots_Jhw = np.exp(-(squares_Jh[:, :, None] + squares_Jw[:, None]) / (2 * sigma**2))
    return np.where(inside_Jh[:, :, None] & inside_Jw[:, None], dots_Jhw, 0.0)


def joint_labels(points_2J: Floats, cells: tuple[int, int], *, sigma: float = SIGMA) -> Tensor:
    """The label map of a first frame, float32 [h, w, 1 + J]: background 1 where no joint is, then the dots."""
    dots_Jhw = draw_dots(points_2J, cells, sigma=sigma)
    background_hw = (dots_Jhw == 0).all(axis=0)
    return torch.from_numpy(np.concatenate([background_hw[None], dots_Jhw]).astype(np.float32)).permute(1, 2, 0)


def read_joints(soft_hwC: Tensor, *, top: int = TOP) -> Tensor:
    """The joints of a soft label map, [2, J], in cells; (-1, -1) for a joint whose map is empty.

    The mean of the positions of the ``top`` highest cells, weighted by their values. Channel 0, the background, has no
    part in it. On the device of the map.
    """
    width = soft_hwC.shape[1]
    values_NJ = soft_hwC[..., 1:].flatten(0, 1)
    best_kJ, cells_kJ = values_NJ.topk(min(top, len(values_NJ)), dim=0)
    weights_kJ = best_kJ / best_kJ.sum(dim=0, keepdim=True)
    positions_2kJ = torch.stack([cells_kJ % width, cells_kJ // width])
    points_2J = (positions_2kJ * weights_kJ).sum(dim=1)
    return torch.where(values_NJ.sum(dim=0) == 0, -1.0, points_2J)


def _across(points_J: Floats, cells: int, sigma: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Squared distances from the middle of each dot along one side, and which cells the dot covers."""
    first_J = np.trunc(points_J - 3 * sigma)
    end_J = np.trunc(points_J + 3 * sigma + 1)
    cells_c = np.arange(cells)
    middle = (6 * sigma + 1) // 2
    inside_Jc = (cells_c >= first_J[:, None]) & (cells_c < end_J[:, None])
    squares_Jc: Floats = np.square(cells_c - first_J[:, None] - middle, dtype=float)
    return squares_Jc, inside_Jc
