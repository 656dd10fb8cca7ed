from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frame.eval.metrics.consistency import consistency, mean_consistency

GOLDEN = Path(os.environ.get("FRAME_SHARED", "/nonexistent")) / "golden"
VIDEOS = st.tuples(st.integers(0, 12), st.integers(1, 3), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 255])) for _ in "ab"))
)


def plain(pred: np.ndarray, true: np.ndarray, frames: int) -> list[float]:
    values = []
    for first in range(len(true) - frames):
        steady, kept = np.ones(true.shape[1:], bool), np.ones(true.shape[1:], bool)
        for other in range(1, frames):
            steady &= true[first] == true[first + other]
            kept &= pred[first] == pred[first + other]
        values.append(float((steady & kept).sum() / steady.sum()) if steady.any() else math.nan)
    return values


@given(VIDEOS, st.integers(2, 5))
def test_every_window_is_that_of_a_plain_loop(pair: tuple[np.ndarray, np.ndarray], frames: int) -> None:
    assert consistency(*pair, frames) == pytest.approx(plain(*pair, frames), nan_ok=True)


def test_a_video_of_as_many_frames_as_the_window_has_none() -> None:
    still = np.zeros((9, 2, 2), dtype=np.uint8)
    assert consistency(still, still, 9) == []
    assert consistency(still, still, 8) == [1.0]
    assert math.isnan(mean_consistency([]))
    assert mean_consistency([0.5, math.nan, 1.0]) == 0.75


def test_a_steady_mistake_is_consistent() -> None:
    true = np.zeros((6, 2, 2), dtype=np.uint8)
    assert consistency(true + 1, true, 3) == [1.0, 1.0, 1.0]


def test_what_cannot_be_compared_is_refused() -> None:
    video = np.zeros((5, 2, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match="cannot be compared"):
        consistency(video[:4], video, 3)
    with pytest.raises(ValueError, match="says nothing"):
        consistency(video, video, 1)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="FRAME_SHARED is not set")
@pytest.mark.parametrize("frames", [8, 16])
def test_the_reference_values(frames: int) -> None:
    stored, expected = np.load(GOLDEN / "vc.npz", allow_pickle=False), json.loads((GOLDEN / "golden.json").read_text())
    value = mean_consistency(consistency(stored["pred"], stored["gt"], frames))
    assert value == pytest.approx(expected[f"vspw_vc{frames}"], abs=1e-9)
