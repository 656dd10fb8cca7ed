"""Receipts, and the running moments they keep."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import sealed
from frame.pipeline.store.receipts import (
    ColumnEntry,
    Failure,
    FileEntry,
    Receipt,
    merge_moments,
    moments_of,
    read_receipt,
    receipt_path,
    receipt_units,
)

PLAN = "ab" * 32


def make_receipt(unit: int = 3) -> Receipt:
    return Receipt(
        unit=unit,
        plan_id=PLAN,
        files={
            "a/c/3/0": FileEntry(bytes=10, sha256="0" * 64, columns=("a",), members={"a": [[0, 0, 10, [7]]]}),
            "shards/000003.tar": FileEntry(
                bytes=20, sha256="1" * 64, columns=("a", "b"), members={"a": [[0, 512, 8, [1, 2]]]}
            ),
        },
        columns={"a": ColumnEntry(rows=2, teacher="t", loss={"mean": 0.1}, moments=None, software={"torch": "2"})},
        failed={"clip-ü": Failure(reason="corrupt", detail="it is", columns=("a", "b"))},
    )


def write(cache: Path, receipt: Receipt, *, unit: int = 3) -> Path:
    path = receipt_path(cache, unit)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(receipt.to_bytes())
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    receipt = make_receipt()
    write(tmp_path, receipt)
    assert read_receipt(tmp_path, 3, plan_id=PLAN) == receipt
    assert read_receipt(tmp_path, 4, plan_id=PLAN) is None


def test_any_single_changed_byte_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, make_receipt())
    data = path.read_bytes()
    rng = random.Random(0)
    for i in range(len(data)):
        changed = bytearray(data)
        changed[i] ^= rng.randrange(1, 256)
        path.write_bytes(bytes(changed))
        with pytest.raises(CacheError, match="damaged") as error:
            read_receipt(tmp_path, 3, plan_id=PLAN)
        assert error.value.where == str(path)


@pytest.mark.parametrize(("unit", "plan"), [(4, PLAN), (3, "cd" * 32)])
def test_the_receipt_of_another_unit_or_plan_is_refused(tmp_path: Path, unit: int, plan: str) -> None:
    path = write(tmp_path, replace(make_receipt(unit), plan_id=plan))
    with pytest.raises(CacheError, match="does not belong") as error:
        read_receipt(tmp_path, 3, plan_id=PLAN)
    assert error.value.where == str(path)


@pytest.mark.parametrize("value", [{}, {"unit": 3, "plan": PLAN}, {"unit": 3, "plan": PLAN, "files": [], "columns": 1}])
def test_a_receipt_that_lacks_parts_is_refused(tmp_path: Path, value: dict[str, object]) -> None:
    path = receipt_path(tmp_path, 3)
    path.parent.mkdir()
    path.write_bytes(sealed(value))
    with pytest.raises(CacheError, match="lacks"):
        read_receipt(tmp_path, 3, plan_id=PLAN)


def test_units_are_listed_in_order_and_other_files_are_not(tmp_path: Path) -> None:
    assert receipt_units(tmp_path) == []
    for unit in (12, 3, 1_234_567):
        write(tmp_path, make_receipt(unit), unit=unit)
    for name in ("000001.json.partial", "1.json", "x.json", "000001.txt"):
        (tmp_path / "receipts" / name).write_text("")
    assert receipt_units(tmp_path) == [3, 12, 1_234_567]


@given(
    seed=st.integers(0, 1000),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 1.0, -1e4, 1e7]),
    tokens=st.booleans(),
)
def test_moments_of_parts_merge_to_those_of_the_whole(
    seed: int, counts: list[int], offset: float, tokens: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, 4) if tokens else (4,)
    parts = [offset + rng.standard_normal((count, *shape)) for count in counts]
    count, mean, variance = merge_moments([moments_of(part) for part in parts], 4)
    whole = np.concatenate(parts).reshape(-1, 4)
    assert count == len(whole)
    if count:
        np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(variance, whole.var(axis=0), rtol=1e-6, atol=1e-12)
    else:
        assert not mean.any()
        assert not variance.any()


def test_merging_is_a_function_of_the_parts_in_their_order() -> None:
    parts = [moments_of(np.random.default_rng(i).standard_normal((5, 4)).astype(np.float16)) for i in range(4)]
    one, two = merge_moments(parts, 4), merge_moments(parts, 4)
    assert one[1].tobytes() == two[1].tobytes()
    assert one[2].tobytes() == two[2].tobytes()
