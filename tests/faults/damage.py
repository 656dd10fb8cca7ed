"""Damage to the files of a small cache, and what reads it: verify, plain readers, training's reader."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from store_caches import CLS, PATCH, Made, add_column, make_cache, tree

from frame.pipeline.store import CacheError, reopen
from frame.pipeline.store.verify import Problem, verify
from frame.train.spans import find_spans

STORES = ["zarr", "webdataset"]
KINDS = [(store, encoding) for store in STORES for encoding in ("int8", "residual")]
TAUGHT = ("frames", PATCH, CLS)
LAYOUT: dict[str, Any] = {"lengths": (3, 5, 0, 11, 4), "failed": (0,), "encoding": "int8"}


def three_units(path: Any, store: Any, **changes: Any) -> Made:
    """A cache of three units with a failed clip, and a column added later."""
    return add_column(make_cache(path, store=store, **{**LAYOUT, **changes}))


def is_shard(name: str) -> bool:
    return "/c/" in name or name.startswith("shards/")


def problems_of(made: Made) -> list[Problem]:
    """What ``verify`` says is wrong, as the command runs it."""
    return list(verify(reopen(made.path)).problems)


def found(made: Made, *names: str) -> bool:
    """Does ``verify`` name exactly these files?"""
    return {problem.file for problem in problems_of(made)} == set(names)


def read_silently(made: Made) -> list[str]:
    """Reads everything, clip by clip; names whatever came back without an error and is not what was written."""
    wrong = []
    try:
        cache = made.open()
        clips = cache.index.to_pylist()
    except CacheError:
        return []
    for column in cache.columns:
        values = made.values(column)
        for clip in clips:
            start, stop = clip["first_row"], clip["first_row"] + clip["n_frames"]
            if start == stop:
                continue
            try:
                read = cache.read(column, start, stop)
            except CacheError:
                continue
            if clip["clip"] in made.failed[column] or not np.array_equal(read, values[start:stop]):
                wrong.append(f"{column} of {clip['clip']}")
    return wrong


def training_refuses(made: Made) -> bool:
    """Does training, which finds its clips and reads each of them, say so?"""
    try:
        cache = made.open()
        for split in ("train", "val"):
            for span in find_spans(cache, 0, TAUGHT, splits_wanted=split, seed=0):
                for column in TAUGHT:
                    cache.read(column, span.start, span.stop)
    except CacheError:
        return True
    return False


def flips(files: dict[str, bytes], count: int, *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Single flipped bits: half of them in files taken at random, half in bytes taken at random."""
    rng = random.Random(seed)
    names = sorted(files)
    for number in range(count):
        weights = None if number % 2 else [len(files[name]) for name in names]
        (name,) = rng.choices(names, weights)
        data = bytearray(files[name])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield name, bytes(data)


def cuts(files: dict[str, bytes], count: int, *, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """Files cut at random places, at borders of 512 bytes, and before their last byte."""
    rng = random.Random(seed)
    names = sorted(files)
    for number in range(count):
        data = files[name := rng.choice(names)]
        where = (rng.randrange(len(data)), rng.randrange(len(data) // 512 + 1) * 512, len(data) - 1)[number % 3]
        yield name, data[: min(where, len(data) - 1)]


def shards_of(made: Made, unit: int) -> dict[str, tuple[str, ...]]:
    """The unit's files and the columns in each."""
    receipt = made.open().receipt(unit)
    assert receipt is not None
    return {name: entry.columns for name, entry in receipt.files.items()}


def shards(made: Made) -> dict[str, bytes]:
    """All units' files."""
    return {name: data for name, data in tree(made.path).items() if is_shard(name)}


class Whatever:
    """A checksum that fits everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]
