"""The stream of segments: every visit once an epoch, every needed row in its span, and the same for ever."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frame.train.windows import Segment, Span, SpanTable, WindowPlan, WindowShape, fitting

shapes = st.builds(WindowShape, windows=st.integers(1, 4), past=st.integers(0, 5), future=st.integers(0, 4))


def spans_of(lengths: list[int]) -> list[Span]:
    """A clip of each length, with gaps between them."""
    starts = np.cumsum([0, *(length + 3 for length in lengths[:-1])])
    return [
        Span(cache=i % 2, clip=f"c{i}", unit=int(start) // 16, start=int(start), stop=int(start) + length)
        for i, (start, length) in enumerate(zip(starts, lengths, strict=False))
    ]


@st.composite
def plans(draw: st.DrawFn) -> WindowPlan:
    shape = draw(shapes)
    lengths = draw(st.lists(st.integers(shape.reach + 1, shape.reach + 20), min_size=1, max_size=9))
    return WindowPlan(
        spans_of(lengths),
        shape,
        seed=draw(st.integers(0, 2**64 - 1)),
        max_stride=draw(st.integers(1, 4)),
        visits=draw(st.integers(1, 3)),
    )


@given(plan=plans(), epoch=st.integers(0, 2**20))
def test_an_epoch_visits_every_span_equally_often_and_stays_inside_it(plan: WindowPlan, epoch: int) -> None:
    shape = plan.shape
    segments = plan.segments(epoch * plan.per_epoch, (epoch + 1) * plan.per_epoch)
    spans = {span.clip: span for span in plan.spans}
    visits = dict.fromkeys(spans, 0)
    for segment in segments:
        span = spans[segment.clip]
        visits[segment.clip] += 1
        assert (segment.cache, segment.unit, segment.floor) == (span.cache, span.unit, span.start)
        assert segment.windows == shape.windows
        assert 1 <= segment.stride <= plan.max_stride
        for step in range(shape.windows + shape.future):
            assert span.start <= segment.row(step) < span.stop
            assert segment.present(step)
        for step in range(-shape.past, 0):
            assert segment.row(step) == segment.first + step * segment.stride
            assert segment.present(step) == (segment.row(step) >= span.start)
    assert set(visits.values()) == {plan.visits}


@given(plan=plans(), start=st.integers(0, 50), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_a_segment_depends_on_its_position_only(plan: WindowPlan, start: int, sizes: list[int]) -> None:
    twin = copy.deepcopy(plan)
    stream = [plan.segment(position) for position in range(100)]
    for size in sizes:
        step = start // size
        assert twin.batch(step, size) == plan.batch(step, size) == twin.segments(step * size, (step + 1) * size)
        assert twin.batch(step, size) == [plan.segment(step * size + i) for i in range(size)]
    assert [twin.segment(position) for position in reversed(range(100))] == stream[::-1]


@given(shape=shapes, lengths=st.lists(st.integers(1, 12), max_size=9))
def test_a_span_fits_when_all_current_frames_and_futures_do(shape: WindowShape, lengths: list[int]) -> None:
    spans = spans_of(lengths)
    wanted = [span for span in spans if span.stop - span.start >= shape.windows + shape.future]
    assert list(fitting(spans, shape)) == wanted
    assert list(fitting(SpanTable.of(spans), shape)) == wanted
    if len(wanted) < len(spans) or not spans:
        with pytest.raises(ValueError, match=f"{len(spans)} spans, of which {len(wanted)} admit"):
            WindowPlan(spans, shape, seed=0, max_stride=1)


def test_every_stride_and_first_row_that_fits_is_drawn_and_strides_equally_often() -> None:
    shape = WindowShape(windows=2, past=1, future=2)
    plan = WindowPlan(spans_of([11]), shape, seed=5, max_stride=4)
    drawn = [(segment.stride, segment.first) for segment in plan.segments(0, 1500)]
    assert set(drawn) == {(stride, first) for stride in (1, 2, 3) for first in range(11 - 3 * stride)}
    counts = np.bincount([stride for stride, _ in drawn])[1:]
    assert abs(counts - 500).max() < 80  # four standard deviations
    assert {segment.stride for segment in WindowPlan(spans_of([11]), shape, 5, 2).segments(0, 100)} == {1, 2}


def test_a_segment_of_a_single_frame_may_lie_anywhere() -> None:
    plan = WindowPlan(spans_of([3]), WindowShape(windows=1, past=2, future=0), seed=0, max_stride=4)
    drawn = {(segment.stride, segment.first) for segment in plan.segments(0, 300)}
    assert drawn == {(stride, first) for stride in (1, 2, 3, 4) for first in (0, 1, 2)}


def test_epochs_seeds_and_visits_differ() -> None:
    spans, shape = spans_of([30] * 40), WindowShape(windows=1, past=0, future=0)
    plan, other = (WindowPlan(spans, shape, seed=seed, max_stride=1, visits=2) for seed in (0, 1))
    epochs = [plan.batch(0, 80), plan.batch(1, 80), other.batch(0, 80)]
    orders = [[segment.clip for segment in epoch] for epoch in epochs]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    places = [sorted((segment.clip, segment.first) for segment in epoch) for epoch in epochs]
    assert places[0] != places[1] != places[2] != places[0]
    twice = {clip: {first for name, first in places[0] if name == clip} for clip in orders[0]}
    assert sum(len(firsts) == 2 for firsts in twice.values()) > 30  # two visits are two places


def test_more_spans_do_not_move_the_segments_of_the_others() -> None:
    shape = WindowShape(windows=2, past=2, future=1)
    few, more = (WindowPlan(spans_of([20] * n), shape, seed=3, max_stride=4) for n in (5, 9))
    kept = {segment.clip: segment for segment in more.batch(0, 9)}
    assert all(kept[segment.clip] == segment for segment in few.batch(0, 5))


# cache, clip, unit, first, stride, floor, windows
GOLDEN = [
    (0, "c4", 4, 71, 2, 71, 2),
    (0, "c4", 4, 71, 2, 71, 2),
    (1, "c3", 2, 45, 4, 38, 2),
    (1, "c1", 0, 15, 3, 12, 2),
    (0, "c0", 0, 4, 1, 0, 2),
    (0, "c0", 0, 1, 2, 0, 2),
    (0, "c2", 1, 31, 1, 29, 2),
    (1, "c1", 0, 12, 4, 12, 2),
    (0, "c2", 1, 30, 1, 29, 2),
    (1, "c3", 2, 43, 1, 38, 2),
    (0, "c0", 0, 0, 2, 0, 2),
    (0, "c0", 0, 5, 1, 0, 2),
    (1, "c1", 0, 21, 1, 12, 2),
]
GOLDEN_FAR = ("c2", 30, 1)


def test_the_stream_of_a_seed_never_changes() -> None:
    """Frozen: a change here would make every run that is resumed see other frames."""
    plan = WindowPlan(
        spans_of([9, 14, 6, 30, 8]), WindowShape(windows=2, past=3, future=2), seed=1234, max_stride=4, visits=2
    )
    got = [(s.cache, s.clip, s.unit, s.first, s.stride, s.floor, s.windows) for s in plan.segments(0, 13)]
    assert got == GOLDEN
    far = plan.segment(10**12)
    assert (far.clip, far.first, far.stride) == GOLDEN_FAR


def test_the_random_bits_are_those_that_were_published() -> None:
    """Philox4x64-10 at counter 0 and key 0, from Random123's known answers. NumPy counts before it draws."""
    philox = np.random.Philox(key=np.zeros(2, dtype=np.uint64), counter=np.full(4, 2**64 - 1, dtype=np.uint64))
    assert [hex(word) for word in philox.random_raw(4)] == [
        "0x16554d9eca36314c",
        "0xdb20fe9d672d0fdc",
        "0xd7e772cee186176b",
        "0x7e68b68aec7ba23b",
    ]


