"""Batches against the caches they are read from, and one order for any number of parts, ranks and processes."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_caches import CLS, PATCH, WIDTH, Made, make_cache

from frame.manifests.errors import InputError
from frame.pipeline.store import Cache, CacheError
from frame.train.batches import Batch, BatchDataset, SegmentReader, Steps, batches
from frame.train.windows import Segment, SpanTable, WindowPlan, WindowShape, find_spans, fitting

SHAPE = WindowShape(windows=2, past=3, future=4)
COLUMNS = {"frames": Steps(first=-3, stop=2), PATCH: Steps(first=0, stop=4), CLS: Steps(first=0, stop=6)}
LENGTHS = (9, 30, 0, 7, 14, 11, 6, 23, 12)
KINDS = [(s, e) for s in ("zarr", "webdataset") for e in ("float16", "int8")]

Caches = dict[tuple[str, str], Made]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Caches:
    """A cache of each kind, with clips longer than a unit, too short for a segment, and failed ones."""
    root = tmp_path_factory.mktemp("caches")
    return {
        (store, encoding): make_cache(
            root / f"{store}-{encoding}",
            lengths=LENGTHS,
            failed=(5,),
            store=store,  # type: ignore[arg-type]
            encoding=encoding,  # type: ignore[arg-type]
            rows_per_unit=16,
            seed=number,
        )
        for number, (store, encoding) in enumerate(KINDS)
    }


def plan_for(caches: Sequence[Cache], *, max_stride: int = 3) -> WindowPlan:
    tables = [find_spans(cache, i, COLUMNS, splits_wanted="train", seed=0) for i, cache in enumerate(caches)]
    return WindowPlan(fitting(SpanTable.joined(tables), SHAPE), SHAPE, seed=7, max_stride=max_stride, visits=2)


def dataset_of(*made: Made, size: int = 4, **parts: int) -> BatchDataset:
    caches = [each.open() for each in made]
    return BatchDataset(plan=plan_for(caches), reader=SegmentReader(caches, COLUMNS), size=size, **parts)


def same(a: Batch, b: Batch) -> bool:
    return (
        a.segments == b.segments
        and torch.equal(a.present, b.present)
        and a.columns.keys() == b.columns.keys()
        and all(torch.equal(a.columns[name], b.columns[name]) for name in a.columns)
    )


def got(item: Batch | InputError) -> Batch:
    assert isinstance(item, Batch), item
    return item


def check_values(batch: Batch, made: Sequence[Made]) -> None:
    """Every value of every step: the model's, or zeros for an absent past."""
    for name, steps in COLUMNS.items():
        found = batch.columns[name].numpy()
        assert found.shape[:2] == (len(batch.segments), steps.stop - steps.first)
        values = [each.values(name) for each in made]
        readable = [each.readable(name) for each in made]
        assert found.dtype == values[0].dtype
        for segment, rows in zip(batch.segments, found, strict=True):
            clip = (
                made[segment.cache]
                .table.filter(
                    np.array([each == segment.clip for each in made[segment.cache].table.column("clip").to_pylist()])
                )
                .to_pylist()[0]
            )
            for step, row in enumerate(rows, start=steps.first):
                number = segment.row(step)
                if not segment.present(step):
                    assert step < 0
                    assert not row.any()
                    continue
                assert readable[segment.cache][number]
                assert number // 16 == segment.unit
                assert clip["first_row"] <= number < clip["first_row"] + clip["n_frames"]
                assert row.tobytes() == values[segment.cache][number].tobytes()
    expected = [[segment.present(step) for step in range(-3, 2)] for segment in batch.segments]
    assert batch.present.tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_holds_the_cache_s_own_values(made: Caches, kind: tuple[str, str]) -> None:
    dataset = dataset_of(made[kind])
    found = [got(dataset[micro]) for micro in range(12)]
    for batch in found:
        check_values(batch, [made[kind]])
    present = torch.cat([batch.present for batch in found])
    assert present.all(1).any()
    assert not present[:, 0].all()
    assert present[:, 3:].all()
    assert {segment.stride for batch in found for segment in batch.segments} == {1, 2, 3}


