"""What a build decides to make, with the stages run in this process instead of by Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ray_builds import differences
from test_stages import QUIET, make, tree

from frame.pipeline import build as build_module
from frame.pipeline.build import Summary, build
from frame.pipeline.decode_stage import DecodeStage
from frame.pipeline.options import RunOptions, parse_share
from frame.pipeline.prepare import Prepared, resume
from frame.pipeline.store import open_cache
from frame.pipeline.store.local import facts_path
from frame.pipeline.store.verify import verify
from frame.pipeline.teach_stage import TeachStage
from frame.pipeline.write_stage import WriteStage


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_this_process(
        prepared: Prepared, todo: dict[int, tuple[str, ...]], *_: object, tmp: Path
    ) -> Iterator[dict[str, Any]]:
        decode = DecodeStage(cache=prepared.cache.path, source=prepared.source, columns=todo)
        teach, write = TeachStage(prepared.teachers), WriteStage(cache=prepared.cache.path, tmp=tmp)
        for unit in todo:
            (text,) = write(teach(decode(pa.table({"item": [unit]})))).column("report").to_pylist()
            yield json.loads(text)

    @contextmanager
    def no_session(**_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(cpus=1, gpus=0, warnings=())

    monkeypatch.setattr(build_module, "unit_reports", in_this_process)
    monkeypatch.setattr(build_module, "ray_session", no_session)


def complete(prepared: Prepared, **changes: Any) -> Summary:
    return build(prepared, RunOptions(**changes), QUIET)


@pytest.fixture(scope="module", params=["zarr", "webdataset"])
def calm(clips: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path = tmp_path_factory.mktemp("calm") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        without_ray.__wrapped__(patch)  # type: ignore[attr-defined]
        complete(make(clips, path, store=request.param))
    return path


@pytest.fixture
def cache(calm: Path, tmp_path: Path) -> Path:
    shutil.copytree(calm, tmp_path / "cache")
    shutil.copy(facts_path(calm), facts_path(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_finished_cache_needs_nothing(cache: Path) -> None:
    before = tree(cache)
    summary = complete(resume(cache, progress=QUIET))
    assert (summary.units, summary.left) == (0, 0)
    assert tree(cache) == before


def test_leftovers_go_and_what_a_person_put_there_stays(calm: Path, cache: Path) -> None:
    (cache / "receipts" / "999999.json").write_bytes(b"{}")
    (cache / "NOTES.md").write_text("our notes")
    complete(resume(cache, progress=QUIET))
    assert differences(calm, cache) == ["NOTES.md"]


def test_shares_without_a_cluster_make_the_whole(clips: Path, calm: Path, tmp_path: Path) -> None:
    path, store = tmp_path / "cache", open_cache(calm).meta.store
    first = complete(make(clips, path, store=store), units=parse_share("2/2"))
    assert first.left > 0
    assert verify(open_cache(path)).unfinished
    assert not verify(open_cache(path)).damage
    last = complete(resume(path, progress=QUIET), units=parse_share("1/2"))
    assert last.left == 0
    assert first.units + last.units == open_cache(path).units
    assert differences(calm, path) == []


def test_a_teacher_added_later_changes_nothing_that_was_there(calm: Path, cache: Path) -> None:
    complete(resume(cache, more_teachers=("more=timm:test_vit2",), weights=("more=random",), progress=QUIET))
    assert not verify(open_cache(cache)).problems
    old, new = tree(calm), tree(cache)
    kept = [name for name in old if name.startswith(("frames", "test_vit", "index", "stats", "shards"))]
    assert kept
    assert [name for name in kept if old[name] != new[name]] == []
    opened = open_cache(cache)
    entry = opened.index.to_pylist()[0]
    features = opened.read("more.patch", entry["first_row"], entry["first_row"] + entry["n_frames"])
    assert np.isfinite(features).all()
    assert features.std() > 0


def test_a_full_disk_stops_with_one_screen_and_loses_nothing(
    clips: Path, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frame.pipeline.store import CacheError, files

    path, store = tmp_path / "cache", open_cache(calm).meta.store
    prepared = make(clips, path, store=store)
    written: list[int] = []
    genuine = files.os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 9:
            raise OSError(28, "No space left on device")
        genuine(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(CacheError, match="The disk is full"):
            complete(prepared)
    assert not list(path.rglob("*.partial"))
    assert not verify(open_cache(path)).damage or len(verify(open_cache(path)).damage) < 5
    complete(resume(path, progress=QUIET))
    assert differences(calm, path) == []
