"""Which cells are near, and the bands of queries that keep the work small."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frame.eval.propagate.neighbourhood import Shape, band_mask, bands, near, reach

RADII = st.sampled_from([0.5, 1, 1.5, 2, 3, 4.2, 12])
SHAPES = st.sampled_from(["square", "circle", "none"])


@pytest.mark.parametrize(
    ("shape", "radius", "far"),
    [("square", 12, 12), ("square", 1.5, 1), ("circle", 12, 11), ("circle", 1.5, 1), ("circle", 0.5, 0),
     ("none", 0, None)],
)  # fmt: skip
def test_a_squares_border_counts_and_a_circles_does_not(shape: Shape, radius: float, far: int | None) -> None:
    assert reach(shape, radius) == far


@given(
    shape=SHAPES, radius=RADII, long=st.integers(1, 9), short=st.integers(1, 7), held=st.sampled_from([1, 500, 10**6])
)
def test_masks_are_those_of_the_definition(shape: Shape, radius: float, long: int, short: int, held: int) -> None:
    for band in bands(long, short, far=reach(shape, radius), held=held, frames=1, least=1):
        queries, keys = range(long * short)[band.queries], range(long * short)[band.keys]

        def counts(query: int, key: int) -> bool:
            down, right = abs(query // short - key // short), abs(query % short - key % short)
            square = down <= radius and right <= radius
            return bool({"square": square, "circle": (down**2 + right**2) ** 0.5 < radius, "none": True}[shape])

        expected = torch.tensor([[counts(query, key) for key in keys] for query in queries])
        mask = band_mask(shape, radius, band, torch.device("cpu")).expand(len(queries), len(keys))
        assert torch.equal(mask == 0, expected)
        assert torch.equal(mask == -torch.inf, ~expected)
        chosen = torch.tensor([list(keys)] * len(queries))
        assert torch.equal(near(shape, radius, band, chosen), expected)
        # Nothing near lies outside the band's keys.
        outside = [key for key in range(long * short) if key not in keys]
        assert not any(counts(query, key) for query in queries for key in outside)


@given(
    long=st.integers(1, 40), short=st.integers(1, 9), far=st.none() | st.integers(0, 50), held=st.integers(1, 10**6),
    least=st.integers(1, 50),
)  # fmt: skip
def test_bands_hold_what_they_may(long: int, short: int, far: int | None, held: int, least: int) -> None:
    """Every line once, in order, with all keys in reach; no more is held than may be, but for the least of queries."""
    made = bands(long, short, far=far, held=held, frames=3, least=least)
    assert [line for band in made for line in range(band.begin, band.end)] == list(range(long))
    whole = long if far is None else far
    for band in made:
        assert (band.first, band.last) == (max(0, band.begin - whole), min(long, band.end + whole))
        width = band.end - band.begin
        assert (width - 1) * short < least or 3 * width * (band.last - band.first) * short**2 <= held
