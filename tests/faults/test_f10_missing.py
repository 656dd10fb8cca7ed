"""Files that are gone, exchanged, or another build's: all are named, and never are zeros read in their place."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from damage import KINDS, LAYOUT, found, problems_of, read_silently, shards_of, three_units
from store_caches import Made, make_cache, restore, tree
from tally import Fault

Change = tuple[tuple[str, ...], Mapping[str, bytes | None]]  # what has to be named; files with their new content


@pytest.fixture(params=KINDS, ids="-".join)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    store, encoding = request.param
    return three_units(tmp_path / "cache", store, encoding=encoding)


def changes(made: Made, files: dict[str, bytes]) -> Iterator[Change]:
    """Deleted files, receipts too; shards of two units exchanged; shards and receipts of a cache like it."""
    names = sorted(files)
    random.Random(2).shuffle(names)
    yield from (((name,), {name: None}) for name in names)
    for first, second in zip(shards_of(made, 1), shards_of(made, 2), strict=True):
        yield (first, second), {first: files[second], second: files[first]}
    yield ("receipts/000001.json",), {"receipts/000001.json": files["receipts/000002.json"]}
    like = {**LAYOUT, "encoding": made.meta.build["encoding"]}
    for layout in (like, {**like, "lengths": (3, 5, 0, 11, 5)}):
        other = make_cache(made.path.parent / str(layout["lengths"][-1]), store=made.meta.store, seed=9, **layout)
        old = tree(other.path)
        yield from (((name,), {name: old[name]}) for name in shards_of(other, 1))
        if layout is not like:
            yield ("receipts/000001.json",), {"receipts/000001.json": old["receipts/000001.json"]}


@pytest.mark.fault("F10")
def test_what_is_missing_exchanged_or_stale_is_named_and_not_read(fault: Fault, made: Made) -> None:
    files = tree(made.path)
    every = list(changes(made, files))
    few = every[: len(files)][: fault.count(10)] + every[len(files) :][: fault.count(12)]
    for seed, (names, contents) in enumerate(few):
        with fault.trial(seed) as trial:
            for name, content in contents.items():
                (made.path / name).unlink()
                if content is not None:
                    (made.path / name).write_bytes(content)
            told = {problem.file for problem in problems_of(made)}
            trial.undetected += not set(names) <= told
            # Without its receipt, or with another's, all of a unit's files are left over.
            trial.undetected += not (found(made, *names) or names[0].startswith("receipts/"))
            trial.lost += len(read_silently(made))
            restore(made.path, files)
    assert problems_of(made) == []
