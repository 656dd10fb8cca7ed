"""Runs of rows against a plain walk over the rows of real caches; cuts in time; choosing a share of the clips."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import store_caches
from hypothesis import given, settings
from hypothesis import strategies as st
from store_caches import CLS, LATER, PATCH, Made, add_column, commit, make_cache, make_table

from frame.pipeline.sampling import choose_frames
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.export import export
from frame.train.spans import Span, SpanTable, cuts_between, find_spans

spans_of_anything = st.lists(
    st.builds(
        Span,
        cache=st.integers(0, 3),
        clip=st.text(max_size=3),
        unit=st.integers(0, 2**20),
        start=st.integers(0, 2**40),
        stop=st.integers(0, 2**40),
    ),
    max_size=8,
)


def make_timed(path: Path, lengths: Sequence[int], times: Sequence[Sequence[float]], **options: int) -> Made:
    """A real cache whose clips have these timestamps."""
    table, rows = make_table(lengths, options.get("rows_per_unit", 8))
    column = pa.array([list(each) for each in times], type=table.schema.field("timestamps").type)
    table = table.set_column(table.schema.get_field_index("timestamps"), "timestamps", column)
    with mock.patch.object(store_caches, "make_table", return_value=(table, rows)):
        return make_cache(path, lengths=lengths, failed=(), **options)  # type: ignore[arg-type]


def walked(made: Made, columns: Iterable[str], split: str) -> list[Span]:
    """The runs, found row by row."""
    size, found = made.meta.rows_per_unit, list[Span]()
    readable = np.logical_and.reduce([made.readable(name) for name in columns])
    for clip in made.table.to_pylist():
        for row in range(clip["first_row"], clip["first_row"] + clip["n_frames"]):
            if clip["split"] != split or not readable[row]:
                continue
            last = found[-1] if found else None
            if last and last.clip == clip["clip"] and last.stop == row and row % size:
                found[-1] = Span(cache=3, clip=last.clip, unit=last.unit, start=last.start, stop=row + 1)
            else:
                found.append(Span(cache=3, clip=clip["clip"], unit=row // size, start=row, stop=row + 1))
    return found


@given(spans=spans_of_anything, more=spans_of_anything, data=st.data())
def test_a_table_holds_the_spans_it_was_made_of(spans: list[Span], more: list[Span], data: st.DataObject) -> None:
    table = SpanTable.of(spans)
    assert SpanTable.of(table) is table
    assert list(table) == list(copy.deepcopy(table)) == spans
    assert [table[i] for i in range(-len(spans), 0)] == spans
    assert list(table[1:5:2]) == spans[1:5:2]
    mask = data.draw(st.lists(st.booleans(), min_size=len(spans), max_size=len(spans)))
    assert list(table.take(np.array(mask, dtype=bool))) == [
        span for span, kept in zip(spans, mask, strict=True) if kept
    ]
    assert list(SpanTable.joined([table, SpanTable.of(more), table])) == spans + more + spans
    assert not SpanTable.joined([])


def test_a_large_table_stays_small_in_a_pickle() -> None:
    n = np.arange(50_000)
    table = SpanTable.build(n * 0, n, n // 100, n * 10, n * 10 + 10, clips=[f"label/{i:08}" for i in n])
    assert len(pickle.dumps(table)) < 52 * len(n)
    assert table[49_999] == Span(cache=0, clip="label/00049999", unit=499, start=499_990, stop=500_000)


@settings(max_examples=40)
@given(data=st.data(), rows_per_unit=st.sampled_from([1, 3, 8]), later=st.booleans())
def test_spans_are_the_longest_runs_of_readable_rows_of_one_clip_in_one_unit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows_per_unit: int, later: bool
) -> None:
    lengths = data.draw(st.lists(st.integers(0, 3 * rows_per_unit), min_size=1, max_size=12))
    failed = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1))))
    made = make_cache(tmp_path_factory.mktemp("c"), lengths=lengths, failed=failed, rows_per_unit=rows_per_unit)
    columns = ["frames", PATCH]
    if later:
        made = add_column(made, failed=[i for i in range(len(lengths)) if lengths[i] and i % 3 == 1])
        columns = [PATCH, LATER]
    for split in ("train", "val", "test"):
        spans = find_spans(made.open(), 3, columns, splits_wanted=split, seed=0)
        assert list(spans) == walked(made, columns, split)


def test_a_clip_that_failed_in_one_column_is_used_by_those_who_do_not_need_it(tmp_path: Path) -> None:
    made = add_column(make_cache(tmp_path, lengths=(3, 4), failed=()), failed=[1])
    spans = {
        columns: [span.clip for span in find_spans(made.open(), 0, columns, splits_wanted="train", seed=0)]
        for columns in ((PATCH,), (PATCH, LATER), ())
    }
    assert spans == {(PATCH,): ["c0", "c1"], (PATCH, LATER): ["c0"], (): ["c0", "c1"]}


def test_a_run_ends_where_the_timestamps_jump_stand_still_or_go_back(tmp_path: Path) -> None:
    even = [0.0, 0.04, 0.08, 0.12, 0.16, 0.2]
    jump = [0.0, 0.04, 0.08, 0.2, 0.24, 0.28]
    still = [1.0, 1.04, 1.04, 1.08, 1.12, 1.16]
    back = [0.0, 0.04, 0.08, 0.12, 0.02, 0.06]
    made = make_timed(tmp_path, [6, 6, 6, 6, 0, 1], [even, jump, still, back, [], [0.0]], rows_per_unit=100)
    spans = find_spans(made.open(), 0, [PATCH], splits_wanted="train", seed=0)
    assert [(span.clip, span.start, span.stop) for span in spans] == [
        ("c0", 0, 6),
        ("c1", 6, 9),
        ("c1", 9, 12),
        ("c2", 12, 14),
        ("c2", 14, 18),
        ("c3", 18, 22),
        ("c3", 22, 24),
        ("c5", 24, 25),
    ]


def test_frames_left_out_by_a_change_of_rate_are_no_cut(tmp_path: Path) -> None:
    """25 frames a second in a container of 30: every fifth step is a doubled one, and all of the clip is one run."""
    times = [(frame + frame // 5) / 30 for frame in range(40)]
    made = make_timed(tmp_path, [40], [times], rows_per_unit=100)
    assert [(span.start, span.stop) for span in find_spans(made.open(), 0, [PATCH], splits_wanted="train", seed=0)] == [
        (0, 40)
    ]


def test_a_cut_is_found_in_whichever_unit_it_lies(tmp_path: Path) -> None:
    """The median is the whole clip's; a cut at a unit's edge is no second one."""
    times = [float(frame) for frame in range(20)]
    late = [*times[:13], *(time + 5 for time in times[13:])]
    edge = [*times[:12], *(time + 5 for time in times[12:])]
    made = make_timed(tmp_path, [20, 20], [late, edge], rows_per_unit=4)
    spans = find_spans(made.open(), 0, [PATCH], splits_wanted="train", seed=0)
    runs = [(span.start, span.stop) for span in spans]
    assert runs == [(0, 4), (4, 8), (8, 12), (12, 13), (13, 16), (16, 20), *((n, n + 4) for n in range(20, 40, 4))]


@given(
    median=st.floats(0.001, 1),
    factors=st.lists(st.floats(0.5, 5).filter(lambda x: abs(x - 2.5) > 0.01), max_size=5),
)
def test_a_cut_is_a_step_of_more_than_two_and_a_half_medians(median: float, factors: list[float]) -> None:
    steps = [1.0] * 12 + factors + [1.0] * 12
    times = 7 + np.cumsum([0, *steps]) * median
    assert cuts_between(times).tolist() == [i + 1 for i, step in enumerate(steps) if step > 2.5]


@pytest.mark.parametrize("times", [[], [3.0]])
def test_a_clip_of_no_step_has_no_cut(times: list[float]) -> None:
    assert not len(cuts_between(np.array(times)))


@settings(max_examples=30)
@given(
    source=st.sampled_from([15.0, 23.976, 25.0, 29.97, 30.0, 60.0]), fps=st.sampled_from([5.0, 10.0, 12.0, 20, 24.0])
)
def test_resampling_makes_no_cuts_and_hides_none(
    tmp_path_factory: pytest.TempPathFactory, source: float, fps: float
) -> None:
    whole = np.arange(1200) / source
    times = choose_frames(whole.tolist(), fps=fps)[:40]
    missing = choose_frames([time for time in whole if not 0.8 < time < 1.3], fps=fps)[:40]
    made = make_timed(tmp_path_factory.mktemp("c"), [40, 40], [times, missing], rows_per_unit=100)
    spans = find_spans(made.open(), 0, [PATCH], splits_wanted="train", seed=0)
    assert [span.clip for span in spans] == ["c0", "c1", "c1"]
    assert times[0] == 0.0
    assert missing[spans[1].stop - 41] <= 0.8 < 1.2 < missing[spans[2].start - 40]


@given(source=st.floats(1, 240), share=st.floats(0.02, 1))
def test_resampling_to_any_rate_makes_no_cut(source: float, share: float) -> None:
    times = np.array(choose_frames((np.arange(400) / source).tolist(), fps=source * share))
    assert not len(cuts_between(times))


@settings(max_examples=20)
@given(shares=st.lists(st.floats(0.001, 1), min_size=2, max_size=5), seed=st.integers(0, 2**63))
def test_a_larger_share_keeps_the_clips_of_the_smaller(many: Made, shares: list[float], seed: int) -> None:
    before: set[str] = set()
    for share in sorted(shares):
        spans = find_spans(many.open(), 0, [PATCH], splits_wanted="train", share=share, seed=seed)
        clips = {span.clip for span in spans}
        assert clips >= before
        assert len(clips) == int(np.ceil(share * 32 - 1e-9))
        before = clips


def test_the_share_is_drawn_from_the_seed_and_the_clip_and_nothing_else(tmp_path: Path, many: Made) -> None:
    def clips(made: Made, seed: int) -> list[str]:
        return [span.clip for span in find_spans(made.open(), 0, [PATCH], splits_wanted="train", share=0.25, seed=seed)]

    chosen = clips(many, 1)
    assert chosen == ["c0", "c3", "c6", "c12", "c13", "c18", "c21", "c25"], "the choice of clips must never change"
    assert clips(many, 2) != chosen
    other = make_cache(tmp_path, lengths=[5, 2] * 20, failed=[3, 6], rows_per_unit=10, store="webdataset")
    assert clips(other, 1) == [clip for clip in chosen if clip not in ("c3", "c6")]  # failing brings no other in


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01])
def test_an_impossible_share_is_refused(many: Made, share: float) -> None:
    with pytest.raises(ValueError, match=f"share {share} is not"):
        find_spans(many.open(), 0, [PATCH], splits_wanted="train", share=share, seed=0)


def test_a_unit_that_is_not_committed_is_named_when_its_clips_are_wanted(tmp_path: Path) -> None:
    made = make_cache(tmp_path, lengths=(8, 8, 8, 8, 8), failed=(), units=[4])
    assert [span.unit for span in find_spans(made.open(), 0, [CLS], splits_wanted="val", seed=0)] == [4]
    with pytest.raises(CacheError, match=r"Unit 0 of column 'clip.cls' is not committed"):
        find_spans(made.open(), 0, [CLS], splits_wanted="train", seed=0)
    for unit in range(4):
        commit(made, unit)
    assert len(find_spans(made.open(), 0, [CLS], splits_wanted="train", seed=0)) == 4


def test_a_partial_export_has_the_spans_of_its_units(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "all", lengths=(8, 8, 8, 8), failed=())
    part = export(made.open(), tmp_path / "part", to="zarr", units=[1, 3])
    assert [span.clip for span in find_spans(part, 0, [CLS], splits_wanted="train", seed=0)] == ["c1", "c3"]


def test_an_unknown_column_is_an_error_and_an_unknown_split_is_empty(many: Made) -> None:
    with pytest.raises(CacheError, match="no column 'dino'"):
        find_spans(many.open(), 0, ["dino"], splits_wanted="train", seed=0)
    assert not find_spans(many.open(), 0, [PATCH], splits_wanted="test", seed=0)


def test_an_index_without_a_timestamp_for_every_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"index.parquet(.|\n)*not where they can be"):
        make_timed(tmp_path, [3, 2], [[0.0, 1.0, 2.0], [0.0]])
    with pytest.raises(CacheError, match=r"index.parquet(.|\n)*not where they can be"):
        find_spans(open_cache(tmp_path), 0, [PATCH], splits_wanted="train", seed=0)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """40 clips, of which 32 are to train on."""
    return make_cache(tmp_path_factory.mktemp("many"), lengths=[2] * 40, failed=(), rows_per_unit=20)
