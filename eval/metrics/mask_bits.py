"""Overlaps and boundary matches of many masks at once: every mask is one bit of the bytes of a few pictures.

K frames of one video, h w the box around all of their masks, N boundary pixels. Bits 0 to 3 are predicted masks, bits 4
to 7 the true masks of the same objects. Boundaries are found, dilated and compared for all bits of all frames
together, in memory that is used again: of a mask's few bytes, everything else is overhead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from frame.eval.metrics.cut import Cut, Ids
from frame.eval.metrics.scratch import scratch

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

GROUP = 4  # objects that are looked at together
PRED_BITS = (1, 2, 4, 8)
TRUE_BITS = (16, 32, 64, 128)


def overlaps(bits_Khw: Ids, objects: int) -> Floats:
    """Intersection over union of each object in each frame, [K, objects]; 1 where both masks are empty."""
    j_KO = np.ones((len(bits_Khw), objects))
    either_Khw = scratch("either", bits_Khw.size).reshape(bits_Khw.shape)
    truth_Khw = scratch("truth", bits_Khw.size).view(np.bool_).reshape(bits_Khw.shape)
    for number, (pred, true) in enumerate(zip(PRED_BITS[:objects], TRUE_BITS, strict=False)):
        np.bitwise_and(bits_Khw, np.uint8(pred | true), out=either_Khw)
        union_K = [np.count_nonzero(each) for each in np.not_equal(either_Khw, 0, out=truth_Khw)]
        both_K = [np.count_nonzero(each) for each in np.equal(either_Khw, np.uint8(pred | true), out=truth_Khw)]
        np.divide(both_K, union_K, out=j_KO[:, number], where=np.array(union_K) > 0)
    return j_KO


def matches(bits_Khw: Ids, radius: int, objects: int) -> tuple[Counts, Counts]:
    """How many boundary pixels each mask has, and how many of them have one of the other side within the radius.

    Both [K, 2, objects], of the predicted masks and of the true ones.
    """
    edges_Khw = boundaries(bits_Khw, radius)
    near = dilate(edges_Khw, radius).reshape(-1)
    edges = edges_Khw.reshape(-1)
    points_N = np.flatnonzero(np.not_equal(edges, 0, out=scratch("truth", len(edges)).view(np.bool_)))
    own_N, near_N = edges[points_N], near[points_N]
    found_N = own_N & ((near_N << np.uint8(GROUP)) | (near_N >> np.uint8(GROUP)))  # predicted with true
    frames_N = points_N // edges_Khw[0].size
    total, matched = np.zeros((2, len(bits_Khw), 2, objects), dtype=np.int64)
    for side, bits in enumerate((PRED_BITS, TRUE_BITS)):
        for number, bit in enumerate(bits[:objects]):
            for counts, masks_N in ((total, own_N), (matched, found_N)):
                counts[:, side, number] = np.bincount(frames_N[(masks_N & bit) != 0], minlength=len(bits_Khw))
    return total, matched


def boundaries(bits_Khw: Ids, radius: int) -> Ids:
    """For each bit, the pixels that differ from their right, lower or lower right neighbour, where there is one.

    With ``radius`` empty pixels around each frame. The result is scratch memory: good until the thread's next call.
    """
    frames, height, width = bits_Khw.shape
    tall, wide = height + 2 * radius, width + 2 * radius
    padded_Khw = scratch("edges", frames * tall * wide).reshape(frames, tall, wide)
    padded_Khw[:] = 0
    inner_Khw = padded_Khw[:, radius : radius + height, radius : radius + width]
    differs_Khw = scratch("either", bits_Khw.size).reshape(bits_Khw.shape)
    for down, right in ((0, 1), (1, 0), (1, 1)):
        here = (slice(None), slice(height - down), slice(width - right))
        np.bitwise_xor(bits_Khw[here], bits_Khw[:, down:, right:], out=differs_Khw[here])
        inner_Khw[here] |= differs_Khw[here]
    return padded_Khw


def dilate(bits_Khw: Ids, radius: int) -> Ids:
    """Every bit spread over the pixels with dx^2 + dy^2 <= radius^2; ``radius`` pixels around must be empty.

    The disk is a row of pixels for each dy. Rows of every length come from rows of 1, 2, 4, 8, … pixels by one more
    union, and the empty margin lets all of them be unions of two slices of flat memory. The result is scratch memory:
    good until the thread's next call.
    """
    flat, row = bits_Khw.reshape(-1), bits_Khw.shape[-1]
    halves = [math.isqrt(radius * radius - dy * dy) for dy in range(radius + 1)]
    powers = [flat]  # powers[n]: the union of 2^n pixels, this one and those to its right
    while 2 << len(powers) - 1 <= 2 * radius + 1:
        powers.append(_union(powers[-1], 1 << len(powers) - 1, f"power {len(powers)}"))
    spread = scratch("spread", len(flat))
    spread[:] = 0
    for half in sorted(set(halves)):
        length = 2 * half + 1
        power = length.bit_length() - 1
        run = _union(powers[power], length - (1 << power), "run")
        for dy in (dy for dy, each in enumerate(halves) if each == half):
            for shift in {dy * row + half, half - dy * row}:
                _add(spread, run, shift)
    return spread.reshape(bits_Khw.shape)


def together(cuts: Sequence[tuple[Cut, Ids]], frames: Sequence[int]) -> Ids:
    """Parts of id maps of one size as bits of the frames [K, h, w] that they belong to.

    ``cuts`` are parts, each with the bit of every id, [256]. The box is the one around all parts with a pixel more on
    each side, inside the picture: outside of it, neither masks nor boundaries have a part. The result is scratch
    memory.
    """
    size, used = cuts[0][0].size, [cut for cut, _ in cuts if cut.ids_hw.size]
    top, left = (max(min((getattr(cut, side) for cut in used), default=0) - 1, 0) for side in ("top", "left"))
    bottom, right = (max((getattr(cut, side) for cut in used), default=0) + 1 for side in ("bottom", "right"))
    shape = (max(frames) + 1, min(bottom, size[0]) - top, min(right, size[1]) - left)
    bits_Khw = scratch("bits", math.prod(shape)).reshape(shape)
    bits_Khw[:] = 0
    for frame, (cut, bits) in zip(frames, cuts, strict=True):
        if cut.ids_hw.size:
            place = (frame, slice(cut.top - top, cut.bottom - top), slice(cut.left - left, cut.right - left))
            bits_Khw[place] |= cv2.LUT(cut.ids_hw, bits)
    return bits_Khw


def _union(flat: Ids, shift: int, name: str) -> Ids:
    """With what lies ``shift`` pixels to the right."""
    if not shift:
        return flat
    both = scratch(name, len(flat))
    np.bitwise_or(flat[:-shift], flat[shift:], out=both[:-shift])
    both[-shift:] = flat[-shift:]
    return both


def _add(into: Ids, flat: Ids, shift: int) -> None:
    """The union with what lies ``shift`` pixels before (after, where negative)."""
    if shift > 0:
        into[shift:] |= flat[:-shift]
    elif shift < 0:
        into[:shift] |= flat[-shift:]
    else:
        into |= flat
