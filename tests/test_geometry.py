"""Frames to squares: equal to torchvision's resize and centre crop on floats, for every size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional

from frame.manifests.errors import InputError
from frame.pipeline.teachers import geometry
from frame.pipeline.teachers.geometry import fit_clips, fit_frames, stored_frames, to_pictures

SIDES = st.integers(1, 100)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def torchvision_fit(frames: np.ndarray, size: int, fit: str) -> Tensor:
    pixels = torch.tensor(frames).permute(0, 3, 1, 2).contiguous().float()
    both = functional.InterpolationMode.BICUBIC
    resized = functional.resize(pixels, [size] if fit == "crop" else [size, size], interpolation=both, antialias=True)
    cut: Tensor = functional.center_crop(resized, [size, size]).clamp(0, 255)
    return cut


@given(height=SIDES, width=SIDES, size=st.integers(1, 64), fit=st.sampled_from(["crop", "squash"]))
@example(height=1, width=1, size=56, fit="crop")
@example(height=1, width=100, size=33, fit="crop")
@example(height=97, width=1, size=32, fit="crop")
@example(height=2, width=3, size=64, fit="squash")
@example(height=300, width=7, size=5, fit="crop")
@example(height=480, width=854, size=224, fit="crop")
@settings(max_examples=60, deadline=None)
def test_equals_torchvision(height: int, width: int, size: int, fit: str) -> None:
    frames = noise(2, height, width, 3, seed=height * 1000 + width)
    fitted = fit_frames(frames, size, "crop" if fit == "crop" else "squash")
    assert fitted.shape == (2, 3, size, size)
    assert fitted.dtype == torch.float32
    assert float(fitted.min()) >= 0
    assert float(fitted.max()) <= 255
    torch.testing.assert_close(fitted, torchvision_fit(frames, size, fit), rtol=0, atol=2e-4)


def test_is_not_rounded_and_clamps_the_overshoot() -> None:
    frames = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    frames[:, :, 4:] = 255
    fitted = fit_frames(frames, 24, "squash")
    assert float(fitted.max()) == 255.0
    assert float(fitted.min()) == 0.0
    assert bool((fitted != fitted.round()).any())


def test_a_frame_of_the_right_size_is_unchanged() -> None:
    frames = noise(3, 32, 32, 3)
    assert np.array_equal(stored_frames(frames, 32, "crop").numpy(), frames)


def test_pictures_round_half_to_even() -> None:
    fitted = torch.tensor([0.5, 1.5, 2.5, 254.5, 3.49]).reshape(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_pictures(fitted)[0, 0, :, 0].tolist() == [0, 2, 2, 254, 3]


def test_stored_frames_are_the_rounded_fit() -> None:
    frames = noise(2, 45, 80, 3)
    stored = stored_frames(frames, 24, "crop")
    assert stored.shape == (2, 24, 24, 3)
    assert stored.dtype == torch.uint8
    expected = fit_frames(frames, 24, "crop").numpy().round().astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.array_equal(stored.numpy(), expected)


def test_chunks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(5, 50, 70, 3)
    whole = fit_frames(frames, 28, "crop")
    monkeypatch.setitem(geometry._CHUNK_VALUES, "cpu", 1)
    assert torch.equal(fit_frames(frames, 28, "crop"), whole)


def test_tensors_and_read_only_arrays_are_taken() -> None:
    frames = noise(2, 40, 30, 3)
    frames.flags.writeable = False
    assert torch.equal(fit_frames(frames, 16, "squash"), fit_frames(torch.tensor(frames), 16, "squash"))


def test_clips_of_different_sizes_make_one_batch() -> None:
    first, second = noise(2, 40, 30, 3), noise(3, 20, 60, 3)
    batch = fit_clips([first, second], 16, "crop")
    assert torch.equal(batch, torch.cat([fit_frames(first, 16, "crop"), fit_frames(second, 16, "crop")]))


def test_no_frames_make_an_empty_batch() -> None:
    assert fit_frames(noise(0, 40, 30, 3), 16, "crop").shape == (0, 3, 16, 16)
    assert fit_clips([], 16, "crop").shape == (0, 3, 16, 16)


def test_a_thread_like_frame_is_refused_for_crop_only() -> None:
    frames = noise(1, 2, 201, 3)
    with pytest.raises(InputError, match="201 x 2"):
        fit_frames(frames, 16, "crop")
    assert fit_frames(frames, 16, "squash").shape == (1, 3, 16, 16)


@pytest.mark.parametrize("bad", [np.zeros((1, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), noise(1, 4, 4, 4)])
def test_anything_but_uint8_rgb_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="frames must be"):
        fit_frames(bad, 4, "crop")
