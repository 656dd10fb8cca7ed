"""Distances by delta against a plain walk over pairs of frames; nothing is compared over a cut or a clip's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import store_caches
from hypothesis import given
from hypothesis import strategies as st
from store_caches import CLS, PATCH, Made, make_cache, make_table

from frame.eval.tasks import deltas
from frame.eval.tasks.deltas import Curve, clip_mean, distances, evaluate, measure, rises, suggest
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.store import CacheError

QUIET = Progress(quiet=True)
LENGTHS = (3, 5, 0, 8, 2, 11, 4, 1, 19)
TRAINED = {"weights": {"origin": "file"}, "model": "vit"}


def make(path: Path, times: Sequence[Sequence[float]] | None = None, **options: object) -> Made:
    """A real cache of random features whose clips have these timestamps and teachers."""
    lengths = LENGTHS if times is None else [len(each) for each in times]
    table, rows = make_table(lengths, 8)
    if times is not None:
        column = pa.array([list(each) for each in times], type=table.schema.field("timestamps").type)
        table = table.set_column(table.schema.get_field_index("timestamps"), "timestamps", column)
    made = store_caches.with_metadata

    def trained(meta: store_caches.CacheMeta) -> object:
        return made(replace(meta, teachers=dict.fromkeys(meta.teachers, TRAINED)))

    with (
        mock.patch.object(store_caches, "make_table", return_value=(table, rows)),
        mock.patch.object(store_caches, "with_metadata", trained),
    ):
        return make_cache(path, lengths=lengths, **{"failed": (1,), **options})  # type: ignore[arg-type]


def walked(made: Made, column: str, most: int, breaks: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """The curve and the clips in it, pair by pair. ``breaks``: rows of the cache that begin after a cut."""
    values = made.values(column).astype(np.float64)
    values = values.reshape(len(values), -1, values.shape[-1])
    means: list[list[float]] = []
    for clip in made.table.to_pylist():
        if clip["clip"] in made.failed[column]:
            continue
        first, end = clip["first_row"], clip["first_row"] + clip["n_frames"]
        row = []
        for delta in range(most + 1):
            found = []
            for t in range(first, end - delta):
                if not any(t < cut <= t + delta for cut in breaks):
                    a, b = values[t], values[t + delta]
                    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
                    found.append(float((1 - cosine).mean()))
            row.append(float(np.mean(found)) if found else np.nan)
        means.append(row)
    table = np.array(means)
    clips = (~np.isnan(table)).sum(axis=0)
    return np.where(clips > 0, np.nansum(table, axis=0) / np.maximum(clips, 1), np.nan), clips


@pytest.mark.parametrize("column", [CLS, PATCH])
@pytest.mark.parametrize("chunk", [1, 3 * 4 * 15, 1 << 26])
def test_the_curve_is_that_of_a_walk_whatever_the_chunk(tmp_path: Path, column: str, chunk: int) -> None:
    """A chunk of one row, of three, of everything; clips longer than a unit; a failed clip, an empty one, one frame."""
    made = make(tmp_path / "cache")
    with mock.patch.object(deltas, "_CHUNK", chunk):
        curve = measure(made.open(), [column], 12, QUIET)[column]
    expected, clips = walked(made, column, 12)
    assert curve.clips.tolist() == clips.tolist()
    np.testing.assert_allclose(curve.distance, expected, atol=1e-6)
    assert curve.distance[0] == 0.0
    assert curve.clips[12] == 1  # the last delta that fits has a clip of nineteen frames


def test_int8_and_tar_caches_too(tmp_path: Path) -> None:
    made = make(tmp_path / "cache", store="webdataset", encoding="int8")
    curve = measure(made.open(), [PATCH], 4, QUIET)[PATCH]
    np.testing.assert_allclose(curve.distance, walked(made, PATCH, 4)[0], atol=1e-6)


@pytest.mark.parametrize("most", [1, 2, 5, 10, 11])
def test_a_delta_is_the_number_of_rows_between(tmp_path: Path, most: int) -> None:
    """On a circle the distance at d is 1 - cos(d a): one row too many or too few would show at every delta."""
    made = make(tmp_path / "cache", times=[np.arange(11) / 25], failed=())
    angles = 0.2 * np.arange(made.meta.rows)
    turning = np.zeros((made.meta.rows, 5), dtype=np.float32)
    turning[:, 0], turning[:, 1] = np.cos(angles), np.sin(angles)
    cache = made.open()
    with (
        mock.patch.object(cache, "read", lambda _, start, stop: turning[start:stop]),
        mock.patch.object(deltas, "_CHUNK", 4 * 20),
    ):
        mean = clip_mean(cache, CLS, 0, most)
    expected = 1 - np.cos(0.2 * np.arange(most + 1))
    np.testing.assert_allclose(mean[: min(most, 10) + 1], expected[: min(most, 10) + 1], atol=1e-6)
    assert np.isnan(mean[11:]).all()


def test_nothing_is_compared_over_a_cut(tmp_path: Path) -> None:
    times = [0.0, 1, 2, 3, 4, 20, 21, 22, 23, 24, 25]
    made = make(tmp_path / "cache", times=[times, np.arange(6) / 25], failed=())
    curve = measure(made.open(), [PATCH], 7, QUIET)[PATCH]
    expected, clips = walked(made, PATCH, 7, breaks=[5])
    assert clips.tolist() == [2, 2, 2, 2, 2, 2, 0, 0]
    assert curve.clips.tolist() == clips.tolist()
    np.testing.assert_allclose(curve.distance, expected, atol=1e-6)


def test_equal_frames_are_exactly_zero_apart_and_opposite_ones_two() -> None:
    one = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    one /= np.linalg.norm(one, axis=-1, keepdims=True)
    assert (distances(one, one.copy()) == 0.0).all()
    np.testing.assert_allclose(distances(one, -one), 2.0, atol=1e-6)


def curve_of(*values: float) -> Curve:
    return Curve(distance=np.array(values), clips=np.where(np.isnan(values), 0, 3))


def test_the_suggestion_is_the_last_delta_up_to_which_half_of_the_way_is_not_passed() -> None:
    assert suggest(curve_of(0, 0.1, 0.2, 0.3, 0.4)) == 2  # 0.2 is half: still within
    assert suggest(curve_of(0, 0.1, 0.21, 0.3, 0.4)) == 1
    assert suggest(curve_of(0, 0.3, 0.35, 0.4)) == 1  # further than half at once: the nearest there is
    assert suggest(curve_of(0, 0.1, 0.3, 0.1, 0.4)) == 1  # a later fall does not count
    assert suggest(curve_of(0, 0.1, 0.4, float("nan"))) == 1
    assert suggest(curve_of(0, 0, 0)) is None


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20))
def test_the_suggestion_is_a_delta_of_the_curve_within_half(values: list[float]) -> None:
    curve = curve_of(0.0, *values)
    found = suggest(curve)
    assert found is not None
    assert 1 <= found <= len(values)
    assert found == 1 or max(values[:found]) <= max(values) / 2


def test_a_curve_that_still_rises_is_told_from_a_plateau() -> None:
    assert rises(curve_of(0, 1, 2, 3, 4))
    assert not rises(curve_of(0, 3, 4, 4, 4))


def test_the_result_has_a_row_a_delta_and_the_plot(tmp_path: Path) -> None:
    made = make(tmp_path / "cache")
    result = evaluate(made.path, out=tmp_path / "out", columns=(), most=3, progress=QUIET)
    assert [item["delta"] for item in result.items] == [0, 1, 2, 3]
    assert result.items[0][PATCH] == result.items[0][CLS] == 0.0
    assert result.scores[PATCH] == pytest.approx(np.mean([item[PATCH] for item in result.items[1:]]))
    assert result.scores[f"{PATCH}: suggested delta"] >= 1
    assert result.data["digest"] == made.meta.index_sha256
    assert result.encoder["weights"] == "file"
    assert (tmp_path / "out" / result.pictures[0]).read_bytes().startswith(b"\x89PNG")
    result.write(tmp_path / "out")
    one = evaluate(made.path, out=tmp_path / "out", columns=[CLS], most=3, progress=QUIET)
    assert one.options["columns"] == [CLS]
    assert one.items[1][CLS] == result.items[1][CLS]


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path / "cache")
    with pytest.raises(InputError, match="pictures, not features"):
        evaluate(made.path, out=tmp_path, columns=["frames"], most=3, progress=QUIET)
    with pytest.raises(CacheError, match="no column 'nothing'"):
        evaluate(made.path, out=tmp_path, columns=["nothing"], most=3, progress=QUIET)
    with pytest.raises(InputError, match="nothing to compare"):
        evaluate(made.path, out=tmp_path, columns=(), most=0, progress=QUIET)
    with pytest.raises(CacheError, match="no cache here"):
        evaluate(tmp_path / "none", out=tmp_path, columns=(), most=3, progress=QUIET)
    short = make(tmp_path / "short", times=[[0.0], [0.0]], failed=())
    with pytest.raises(InputError, match="No clip has two frames"):
        evaluate(short.path, out=tmp_path, columns=(), most=3, progress=QUIET)
    half = make(tmp_path / "half", units=[0])
    with pytest.raises(CacheError, match="not committed"):
        evaluate(half.path, out=tmp_path, columns=(), most=3, progress=QUIET)
