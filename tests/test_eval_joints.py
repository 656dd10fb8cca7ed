from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frame.eval.propagate.joints import draw_dots, joint_labels, read_joints, to_cells

GOLDEN = Path(os.environ.get("FRAME_SHARED", "/nonexistent")) / "golden"
COORDINATES = st.floats(-8, 30).map(lambda value: round(value, 2))


def plain_dot(x: float, y: float, height: int, width: int) -> np.ndarray:
    """A 4 x 4 kernel, pasted cell by cell from int(x - 1.5) to int(x + 2.5)."""
    dot = np.zeros((height, width))
    left, top, right, bottom = int(x - 1.5), int(y - 1.5), int(x + 2.5), int(y + 2.5)
    for row in range(max(top, 0), min(bottom, height)):
        for column in range(max(left, 0), min(right, width)):
            dot[row, column] = math.exp(-((row - top - 2) ** 2 + (column - left - 2) ** 2) / 0.5)
    return dot


@given(COORDINATES, COORDINATES, st.integers(1, 24), st.integers(1, 24))
def test_any_dot_is_that_of_the_plain_loop(x: float, y: float, height: int, width: int) -> None:
    (dot,) = draw_dots(np.array([[x], [y]]), (height, width))
    assert np.allclose(dot, plain_dot(x, y, height, width), atol=1e-12)


def test_dots_at_the_upper_and_left_border_move_inwards_as_in_the_reference() -> None:
    dots = draw_dots(np.array([[0.7, -0.4, 5.6, 5.4], [6.0, 6.0, 6.0, 6.0]]), (20, 20))
    assert [int(dot.max(axis=0).argmax()) for dot in dots] == [2, 1, 6, 5]
    assert dots.max(axis=(1, 2)).tolist() == [1, 1, 1, 1]


def test_the_background_is_where_no_joint_is() -> None:
    labels = joint_labels(np.array([[4.0, 5.0], [4.0, 4.0]]), (10, 12))
    assert labels.shape == (10, 12, 3)
    assert labels.dtype == torch.float32
    empty = (labels[..., 1:] == 0).all(dim=-1)
    assert torch.equal(labels[..., 0] == 1, empty)
    assert torch.equal(labels[..., 0] == 0, ~empty)


def test_what_was_drawn_is_read_again() -> None:
    points = np.array([[4.0, 11.0, 7.0], [5.0, 2.0, 9.0]])
    read = read_joints(joint_labels(points, (16, 20)))
    assert np.allclose(read.numpy(), points, atol=1e-5)


@pytest.mark.parametrize("top", [3, 5, 400])
def test_the_read_out_is_that_of_a_plain_loop(top: int) -> None:
    soft = torch.rand(7, 9, 5, generator=torch.Generator().manual_seed(0))
    soft[..., 2] = 0
    read = read_joints(soft, top=top).numpy()
    for joint in range(4):
        cells = sorted(((float(soft[y, x, joint + 1]), x, y) for y in range(7) for x in range(9)), reverse=True)[:top]
        weight = sum(value for value, _, _ in cells)
        expected = [sum(c[0] * c[axis] for c in cells) / weight if weight else -1.0 for axis in (1, 2)]
        assert read[:, joint].tolist() == pytest.approx(expected, abs=1e-5)


def test_pixels_become_cells() -> None:
    cells = to_cells(np.array([[160.0], [120.0]]), picture=(240, 320), resized=(320, 320), patch=16)
    assert cells[:, 0].tolist() == [10, 10]


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="FRAME_SHARED is not set")
def test_the_reference_values() -> None:
    drawn = np.load(GOLDEN / "jhmdb_draw.npz", allow_pickle=False)
    assert np.abs(draw_dots(drawn["pts"].T, (20, 20)) - drawn["maps"]).max() < 1e-9
    pose = np.load(GOLDEN / "jhmdb_pose.npz", allow_pickle=False)
    for top in (3, 5):
        read = read_joints(torch.from_numpy(pose["pred"]), top=top).numpy()
        assert np.abs(read - pose[f"coord_top{top}"]).max() < 1e-5
