"""A region's token is the mean of the upsampled features inside its mask, though those are never made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from frame.eval.encoder import IMAGENET_MEAN
from frame.eval.track.pooling import Padding, padded, padding, pooled


def upsampled(patches_hwD: Tensor, masks_MHW: NDArray[np.bool_], pad: Padding) -> Tensor:
    """The definition: upsample all features, cut out the picture, average over each mask."""
    maps = patches_hwD.permute(2, 0, 1)[None].double()
    whole = functional.interpolate(maps, size=pad.padded, mode="bilinear", align_corners=False)[0]
    cut = whole[:, pad.top : pad.top + pad.size[0], pad.left : pad.left + pad.size[1]]
    return torch.stack([cut[:, torch.from_numpy(mask)].mean(dim=1) for mask in masks_MHW])


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 8, 14]), st.integers(1, 20), st.integers(0, 2**31))
def test_pooling_is_averaging_upsampled_features(height: int, width: int, patch: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pad = padding((height, width), patch)
    grid = (pad.padded[0] // patch, pad.padded[1] // patch)
    patches = torch.from_numpy(rng.standard_normal((*grid, 5)).astype(np.float32))
    masks = rng.random((count, height, width)) < 0.3
    masks[:, rng.integers(height), rng.integers(width)] = True  # none is empty
    found = pooled(patches, masks, pad)
    torch.testing.assert_close(found.double(), upsampled(patches, masks, pad), atol=2e-6, rtol=0)


def test_at_480p_too() -> None:
    rng = np.random.default_rng(0)
    pad = padding((480, 854), 16)
    patches = torch.from_numpy(rng.standard_normal((30, 54, 8)).astype(np.float32))
    masks = np.zeros((3, 480, 854), dtype=bool)
    masks[0, 100:300, 200:500], masks[1, -1, -1], masks[2] = True, True, True
    torch.testing.assert_close(pooled(patches, masks, pad).double(), upsampled(patches, masks, pad), atol=2e-6, rtol=0)


def test_a_pixel_in_the_middle_of_a_patch_has_its_feature() -> None:
    patches = torch.arange(12.0).reshape(3, 4, 1)
    masks = np.zeros((1, 15, 20), dtype=bool)
    masks[0, 7, 12] = True  # the middle of patch (1, 2) of 5 pixels
    assert pooled(patches, masks, padding((15, 20), 5)).item() == pytest.approx(6.0, abs=1e-5)


def test_no_masks_no_tokens() -> None:
    assert pooled(torch.ones(2, 2, 3), np.zeros((0, 8, 8), dtype=bool), padding((8, 8), 4)).shape == (0, 3)


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([8, 14, 16]))
def test_padding_is_the_least_that_is_whole_and_even(height: int, width: int, patch: int) -> None:
    pad = padding((height, width), patch)
    for side, whole, before in zip((height, width), pad.padded, (pad.top, pad.left), strict=True):
        assert whole % patch == 0
        assert 0 <= whole - side < patch
        assert whole - side - before - before in (0, 1)


def test_what_is_around_a_picture_is_the_mean_colour() -> None:
    picture = np.full((6, 8, 3), 200, dtype=np.uint8)
    pad = padding((6, 8), 8)
    whole = padded(picture, pad, IMAGENET_MEAN)
    assert whole.shape == (8, 8, 3)
    assert (whole[1:7] == 200).all()
    assert (whole[[0, 7]] == [124, 116, 104]).all()
