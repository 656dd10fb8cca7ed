"""F27: an object store at the end of connections that break anywhere, and of builds that die there.

A real S3 server, and a proxy before it that resets connections: before a request, in its midst, after the server has
done what was asked, in the midst of the answer. What comes out is what a calm disk holds, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import obstore
import pytest
import s3_server
import store_caches
from s3_server import BUCKET, KINDS, Way, at_random, calm, only
from store_caches import CLS, FIRST_COLUMNS, PATCH, Made, make_cache, unit_data
from tally import Fault

from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store import bucket as requests
from frame.pipeline.store.bucket import StoreError
from frame.pipeline.store.finish import finish
from frame.pipeline.store.index import index_bytes
from frame.pipeline.store.object_writer import claim_place
from frame.pipeline.store.objects import ObjectPath, names_below
from frame.pipeline.store.receipts import read_receipt
from frame.pipeline.store.verify import verify
from frame.pipeline.store.writer import commit_unit, with_metadata, write_metadata

NOWHERE = Path(os.devnull)
STORES: tuple[Literal["zarr", "webdataset"], ...] = ("zarr", "webdataset")
LENGTHS = (3, 5, 0, 4)


def place(request: pytest.FixtureRequest, name: object) -> ObjectPath:
    """A name in the bucket that no other test uses."""
    return ObjectPath(BUCKET, f"{request.node.name.translate(str.maketrans('[]', '--'))}/{name}")


def content(root: ObjectPath) -> dict[str, str]:
    """The digest of every object below ``root``, as the server tells them, by name."""
    pages = obstore.list(requests._client(root.bucket), root.key)
    return {item["path"][len(root.key) + 1 :]: str(item["e_tag"]).strip('"') for page in pages for item in page}


def on_disk(root: Path) -> dict[str, str]:
    """The same of a folder."""
    files = store_caches.tree(root).items()
    return {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in files}


def make(at: Path | ObjectPath, store: Literal["zarr", "webdataset"]) -> Made:
    return make_cache(at, store=store, lengths=LENGTHS)  # type: ignore[arg-type]


def build(made: Made, units: range | None = None) -> None:
    """What a build does to the store: the plan, every unit that is not there and intact, the statistics."""
    meta, files = with_metadata(made.meta)
    write_metadata(made.path, meta, files, index_bytes(made.table), tmp=NOWHERE)
    cache = open_cache(made.path)
    for unit in made.units if units is None else units:
        if cache.receipt(unit) is None:
            commit_unit(made.path, meta, made.table, unit_data(made, unit, FIRST_COLUMNS), tmp=NOWHERE)
    if units is None:
        assert finish(made.path, tmp=NOWHERE) == 0


@pytest.mark.fault("F27")
@pytest.mark.parametrize("store", STORES)
def test_broken_connections_leave_the_bytes_of_a_calm_disk(
    fault: Fault, way: Way, request: pytest.FixtureRequest, tmp_path: Path, store: Literal["zarr", "webdataset"]
) -> None:
    calm_copy = make(tmp_path / "calm", store)
    expected = on_disk(calm_copy.path)
    broken = 0
    for seed in range(fault.count(8)):
        with fault.trial(seed) as trial:
            there = place(request, seed)
            way.begin(at_random(seed, 0.35))
            build(replace(calm_copy, path=there))
            assert verify(open_cache(there)).problems == ()
            broken += way.broken
            way.begin(calm)
            found = content(there)
            trial.lost += len(expected.keys() - found.keys())
            trial.undetected += sum(found.get(name) != data for name, data in expected.items())
            trial.duplicated += len(found.keys() - expected.keys())
    assert broken > 5 * fault.count(8)


@pytest.mark.fault("F27")
def test_any_one_request_of_a_build_may_break_in_any_way(
    fault: Fault, way: Way, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = make(tmp_path / "calm", "webdataset")
    expected = on_disk(made.path)
    way.begin(calm)
    build(replace(made, path=place(request, "count")))
    cases = [(turn, kind) for turn in range(way.turns) for kind in KINDS]
    struck = 0
    for number in np.random.default_rng(0).permutation(len(cases))[: fault.count(24, most=len(cases))]:
        turn, kind = cases[number]
        with fault.trial(int(number)) as trial:
            there = place(request, number)
            way.begin(only(turn, kind))
            build(replace(made, path=there))
            # What is read side by side takes a request more or less from build to build: the last may not come.
            assert way.broken == (turn < way.turns)
            struck += way.broken
            way.begin(calm)
            trial.undetected += content(there) != expected
    assert struck >= 20


class Killed(BaseException):
    """The process is dead: nothing that it would have done afterwards is done."""


@pytest.mark.fault("F27")
@pytest.mark.parametrize("store", STORES)
def test_a_build_killed_at_any_request_goes_on_to_the_same_bytes(
    fault: Fault,
    way: Way,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    store: Literal["zarr", "webdataset"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing on the way out of a build touches the store, so that an exception at a request is a kill there."""
    made = make(tmp_path / "calm", store)
    expected = on_disk(made.path)
    changes = _kill_after(monkeypatch, 1 << 30)
    build(replace(made, path=place(request, "count")))
    total = changes()
    for kill in range(2 * total):
        if kill >= fault.count(8, most=2 * total):
            break
        with fault.trial(kill) as trial:
            there = place(request, kill)
            at = kill * 2 * total // fault.count(8, most=2 * total)  # spread over the whole build
            _kill_after(monkeypatch, at // 2, done=bool(at % 2))
            with suppress(Killed):
                build(replace(made, path=there))
            monkeypatch.undo()
            s3_server.use(monkeypatch, way.port, tmp_path / "state")
            if (there / "cache.json").is_file():  # what is committed is whole, at any moment
                trial.undetected += any(problem.kind == "damaged" for problem in verify(open_cache(there)).damage)
            with trial.recovering():
                build(replace(made, path=there))
            trial.lost += content(there) != expected


def _kill_after(monkeypatch: pytest.MonkeyPatch, changes: int, *, done: bool = True) -> Callable[[], int]:
    """Kill at the change of this number, before or after the server has done it; counts them."""
    made = [0]

    def around(name: str) -> None:
        real = getattr(requests, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made[0] += 1
            if made[0] > changes and not done:
                raise Killed
            result = real(*arguments, **options)
            if made[0] > changes:
                raise Killed
            return result

        monkeypatch.setattr(requests, name, call)

    for name in ("put", "put_if", "remove"):
        around(name)
    return lambda: made[0]


@pytest.mark.fault("F27")
def test_a_process_killed_over_an_upload_goes_on_to_the_same_bytes(
    fault: Fault, way: Way, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = make(tmp_path / "calm", "zarr")
    expected = on_disk(made.path)
    for seed in range(fault.count(2)):
        with fault.trial(seed) as trial:
            there = place(request, seed)
            command = [sys.executable, "-c", _BUILD, str(there)]
            way.begin(calm)
            with subprocess.Popen(command, env=_environment(way), stderr=subprocess.DEVNULL) as process:
                at = int(np.random.default_rng(seed).integers(8, 40))
                when = ("before", "after")[seed % 2]
                way.watch = lambda turn, moment, p=process, a=at, w=when: (  # type: ignore[misc]
                    os.kill(p.pid, signal.SIGKILL) if turn >= a and moment == w else None
                )
                assert process.wait(120) == -signal.SIGKILL
            way.watch = lambda _turn, _when: None
            with trial.recovering():
                build(replace(made, path=there))
            trial.lost += content(there) != expected


_BUILD = """
import sys
import test_f27_object_store as here
from frame.pipeline.store.objects import store_path
from dataclasses import replace
import pathlib, tempfile
with tempfile.TemporaryDirectory() as folder:
    made = here.make(pathlib.Path(folder) / "calm", "zarr")
here.build(replace(made, path=store_path(sys.argv[1])))
"""


def _environment(way: Way) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    return {**os.environ, **s3_server.settings(way.port), "PYTHONPATH": paths}


def commit_together(made: Made, unit: int, parts: list[tuple[str, ...]]) -> None:
    """Commit these columns of a unit, each set by a writer of its own, at the same time."""
    barrier, errors = threading.Barrier(len(parts)), []

    def write(columns: tuple[str, ...]) -> None:
        try:
            data = unit_data(made, unit, columns)
            barrier.wait(60)
            commit_unit(made.path, made.meta, made.table, data, tmp=NOWHERE)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []


@pytest.mark.fault("F27")
def test_builds_at_once_keep_each_others_columns(
    fault: Fault, way: Way, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = place(request, "cache")
    made = make_cache(there, lengths=LENGTHS, units=[])  # type: ignore[arg-type]
    whole = make_cache(place(request, "whole"), lengths=LENGTHS)  # type: ignore[arg-type]
    plan_id = made.meta.plan_id

    def commit() -> set[str]:
        (there / "receipts/000001.json").unlink(missing_ok=True)
        commit_together(made, 1, [("frames",), (PATCH,), (CLS,)])
        receipt = read_receipt(there, 1, plan_id=plan_id)
        return set(receipt.columns) if receipt else set()

    for seed in range(fault.count(8)):
        with fault.trial(seed) as trial:
            way.begin(at_random(seed, 0.2))
            trial.lost += len(set(FIRST_COLUMNS) - commit())
            way.begin(calm)
            mine, theirs = ((root / "receipts/000001.json").read_bytes() for root in (there, whole.path))
            trial.undetected += mine != theirs

    def unconditional(bucket: str, key: str, data: bytes, *, e_tag: str | None) -> None:
        del e_tag
        requests.put(bucket, key, data)

    monkeypatch.setattr(requests, "put_if", unconditional)
    lost = any(commit() != set(FIRST_COLUMNS) for _ in range(20))
    fault.control(caught=lost, why="receipts put without a condition")


@pytest.mark.fault("F27")
def test_of_two_plans_at_once_one_is_refused_and_the_other_unharmed(
    fault: Fault, way: Way, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    first = make(tmp_path / "first", "zarr")
    other = make_cache(tmp_path / "other", lengths=(4, 4, 4), seed=3)
    for seed in range(fault.count(4)):
        with fault.trial(seed) as trial:
            there = place(request, seed)
            barrier, refused = threading.Barrier(2), []

            def begin(made: Made, there: ObjectPath = there, barrier: Any = barrier, refused: Any = refused) -> None:
                barrier.wait(60)
                try:
                    claim_place(there, made.meta)
                    build(replace(made, path=there))
                except CacheError as error:
                    refused.append((made, error.what))

            way.begin(at_random(seed, 0.2))
            threads = [threading.Thread(target=begin, args=(made,)) for made in (first, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
            way.begin(calm)
            ((loser, what),) = refused
            winner = other if loser is first else first
            assert what == "Another build has planned another cache here."
            trial.lost += content(there) != on_disk(winner.path)


@pytest.mark.fault("F27")
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("encoding", ["int8", "residual"])
def test_ranged_reads_over_broken_connections_are_those_of_the_disk(
    fault: Fault,
    way: Way,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    store: Literal["zarr", "webdataset"],
    encoding: Literal["int8", "residual"],
) -> None:
    disk = make_cache(tmp_path / "disk", store=store, encoding=encoding)
    made = make_cache(place(request, "cache"), store=store, encoding=encoding)  # type: ignore[arg-type]
    for seed in range(fault.count(4)):
        with fault.trial(seed) as trial:
            way.begin(at_random(seed, 0.3))
            cache, rng = made.open(), np.random.default_rng(seed)
            for clip in disk.table.to_pylist():
                if clip["clip"] in disk.failed[PATCH] or not clip["n_frames"]:
                    continue
                low, high = sorted(rng.integers(0, clip["n_frames"] + 1, 2) + clip["first_row"])
                name = FIRST_COLUMNS[rng.integers(3)]
                trial.undetected += not np.array_equal(cache.read(name, low, high), disk.values(name)[low:high])
            assert way.broken


@pytest.mark.fault("F27")
def test_damaged_and_swapped_objects_are_found_and_never_read(
    fault: Fault, way: Way, request: pytest.FixtureRequest
) -> None:
    way.begin(calm)
    made = make(place(request, "cache"), "zarr")
    assert isinstance(made.path, ObjectPath)
    shards = [name for name in names_below(made.path) if "/c/" in name]
    for seed in range(fault.count(8)):
        with fault.trial(seed) as trial:
            name = shards[seed % len(shards)]
            kept = (made.path / name).read_bytes()
            _damage(made.path, name, kept, seed)
            problems = verify(made.open()).problems
            trial.undetected += name not in {problem.file for problem in problems}
            column, unit = name.split("/")[0], int(name.split("/")[2])
            rows = np.flatnonzero(made.readable(column))
            mine = rows[rows // made.meta.rows_per_unit == unit]
            with pytest.raises(CacheError, match=f"s3://{BUCKET}/"):
                made.open().read(column, int(mine[0]), int(mine[0]) + 1)
            (made.path / name).write_bytes(kept)
    assert verify(made.open()).problems == ()


def _damage(root: ObjectPath, name: str, data: bytes, seed: int) -> None:
    """Flip a bit that belongs to a value, cut, remove, or replace by another unit's."""
    rng = np.random.default_rng(seed)
    kind = seed % 4
    if kind == 0:
        changed = bytearray(data)
        changed[-int(rng.integers(1, 4))] ^= 1  # of the index's own checksum
        (root / name).write_bytes(bytes(changed))
    elif kind == 1:
        (root / name).write_bytes(data[: int(rng.integers(0, len(data)))])
    elif kind == 2:
        (root / name).unlink()
    else:
        column, _, unit, *rest = name.split("/")
        other = "/".join([column, "c", str((int(unit) + 1) % 2), *rest])
        (root / name).write_bytes((root / other).read_bytes())


@pytest.mark.fault("F27")
def test_a_server_that_is_gone_is_one_screen_and_no_damage(
    fault: Fault, way: Way, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(place(request, "cache"), "zarr")
    monkeypatch.setitem(requests.RETRIES, "max_retries", 2)
    requests._clients.clear()  # those that are there have the settings of before
    for seed, kind in enumerate(KINDS):
        with fault.trial(seed) as trial:
            cache = made.open()
            way.begin(lambda _, kind=kind: s3_server.Break(kind=kind, after=20))  # type: ignore[misc]
            for action in (made.open, partial(verify, cache), partial(store_caches.commit, made, 0)):
                with pytest.raises(StoreError) as caught:
                    action()
                assert s3_server.SECRET not in str(caught.value)
                assert s3_server.KEY_ID not in str(caught.value)
            way.begin(calm)
            trial.lost += bool(verify(made.open()).problems)
