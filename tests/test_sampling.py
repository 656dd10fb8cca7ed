from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frame.pipeline.sampling import choose_frames

TIMES = st.lists(st.floats(0.001, 0.5), min_size=1, max_size=60).map(
    lambda gaps: [sum(gaps[:i]) for i in range(len(gaps))]
)


def test_native_takes_every_frame() -> None:
    times = [0.0, 0.04, 0.08]
    assert choose_frames(times) == times


def test_half_the_rate_takes_every_second_frame() -> None:
    times = [i / 30 for i in range(31)]
    assert choose_frames(times, fps=15) == times[::2]


def test_a_tick_takes_the_frame_that_is_shown_then() -> None:
    # Shown from 0.0, 0.3, 0.9; ticks at 0, 0.5, 1.0 (the last frame begins at 0.9, so no later tick exists).
    assert choose_frames([0.0, 0.3, 0.9], fps=2) == [0.0, 0.3]


def test_a_rate_above_the_source_takes_no_frame_twice() -> None:
    times = [0.0, 0.5, 1.0]
    assert choose_frames(times, fps=100) == times


def test_frames_per_clip_come_from_the_middle() -> None:
    assert choose_frames([float(i) for i in range(10)], frames_per_clip=4) == [3.0, 4.0, 5.0, 6.0]


def test_nothing_from_nothing() -> None:
    assert choose_frames([], fps=5, frames_per_clip=3) == []


@given(TIMES, st.floats(0.5, 60) | st.none(), st.integers(1, 20) | st.none())
def test_chosen_frames_are_increasing_and_of_the_clip(times: list[float], fps: float | None, most: int | None) -> None:
    chosen = choose_frames(times, fps=fps, frames_per_clip=most)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(times)
    assert 1 <= len(chosen) <= (most or len(times))


@given(TIMES, st.floats(0.5, 60))
def test_every_tick_is_served_by_the_latest_frame_before_it(times: list[float], fps: float) -> None:
    chosen = choose_frames(times, fps=fps)
    tick = times[0]
    count = 0
    while tick <= times[-1] and count < 2000:
        shown = max(time for time in times if time <= tick + 1e-6)
        assert shown in chosen
        count += 1
        tick = times[0] + count / fps
