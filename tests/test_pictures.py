"""Features as colours: the projection, its scale, and the pictures made of it."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from frame.pipeline.view.pictures import (
    PICTURE_SIDE,
    colour_range,
    colours,
    exact_uri,
    fit_projection,
    photo_uris,
)


def tokens_of(seed: int, *shape: int) -> np.ndarray:
    """Tokens whose channels vary by very different amounts, float16."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return (values * np.geomspace(8, 0.5, shape[-1])).astype(np.float16)


def picture(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image.convert("RGB"))


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(3, 12), pieces=st.integers(1, 5))
def test_the_same_tokens_give_the_same_axes_in_whatever_pieces_and_order(seed: int, width: int, pieces: int) -> None:
    tokens = tokens_of(seed, 60, width)
    whole = fit_projection([tokens])
    parts = fit_projection(reversed(np.array_split(tokens, pieces)))
    largest = np.abs(whole.axes).argmax(axis=0)
    assert (whole.axes[largest, range(3)] > 0).all()
    assert sum(whole.explained) <= 1 + 1e-6
    # Near-equal components may turn into each other; what the three explain together may not change.
    np.testing.assert_allclose(parts.explained, whole.explained, rtol=1e-3)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-4)


def test_axes_are_those_of_a_singular_value_decomposition() -> None:
    tokens = tokens_of(0, 40, 5, 16)
    projection = fit_projection(tokens)
    flat = tokens.reshape(-1, 16).astype(np.float64)
    _, values, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    agreement = np.abs(np.sum(projection.axes.T * axes[:3], axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-4)
    np.testing.assert_allclose(projection.explained, (values**2 / np.sum(values**2))[:3], rtol=1e-4)
    np.testing.assert_allclose(projection(tokens).reshape(-1, 3).std(axis=0), values[:3] / np.sqrt(200), rtol=1e-4)


def test_a_large_mean_cancels_nothing() -> None:
    small = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32) * np.geomspace(4, 0.1, 6)
    near, far = fit_projection(np.split(small, 3)), fit_projection(np.split(small + 1000, 3))
    np.testing.assert_allclose(np.abs(np.sum(near.axes * far.axes, axis=0)), 1, atol=1e-3)


def test_one_projection_and_one_scale_give_like_features_like_colours() -> None:
    first, second = tokens_of(1, 4, 9, 8), tokens_of(2, 2, 9, 8)
    second[1, 3] = first[2, 5]
    projection = fit_projection([first, second])
    points = [projection(first), projection(second)]
    low, high = colour_range(points)
    assert (colours(points[0], low, high)[2, 5] == colours(points[1], low, high)[1, 3]).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0, 1000.0])
def test_features_that_never_vary_are_grey(value: float) -> None:
    tokens = np.full((3, 8, 6), value, dtype=np.float16)
    projection = fit_projection(tokens)
    points = projection(tokens)
    assert projection.explained == (0.0, 0.0, 0.0)
    assert (colours(points, *colour_range([points])) == 128).all()


@pytest.mark.parametrize("width", [1, 2])
def test_fewer_channels_than_colours(width: int) -> None:
    tokens = tokens_of(0, 5, 6, width)
    projection = fit_projection(tokens)
    picture = colours(projection(tokens), *colour_range([projection(tokens)]))
    assert picture.shape == (5, 6, 3)
    assert (picture[..., width:] == 128).all()
    assert all(np.ptp(picture[..., i]) == 255 for i in range(width))


def test_a_single_token() -> None:
    projection = fit_projection([np.ones((1, 4), dtype=np.float16)])
    assert (projection(np.ones((1, 4))) == 0).all()
    with pytest.raises(ValueError, match="at least one token"):
        fit_projection([])


def test_outliers_do_not_set_the_scale_and_rare_variation_is_not_lost() -> None:
    points = np.zeros((100, 1, 3), dtype=np.float32)
    points[:, 0, 0] = np.linspace(0, 1, 100)
    points[7, 0, 0] = 1e6
    points[7, 0, 1] = 1  # varies in one token only
    low, high = colour_range([points])
    assert high[0] < 2
    assert (low[1], high[1]) == (0, 1)
    assert colours(points, low, high)[7, 0].tolist() == [255, 255, 128]


def test_an_exact_picture_is_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    assert (picture(exact_uri(pixels)) == pixels).all()


def test_frames_keep_to_their_budget_and_to_their_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 500, 3)).astype(np.uint8)
    rich, poor = photo_uris(noise, budget=10**9), photo_uris(noise, budget=5_000)
    assert sum(map(len, poor)) <= 5_000 < sum(map(len, rich))
    assert {picture(uri).shape for uri in rich + poor} == {(20, PICTURE_SIDE, 3)}
    plain = np.full((1, 32, 32, 3), (200, 30, 30), dtype=np.uint8)
    assert np.abs(picture(photo_uris(plain, budget=10**6)[0]).astype(int) - plain[0]).max() <= 12
