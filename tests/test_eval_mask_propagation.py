"""Frames on their way into the encoder, and masks on their way out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from small_eval import IdentityEncoder

from frame.eval.propagate.images import resize_nearest
from frame.eval.propagate.mask_propagation import prepared, propagate_masks, scored
from frame.eval.propagate.preset import load_preset

EXACT = ["rule=native", "sides=", "topk=1", "ties=cut"]


def a_picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_frames_are_resized_as_the_preset_says() -> None:
    picture, size = a_picture(), (32, 48)
    rounded = prepared(picture, load_preset("davis", "dino").input, size)
    exact = prepared(picture, load_preset("davis", "siammae").input, size)
    grey = prepared(picture, load_preset("davis", "uvc").input, size)
    assert np.array_equal(rounded, cv2.resize(picture, size[::-1]))
    np.testing.assert_allclose(exact, cv2.resize(picture.astype(np.float32) / 255, size[::-1]) * 255, atol=1e-4)
    assert exact.dtype == np.float32
    assert grey.dtype == np.uint8
    for channel in range(3):
        assert np.array_equal(grey[..., channel], cv2.cvtColor(rounded, cv2.COLOR_RGB2LAB)[..., 0])


def test_a_copy_of_the_data_is_scored_at_its_size() -> None:
    mask = (a_picture()[..., 0] > 128).astype(np.uint8)
    assert scored(mask, load_preset("davis", "dino")) is mask
    copied = scored(mask, load_preset("davis", "rsp"))
    assert np.array_equal(copied, resize_nearest(mask, (480, 880), library="opencv"))


def test_every_frame_comes_out_and_nothing_of_nothing() -> None:
    preset = load_preset("davis", "dino", EXACT)
    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[2:5, 3:6] = 1
    mask[0, 0] = 255
    seen = np.where(mask == 255, 0, mask)
    frames = [np.repeat(np.roll(seen, shift, axis=1)[..., None], 3, axis=2) for shift in range(3)]
    found = list(propagate_masks(IdentityEncoder(patch=1), preset, frames, mask))
    for ids, frame in zip(found, frames, strict=True):
        assert np.array_equal(ids, frame[..., 0])
    assert list(propagate_masks(IdentityEncoder(patch=1), preset, [], mask)) == []


def test_frames_of_another_size_are_brought_to_the_first() -> None:
    preset = load_preset("davis", "dino", EXACT)
    small, large = np.zeros((6, 9, 3), dtype=np.uint8), np.zeros((12, 18, 3), dtype=np.uint8)
    small[2:4, 3:6], large[4:8, 6:12] = 1, 1
    first, second = propagate_masks(IdentityEncoder(patch=1), preset, [small, large], small[..., 0])
    assert np.array_equal(first, second)


def test_only_presets_with_masks() -> None:
    with pytest.raises(ValueError, match="no masks"):
        list(propagate_masks(IdentityEncoder(patch=1), load_preset("jhmdb", "crw"), [a_picture()], a_picture()[..., 0]))
