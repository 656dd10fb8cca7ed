"""Colours that mean the same in every frame, and in like colours for several encoders."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from frame.eval.present.colours import common_colours, pca_colours, turn


def scene(seed: int, *, width: int = 24, grid: tuple[int, int] = (6, 8), kinds: int = 5) -> np.ndarray:
    """Features [3, *grid, width] of a few kinds of things, with a little noise."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((kinds, width)) * np.linspace(2, 0.5, width)
    where = rng.integers(0, kinds, (3, *grid))
    return np.asarray(means[where] + 0.01 * rng.standard_normal((3, *grid, width)), dtype=np.float32)


def rotation(seed: int, width: int) -> np.ndarray:
    """An orthogonal matrix, mirrored or not."""
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0], dtype=np.float32)


def test_like_features_have_like_colours_in_every_frame() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((4, 24))
    where = rng.integers(0, 4, (3, 6, 7))
    scale = rng.uniform(0.5, 2.0, (3, 6, 7, 1))  # only the direction counts
    found = pca_colours((kinds[where] * scale).astype(np.float16))
    assert found.shape == (3, 6, 7, 3)
    assert found.dtype == np.uint8
    means = np.array([found[where == kind].astype(float).mean(axis=0) for kind in range(4)])
    for kind in range(4):
        assert np.abs(found[where == kind] - means[kind]).max() <= 2
    gaps = np.abs(means[:, None] - means).max(axis=-1)
    assert gaps[~np.eye(4, dtype=bool)].min() > 40
    assert (found == pca_colours((kinds[where] * scale).astype(np.float16))).all()


def test_features_without_variation_are_grey() -> None:
    assert set(np.unique(pca_colours(np.ones((2, 3, 3, 8), dtype=np.float32)))) <= {127, 128}


@given(st.integers(0, 10**6))
def test_encoders_that_differ_by_a_rotation_have_the_same_colours(seed: int) -> None:
    one = scene(seed)
    first, second = common_colours([one, one @ rotation(seed, one.shape[-1])])
    assert (first == pca_colours(one)).all()
    difference = np.abs(first.astype(int) - second)
    assert np.percentile(difference, 99) <= 4


def test_without_turning_they_would_not() -> None:
    """Why there is anything to do: signs of components are chance, and colours of each encoder alone are too."""
    one = scene(0)
    alone = [np.abs(pca_colours(one).astype(int) - pca_colours(one @ rotation(s, 24))).mean() for s in range(8)]
    together = [np.abs(np.subtract(*(c.astype(int) for c in common_colours([one, one @ rotation(s, 24)])))).mean()
                for s in range(8)]  # fmt: skip
    assert max(alone) > 60
    assert max(together) < 4


def test_grids_and_widths_may_differ() -> None:
    """Twice as many patches a side, each as the one it lies in, in a wider space."""
    one = scene(1)
    wide = rotation(3, 32)[:24]
    fine = one.repeat(2, axis=1).repeat(2, axis=2) @ wide
    first, second = common_colours([one, fine])
    assert second.shape == (3, 12, 16, 3)
    expected = first.repeat(2, axis=1).repeat(2, axis=2).astype(int)
    assert np.percentile(np.abs(expected - second), 99) <= 4
    (_, third), (again, _) = common_colours([fine, one]), common_colours([fine, fine])
    assert np.percentile(np.abs(again[:, ::2, ::2].astype(int) - third), 99) <= 4


def test_a_turn_is_orthogonal_also_where_nothing_varies() -> None:
    rng = np.random.default_rng(0)
    full = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
    for a, b in ((full, full[::-1]), (full, np.zeros_like(full)), (np.zeros_like(full), full), (full, full[:, :2, :3])):
        found = turn(a, np.ascontiguousarray(b))
        np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-5)
    grey = common_colours([np.ones((2, 3, 3, 8), dtype=np.float32), scene(0, grid=(3, 3))[:2]])[0]
    assert set(np.unique(grey)) <= {127, 128}
