"""The encodings of features: what they keep, what they lose, and what they refuse."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frame.pipeline.teachers.encode import Encoded, Encoding, Scales, cosine, decode_int8, encode, encode_int8

FLOAT16_MAX = 65504.0


def encode_as(encoding: Encoding, features: Tensor) -> Encoded:
    """Encode with steps of 0.01 where there are any."""
    step, mean = torch.full((features.shape[-1],), 0.01), torch.zeros(features.shape[-1])
    return encode(features, encoding, Scales(step=step, mean=mean) if encoding == "residual" else None)


def tokens(seed: int, kind: str, shape: tuple[int, ...], scale: float) -> Tensor:
    rng = np.random.default_rng(seed)
    drawn = rng.standard_t(3, shape) if kind == "heavy" else rng.standard_normal(shape)
    return torch.tensor(drawn * scale, dtype=torch.float32)


@given(
    seed=st.integers(0, 2**31), kind=st.sampled_from(["gauss", "heavy"]), width=st.sampled_from([64, 192, 384]),
    exponent=st.floats(-3, 2.5),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_int8_keeps_every_token_within_a_cosine_of_0999(seed: int, kind: str, width: int, exponent: float) -> None:
    features = tokens(seed, kind, (3, 20, width), 10.0**exponent)
    encoded = encode(features, "int8")
    assert encoded.values.dtype == torch.int8
    assert encoded.scale is not None
    assert encoded.scale.dtype == torch.float16
    assert bool(encoded.finite.all())
    decoded = decode_int8(encoded.values, encoded.scale)
    # Half a step of the quantisation at most, for every value: none was clipped.
    assert bool(((features - decoded).abs() <= encoded.scale.float().unsqueeze(-1) * 0.5001).all())
    torch.testing.assert_close(encoded.cosine, torch.nn.functional.cosine_similarity(features, decoded, dim=-1))
    assert encoded.loss()[1] >= 0.999


@given(
    seed=st.integers(0, 2**31), kind=st.sampled_from(["gauss", "heavy"]), exponent=st.floats(-2, 2),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_float16_keeps_every_token_within_a_cosine_of_099999(seed: int, kind: str, exponent: float) -> None:
    encoded = encode(tokens(seed, kind, (2, 9, 192), 10.0**exponent), "float16")
    assert encoded.values.dtype == torch.float16
    assert encoded.scale is None
    mean, worst = encoded.loss()
    assert 0.99999 <= worst <= mean <= 1.0


@given(largest=st.floats(1e-9, 8e6, allow_subnormal=False), seed=st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_int8_never_clips_and_never_loses_its_scale(largest: float, seed: int) -> None:
    token = tokens(seed, "gauss", (1, 32), 1.0)
    token = token / token.abs().max() * largest
    values, scale = encode_int8(token)
    assert float(scale) > 0
    assert int(values.abs().max()) <= 127
    assert float(token.abs().max()) <= 127 * float(scale) * (1 + 1e-6)


def test_tokens_of_zeros_are_exact() -> None:
    features = torch.zeros(2, 3, 8)
    features[0, 1] = 1.0
    for encoding in get_args(Encoding):
        encoded = encode_as(encoding, features)
        assert encoded.loss() == (1.0, 1.0)
        assert not encoded.values[1].any()
    values, scale = encode_int8(features)
    assert torch.equal(decode_int8(values, scale)[1], features[1])
    assert float(scale[1].max()) == 0.0


def test_a_class_token_has_one_scale_a_row() -> None:
    encoded = encode(tokens(0, "gauss", (5, 64), 1.0), "int8")
    assert encoded.scale is not None
    assert encoded.scale.shape == encoded.cosine.shape == encoded.finite.shape == (5,)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e7, -1e30])
@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_rows_that_cannot_be_kept_are_reported_and_hold_zeros(encoding: Encoding, bad: float) -> None:
    features = tokens(1, "gauss", (3, 4, 16), 1.0)
    features[1, 2, 3] = bad
    encoded = encode_as(encoding, features)
    assert encoded.finite.tolist() == [True, False, True]
    assert not encoded.values[1].any()
    assert bool(encoded.values[[0, 2]].any())
    assert encoded.loss()[1] > 0.999


def test_the_largest_values_that_fit_are_kept() -> None:
    features = torch.full((1, 4), FLOAT16_MAX)
    assert encode(features, "float16").finite.tolist() == [True]
    assert encode(features * 1.001, "float16").finite.tolist() == [False]
    # Readers give float16, and the scale of an int8 token may be rounded up: its largest value is a little smaller.
    assert encode(features, "int8").finite.tolist() == [False]
    kept = encode(features * 0.99, "int8")
    assert kept.finite.tolist() == [True]
    assert kept.scale is not None
    assert bool(torch.isfinite(decode_int8(kept.values, kept.scale).half()).all())


def test_a_token_too_small_for_the_encoding_shows_in_the_loss() -> None:
    tiny = torch.full((1, 16), 1e-9)
    assert encode(tiny, "float16").loss() == (0.0, 0.0)
    assert encode(tiny, "int8").loss() == (0.0, 0.0)


def test_no_rows_lose_nothing() -> None:
    for encoding in get_args(Encoding):
        assert encode_as(encoding, torch.empty(0, 4, 8)).loss() == (1.0, 1.0)


def test_cosine_of_one_zero_token_is_zero() -> None:
    assert cosine(torch.ones(1, 4), torch.zeros(1, 4)).tolist() == [0.0]


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["gauss", "heavy"]), size=st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_levels_are_the_nearest_ones_and_none_is_clipped(seed: int, kind: str, size: float) -> None:
    features = tokens(seed, kind, (3, 20, 64), 2.0) + torch.linspace(-3, 3, 64)
    scales = Scales(step=torch.linspace(0.5, 1.5, 64) * size, mean=torch.linspace(-3, 3, 64))
    encoded = encode(features, "residual", scales)
    assert encoded.values.dtype == torch.int16
    assert bool(encoded.finite.all())
    assert torch.equal(encoded.decoded, encoded.values.float() * scales.step + scales.mean)
    assert bool(((features - encoded.decoded).abs() <= scales.step * 0.5001).all())


def test_the_last_level_is_kept_and_what_lies_beyond_is_reported() -> None:
    scales = Scales(step=torch.full((4,), 0.5), mean=torch.full((4,), 10.0))
    edge = 32767 * 0.5
    features = torch.tensor([[edge + 10, -edge + 10, 0, 0], [edge + 10.5, 0, 0, 0], [-edge + 9.5, 0, 0, 0]])
    encoded = encode(features, "residual", scales)
    assert encoded.finite.tolist() == [True, False, False]
    assert encoded.values[0].tolist() == [32767, -32767, -20, -20]
