"""Masks to soft labels and back, as the protocols differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from frame.eval.propagate.label_maps import read_out, soft_labels


def a_mask(height: int = 48, width: int = 70) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[10:30, 12:40] = 1
    mask[20:44, 33:60] = 3
    mask[0:4, :] = 255
    return mask


def test_nearest_ids_have_a_channel_for_every_id_that_is_left() -> None:
    mask = a_mask()
    found = soft_labels(mask, down="nearest_ids", size=(48, 64), patch=8)
    small = np.asarray(Image.fromarray(np.where(mask == 255, 0, mask)).resize((8, 6), Image.Resampling.NEAREST))
    assert found.ids == (0, 1, 2, 3)
    assert np.array_equal(found.labels.argmax(-1), small)
    assert np.array_equal(found.labels.sum(-1), np.ones((6, 8)))
    assert not found.labels[..., 2].any()
    mask[:] = np.where(mask == 3, 0, mask)
    mask[47, 69] = 7  # too small to be met by a cell
    assert soft_labels(mask, down="nearest_ids", size=(48, 64), patch=8).ids == (0, 1)


def test_bilinear_onehot_has_a_channel_for_every_id_that_occurs() -> None:
    mask = a_mask()
    found = soft_labels(mask, down="bilinear_onehot", size=(48, 80), patch=8)
    resized = cv2.resize(np.where(mask == 255, 0, mask).astype(np.uint8), (80, 48), interpolation=cv2.INTER_NEAREST)
    assert found.ids == (0, 1, 3)
    for channel, number in enumerate(found.ids):
        expected = cv2.resize((resized == number).astype(np.float32), (10, 6), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(found.labels[..., channel], expected, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 5, 130])
def test_any_number_of_classes(classes: int) -> None:
    ids = (np.arange(32 * 48).reshape(32, 48) * classes // (32 * 48)).astype(np.uint8)
    found = soft_labels(ids, down="bilinear_onehot", size=(32, 48), patch=2)
    assert found.labels.shape == (16, 24, classes)
    out = read_out(
        torch.from_numpy(found.labels),
        found.ids,
        up="opencv",
        back="opencv",
        minmax="none",
        size=(32, 48),
        native=(32, 48),
    )
    assert out.shape == (32, 48)
    assert len(np.unique(out)) > classes * 0.5 or classes == 1


def a_soft_map(classes: int = 3) -> torch.Tensor:
    return torch.rand(6, 8, classes, generator=torch.Generator().manual_seed(3))


def test_dinos_read_out() -> None:
    soft = a_soft_map()
    large = functional.interpolate(soft.permute(2, 0, 1)[None], scale_factor=8, mode="bilinear", align_corners=False)[0]
    for channel in range(3):
        large[channel] -= large[channel].min()
        large[channel] /= large[channel].max()
    best = large.argmax(0).numpy().astype(np.uint8)
    expected = np.asarray(Image.fromarray(best).resize((70, 50), Image.Resampling.NEAREST))
    found = read_out(soft, (0, 1, 2), up="patches", back="pillow", minmax="dino", size=(48, 64), native=(50, 70))
    assert np.array_equal(found, expected)
    plain = read_out(soft, (0, 1, 2), up="patches", back="pillow", minmax="none", size=(48, 64), native=(50, 70))
    assert not np.array_equal(found, plain)


def test_crws_read_out() -> None:
    soft = a_soft_map()
    best = np.argmax(cv2.resize(soft.numpy(), (64, 48)), axis=-1).astype(np.uint8)
    expected = cv2.resize(best * 4, (70, 50), interpolation=cv2.INTER_NEAREST)
    found = read_out(soft, (0, 4, 8), up="opencv", back="opencv", minmax="none", size=(48, 64), native=(50, 70))
    assert np.array_equal(found, expected)
    by_pillow = np.asarray(Image.fromarray(best * 4).resize((70, 50), Image.Resampling.NEAREST))
    found = read_out(soft, (0, 4, 8), up="opencv", back="pillow", minmax="none", size=(48, 64), native=(50, 70))
    assert np.array_equal(found, by_pillow)
    assert not np.array_equal(by_pillow, expected)


def test_vfs_reads_out_at_the_native_size() -> None:
    soft = a_soft_map()
    large = functional.interpolate(soft.permute(2, 0, 1)[None], size=(50, 70), mode="bilinear", align_corners=False)[0]
    low, high = (getattr(large, name)(dim=(1, 2), keepdim=True) for name in ("amin", "amax"))
    expected = ((large - low) / (high - low + 1e-12)).argmax(0).numpy()
    found = read_out(soft, (0, 1, 2), up="native", back="pillow", minmax="vfs", size=(48, 64), native=(50, 70))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("minmax", "winner"), [("dino", 1), ("vfs", 0), ("none", 1)])
def test_an_object_that_fills_the_picture(minmax: Any, winner: int) -> None:
    """Its channel has one value: DINO's script divides 0 by 0 and lets nan win, VFS makes it 0."""
    soft = torch.zeros(4, 4, 2)
    soft[..., 1] = 1.0
    found = read_out(soft, (0, 1), up="patches", back="pillow", minmax=minmax, size=(32, 32), native=(32, 32))
    assert np.unique(found).tolist() == [winner]


@given(seed=st.integers(0, 100), up=st.sampled_from(["patches", "native", "opencv"]))
def test_only_known_ids_come_out(seed: int, up: Any) -> None:
    soft = torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(seed))
    found = read_out(soft, (0, 7, 200), up=up, back="pillow", minmax="dino", size=(24, 40), native=(31, 29))
    assert found.shape == (31, 29)
    assert found.dtype == np.uint8
    assert set(np.unique(found).tolist()) <= {0, 7, 200}


@pytest.mark.skipif("FRAME_SHARED" not in os.environ, reason="FRAME_SHARED names no folder with reference outputs")
def test_reference_dino_masks() -> None:
    with np.load(Path(os.environ["FRAME_SHARED"]) / "golden" / "dino_lp_a.npz") as stored:
        soft_TChw, hard_THW = torch.from_numpy(stored["soft"]), stored["hard"]
    for soft_Chw, hard_HW in zip(soft_TChw, hard_THW, strict=True):
        soft_hwC = soft_Chw.permute(1, 2, 0)
        found = read_out(
            soft_hwC, (0, 1, 2), up="patches", back="pillow", minmax="dino", size=(128, 192), native=(128, 192)
        )
        assert np.array_equal(found, hard_HW)
