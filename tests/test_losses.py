from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from frame.train.losses import (
    RunningMeans,
    cls_loss,
    gradient_norms,
    kept_terms,
    mean_cosine,
    not_finite,
    patch_loss,
    weights,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_patch_loss_is_torchs_mean_squared_error() -> None:
    a, b = normal(3, 4, 5), normal(3, 4, 5, seed=1)
    assert torch.equal(patch_loss(a, b, torch.ones(5)), nn.functional.mse_loss(a, b))


def test_a_standardised_patch_loss_is_that_of_standardised_features() -> None:
    a, b, std, mean = normal(3, 4, 5), normal(3, 4, 5, seed=1), normal(5, seed=2).abs() + 0.1, normal(5, seed=3)
    expected = nn.functional.mse_loss((a - mean) / std, (b - mean) / std)
    torch.testing.assert_close(patch_loss(a, b, std), expected)


def test_the_cls_loss_is_torchs_cosine_embedding_loss() -> None:
    a, b = normal(6, 8), normal(6, 8, seed=1)
    expected = nn.CosineEmbeddingLoss()(a, b, torch.ones(6))
    torch.testing.assert_close(cls_loss(a, b, "cosine"), expected)
    assert torch.equal(cls_loss(a, b, "mse"), nn.functional.mse_loss(a, b))


def test_the_cls_loss_looks_at_directions_only() -> None:
    a = normal(6, 8)
    assert float(cls_loss(a, 7 * a, "cosine")) == pytest.approx(0.0, abs=1e-6)
    assert float(cls_loss(a, -a, "cosine")) == pytest.approx(2.0, abs=1e-6)


def test_losses_of_half_precision_predictions_are_computed_in_single() -> None:
    a, b = normal(3, 4, 5), normal(3, 4, 5, seed=1).half()
    assert patch_loss(a.half(), b, torch.ones(5)).dtype == torch.float32
    assert cls_loss(a[:, 0].bfloat16(), b[:, 0], "cosine").dtype == torch.float32


def test_reported_cosines_have_no_gradient() -> None:
    a = normal(2, 3).requires_grad_()
    assert not mean_cosine(a, normal(2, 3, seed=1)).requires_grad


def test_running_means_are_plain_for_a_hundred_steps_and_exponential_after() -> None:
    means, values = RunningMeans(), [float(value) for value in normal(300).abs() + 0.5]
    expected = 0.0
    for count, value in enumerate(values, start=1):
        means.update({"x": value})
        expected = sum(values[:count]) / count if count <= 100 else 0.99 * expected + 0.01 * value
        assert means.means["x"] == pytest.approx(expected, rel=1e-12)


def test_mean_scaling_divides_each_loss_by_its_running_mean() -> None:
    means = RunningMeans()
    means.update({"patch": 4.0, "cls": 0.5})
    base = {"patch": 1.0, "cls": 0.25}
    found = weights({"patch": 100.0, "cls": 100.0}, means, scaling="mean", base=base)
    assert found == {"patch": 0.25, "cls": 0.5}


def test_the_first_step_is_scaled_by_itself() -> None:
    found = weights({"patch": 8.0, "cls": 0.5}, RunningMeans(), scaling="mean", base={"patch": 1.0, "cls": 1.0})
    assert found == {"patch": 0.125, "cls": 2.0}


def test_without_scaling_only_the_base_weights_count() -> None:
    means = RunningMeans()
    means.update({"patch": 4.0})
    assert weights({}, means, scaling="none", base={"patch": 0.5}) == {"patch": 0.5}


def test_a_loss_that_has_reached_zero_gets_a_finite_weight() -> None:
    found = weights({"patch": 0.0}, RunningMeans(), scaling="mean", base={"patch": 1.0})
    assert math.isfinite(found["patch"])


def test_gradient_norms_are_those_of_each_loss_alone() -> None:
    tokens = normal(2, 3).requires_grad_()
    losses = {"a": tokens.square().sum(), "b": 5 * tokens[0].sum()}
    found = gradient_norms(losses, tokens)
    assert float(found["a"]) == pytest.approx(float((2 * tokens.detach()).norm()), rel=1e-6)
    assert float(found["b"]) == pytest.approx(5 * math.sqrt(3), rel=1e-6)
    losses["a"].backward()  # type: ignore[no-untyped-call]  # the graph is still there


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.floats(0, 0.99))
def test_loss_dropout_keeps_a_term_at_least_and_is_a_function_of_seed_and_step(seed: int, step: int, p: float) -> None:
    names = ["patch", "cls", "future_patch", "future_cls"]
    kept = kept_terms(names, share_dropped=p, seed=seed, step=step)
    assert set(kept) == set(names)
    assert set(kept.values()) <= {0.0, 1.0}
    assert sum(kept.values()) >= 1
    assert kept == kept_terms(names, share_dropped=p, seed=seed, step=step)


def test_loss_dropout_drops_the_share_asked_for() -> None:
    kept = [kept_terms(["a", "b", "c"], share_dropped=0.3, seed=1, step=step) for step in range(3000)]
    share = sum(1 - value for one in kept for value in one.values()) / 9000
    assert share == pytest.approx(0.3 - 0.027 / 3, abs=0.02)  # all three at once, 2.7 %, is not done


def test_no_dropout_keeps_everything() -> None:
    assert all(kept_terms(["a", "b"], share_dropped=0.0, seed=0, step=s) == {"a": 1, "b": 1} for s in range(200))


def test_what_is_not_finite_is_named() -> None:
    assert not_finite({"a": 1.0, "b": math.nan, "c": -math.inf}) == ["b", "c"]
