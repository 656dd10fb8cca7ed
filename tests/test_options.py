from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame.manifests.errors import InputError
from frame.pipeline.options import BuildOptions, parse_share, share_of


def options(**changes: Any) -> BuildOptions:
    return BuildOptions(**{"dataset": "folder", "source": Path("x"), "teachers": ("dino_vits16",), **changes})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 3),
        ("fps", 0.0),
        ("frames_per_clip", 0),
        ("limit", 0),
        ("unit_rows", 0),
        ("batch_rows", 0),
        ("teachers", ()),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}"):
        options(**{name: value})


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/4"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--units"):
        parse_share(text)


@given(st.integers(0, 500), st.integers(1, 40))
def test_shares_are_disjoint_and_complete(units: int, whole: int) -> None:
    shares = [list(share_of(units, (part, whole))) for part in range(1, whole + 1)]
    assert [unit for share in shares for unit in share] == list(range(units))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
