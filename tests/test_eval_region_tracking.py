"""Choosing masks by their tokens, painting them, and what an all-knowing tracker would choose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame.eval.track.region_tracking import KEPT, RegionTracker, directions, oracle, paint

RNG = np.random.default_rng(0)


def turned(*degrees: float) -> np.ndarray:
    """Tokens of two dimensions, of different lengths: only directions count."""
    angles = np.radians(degrees)
    return (np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[2.0]]).astype(np.float32)


def followed(reference: str, *frames: tuple[float, ...]) -> list[int]:
    tracker = RegionTracker(reference, turned(0.0), np.array([True]))  # type: ignore[arg-type]
    return [int(tracker.step(turned(*frame))[0][0]) for frame in frames]


def test_first_compares_with_the_first_frame_and_previous_with_the_last_choice() -> None:
    """An object that turns by 30 degrees a frame, and a distractor that looks as the object did at first."""
    frames = [(30.0, 170.0), (60.0, 170.0), (90.0, -45.0), (120.0, -45.0)]
    assert followed("first", *frames) == [0, 0, 1, 1]
    assert followed("previous", *frames) == [0, 0, 0, 0]


def test_ema_lies_between_and_moves_by_its_share() -> None:
    tracker = RegionTracker("ema", turned(0.0), np.array([True]))
    tracker.step(turned(90.0))
    expected = directions(np.array([[KEPT, 1 - KEPT]], dtype=np.float32))
    (cosine,) = tracker.step(directions(expected))[1]
    assert cosine == pytest.approx(1.0, abs=1e-6)


def test_objects_run_by_themselves_and_absent_ones_are_never_found() -> None:
    tracker = RegionTracker("previous", turned(0.0, 90.0, 45.0), np.array([True, True, False]))
    chosen, cosine = tracker.step(turned(80.0, 10.0))
    assert chosen.tolist() == [1, 0, -1]
    assert cosine[:2] == pytest.approx(np.cos(np.radians(10.0)))


def test_a_frame_without_masks_changes_nothing() -> None:
    tracker = RegionTracker("previous", turned(0.0), np.array([True]))
    chosen, _ = tracker.step(np.zeros((0, 2), dtype=np.float32))
    assert chosen.tolist() == [-1]
    assert tracker.step(turned(90.0, 0.0))[0].tolist() == [1]


def test_an_overlap_goes_to_the_better_one_whichever_comes_first() -> None:
    masks = np.zeros((2, 2, 3), dtype=bool)
    masks[0, :, :2] = masks[1, :, 1:] = True
    for choice, score, middle in (((0, 1), (0.9, 0.8), 1), ((0, 1), (0.8, 0.9), 2), ((0, 1), (0.5, 0.5), 1)):
        ids = paint(masks, (np.array(choice), np.array(score)))
        assert ids.tolist() == [[1, middle, 2]] * 2
    assert paint(masks, (np.array([-1, 0]), np.array([0.9, 0.1]))).tolist() == [[2, 2, 0]] * 2
    assert paint(masks[:0], (np.array([-1]), np.zeros(1))).tolist() == [[0, 0, 0]] * 2


@given(st.integers(0, 6), st.integers(1, 3), st.integers(0, 2**31))
def test_the_oracle_takes_the_best_overlap_with_each_object(count: int, objects: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((count, 5, 6)) < 0.4
    masks[:, 0, 0] = True
    true = rng.integers(0, objects + 1, (5, 6)).astype(np.uint8)
    true[rng.random((5, 6)) < 0.1] = 255
    chosen, iou = oracle(masks, true, objects)
    for number in range(objects):
        inside = true == number + 1
        every = [(mask & inside).sum() / (mask | inside).sum() for mask in masks]
        best = max(every, default=0.0)
        assert iou[number] == pytest.approx(best)
        assert chosen[number] == (every.index(best) if best > 0 else -1)
