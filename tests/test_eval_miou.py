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

from frame.eval.metrics import miou
from frame.eval.metrics.miou import class_iou, confusion, segmentation_scores

GOLDEN = Path(os.environ.get("FRAME_SHARED", "/nonexistent")) / "golden"
IDS = st.sampled_from([0, 1, 2, 3, 4, 9, 255])
SHAPE = st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 6))
PAIRS = SHAPE.flatmap(lambda shape: st.tuples(*(hnp.arrays(np.uint8, shape, elements=IDS) for _ in range(2))))


@given(PAIRS)
def test_the_matrix_is_that_of_a_plain_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pred, true = pair
    expected = np.zeros((5, 5), dtype=int)
    for guess, truth in zip(pred.ravel(), true.ravel(), strict=True):
        if truth < 5 and guess < 5:
            expected[truth, guess] += 1
    assert np.array_equal(confusion(pred, true, 5), expected)


@given(PAIRS)
def test_all_conventions_are_those_of_a_plain_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pred, true = (np.minimum(side, 4) for side in pair)
    scores = segmentation_scores(confusion(pred, true, 6))
    present, union, right = [], [], []
    weighted = 0.0
    for number in range(6):
        both = int(((pred == number) & (true == number)).sum())
        either, own = int(((pred == number) | (true == number)).sum()), int((true == number).sum())
        if either:
            union.append(both / either)
        if own:
            present.append(both / either)
            right.append(both / own)
            weighted += both / either * own
    if not true.size:
        assert all(math.isnan(getattr(scores, name)) for name in type(scores).__slots__)
        return
    assert scores.present == pytest.approx(np.mean(present))
    assert scores.union == pytest.approx(np.mean(union))
    assert scores.every == pytest.approx(np.sum(union) / 6)
    assert scores.class_accuracy == pytest.approx(np.mean(right))
    assert scores.accuracy == pytest.approx((pred == true).mean())
    assert scores.weighted == pytest.approx(weighted / true.size)


def test_a_class_that_is_only_predicted_counts_in_one_convention() -> None:
    true, pred = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    scores = segmentation_scores(confusion(pred, true, 4))
    assert scores.present == pytest.approx((1 + 0.5) / 2)
    assert scores.union == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores.every == pytest.approx((1 + 0.5) / 4)
    iou = class_iou(confusion(pred, true, 4))
    assert iou[:3].tolist() == [1, 0.5, 0]
    assert math.isnan(iou[3])


def test_a_matrix_may_be_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pred, true = rng.integers(0, 7, (2, 5, 40, 60))
    whole = confusion(pred, true, 7)
    monkeypatch.setattr(miou, "_PIECE", 997)
    assert np.array_equal(confusion(pred, true, 7), whole)
    assert whole.sum() == pred.size


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        confusion(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="FRAME_SHARED is not set")
def test_the_reference_values() -> None:
    stored, expected = (
        np.load(GOLDEN / "miou.npz", allow_pickle=False),
        json.loads((GOLDEN / "golden.json").read_text()),
    )
    scores = segmentation_scores(confusion(stored["pred"], stored["gt"], 20))
    vspw = expected["vspw_eval_same_input"]
    assert scores.union == pytest.approx(expected["vip_miou_nanmean"], abs=1e-9)
    ours = {"mIoU": scores.present, "acc": scores.accuracy, "macc": scores.class_accuracy, "fwiou": scores.weighted}
    assert ours == pytest.approx(vspw, abs=1e-9)
    stray = segmentation_scores(confusion(stored["pred2"], stored["gt"], 20))
    assert stray.union == pytest.approx(expected["predicted_only_class"]["vip_nanmean"], abs=1e-9)
    assert stray.present == pytest.approx(expected["predicted_only_class"]["vspw"], abs=1e-9)
