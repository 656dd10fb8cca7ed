"""One flipped bit anywhere in a cache is found and named, and never read."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import pytest
from damage import KINDS, Whatever, flips, found, problems_of, read_silently, shards, three_units
from store_caches import Made, tree
from tally import Fault

from frame.pipeline.store.verify import check_units


@pytest.fixture(params=KINDS, ids="-".join)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    store, encoding = request.param
    return three_units(tmp_path / "cache", store, encoding=encoding)


@pytest.mark.fault("F09")
def test_every_flipped_bit_is_found_and_none_is_read(fault: Fault, made: Made) -> None:
    files = tree(made.path)
    for seed, (name, data) in enumerate(flips(files, fault.count(80))):
        with fault.trial(seed) as trial:
            (made.path / name).write_bytes(data)
            trial.undetected += not found(made, name)
            trial.lost += len(read_silently(made))
            (made.path / name).write_bytes(files[name])
    assert problems_of(made) == []


@pytest.mark.fault("F09")
def test_control_sizes_alone_and_readers_without_checksums_miss_flips(
    fault: Fault, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of these found everything, the test above would show nothing."""
    monkeypatch.setattr(google_crc32c, "value", lambda _: Whatever())
    files = shards(made)
    silent = 0
    for name, data in flips(files, 20):
        (made.path / name).write_bytes(data)
        missed = not any(state.problems for state in check_units(made.open(), made.units, deep=False))
        silent += bool(read_silently(made))
        fault.control(caught=missed and found(made, name), why="a comparison of sizes")
        (made.path / name).write_bytes(files[name])
    fault.control(caught=silent > 0, why="a reader without checksums")