def test_batches_mix_caches(made: Caches) -> None:
    mixed = [made["zarr", "float16"], made["webdataset", "int8"]]
    dataset = dataset_of(*mixed, size=6)
    found = [got(dataset[micro]) for micro in range(6)]
    assert {segment.cache for batch in found for segment in batch.segments} == {0, 1}
    for batch in found:
        check_values(batch, mixed)


def test_each_row_is_read_once_a_segment_and_column_and_a_run_of_rows_at_once(made: Caches) -> None:
    cache = made["zarr", "float16"].open()
    plan, reader = plan_for([cache]), SegmentReader([cache], COLUMNS)
    read = Cache.read
    for segment in plan.segments(0, 60):
        asked: list[tuple[str, int, int]] = []

        def spy(
            self: Cache, column: str, start: int, stop: int, asked: list[tuple[str, int, int]] = asked
        ) -> np.ndarray:
            asked.append((column, start, stop))
            return read(self, column, start, stop)

        with mock.patch.object(Cache, "read", spy):
            reader.read([segment])
        wanted = Counter(
            (name, segment.row(step))
            for name, steps in COLUMNS.items()
            for step in range(steps.first, steps.stop)
            if segment.present(step)
        )
        assert Counter((name, row) for name, start, stop in asked for row in range(start, stop)) == wanted
        assert set(wanted.values()) == {1}
        assert len(asked) == (len(COLUMNS) if segment.stride == 1 else len(wanted))


def test_a_column_of_nothing_but_absent_steps_is_zeros(made: Caches) -> None:
    reader = SegmentReader([made["zarr", "float16"].open()], {PATCH: Steps(first=-2, stop=0)})
    batch = reader.read([Segment(cache=0, clip="c0", unit=0, first=0, stride=2, floor=0, windows=1)])
    assert batch.columns[PATCH].shape == (1, 2, 3, WIDTH)
    assert not batch.columns[PATCH].any()
    assert batch.present.tolist() == [[False, False, True]]


@settings(max_examples=60)
@given(
    ranks=st.sampled_from([1, 2, 4]),
    accumulation=st.integers(1, 3),
    each=st.integers(1, 3),
    step=st.integers(0, 10**6),
)
def test_parts_and_ranks_in_order_are_the_global_batch(
    made: Caches, ranks: int, accumulation: int, each: int, step: int
) -> None:
    size = ranks * accumulation * each
    parts: dict[str, int] = {"size": size, "ranks": ranks, "accumulation": accumulation}
    found = [
        segment
        for part in range(accumulation)
        for rank in range(ranks)
        for segment in dataset_of(made["zarr", "float16"], rank=rank, **parts).segments(step * accumulation + part)
    ]
    assert found == plan_for([made["zarr", "float16"].open()]).batch(step, size)


def test_what_ranks_read_is_what_one_process_reads(made: Caches) -> None:
    one = made["webdataset", "float16"]
    whole = [got(dataset_of(one, size=8)[step]) for step in range(3)]
    for step, batch in enumerate(whole):
        parts = [
            got(dataset_of(one, size=8, rank=rank, ranks=2, accumulation=2)[2 * step + part])
            for part in range(2)
            for rank in range(2)
        ]
        assert tuple(segment for part in parts for segment in part.segments) == batch.segments
        for name in COLUMNS:
            assert torch.equal(torch.cat([part.columns[name] for part in parts]), batch.columns[name])
        assert torch.equal(torch.cat([part.present for part in parts]), batch.present)


def test_starting_later_is_the_same_as_skipping(made: Caches) -> None:
    dataset = dataset_of(made["zarr", "int8"])
    whole = list(batches(dataset, 0, 7, workers=0, pin=False))
    assert len(whole) == 7
    for first in range(8):
        rest = list(batches(copy.deepcopy(dataset), first, 7, workers=0, pin=False))
        assert len(rest) == 7 - first
        assert all(map(same, rest, whole[first:]))


def test_reading_leaves_global_randomness_alone(made: Caches) -> None:
    before, legacy = torch.get_rng_state(), pickle.dumps(np.random.get_state())
    list(batches(dataset_of(made["zarr", "float16"]), 0, 2, workers=0, pin=False))
    assert torch.equal(torch.get_rng_state(), before)
    assert pickle.dumps(np.random.get_state()) == legacy


