"""From a mask of ids to soft labels of cells, and back: the ways in which protocols differ.

H W pixels of the network's input, h w cells, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from frame.eval.propagate.images import Ids, Library, Size, resize_nearest
from frame.eval.propagate.propagation import stretched

VOID = 255
Down = Literal["nearest_ids", "bilinear_onehot"]
Up = Literal["patches", "native", "opencv"]
MinMax = Literal["none", "dino", "vfs"]

# VFS divides by the range and this.
_EPSILON = 1e-12
_CHANNELS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftLabels:
    """float32 [h, w, C] of a first frame, and the id of each channel."""

    labels: NDArray[np.float32]
    ids: tuple[int, ...]


def soft_labels(mask_HW: Ids, *, down: Down, size: Size, patch: int) -> SoftLabels:
    """A mask of any size as labels of the cells of an input of ``size`` (height, width) pixels. 255 is background.

    ``nearest_ids`` (DINO): the ids are resized to the grid by Pillow's nearest neighbour; there is a channel for every
    id up to the highest one that is left there, so a last object that vanishes has none. ``bilinear_onehot`` (CRW): the
    ids are resized to the input by OpenCV's nearest neighbour, then a map of each id there to the grid, bilinearly.
    """
    known_HW = np.where(mask_HW == VOID, np.uint8(0), mask_HW)
    grid = (size[0] // patch, size[1] // patch)
    if down == "nearest_ids":
        small_hw = resize_nearest(known_HW, grid, library="pillow")
        ids = np.arange(int(small_hw.max()) + 1)
        onehot_hwC = small_hw[..., None] == ids
        return SoftLabels(labels=onehot_hwC.astype(np.float32), ids=tuple(ids.tolist()))
    input_HW = resize_nearest(known_HW, size, library="opencv")
    ids = np.unique(input_HW)
    onehot_HWC = (input_HW[..., None] == ids).astype(np.float32)
    return SoftLabels(labels=_bilinear(onehot_HWC, grid), ids=tuple(ids.tolist()))


def read_out(
    labels_hwC: Tensor, ids: tuple[int, ...], *, up: Up, back: Library, minmax: MinMax, size: Size, native: Size
) -> Ids:
    """The ids of a frame at its ``native`` size, from the soft labels of an input of ``size``.

    ``patches`` (DINO): bilinear to the input, arg max, nearest neighbour to native. ``native`` (VFS): bilinear to
    native, arg max. ``opencv`` (CRW): OpenCV's bilinear to the input, arg max, nearest neighbour to native. ``back``
    says whose nearest neighbour: the two libraries choose other pixels.
    ``minmax`` stretches every channel to 0..1 before the arg max: ``dino`` divides by the maximum, so that a channel of
    one positive value becomes nan and wins everywhere; ``vfs`` adds 1e-12, so that it becomes 0 and loses.
    """
    if up == "opencv":
        soft_CHW = torch.from_numpy(_bilinear(labels_hwC.cpu().numpy(), size)).permute(2, 0, 1)
    else:
        soft_CHW = functional.interpolate(
            labels_hwC.permute(2, 0, 1)[None], size=size if up == "patches" else native, mode="bilinear"
        )[0]
    best_HW = _stretched(soft_CHW, minmax).argmax(dim=0).cpu().numpy()
    ids_HW = np.asarray(ids, dtype=np.uint8)[best_HW]
    return resize_nearest(ids_HW, native, library=back)


def _bilinear(values_hwC: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """By OpenCV, of any number of channels: it takes up to 128, and drops a single one's axis."""
    groups = range(0, values_hwC.shape[2], _CHANNELS)
    parts = [cv2.resize(values_hwC[..., at : at + _CHANNELS], size[::-1]).reshape(*size, -1) for at in groups]
    return np.concatenate(parts, axis=2)


def _stretched(soft_CHW: Tensor, minmax: MinMax) -> Tensor:
    if minmax == "none":
        return soft_CHW
    if minmax == "dino":
        return stretched(soft_CHW.flatten(1).T).T.reshape(soft_CHW.shape)
    low_C11, high_C11 = soft_CHW.amin(dim=(1, 2), keepdim=True), soft_CHW.amax(dim=(1, 2), keepdim=True)
    return torch.where(high_C11 > 0, (soft_CHW - low_C11) / (high_C11 - low_C11 + _EPSILON), soft_CHW)
