"""A file of a cache that was cut short is named, and nothing of it is read: neither by verify nor by a reader."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from damage import KINDS, cuts, found, problems_of, read_silently, shards, three_units, training_refuses
from store_caches import Made, tree
from tally import Fault

from frame.pipeline.store import verify as verify_module


@pytest.fixture(params=KINDS, ids="-".join)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    store, encoding = request.param
    return three_units(tmp_path / "cache", store, encoding=encoding)


def taught(name: str) -> bool:
    """Does training read this shard? It has no use for the column added later."""
    return "later" not in name


@pytest.mark.fault("F08")
def test_every_cut_is_found_and_nothing_is_read(fault: Fault, made: Made) -> None:
    """Shards at every border of 512 bytes and anywhere; a quarter of the cuts in any other file."""
    files = tree(made.path)
    count, others = fault.count(40), fault.count(12)
    for seed, (name, data) in enumerate([*cuts(shards(made), count), *cuts(files, others, seed=2)]):
        with fault.trial(seed) as trial:
            (made.path / name).write_bytes(data)
            trial.undetected += not found(made, name)
            trial.lost += len(read_silently(made))
            if seed < count and seed % 4 == 0 and taught(name):
                trial.undetected += not training_refuses(made)
            (made.path / name).write_bytes(files[name])
    assert problems_of(made) == []


@pytest.mark.fault("F08")
def test_control_a_look_whether_files_exist_misses_every_cut(
    fault: Fault, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(path: Path, *_: Any, **__: Any) -> str:
        return "" if path.exists() else "missing"

    monkeypatch.setattr(verify_module, "_file_problem", exists)
    monkeypatch.setattr(verify_module.tar_check, "strange_member", lambda *_: "")
    monkeypatch.setattr(verify_module, "_place_problems", lambda *_: ())
    files = shards(made)
    for name, data in cuts(files, 6):
        (made.path / name).write_bytes(data)
        fault.control(caught=not found(made, name), why="a check for files that exist")
        (made.path / name).write_bytes(files[name])


@pytest.mark.fault("F08")
def test_control_reading_a_tar_to_its_end_loses_clips_without_a_word(fault: Fault, tmp_path: Path) -> None:
    """What a stock reader makes of a tar cut before a member: an end like any other."""
    made = three_units(tmp_path / "cache", "webdataset")
    data = (made.path / "shards/000000.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    for number in (1, len(members) // 2, len(members) - 1):
        with tarfile.open(fileobj=io.BytesIO(data[: members[number].offset])) as tar:
            read = len(tar.getmembers())
        (made.path / "shards/000000.tar").write_bytes(data[: members[number].offset])
        noticed = read < len(members) and found(made, "shards/000000.tar")
        fault.control(caught=noticed, why="a tar that ends between two members")