def test_a_plan_travels_without_the_order_it_has_drawn() -> None:
    plan = WindowPlan(spans_of([9] * 2000), WindowShape(windows=1, past=0, future=0), seed=0, max_stride=1, visits=50)
    before = pickle.dumps(plan)
    plan.segment(0)
    assert pickle.dumps(plan) == before
    assert len(before) < 100_000


@pytest.mark.parametrize("wrong", [{"windows": 0}, {"past": -1}, {"future": -1}])
def test_an_impossible_shape_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="impossible shape"):
        WindowShape(**{"windows": 1, "past": 0, "future": 0, **wrong})


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**64}, {"max_stride": 0}, {"visits": 0}])
def test_an_impossible_plan_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="impossible seed"):
        WindowPlan(
            spans_of([9]),
            WindowShape(windows=1, past=0, future=0),
            **{"seed": 0, "max_stride": 1, "visits": 1, **wrong},
        )


def test_the_past_of_a_segment_at_a_span_s_beginning_is_absent() -> None:
    segment = Segment(cache=0, clip="c", unit=0, first=12, stride=3, floor=8, windows=2)
    assert [segment.row(step) for step in (-2, -1, 0, 1)] == [6, 9, 12, 15]
    assert [segment.present(step) for step in (-2, -1, 0)] == [False, True, True]