def test_a_dataset_is_cheap_to_send(made: Caches) -> None:
    dataset = dataset_of(made["zarr", "float16"])
    before = pickle.dumps(dataset)
    got(dataset[0])
    assert pickle.dumps(dataset) == before
    assert len(before) < 20_000


def test_a_batch_that_cannot_be_shared_out_is_refused(made: Caches) -> None:
    with pytest.raises(
        InputError, match=r"a batch of 10 segments of 2(.|\n)*4 process(.|\n)*12 shares(.|\n)*example 12"
    ):
        dataset_of(made["zarr", "float16"], size=10, ranks=4, accumulation=3)
    for wrong in ({"size": 0}, {"rank": 2, "ranks": 2}, {"rank": -1}, {"accumulation": 0}, {"ranks": 0}):
        with pytest.raises(ValueError, match="impossible size"):
            dataset_of(made["zarr", "float16"], **wrong)


@pytest.mark.parametrize("steps", [Steps(first=-4, stop=1), Steps(first=0, stop=7)])
def test_columns_beyond_the_windows_are_refused(made: Caches, steps: Steps) -> None:
    cache = made["zarr", "float16"].open()
    with pytest.raises(ValueError, match=r"clip.cls: Steps.*do not lie within WindowShape"):
        BatchDataset(plan=plan_for([cache]), reader=SegmentReader([cache], {CLS: steps}), size=1)


def test_impossible_reads_are_refused(tmp_path: Path, made: Caches) -> None:
    cache = made["zarr", "float16"].open()
    with pytest.raises(ValueError, match="no steps from 1 to 1"):
        Steps(first=1, stop=1)
    for caches, columns in (([], COLUMNS), ([cache], {})):
        with pytest.raises(ValueError, match="nothing to read"):
            SegmentReader(caches, columns)
    with pytest.raises(ValueError, match="no segments"):
        SegmentReader([cache], COLUMNS).read([])
    with pytest.raises(CacheError, match="no column 'dino'"):
        SegmentReader([cache], {"dino": Steps(first=0, stop=1)})
    with mock.patch("store_caches.WIDTH", 6):
        wider = make_cache(tmp_path).open()
    with pytest.raises(InputError, match=r"'clip.cls' differs(.|\n)*float16 \(6,\) there, float16 \(5,\) in"):
        SegmentReader([cache, wider], {CLS: Steps(first=0, stop=1)})


def test_a_batch_goes_to_a_device_and_names_its_rows(made: Caches) -> None:
    batch = got(dataset_of(made["zarr", "float16"])[0])
    there = batch.to("meta", non_blocking=True)
    assert {x.device.type for x in there.columns.values()} == {"meta"}
    assert there.present.device.type == "cpu"
    assert there.segments is batch.segments
    assert same(batch.to(torch.device("cpu")), batch)
    segment = Segment(cache=1, clip="street/7", unit=0, first=12, stride=3, floor=8, windows=4)
    named = Batch(columns={}, present=batch.present, segments=(segment,))
    assert named.rows() == ["1/street/7 rows 12..21 step 3"]


def test_full_shared_memory_is_an_error_a_person_can_mend(made: Caches) -> None:
    batch = got(dataset_of(made["zarr", "float16"])[0])
    refused = RuntimeError("unable to allocate shared memory(shm): No space left on device (28)\nmore")
    with (
        mock.patch.object(torch.Tensor, "share_memory_", side_effect=refused),
        pytest.raises(InputError, match=r"/dev/shm(.|\n)*No space left on device \(28\)\n(.|\n)*--workers 0"),
    ):
        batch.share_memory()
    assert same(batch.share_memory(), batch)
    assert all(x.untyped_storage().is_shared() for x in (*batch.columns.values(), batch.present))


def test_a_mistake_in_the_program_stays_what_it_is(made: Caches) -> None:
    with (
        mock.patch.object(SegmentReader, "read", side_effect=RuntimeError("a mistake")),
        pytest.raises(RuntimeError, match=r"^a mistake$"),
    ):
        next(batches(dataset_of(made["zarr", "float16"]), 0, 1, workers=0, pin=False))


