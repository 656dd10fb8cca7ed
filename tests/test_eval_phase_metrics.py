from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from frame.eval.metrics.phases import (
    LinearRecipe,
    Videos,
    linear_accuracy,
    phase_accuracy,
    phase_progression,
    progress,
)
from frame.manifests.errors import InputError

GOLDEN = Path(os.environ.get("FRAME_SHARED", "/nonexistent")) / "golden"
CPU = torch.device("cpu")


def videos(count: int, *, phases: int, seed: int = 0, noise: float = 0.8) -> Videos:
    """Phases one after the other, embedded as noisy directions."""
    rng = np.random.default_rng(seed)
    labels = [np.sort(np.concatenate([np.arange(phases), rng.integers(0, phases, 12)])) for _ in range(count)]
    embeddings = [np.eye(phases + 2)[each] + noise * rng.normal(size=(len(each), phases + 2)) for each in labels]
    return Videos(embeddings=embeddings, labels=labels)


def plain_softmax_regression(x: np.ndarray, y: np.ndarray, phases: int, test: np.ndarray) -> np.ndarray:
    """One weight vector a phase, cross-entropy summed, half the squared weights on top, intercepts free."""

    def loss(flat: np.ndarray) -> float:
        table = flat.reshape(phases, -1)
        logits = x @ table[:, :-1].T + table[:, -1]
        top = logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return float((log_sum - logits[np.arange(len(y)), y]).sum() + 0.5 * (table[:, :-1] ** 2).sum())

    table = minimize(loss, np.zeros(phases * (x.shape[1] + 1)), method="L-BFGS-B", tol=1e-10).x.reshape(phases, -1)
    return np.asarray((test @ table[:, :-1].T + table[:, -1]).argmax(axis=1))


@pytest.mark.parametrize("phases", [2, 3])
def test_classification_is_softmax_regression_with_a_vector_for_each_phase(phases: int) -> None:
    train, val = videos(4, phases=phases), videos(30, phases=phases, seed=1)
    inputs, labels = np.concatenate(list(train.embeddings)), np.concatenate(list(train.labels))
    test = np.concatenate(list(val.embeddings))
    expected = (plain_softmax_regression(inputs, labels, phases, test) == np.concatenate(list(val.labels))).mean()
    assert phase_accuracy(train, val) == pytest.approx(expected, abs=1.5 / len(test))


def test_progress_counts_from_the_last_frame_of_each_phase() -> None:
    targets = progress(np.array([0, 0, 1, 1, 1, 2]), 3)
    assert targets[:, 0] == pytest.approx((np.arange(6) - 1) / 6)
    assert targets[:, 1] == pytest.approx((np.arange(6) - 4) / 6)


def test_a_phase_that_is_missing_ends_where_the_next_begins() -> None:
    targets = progress(np.array([0, 0, 2, 2]), 5)
    assert targets[:, 1] == pytest.approx((np.arange(4) - 2) / 4)
    assert targets[:, 3] == pytest.approx((np.arange(4) - 4) / 4)


def test_progression_is_least_squares_by_column() -> None:
    train, val = videos(6, phases=3), videos(5, phases=3, seed=1)
    design, test = (
        np.concatenate([np.column_stack([each, np.ones(len(each))]) for each in side.embeddings])
        for side in (train, val)
    )
    wanted, truth = (np.concatenate([progress(each, 3) for each in side.labels]) for side in (train, val))
    scores = []
    for column in range(2):
        weights = np.linalg.lstsq(design, wanted[:, column], rcond=None)[0]
        rest = truth[:, column] - test @ weights
        scores.append(1 - (rest**2).sum() / ((truth[:, column] - truth[:, column].mean()) ** 2).sum())
    assert phase_progression(train, val, 3) == pytest.approx(np.mean(scores))


def test_fractions_take_the_first_videos_and_at_least_one() -> None:
    some = videos(12, phases=2)
    assert [len(some.first(fraction).labels) for fraction in (0.01, 0.1, 0.5, 1.0)] == [1, 1, 6, 12]
    assert len(some.first(0.1, least=10).labels) == 10
    assert some.first(0.5).labels[5] is some.labels[5]


