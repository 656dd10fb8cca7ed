"""``cache.json``: what is written is read back, and nothing else is."""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_caches import columns_of

from frame.pipeline.store.columns import Column
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import CacheMeta, canonical, parse_meta, sealed, unseal

HERE = Path("cache.json")


def make_meta(**changes: Any) -> CacheMeta:
    meta = CacheMeta(
        dataset={"name": "folder", "licence": "ü"},
        sampling={"fps": 2.5},
        geometry={"size": 4},
        build={"encoding": "int8"},
        store="zarr",
        rows_per_unit=8,
        rows=24,
        index_sha256="0" * 64,
        columns=columns_of("int8"),
        teachers={"dino": {"weights": "a"}, "clip": {"weights": "b"}},
        metadata={"zarr.json": "1" * 64},
    )
    return replace(meta, **changes)


def test_what_is_written_is_read_back() -> None:
    meta = make_meta()
    assert parse_meta(meta.to_bytes(), where=HERE) == meta
    assert meta.units == 3
    assert list(meta.arrays()) == ["frames", "dino.patch", "dino.patch.scale", "clip.cls", "clip.cls.scale"]


def test_any_single_changed_byte_is_refused() -> None:
    data = make_meta().to_bytes()
    rng = random.Random(0)
    for i in range(len(data)):
        changed = bytearray(data)
        changed[i] ^= rng.randrange(1, 256)
        with pytest.raises(CacheError):
            parse_meta(bytes(changed), where=HERE)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_cut_or_grown_file_is_refused(cut: int) -> None:
    data = make_meta().to_bytes()
    for changed in (data[:cut], data + b" ", b" " + data, data[:10] + data[9:]):
        with pytest.raises(CacheError):
            parse_meta(changed, where=HERE)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"3", b'"text"', b"{}", b"[" * 200_000, b'{"a":' * 200_000, b"\xff\xfe", b"NaN"]
)
def test_what_is_no_cache_json_is_damage_not_a_traceback(text: bytes) -> None:
    with pytest.raises(CacheError, match="damaged"):
        parse_meta(text, where=HERE)
    with pytest.raises(CacheError, match="damaged"):
        unseal(text, where=HERE)


def test_another_format_version_is_named() -> None:
    value = json.loads(make_meta().to_bytes())
    with pytest.raises(CacheError) as error:
        parse_meta(sealed({**value, "format": 7}), where=HERE)
    assert "format version 7; this program reads version 1" in error.value.what
    assert error.value.where == "cache.json"
    assert error.value.fix


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 25},
        {"rows": 0},
        {"rows": -8},
        {"rows": 24.0},
        {"rows": "24"},
        {"rows": True, "rows_per_unit": 1},
        {"rows": 8 << 60},
        {"rows_per_unit": 0},
        {"rows_per_unit": -8},
        {"rows_per_unit": None},
        {"store": "hdf5"},
        {"store": None},
        {"columns": {}},
        {"columns": []},
        {"columns": {"frames": {}}},
        {"teachers": {}},
        {"teachers": 3},
        {"metadata": ...},
        {"dataset": ...},
        {"plan": "0" * 64},
    ],
)
def test_impossible_values_are_refused_though_the_checksum_fits(changes: dict[str, Any]) -> None:
    value = {**json.loads(make_meta().to_bytes()), **changes}
    value = {key: item for key, item in value.items() if item is not ...}
    with contextlib.suppress(CacheError, TypeError, AttributeError):
        # As a writer that went wrong would: with the plan's digest of these values.
        value = {**value, "plan": make_meta(**changes).plan_id} if "plan" not in changes else value
    with pytest.raises(CacheError):
        parse_meta(sealed(value), where=HERE)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": []},
        {"shape": [0]},
        {"shape": [-3, 2]},
        {"shape": [1 << 21]},
        {"shape": [1 << 20, 1 << 20]},
        {"shape": "ab"},
        {"shape": None},
        {"encoding": "pickle"},
        {"encoding": None},
        {"teacher": "nobody"},
        {"part": "../x"},
    ],
)
def test_impossible_columns_are_refused(changes: dict[str, Any]) -> None:
    value = json.loads(make_meta().to_bytes())
    value["columns"]["dino.patch"] |= changes
    with pytest.raises(CacheError):
        parse_meta(sealed(value), where=HERE)


