from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame.eval.metrics.pck import ClipPoints, from_cells, mean_pck, pck
from frame.manifests.errors import InputError

GOLDEN = Path(os.environ.get("FRAME_SHARED", "/nonexistent")) / "golden"
THRESHOLDS = (0.1, 0.2, 0.5)


def clips(seed: int, count: int, *, missing: float = 0.2) -> list[ClipPoints]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        frames = int(rng.integers(1, 6))
        true = rng.uniform(0, 200, (2, 15, frames))
        pred = np.abs(true + rng.normal(0, 25, true.shape))
        pred[:, rng.random((15, frames)) < missing] = -1
        made.append(ClipPoints(pred=pred, true=true))
    return made


def plain(all_clips: list[ClipPoints], threshold: float) -> list[float]:
    """One joint, one frame, one clip at a time."""
    right, seen = [0] * 15, [0] * 15
    for clip in all_clips:
        for t in range(1, clip.pred.shape[2]):
            there = [j for j in range(15) if clip.pred[0, j, t] >= 0]
            if not there:
                continue
            xs, ys = ([clip.true[axis, j, t] for j in there] for axis in (0, 1))
            box = 0.6 * math.hypot(max(xs) - min(xs), max(ys) - min(ys))
            for j in there:
                distance = math.hypot(*(clip.pred[:, j, t] - clip.true[:, j, t]))
                seen[j] += 1
                right[j] += box > 0 and distance / box <= threshold
    return [a / b if b else math.nan for a, b in zip(right, seen, strict=True)]


@given(st.integers(0, 1000), st.integers(1, 4), st.sampled_from([0.0, 0.3, 0.95]))
def test_any_clips_score_as_in_the_plain_loop(seed: int, count: int, missing: float) -> None:
    made = clips(seed, count, missing=missing)
    ours = pck(made, THRESHOLDS)
    for threshold in THRESHOLDS:
        assert ours[threshold].tolist() == pytest.approx(plain(made, threshold), nan_ok=True)


def test_a_joint_that_was_not_found_is_left_out_and_not_wrong() -> None:
    true = np.tile(np.array([[0.0, 100.0, 50.0], [0.0, 0.0, 0.0]])[:, :, None], (1, 1, 3))
    pred = true.copy()
    pred[:, 2] = -1
    values = pck([ClipPoints(pred=pred, true=true)], (0.1,))[0.1]
    assert values[:2].tolist() == [1, 1]
    assert math.isnan(values[2])
    assert mean_pck({0.1: values}) == {0.1: 1.0}


def test_the_first_frame_which_was_given_does_not_count() -> None:
    true = np.tile(np.array([[1.0, 101.0], [1.0, 1.0]])[:, :, None], (1, 1, 2))
    pred = true.copy()
    pred[:, :, 0] += 1000
    made = [ClipPoints(pred=pred, true=true)]
    assert mean_pck(pck(made, (0.1,))) == {0.1: 1.0}


def test_without_anything_to_score_there_is_no_score() -> None:
    points = np.ones((2, 15, 1))
    for made in ([], [ClipPoints(pred=points, true=points)]):
        assert math.isnan(mean_pck(pck(made, (0.1,)))[0.1])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        pck([ClipPoints(pred=np.ones((2, 15, 3)), true=np.ones((2, 15, 4)))], (0.1,))


def test_cells_become_pixels_without_half_a_cell() -> None:
    pixels = from_cells(np.array([[[10.0], [-1.0]], [[5.0], [-1.0]]]), cells=(20, 20), size=(240, 320))
    assert pixels[:, 0, 0].tolist() == [160, 60]
    assert (pixels[:, 1] < 0).all()


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="FRAME_SHARED is not set")
def test_the_reference_values() -> None:
    stored = np.load(GOLDEN / "jhmdb_pck.npz", allow_pickle=False)
    expected = json.loads((GOLDEN / "golden.json").read_text())["jhmdb_pck"]
    made = [
        ClipPoints(
            pred=from_cells(stored[f"pred{number}"], cells=(20, 20), size=(240, 320)),
            true=stored[f"gt{number}"] - 1,  # JHMDB counts pixels from 1
        )
        for number in range(3)
    ]
    ours = mean_pck(pck(made, [float(key) for key in expected]))
    assert {str(key): 100 * value for key, value in ours.items()} == pytest.approx(expected, abs=1e-9)
