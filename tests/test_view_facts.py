"""What a page shows of a cache: which clips and frames, cosines, failures, labels, time, and numbers for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from view_caches import make

from frame.pipeline.view.choose import MOST_FRAMES, choose_clips
from frame.pipeline.view.curves import axis_floor, chart, mean_cosine, similarity, similarity_picture, unit
from frame.pipeline.view.facts import failure_groups, label_counts, time_spent
from frame.pipeline.view.text import duration, lost, size


def test_clips_are_chosen_by_lot_and_of_every_label_first(tmp_path: Path) -> None:
    cache = make(tmp_path / "cache", lengths=[2] * 12).open()
    draws = {tuple(clip.position for clip in choose_clips(cache, count=3, seed=seed)) for seed in range(8)}
    assert len(draws) > 1
    for draw in draws:
        assert list(draw) == sorted(set(draw))
        assert len({position % 2 for position in draw}) == 2
        assert 2 in draw  # the only one of its split
    assert len(choose_clips(cache, count=99, seed=0)) == 12


def test_long_clips_are_shown_evenly_from_the_first_frame_to_the_last(tmp_path: Path) -> None:
    (clip,) = choose_clips(make(tmp_path / "cache", lengths=[150]).open(), count=1, seed=0)
    assert (clip.frames[0], clip.frames[-1], len(clip.frames)) == (0, 149, MOST_FRAMES)
    assert set(np.diff(clip.frames)) == {2, 3}


def test_cosines_and_their_axis() -> None:
    a = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit(a), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert mean_cosine(unit(a[:1]), unit(a[:1] * 7)) == pytest.approx(1)
    np.testing.assert_allclose(similarity(np.eye(3)), np.eye(3))
    shown = similarity_picture(np.array([[1.0, 0.5], [0.0, 1.0]]), low=0.5)
    assert shown[0, 0].tolist() == [253, 231, 37]
    assert shown[0, 1].tolist() == shown[1, 0].tolist() == [68, 1, 84]
    assert [axis_floor(values) for values in ([1.0], [0.987, 1], [0.63], [-1.0], [])] == [0.99, 0.98, 0.6, -1, 0.99]
    drawn = chart([1.0, 0.75, 0.5], [0.75, 0.75], low=0.5)
    assert drawn.to_first == "M0.00 0.00L50.00 50.00L100.00 100.00"
    assert drawn.to_previous == "M50.00 50.00L100.00 50.00"


def test_failures_are_grouped_and_labels_counted(tmp_path: Path) -> None:
    why = {f"clip{i}": ("corrupt", f"bad {i}") for i in range(45)}
    cache = make(tmp_path / "cache", lengths=[1] * 46 + [0], failed=why).open()
    groups = failure_groups(cache)
    assert [(group.reason, group.count, len(group.clips), group.more) for group in groups] == [
        ("corrupt", 45, 40, 5),
        ("demux", 1, 1, 0),
    ]
    counts = label_counts(cache)
    assert counts.splits == ("train", "val")
    assert counts.rows == (("", (23, 1), 24, 23), ("a", (23, 0), 23, 23))
    assert counts.total == ((46, 1), 47, 46)


def test_the_limit_is_the_stage_whose_workers_were_busiest() -> None:
    line = {"units": 1, "rows": 10, "wall": 10.0, "seconds": {"decode": 16.0, "resize": 1.0, "teacher": 8.0}}
    assert time_spent([]) is None
    assert time_spent([{**line, "seconds": {}}]) is None
    alone = time_spent([line, line])
    assert alone
    assert (alone.limit, alone.busy, alone.builds, alone.rows, alone.wall) == ("decoding", None, 2, 20, 20)
    assert alone.stages[0] == ("decode", 32.0, 0.64)
    known = time_spent([{**line, "workers": {"decode": 4, "teach": 1, "write": 1}}])
    assert known
    assert (known.limit, known.busy) == ("the teachers", 0.9)


def test_numbers_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 1_500_000, 2e9, 3e12)] == [
        "0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB", "3.00 TB",
    ]  # fmt: skip
    assert [duration(n) for n in (1.23, 59, 600, 9000)] == ["1.2 s", "59 s", "10 min", "2.5 h"]
    assert [lost(n) for n in (None, 1.0, 0.99998, 0.99)] == ["–", "< 1e-7", "2e-5", "0.0100"]