def damaged_cache(path: Path) -> tuple[Made, Path]:
    """A cache in which a byte of the frames of the last unit is flipped."""
    made = make_cache(path, lengths=[16] * 12, failed=(), rows_per_unit=16)
    shard = path / "frames/c/11/0/0/0"
    data = bytearray(shard.read_bytes())
    for place in range(0, 16 * 52, 52):  # every row: 4 x 4 x 3 bytes and their checksum
        data[place] ^= 1
    shard.write_bytes(data)
    return made, shard


def until_error(stream: Iterator[Batch]) -> tuple[list[Batch], InputError]:
    found: list[Batch] = []
    with pytest.raises(InputError) as error:
        found.extend(stream)
    return found, error.value


def test_other_processes_give_the_same_batches_and_the_same_error_in_its_place(tmp_path: Path) -> None:
    made, shard = damaged_cache(tmp_path)
    found, error = until_error(batches(dataset_of(made, size=1), 0, 100, workers=0, pin=False))
    there, other = until_error(batches(dataset_of(made, size=1), 0, 100, workers=2, pin=False))
    assert 3 < len(found) == len(there) < 20
    assert all(map(same, found, there))
    assert type(error) is type(other) is CacheError
    assert error.where == str(shard)
    assert (error.what, error.where, error.why, error.fix) == (other.what, other.where, other.why, other.fix)
    assert multiprocessing.active_children() == []


def test_a_process_goes_on_when_asked_to_stop_and_is_missed_when_killed(made: Caches) -> None:
    dataset = dataset_of(made["zarr", "float16"])
    stream = batches(dataset, 0, 10**6, workers=1, pin=False)
    assert same(next(stream), got(dataset[0]))
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    status = Path(f"/proc/{worker.pid}/status").read_text()
    server = int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
    assert server != os.getpid()
    for process in (server, worker.pid):  # what a scheduler or a terminal sends to the whole group
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(process, number)
    for micro in range(1, 20):
        assert same(next(stream), got(dataset[micro]))
    os.kill(worker.pid, signal.SIGKILL)
    _, error = until_error(stream)
    assert type(error) is InputError
    assert error.what == "A process that reads the caches is gone."
    assert multiprocessing.active_children() == []
    assert "--workers 0" in error.fix


RANK = """
import json, sys
import torch.distributed as dist
from frame.pipeline.store import open_cache
from frame.train.batches import BatchDataset, SegmentReader, Steps, batches
from frame.train.windows import WindowPlan, WindowShape, find_spans, fitting

path, meeting, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
cache, shape = open_cache(path), WindowShape(windows=2, past=3, future=4)
columns = {"dino.patch": Steps(first=-3, stop=6)}
spans = fitting(find_spans(cache, 0, columns, splits_wanted="train", seed=0), shape)
plan = WindowPlan(spans, shape, seed=7, max_stride=3, visits=2)
reader = SegmentReader([cache], columns)
dataset = BatchDataset(plan=plan, reader=reader, size=8, rank=rank, ranks=2, accumulation=2)
order = []
for batch in batches(dataset, 2, 10, workers=0, pin=False):
    sums = [float(x.float().sum()) for x in batch.columns["dino.patch"]]
    mine = [(s.clip, s.first, s.stride, total) for s, total in zip(batch.segments, sums)]
    everyone = [None, None]
    dist.all_gather_object(everyone, mine)
    order += [segment for each in everyone for segment in each]
if rank == 0:
    print(json.dumps(order))
dist.destroy_process_group()
"""


def test_two_processes_of_a_training_see_together_what_one_would(tmp_path: Path, made: Caches) -> None:
    """Steps 1 to 4 of batches of 8, by two ranks in two parts each."""
    one = made["zarr", "float16"]
    start = [sys.executable, "-c", RANK, str(one.path), str(tmp_path / "meeting")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen([*start, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    cache = one.open()
    reader = SegmentReader([cache], {PATCH: Steps(first=-3, stop=6)})
    expected: list[Any] = []
    for step in range(1, 5):
        batch = reader.read(plan_for([cache]).batch(step, 8))
        sums = [float(x.float().sum()) for x in batch.columns[PATCH]]
        expected += [[s.clip, s.first, s.stride, total] for s, total in zip(batch.segments, sums, strict=True)]
    assert json.loads(outputs[0][0]) == expected
