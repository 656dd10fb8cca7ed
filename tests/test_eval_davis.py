from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from official_davis import plain_boundary, plain_disk, plain_f, plain_j, plain_statistics

from frame.eval.metrics.davis import (
    ObjectScores,
    Statistics,
    boundary_f,
    frame_scores,
    id_scores,
    jaccard,
    object_count,
    sequence_scores,
    statistics,
    tolerance,
    total,
)
from frame.eval.metrics.mask_bits import boundaries, dilate
from frame.manifests.errors import InputError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
BOOLS = SIZES.flatmap(lambda size: st.tuples(*(hnp.arrays(bool, size) for _ in range(2))))


def blobs(rng: np.random.Generator, *, size: tuple[int, int], objects: int) -> np.ndarray:
    """Ids of ellipses, which touch and leave the borders at times."""
    ids = np.zeros(size, dtype=np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(1, objects + 1):
        y, x = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        tall, wide = rng.uniform(1, size[0] / 2), rng.uniform(1, size[1] / 2)
        ids[((rows - y) / tall) ** 2 + ((columns - x) / wide) ** 2 <= 1] = number
    return ids


@given(BOOLS)
def test_any_masks_score_as_in_the_plain_loop(masks: tuple[np.ndarray, np.ndarray]) -> None:
    pred, true = masks
    j, f = frame_scores(pred[None], true[None])[:, 0]
    assert j == pytest.approx(plain_j(pred, true), abs=1e-12)
    assert f == pytest.approx(plain_f(pred, true), abs=1e-12)


@given(BOOLS)
def test_boundaries_are_those_of_the_definition(masks: tuple[np.ndarray, np.ndarray]) -> None:
    for mask in masks:
        assert np.array_equal(boundaries(mask.astype(np.uint8)[None], 0)[0] > 0, plain_boundary(mask))


@given(st.integers(0, 10_000), st.tuples(st.integers(2, 90), st.integers(2, 700)), st.integers(0, 11))
def test_ids_score_as_in_the_plain_loop(seed: int, size: tuple[int, int], objects: int) -> None:
    rng = np.random.default_rng(seed)
    pred, true = (blobs(rng, size=size, objects=objects) for _ in range(2))
    scores = id_scores(pred, true, objects)
    assert scores.shape == (2, objects)
    for number in range(1, objects + 1):
        a, b = pred == number, true == number
        assert scores[:, number - 1] == pytest.approx([plain_j(a, b), plain_f(a, b)], abs=1e-12)


@pytest.mark.parametrize("size", [(480, 854), (480, 910), (480, 1152), (77, 93)])
def test_masks_of_real_size_that_moved_a_little(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    true = blobs(rng, size=size, objects=5)
    for shift in (0, 3, 7, 15, 30):
        pred = np.roll(true, (shift, -2 * shift), axis=(0, 1))
        scores = id_scores(pred, true, 5)
        for number in range(1, 6):
            a, b = pred == number, true == number
            assert scores[:, number - 1] == pytest.approx([plain_j(a, b), plain_f(a, b)], abs=1e-12)


def test_dense_noise() -> None:
    rng = np.random.default_rng(0)
    pred, true = rng.random((200, 300)) < 0.5, np.zeros((200, 300), dtype=bool)
    true[20:30, 40:60] = True
    assert frame_scores(pred[None], true[None])[:, 0] == pytest.approx([plain_j(pred, true), plain_f(pred, true)])


@given(st.integers(1, 12), st.integers(0, 1000), st.sampled_from([0.002, 0.05, 0.5]))
def test_a_dilation_is_that_by_a_disk(radius: int, seed: int, share: float) -> None:
    bits = np.zeros((9 + 2 * radius, 14 + 2 * radius), dtype=np.uint8)
    inner = np.random.default_rng(seed).random((8, 9, 14)) < share
    bits[radius:-radius, radius:-radius] = np.packbits(inner, axis=0, bitorder="little")[0]
    wide = dilate(bits, radius)
    for bit in range(8):
        plane = (bits >> bit & 1).astype(np.uint8)
        assert np.array_equal(wide >> bit & 1, cv2.dilate(plane, plain_disk(radius)))


def test_the_tolerance_of_the_known_sizes() -> None:
    assert [tolerance(480, width) for width in (854, 880, 910, 1152)] == [8, 9, 9, 10]


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_boundary_within_the_tolerance_is_a_match_and_one_beyond_is_none(down: int, right: int) -> None:
    radius = tolerance(480, 854)
    pred, true = np.zeros((2, 1, 480, 854), dtype=bool)
    true[0, 100, 100] = True
    pred[0, 100 + down, 100 + right] = True
    expected = plain_f(pred[0], true[0])
    assert frame_scores(pred, true)[1, 0] == pytest.approx(expected, abs=1e-12)
    if math.hypot(max(down - 1, 0), max(right - 1, 0)) > radius:
        assert expected == 0
    if math.hypot(down, right) <= radius:
        assert expected == 1


def test_empty_masks_follow_the_definition() -> None:
    empty, full, some = np.zeros((1, 30, 40), bool), np.ones((1, 30, 40), bool), np.zeros((1, 30, 40), bool)
    some[0, 10:20, 10:20] = True
    assert frame_scores(empty, empty)[:, 0].tolist() == [1, 1]
    assert frame_scores(some, empty)[:, 0].tolist() == [0, 0]
    assert frame_scores(empty, some)[:, 0].tolist() == [0, 0]
    assert frame_scores(full, full)[:, 0].tolist() == [1, 1]  # a full picture has no boundary
    assert frame_scores(some, full)[:, 0].tolist() == [100 / 1200, 0]
    assert frame_scores(some, some)[:, 0].tolist() == [1, 1]


def test_jaccard_and_boundary_f_of_many_frames_and_objects() -> None:
    rng = np.random.default_rng(1)
    pred, true = rng.random((2, 3, 6, 20, 30)) < 0.3
    j, f = jaccard(pred, true), boundary_f(pred, true)
    assert j.shape == f.shape == (3, 6)
    assert j[2, 5] == pytest.approx(plain_j(pred[2, 5], true[2, 5]), abs=1e-12)
    assert f[1, 4] == pytest.approx(plain_f(pred[1, 4], true[1, 4]), abs=1e-12)


@given(hnp.arrays(np.float64, st.integers(1, 255), elements=st.floats(0, 1)))
def test_statistics_are_the_references_up_to_255_frames(values: np.ndarray) -> None:
    ours = statistics(values)
    assert (ours.mean, ours.recall, ours.decay) == pytest.approx(plain_statistics(values), abs=1e-12)


def test_above_255_frames_the_decay_is_of_the_true_quarters() -> None:
    values = np.linspace(1, 0, 1001)
    assert statistics(values).decay == pytest.approx(0.75, abs=0.01)


def test_the_first_and_the_last_frame_are_not_scored() -> None:
    true = np.zeros((5, 24, 32), dtype=np.uint8)
    true[:, 4:12, 4:12] = 1
    pred = true.copy()
    pred[0], pred[-1] = 0, 0
    (scores,) = sequence_scores(pred, true)
    assert scores == ObjectScores(j=Statistics(mean=1, recall=1, decay=0), f=Statistics(mean=1, recall=1, decay=0))
    pred[2] = 0
    (scores,) = sequence_scores(pred, true)
    assert scores.j.mean == pytest.approx(2 / 3)
    assert scores.f.recall == pytest.approx(2 / 3)


def test_a_whole_sequence_as_in_the_plain_loop() -> None:
    rng = np.random.default_rng(5)
    true = np.stack([blobs(rng, size=(60, 80), objects=3) for _ in range(9)])
    true[0, 0, :3] = (1, 2, 3)
    pred = np.stack([blobs(rng, size=(60, 80), objects=2) for _ in range(9)])  # object 3 is never predicted
    for number, scores in enumerate(sequence_scores(pred, true), start=1):
        pairs = [(pred[t] == number, true[t] == number) for t in range(1, 8)]
        for part, plain in ((scores.j, plain_j), (scores.f, plain_f)):
            expected = plain_statistics(np.array([plain(a, b) for a, b in pairs]))
            assert (part.mean, part.recall, part.decay) == pytest.approx(expected, abs=1e-12)


def test_void_in_the_truth_is_background_and_counts_as_no_object() -> None:
    true = np.zeros((3, 20, 20), dtype=np.uint8)
    true[:, 2:8, 2:8], true[:, 12:, 12:] = 2, 255
    assert object_count(true[0]) == 2
    pred = np.where(true == 255, 0, true).astype(np.uint8)
    assert [scores.to_json()["J&F_mean"] for scores in sequence_scores(pred, true)] == [1, 1]


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_too_few_frames_have_no_scores_and_no_warning(frames: int) -> None:
    true = np.ones((frames, 8, 8), dtype=np.uint8)
    scores = sequence_scores(true, true)
    assert len(scores) == min(frames, 1)
    assert all(math.isnan(value) for score in scores for value in score.to_json().values())
    assert total(scores) == {}


def test_a_predicted_id_that_is_not_there_is_refused() -> None:
    true = np.ones((4, 8, 8), dtype=np.uint8)
    pred = true.copy()
    pred[2, 3, 3] = 2
    with pytest.raises(InputError, match="id 2, but the ids end at 1"):
        sequence_scores(pred, true)
    pred[2, 3, 3] = 255
    with pytest.raises(InputError, match="id 255"):
        sequence_scores(pred, true)


def test_masks_of_different_sizes_and_numbers_are_refused() -> None:
    ids = np.ones((4, 8, 8), dtype=np.uint8)
    with pytest.raises(InputError, match="8 x 7 pixels instead of 8 x 8"):
        sequence_scores(ids[:, :, :7], ids)
    with pytest.raises(InputError, match="3 instead of 4"):
        sequence_scores(ids[:3], ids)


def test_the_total_is_the_flat_mean_over_objects() -> None:
    def one(value: float) -> ObjectScores:
        part = Statistics(mean=value, recall=value / 2, decay=-value)
        return ObjectScores(j=part, f=part)

    scores = total([one(0.2), one(0.4), one(0.9), one(float("nan"))])
    assert scores["J&F_mean"] == pytest.approx(0.5)
    assert scores["F_recall"] == pytest.approx(0.25)
    assert list(scores) == ["J&F_mean", "J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay"]
