"""A region's token: the mean of the patch features inside its mask, upsampled bilinearly to the picture.

Upsampling is linear, so the mean over a mask is a weighted mean of the patches themselves, and the H x W x D features
are never made: the weights are the mask, taken down to the grid by the transposed interpolation.

M masks, H W pixels of the picture, h w grid, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from frame.eval.encoder import Picture, Triple
from frame.eval.track.proposals import Masks

_TOGETHER = 16  # masks pooled at once: a few dozen megabytes at 480p


@dataclass(frozen=True, kw_only=True, slots=True)
class Padding:
    """How a picture of ``size`` lies in the middle of whole patches: ``top`` and ``left`` pixels before it."""

    size: tuple[int, int]
    padded: tuple[int, int]
    top: int
    left: int


def padding(size: tuple[int, int], patch: int) -> Padding:
    """The smallest number of whole patches around a picture, the picture in their middle."""
    rows, columns = (-(-side // patch) * patch for side in size)
    return Padding(size=size, padded=(rows, columns), top=(rows - size[0]) // 2, left=(columns - size[1]) // 2)


def padded(picture_HW3: Picture, pad: Padding, mean: Triple) -> Picture:
    """The picture in the middle of the encoder's mean colour, which is 0 once it is normalised."""
    whole = np.empty((*pad.padded, 3), dtype=np.uint8)
    whole[:] = np.round(np.array(mean) * 255.0)
    whole[pad.top : pad.top + pad.size[0], pad.left : pad.left + pad.size[1]] = picture_HW3
    return whole


def pooled(patches_hwD: Tensor, masks_MHW: Masks, pad: Padding) -> Tensor:
    """Region tokens [M, D] of masks that are not empty: the mean, over a mask's pixels, of the features upsampled to
    the padded picture (``align_corners=False``) and cut to the picture."""
    device, (rows, columns) = patches_hwD.device, patches_hwD.shape[:2]
    down_hH = _shares(rows, pad.padded[0], pad.top, pad.size[0]).to(device)
    down_wW = _shares(columns, pad.padded[1], pad.left, pad.size[1]).to(device)
    tokens = [torch.empty(0, patches_hwD.shape[2], device=device)]
    for begin in range(0, len(masks_MHW), _TOGETHER):
        masks = torch.from_numpy(masks_MHW[begin : begin + _TOGETHER]).to(device).float()
        weights_Mhw = down_hH @ (masks @ down_wW.T)
        weights_Mhw /= masks.sum(dim=(1, 2), keepdim=True)
        tokens.append(weights_Mhw.flatten(1) @ patches_hwD.flatten(0, 1).float())
    return torch.cat(tokens)


@lru_cache(maxsize=8)
def _shares(cells: int, pixels: int, first: int, count: int) -> Tensor:
    """How much of each cell is in each of ``count`` pixels from ``first`` on, [cells, count]: what the interpolation
    itself makes of a single cell."""
    single = torch.eye(cells)[None]
    whole = functional.interpolate(single, size=pixels, mode="linear", align_corners=False)[0]
    return whole[:, first : first + count].contiguous()
