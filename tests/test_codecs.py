"""int8 back to float16, by the documented formula and to its very bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frame.pipeline.store.codecs import decode, dequantise
from frame.pipeline.store.columns import Column


def formula(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """value = integer x scale of its token, rounded once: the product is exact in float64."""
    return (values.astype(np.float64) * scale.astype(np.float64)).astype(np.float16)


@given(rows=st.integers(0, 40), tokens=st.integers(1, 60), width=st.integers(1, 400), seed=st.integers(0, 99))
def test_every_bit_is_that_of_the_formula(rows: int, tokens: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-127, 128, (rows, tokens, width)).astype(np.int8)
    scale = np.exp2(rng.uniform(-24, 8, (rows, tokens))).astype(np.float16)
    scale[rng.random(scale.shape) < 0.1] = 0
    out = np.empty(values.shape, dtype=np.float16)
    dequantise(values, scale, out)
    assert np.array_equal(out.view(np.uint16), formula(values, scale[..., None]).view(np.uint16))


def test_every_integer_with_every_scale() -> None:
    """All finite float16 scales a teacher can have, subnormal ones included, times all integers."""
    scale = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    values = np.broadcast_to(np.arange(-127, 128).astype(np.int8), (len(scale), 255))
    out = np.empty(values.shape, dtype=np.float16)
    dequantise(np.ascontiguousarray(values), scale, out)
    with np.errstate(over="ignore"):
        expected = formula(values, scale[:, None])
    assert np.array_equal(out.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("width", [40_000, 32_768, 32_767])
def test_tokens_wider_than_a_block(width: int) -> None:
    values = np.random.default_rng(0).integers(-127, 128, (2, 3, width)).astype(np.int8)
    scale = np.full((2, 3), 0.25, dtype=np.float16)
    out = np.empty(values.shape, dtype=np.float16)
    dequantise(values, scale, out)
    assert np.array_equal(out, formula(values, scale[..., None]))


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    values = np.random.default_rng(0).integers(-127, 128, (9, 50, 384)).astype(np.int8)
    scale = np.random.default_rng(1).random((9, 50)).astype(np.float16)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            out = np.empty(values.shape, dtype=np.float16)
            dequantise(values, scale, out)
            results.append(out)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*results)


def test_columns_decode_by_their_encoding() -> None:
    features = np.ones((2, 3, 4), dtype=np.float16)
    plain = Column(name="a", shape=(3, 4), encoding="float16")
    assert decode(plain, {"a": features}) is features
    packed = Column(name="a", shape=(4,), encoding="int8")
    arrays = {"a": np.full((2, 4), 3, np.int8), "a.scale": np.array([[0.5], [2]], np.float16)}
    assert decode(packed, arrays).tolist() == [[1.5] * 4, [6.0] * 4]
