"""Decoded frames to the squares that teachers see and that the store keeps.

The one rule: torch's antialiased bicubic on float RGB, straight from the decoded frame, clamped to 0..255 and not
rounded. ``crop`` brings the short side to ``size`` and cuts the centre, ``squash`` brings both sides to ``size``; sizes
and offsets are torchvision's, to the pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from frame.manifests.errors import InputError
from frame.pipeline.teachers.spec import Fit

Frames = NDArray[np.uint8] | Tensor
"""uint8 [N, H, W, 3], RGB."""

# `crop` of a 1 x 5000 frame would first make one of 224 x 1,120,000: no video needs it, and one file could take the
# machine's memory.
MAX_ASPECT = 100
# About how many values, as floats, are resized at a time. It bounds memory; on a CPU few also stay in its cache, on an
# accelerator many keep it busy.
_CHUNK_VALUES = {"cpu": 1 << 20}
_CHUNK_VALUES_ELSEWHERE = 1 << 26


def fit_frames(frames: Frames, size: int, fit: Fit, *, device: torch.device | str = "cpu") -> Tensor:
    """Resize uint8 [N, H, W, 3] to float32 [N, 3, size, size] in 0..255, not rounded, channels-last in memory.

    The frames travel to ``device`` as uint8 and become floats there. Raises InputError where ``crop`` is asked of a
    frame more than 100 times as long as wide.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype not in (np.uint8, torch.uint8):
        raise ValueError(f"frames must be uint8 [N, H, W, 3], not {frames.dtype} {tuple(frames.shape)}")
    place = torch.device(device)
    count, height, width = (int(n) for n in frames.shape[:3])
    target = _target(height, width, size, fit)
    values = _CHUNK_VALUES.get(place.type, _CHUNK_VALUES_ELSEWHERE)
    step = max(1, values // (3 * max(height * width, target[0] * target[1])))
    fitted = torch.empty((count, 3, size, size), device=place, memory_format=torch.channels_last)
    for start in range(0, count, step):
        fitted[start : start + step] = _fit(_tensor(frames[start : start + step], place), target, size)
    return fitted


def fit_clips(clips: Sequence[Frames], size: int, fit: Fit, *, device: torch.device | str = "cpu") -> Tensor:
    """``fit_frames`` of several clips, each of its own height and width, as one batch [sum of N, 3, size, size]."""
    if not clips:
        return torch.empty((0, 3, size, size), device=device)
    return torch.cat([fit_frames(clip, size, fit, device=device) for clip in clips])


def stored_frames(frames: Frames, size: int, fit: Fit, *, device: torch.device | str = "cpu") -> Tensor:
    """The pictures kept in the cache: uint8 [N, size, size, 3], ``fit_frames`` rounded half to even."""
    return to_pictures(fit_frames(frames, size, fit, device=device))


def to_pictures(fitted: Tensor) -> Tensor:
    """Round fitted frames, float [N, 3, S, S] in 0..255, half to even into uint8 [N, S, S, 3]."""
    return fitted.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _fit(chunk: Tensor, target: tuple[int, int], size: int) -> Tensor:
    # Not left channels-last: torch (2.15) then computes wrong values where the result is one pixel wide.
    planes = chunk.permute(0, 3, 1, 2).contiguous().float()
    resized = functional.interpolate(planes, size=target, mode="bicubic", align_corners=False, antialias=True)
    top, left = (round((side - size) / 2.0) for side in target)
    return resized[:, :, top : top + size, left : left + size].clamp(0.0, 255.0)


def _target(height: int, width: int, size: int, fit: Fit) -> tuple[int, int]:
    """(height, width) after resizing and before cutting; the long side as torchvision truncates it."""
    if min(height, width) < 1 or size < 1:
        raise ValueError(f"cannot make {size} x {size} of a frame of {height} x {width}")
    if fit == "squash":
        return size, size
    short, long = sorted((height, width))
    if long > MAX_ASPECT * short:
        raise InputError(
            what=f"A frame of {width} x {height} pixels cannot be cropped.",
            why=f"it is more than {MAX_ASPECT} times as long as wide",
            fix="leave the clip out, or use --fit squash",
        )
    longer = int(size * long / short)
    return (size, longer) if height <= width else (longer, size)


def _tensor(frames: Frames, device: torch.device) -> Tensor:
    # torch.tensor copies: NumPy arrays out of shared memory are read-only, and torch has no read-only tensors.
    return frames.to(device) if isinstance(frames, Tensor) else torch.tensor(frames, device=device)