@pytest.mark.parametrize(
    "changes", [{"format": "1"}, {"format": True}, {"kind": "other"}, {"units": 99}, {"format": 2, "kind": "other"}]
)
def test_what_it_says_besides_must_follow_from_the_rest(changes: dict[str, Any]) -> None:
    value = json.loads(make_meta().to_bytes())
    del value["sha256"]
    assert parse_meta(sealed(value), where=HERE) == make_meta()
    with pytest.raises(CacheError):
        parse_meta(sealed({**value, **changes}), where=HERE)
    value["columns"]["dino.patch"]["dtype"] = "float32"
    with pytest.raises(CacheError, match="contradicts"):
        parse_meta(sealed(value), where=HERE)


def test_steps_are_written_and_read_back_to_the_bit() -> None:
    meta = make_meta(columns=columns_of("residual"))
    assert parse_meta(meta.to_bytes(), where=HERE) == meta


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "../a", "a.B", "-a", "_a", "a b", "a\n", "a.b.c.d", "ü", "a" * 101, "a.", "\0"]
)
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    with pytest.raises(CacheError, match="cannot be the name"):
        Column(name=name, shape=(1,), encoding="float16")
    if name:
        with pytest.raises(CacheError, match="cannot be the name"):
            Column(name="a", shape=(1,), encoding="float16", part=name)


@pytest.mark.parametrize("other", ["Dino.patch", "DINO.patch", "dino.patch.scale"])
def test_names_that_one_file_could_not_tell_apart_are_refused(other: str) -> None:
    columns = {**columns_of("int8"), other: Column(name=other, shape=(2,), encoding="float16", teacher="dino")}
    with pytest.raises(CacheError, match="share the name"):
        make_meta(columns=columns)


@given(
    shape=st.lists(st.integers(1, 600), min_size=1, max_size=3).map(tuple),
    encoding=st.sampled_from(["raw", "float16", "int8"]),
    rows_per_unit=st.integers(1, 600),
)
def test_chunks_divide_a_unit_and_stay_small(shape: tuple[int, ...], encoding: Any, rows_per_unit: int) -> None:
    for spec in Column(name="a", shape=shape, encoding=encoding).arrays(rows_per_unit):
        assert rows_per_unit % spec.chunk_rows == 0
        assert spec.chunk_rows == 1 or spec.chunk_rows * spec.row_bytes <= 1 << 16


def test_int8_takes_half_the_bytes_of_float16() -> None:
    float16, int8 = (
        Column(name="a", shape=(196, 384), encoding=encoding).row_bytes for encoding in ("float16", "int8")
    )
    assert float16 == 2 * 196 * 384
    assert 0.5 < int8 / float16 < 0.503


def test_the_plan_does_not_depend_on_which_teachers_are_asked_for() -> None:
    meta = make_meta()
    assert replace(meta, teachers={**meta.teachers, "more": {}}).plan_id == meta.plan_id
    for change in ({"sampling": {"fps": 3}}, {"rows": 32}, {"store": "webdataset"}, {"index_sha256": "2" * 64}):
        assert replace(meta, **change).plan_id != meta.plan_id


def test_a_teachers_record_decides_its_columns_identity() -> None:
    meta = make_meta()
    other = replace(meta, teachers={**meta.teachers, "dino": {"weights": "other"}})
    assert other.teacher_id("dino.patch") != meta.teacher_id("dino.patch")
    assert other.teacher_id("clip.cls") == meta.teacher_id("clip.cls")
    assert other.teacher_id("frames") == meta.teacher_id("frames")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON, min_size=1, max_size=5))
def test_sealing_is_undone_by_unsealing(value: dict[str, Any]) -> None:
    assert unseal(sealed(value), where=HERE) == value


def test_what_has_no_single_spelling_cannot_be_sealed() -> None:
    with pytest.raises(ValueError, match="float"):
        canonical({"a": float("nan")})
