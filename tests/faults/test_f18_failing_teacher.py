"""A teacher that raises, runs out of memory or says NaN in any of its calls: an error in one screen, or a clip that is
left out by name; nothing of it is stored, the other clips' bytes do not move, and the next build completes it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import torch
from tally import Fault
from test_stages import make, tree

from frame.manifests.errors import InputError
from frame.pipeline import teach as teaching
from frame.pipeline.block import unpack
from frame.pipeline.decode_stage import DecodeStage
from frame.pipeline.prepare import Prepared
from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.files import writer_folder
from frame.pipeline.teach_stage import TeachStage
from frame.pipeline.teachers import Encoded, Encoding, Scales, Teacher
from frame.pipeline.write_stage import WriteStage

Features = dict[str, torch.Tensor]
COLUMN = "test_vit.patch"


@dataclass(kw_only=True)
class Build:
    """A planned cache whose frames are decoded, and what an undisturbed build of it holds."""

    planned: Path
    calm: Path
    decoded: list[pa.Table]
    teach: TeachStage
    sizes: list[int] = field(default_factory=list)

    def run(self, path: Path, units: list[int]) -> None:
        """Teach and write these units of the cache at ``path``."""
        with writer_folder(path) as tmp:
            write = WriteStage(cache=path, tmp=tmp)
            for unit in units:
                write(self.teach(self.decoded[unit]))

    def batches(self) -> list[list[str]]:
        """The clips of every call of the teacher, in order."""
        blocks = [block for table in self.decoded for block in unpack(table)]
        return [[s["clip"] for s in batch] for block in blocks for batch in block.header["batches"]]


@pytest.fixture(scope="module")
def build(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("teachers")
    prepared: Prepared = make(clips, folder / "planned")
    cache = prepared.cache
    decode = DecodeStage(
        cache=cache.path, source=prepared.source, columns=dict.fromkeys(range(cache.units), tuple(cache.columns))
    )
    decoded = [decode(pa.table({"item": [unit]})) for unit in range(cache.units)]
    shutil.copytree(cache.path, folder / "calm")
    made = Build(planned=cache.path, calm=folder / "calm", decoded=decoded, teach=TeachStage(prepared.teachers))
    with watched(made, None, 0):
        made.run(made.calm, list(range(cache.units)))
    return made


@contextmanager
def watched(build: Build, fault: Callable[[Features], None] | None, call: int, times: int = 1) -> Iterator[list[int]]:
    """The teacher with ``fault`` in ``times`` calls from number ``call`` on; yields how many frames each call got."""
    forward, calls, sizes = Teacher.forward, itertools.count(), list[int]()

    def struck(self: Teacher, fitted: torch.Tensor) -> Features:
        sizes.append(len(fitted))
        features = {name: value.clone() for name, value in forward(self, fitted).items()}
        if fault is not None and call <= next(calls) < call + times:
            fault(features)
        return features

    with mock.patch.object(Teacher, "forward", struck):
        yield sizes
    build.sizes = build.sizes or sizes


def raising(error: Exception) -> Callable[[Features], None]:
    def fault(_features: Features) -> None:
        raise error

    return fault


def saying(value: float) -> Callable[[Features], None]:
    def fault(features: Features) -> None:
        features["patch"][-1, 1, 2] = value

    return fault


ERRORS = {
    "A teacher failed": RuntimeError("CUDA error: an illegal memory access was encountered\nmore"),
    "not enough memory": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"),
    "enough memory for a batch": MemoryError("no room"),
    "There is not enough": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
}
VALUES = (float("nan"), float("inf"), -float("inf"), 1e6)


@pytest.mark.fault("F18")
def test_a_teacher_that_raises_ends_the_build_in_one_screen_and_the_next_completes_it(
    fault: Fault, build: Build, tmp_path: Path
) -> None:
    calls, whole = len(build.sizes), tree(build.calm)
    for seed in range(fault.count(8, most=len(ERRORS) * calls)):
        said, error = list(ERRORS.items())[seed % len(ERRORS)]
        at = (seed // len(ERRORS) * 5 + seed) % calls
        path = tmp_path / str(seed)
        shutil.copytree(build.planned, path)
        with fault.trial(seed) as trial:
            with watched(build, raising(error), at, times=2), pytest.raises(InputError, match=said) as caught:
                build.run(path, list(range(len(build.decoded))))
            assert "test_vit" in caught.value.where
            assert len(caught.value.why.splitlines()) == 1
            trial.undetected += any(whole.get(name) != data for name, data in tree(path).items())
            cache = open_cache(path)
            with trial.recovering():
                build.run(path, [unit for unit in range(cache.units) if unit not in cache.receipts()])
            trial.lost += tree(path) != whole


@pytest.mark.fault("F18")
def test_memory_that_lacks_once_changes_no_batch_and_no_byte(fault: Fault, build: Build, tmp_path: Path) -> None:
    for seed in range(fault.count(2, most=len(build.sizes))):
        path = tmp_path / str(seed)
        shutil.copytree(build.planned, path)
        at = (seed * 5 + 1) % len(build.sizes)
        with fault.trial(seed) as trial:
            with watched(build, raising(ERRORS["not enough memory"]), at) as sizes:
                build.run(path, list(range(len(build.decoded))))
            again = [*build.sizes[: at + 1], *build.sizes[at:]]
            trial.duplicated += sizes != again
            trial.lost += tree(path) != tree(build.calm)


def found_in(build: Build, path: Path, call: int) -> str:
    """What is wrong with a cache whose teacher said no number in ``call``: "" if just that clip is missing."""
    calm, struck = open_cache(build.calm), open_cache(path)
    left_out = struck.failed().keys() - calm.failed().keys()
    if left_out != {build.batches()[call][-1]}:
        return f"left out: {left_out}"
    for clip in calm.index.to_pylist():
        rows = range(clip["first_row"], clip["first_row"] + clip["n_frames"])
        for a, b in ((row, row + 1) for row in rows if clip["clip"] not in left_out):
            if not np.array_equal(struck.read(COLUMN, a, b), calm.read(COLUMN, a, b)):
                return f"row {a} of {clip['clip']} has moved"
    return "" if all_finite(struck) else "a value that is no number is stored"


def all_finite(cache: Cache) -> bool:
    size = cache.meta.rows_per_unit
    rows = [
        unit * size + int(row) for unit in range(cache.units) for row in np.flatnonzero(cache.readable(COLUMN, unit))
    ]
    return all(np.isfinite(cache.read(COLUMN, row, row + 1)).all() for row in rows)


@pytest.mark.fault("F18")
def test_what_is_no_number_costs_its_clip_and_is_never_stored(fault: Fault, build: Build, tmp_path: Path) -> None:
    calls = [number for number, names in enumerate(build.batches()) if names]
    for seed in range(fault.count(8, most=len(VALUES) * len(calls))):
        at = calls[(seed // len(VALUES) * 5 + seed) % len(calls)]
        path = tmp_path / str(seed)
        shutil.copytree(build.planned, path)
        with fault.trial(seed) as trial:
            with watched(build, saying(VALUES[seed % len(VALUES)]), at) as sizes:
                build.run(path, list(range(len(build.decoded))))
            assert sizes == build.sizes
            problem = found_in(build, path, at)
            trial.undetected += bool(problem)
            assert not problem


@pytest.mark.fault("F18")
def test_a_build_that_does_not_look_is_noticed(fault: Fault, build: Build, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    shutil.copytree(build.planned, path)

    def blind(features: torch.Tensor, encoding: Encoding, scales: Scales | None) -> Encoded:
        made = real(torch.nan_to_num(features), encoding, scales)
        return replace(made, values=features.half(), finite=torch.ones(len(features), dtype=torch.bool))

    def blind_moments(tokens: torch.Tensor) -> torch.Tensor:
        return moments(torch.nan_to_num(tokens))  # the store would refuse moments that are no numbers

    real, moments = teaching.encode, teaching._moments
    patches = mock.patch.multiple(teaching, encode=blind, _moments=blind_moments)
    with patches, watched(build, saying(float("nan")), 0):
        build.run(path, list(range(len(build.decoded))))
    fault.control(caught=bool(found_in(build, path, 0)), why="NaN in the store")
