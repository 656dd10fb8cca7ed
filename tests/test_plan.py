from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_videos import write_folder

from frame.manifests.errors import InputError
from frame.manifests.rows import ClipSource
from frame.pipeline.decode import ClipError, Probe
from frame.pipeline.options import BuildOptions
from frame.pipeline.plan import Plan, frames_column, make_plan, probe_clips, rows_per_unit
from frame.pipeline.store.columns import FRAMES
from frame.pipeline.store.index import RowMap, lay_out, read_index


def clip(name: str) -> ClipSource:
    return ClipSource(clip=name, source=f"{name}.mp4", split="train", label="", start=None, end=None, frame_rate=None)


def probe(frames: int, *, height: int = 72, width: int = 96) -> Probe:
    return Probe(
        width=width,
        height=height,
        rotation=0,
        timestamps=tuple(i / 10 for i in range(frames)),
        rate=10.0,
        codec="h264",
        container="mp4",
        bytes=100,
        sha256="0" * 64,
    )


def planned(probes: list[Probe | ClipError], **changes: Any) -> Plan:
    options = BuildOptions(**{"dataset": "folder", "source": Path("x"), "teachers": ("t",), "size": 32, **changes})
    clips = [clip(f"c{i:03d}") for i in range(len(probes))]
    columns = {FRAMES: frames_column(32)}
    return make_plan(options, clips, probes, columns=columns, teachers={}, licence="none")


@given(st.lists(st.integers(0, 90), max_size=40), st.integers(1, 40))
def test_units_hold_every_row_once_and_cut_only_long_clips(lengths: list[int], unit: int) -> None:
    first, rows = lay_out(lengths, unit=unit)
    assert rows % unit == 0
    assert rows >= unit
    taken: set[int] = set()
    for start, length in zip(first, lengths, strict=True):
        mine = set(range(start, start + length))
        assert not mine & taken
        taken |= mine
        if length <= unit and length:
            assert start // unit == (start + length - 1) // unit
        elif length:
            assert start % unit == 0
    assert not taken or max(taken) < rows
    assert rows - unit <= max(taken, default=0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 30))
def test_the_index_gives_back_every_row(lengths: list[int], unit: int) -> None:
    plan = planned([probe(n) for n in lengths], unit_rows=unit)
    rows = RowMap(plan.index, rows_per_unit=unit)
    found: dict[str, list[int]] = {}
    for number in range(plan.meta.units):
        for part in rows.clips(number):
            assert part.first_frame == len(found.get(part.clip, []))
            found.setdefault(part.clip, []).extend(number * unit + row for row in range(part.start, part.stop))
    for entry in read_index(plan.index_file).to_pylist():
        assert found[entry["clip"]] == list(range(entry["first_row"], entry["first_row"] + entry["n_frames"]))


def test_a_clip_that_cannot_be_probed_keeps_its_place_and_its_reason() -> None:
    plan = planned([probe(5), ClipError("empty", "no bytes"), probe(7)], unit_rows=8)
    entry = plan.index.to_pylist()[1]
    assert (entry["n_frames"], entry["error"]) == (0, "empty: no bytes")
    rows = RowMap(plan.index, rows_per_unit=8)
    assert [position for unit in range(plan.meta.units) for position in rows.rowless(unit)] == [1]


def test_a_source_without_any_readable_clip_is_refused_with_reasons() -> None:
    with pytest.raises(InputError, match="empty: no bytes"):
        planned([ClipError("empty", "no bytes")])


def test_a_sliver_is_no_square() -> None:
    plan = planned([probe(3), probe(3, height=8, width=8000)])
    assert plan.index.to_pylist()[1]["error"].startswith("too-narrow")
    assert planned([probe(3), probe(3, height=8, width=8000)], fit="squash").index.to_pylist()[1]["n_frames"] == 3


def test_the_plan_is_the_same_each_time_and_differs_with_its_options() -> None:
    probes: list[Probe | ClipError] = [probe(5), probe(9)]
    assert planned(probes).meta.plan_id == planned(probes).meta.plan_id
    assert planned(probes).index_file == planned(probes).index_file
    others = [planned(probes, **change).meta.plan_id for change in ({"fps": 5.0}, {"fit": "squash"}, {"unit_rows": 3})]
    assert len({planned(probes).meta.plan_id, *others}) == 4


def test_units_are_whole_batches_of_some_128_mib_and_small_for_huge_videos() -> None:
    options = BuildOptions(dataset="folder", source=Path("x"), teachers=("t",), size=224)
    columns = {FRAMES: frames_column(224)}
    usual = rows_per_unit(columns, options, rows=10**6, frame_bytes=340 * 256 * 3)
    assert usual % options.batch_rows == 0
    assert 64 << 20 <= usual * columns[FRAMES].row_bytes <= 256 << 20
    huge = rows_per_unit(columns, options, rows=10**6, frame_bytes=3840 * 2160 * 3)
    assert huge == options.batch_rows
    assert rows_per_unit(columns, options, rows=40, frame_bytes=1) == 32
    assert rows_per_unit(columns, options, rows=32 * 100, frame_bytes=1) == 128
    assert rows_per_unit(columns, options, rows=0, frame_bytes=1) == 32


def test_real_files_are_probed_side_by_side_and_bad_ones_yield_their_error(tmp_path: Path) -> None:
    write_folder(tmp_path, [4, 7, 5], bad=2)
    names = sorted(path.stem for path in tmp_path.iterdir())
    ticks: list[int] = []
    found = probe_clips([clip(name) for name in names], tmp_path, processes=2, tick=lambda: ticks.append(1))
    assert [len(item.timestamps) for item in found if isinstance(item, Probe)] == [4, 7, 5]
    assert sum(isinstance(item, ClipError) for item in found) == 2
    assert len(ticks) == 5
    first = found[0]
    assert isinstance(first, Probe)
    assert (first.height, first.width) == (72, 96)
    np.testing.assert_allclose(np.diff(first.timestamps), 1 / 12, atol=1e-6)
