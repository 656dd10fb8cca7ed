from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame.eval.metrics.alignment import kendall_tau, retrieval_precision

GOLDEN = Path(os.environ.get("FRAME_SHARED", "/nonexistent")) / "golden"


def videos(seed: int, count: int, *, longest: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    return [rng.normal(size=(n, 3)) for n in lengths], [np.sort(rng.integers(0, 3, n)) for n in lengths]


def plain_tau_b(order: list[int]) -> float:
    """Of an order against time: pairs in the same less pairs in the opposite order, over the geometric mean of all
    pairs and those that are no ties.
    """
    pairs = [(i, j) for i in range(len(order)) for j in range(i)]
    signs = [np.sign(order[i] - order[j]) for i, j in pairs]
    untied = sum(sign != 0 for sign in signs)
    return sum(signs) / math.sqrt(len(pairs) * untied) if untied else math.nan


def nearest(query: np.ndarray, others: np.ndarray) -> list[int]:
    distances = [sum((query - other) ** 2) for other in others]
    return sorted(range(len(others)), key=lambda number: (distances[number], number))


@given(st.integers(0, 500), st.integers(0, 4), st.integers(1, 3))
def test_tau_is_that_of_a_plain_loop(seed: int, count: int, stride: int) -> None:
    embeddings, _ = videos(seed, count)
    taus = []
    for i in range(count):
        for j in range(count):
            if i != j:
                other = embeddings[j][::stride]
                taus.append(plain_tau_b([nearest(frame, other)[0] for frame in embeddings[i][::stride]]))
    known = [tau for tau in taus if not math.isnan(tau)]
    expected = float(np.mean(known)) if known else math.nan
    assert kendall_tau(embeddings, stride=stride) == pytest.approx(expected, nan_ok=True)


@given(st.integers(0, 500), st.integers(0, 4), st.integers(1, 3))
def test_precision_is_that_of_a_plain_loop(seed: int, count: int, stride: int) -> None:
    embeddings, labels = videos(seed, count)
    ours = retrieval_precision(embeddings, labels, stride=stride, ks=(1, 5))
    for k in (1, 5):
        by_video = []
        for i in range(count):
            others = [j for j in range(count) if j != i]
            if others:
                pool = np.concatenate([embeddings[j][::stride] for j in others])
                names = np.concatenate([labels[j][::stride] for j in others])
                pairs = zip(embeddings[i][::stride], labels[i][::stride], strict=True)
                by_video.append(np.mean([np.mean(names[nearest(frame, pool)[:k]] == name) for frame, name in pairs]))
        expected = float(np.mean(by_video)) if by_video else math.nan
        assert ours[k] == pytest.approx(expected, nan_ok=True)


def test_the_same_video_twice_is_in_perfect_order_and_a_reversed_one_in_none() -> None:
    line = np.arange(20.0)[:, None]
    assert kendall_tau([line, line], stride=1) == pytest.approx(1)
    assert kendall_tau([line, line[::-1]], stride=1) == pytest.approx(-1)


def test_what_cannot_be_ordered_has_no_value_and_gives_no_warning() -> None:
    still, line = np.zeros((9, 2)), np.arange(9.0)[:, None].repeat(2, axis=1)
    assert math.isnan(kendall_tau([still, still], stride=1))
    assert math.isnan(kendall_tau([line], stride=1))
    assert math.isnan(kendall_tau([line, line[:1]], stride=1))
    assert math.isnan(retrieval_precision([line], [np.zeros(9, int)], stride=1)[5])


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="FRAME_SHARED is not set")
@pytest.mark.parametrize("stride", [2, 5])
def test_the_reference_values(stride: int) -> None:
    stored, expected = (
        np.load(GOLDEN / "carl.npz", allow_pickle=False),
        json.loads((GOLDEN / "golden.json").read_text()),
    )
    embeddings, labels = ([stored[f"val_{part}{number}"] for number in range(8)] for part in ("emb", "lab"))
    assert kendall_tau(embeddings, stride=stride) == pytest.approx(expected[f"carl_tau_stride{stride}"], abs=1e-6)
    ours = {str(k): value for k, value in retrieval_precision(embeddings, labels, stride=stride).items()}
    assert ours == pytest.approx(expected[f"carl_ap_stride{stride}"], abs=1e-6)