def test_one_phase_alone_is_refused() -> None:
    only = Videos(embeddings=[np.ones((4, 2))], labels=[np.zeros(4, int)])
    with pytest.raises(InputError, match="not two phases to tell apart"):
        phase_accuracy(only, only)


def test_one_frame_has_no_progression() -> None:
    train = videos(3, phases=2)
    one = Videos(embeddings=[train.embeddings[0][:1]], labels=[train.labels[0][:1]])
    assert math.isnan(phase_progression(train, one, 2))


def test_the_linear_classifier_learns_and_is_the_same_each_time() -> None:
    train, val = videos(25, phases=4, noise=0.1), videos(5, phases=4, noise=0.1, seed=1)
    recipe = LinearRecipe(rate=1.0, epochs=20)
    assert linear_accuracy(train, val, 4, recipe, CPU) > 0.95
    shuffled = replace(train, labels=[np.random.default_rng(0).permutation(each) for each in train.labels])
    scores = [linear_accuracy(shuffled, val, 4, recipe, CPU) for _ in range(2)]
    assert scores[0] == scores[1] < 0.9


def test_the_linear_classifier_follows_the_plain_recipe() -> None:
    """Momentum, decay and the cosine written out; one batch an epoch, so that no order has a say but for rounding."""
    train, val = videos(10, phases=3), videos(20, phases=3, seed=1)
    recipe = LinearRecipe(rate=2.0, epochs=30, decay=0.01)
    chance = torch.Generator().manual_seed(0)
    tables = [((torch.rand(shape, generator=chance) * 2 - 1) / 5**0.5).double().numpy() for shape in ((3, 5), (3,))]
    x, y = np.concatenate(list(train.embeddings)), np.concatenate(list(train.labels))
    speed = [np.zeros_like(table) for table in tables]
    for epoch in range(30):
        logits = x @ tables[0].T + tables[1]
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        wrong = (chances / chances.sum(axis=1, keepdims=True) - np.eye(3)[y]) / len(y)
        for at, slope in enumerate((wrong.T @ x, wrong.sum(axis=0))):
            speed[at] = 0.9 * speed[at] + slope + 0.01 * tables[at]
            tables[at] = tables[at] - 2.0 * (1 + math.cos(math.pi * epoch / 30)) / 2 * speed[at]
    test, truth = np.concatenate(list(val.embeddings)), np.concatenate(list(val.labels))
    expected = ((test @ tables[0].T + tables[1]).argmax(axis=1) == truth).mean()
    assert linear_accuracy(train, val, 3, recipe, CPU) == pytest.approx(expected, abs=1.5 / len(truth))


def test_an_incomplete_batch_is_dropped_and_too_few_videos_are_refused() -> None:
    train, val = videos(10, phases=3), videos(4, phases=3, seed=1)
    recipe = LinearRecipe(rate=1.0, epochs=3)
    with pytest.raises(InputError, match="fewer training videos than one batch"):
        linear_accuracy(train.first(0.9), val, 3, recipe, CPU)


def test_a_rate_that_blows_up_is_refused() -> None:
    train = videos(10, phases=3)
    huge = Videos(embeddings=[each * 1e30 for each in train.embeddings], labels=train.labels)
    with pytest.raises(InputError, match="diverged"):
        linear_accuracy(huge, train, 3, LinearRecipe(rate=1e30, epochs=3), CPU)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="FRAME_SHARED is not set")
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_the_reference_values(fraction: float) -> None:
    stored, expected = (
        np.load(GOLDEN / "carl.npz", allow_pickle=False),
        json.loads((GOLDEN / "golden.json").read_text()),
    )
    train, val = (
        Videos(
            embeddings=[stored[f"{split}_emb{number}"] for number in range(count)],
            labels=[stored[f"{split}_lab{number}"] for number in range(count)],
        )
        for split, count in (("train", 12), ("val", 8))
    )
    part = train.first(fraction)
    assert phase_accuracy(part, val) == pytest.approx(expected["carl_classification"][str(fraction)], abs=1e-6)
    r2 = phase_progression(part, val, 5)
    assert r2 == pytest.approx(expected["carl_event_completion_R2"][str(fraction)], abs=1e-6)
