"""Corrupt videos: each is taken or named with its reason, none stops the rest, and none changes another's bytes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from mutations import MUTATIONS
from small_videos import write_video
from tally import Fault, Trial
from test_stages import make, run

from frame.pipeline.decode import REASONS
from frame.pipeline.store import Cache, open_cache
from frame.pipeline.store.verify import verify

CONTAINERS = ["mp4", "mkv"]
SMALL = {"store": "zarr", "size": 32, "unit_rows": 64, "batch_rows": 16}
NEIGHBOURS = {"aa": 1, "mm": 2, "zz": 3}
"""Good clips before, among and behind the others, with what their pictures are made of."""


def rows_of(cache: Cache, clip: str) -> np.ndarray:
    """The frames of one clip."""
    entry = next(entry for entry in cache.index.to_pylist() if clip in entry["clip"])
    return cache.read("frames", entry["first_row"], entry["first_row"] + entry["n_frames"])


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The neighbours' frames where there is nobody else."""
    root = tmp_path_factory.mktemp("calm")
    for name, seed in NEIGHBOURS.items():
        write_video(root / "videos" / f"{name}.mp4", frames=8, seed=seed)
    run(make(root / "videos", root / "cache", **SMALL))
    cache = open_cache(root / "cache")
    return {name: rows_of(cache, name) for name in NEIGHBOURS}


def mutants(folder: Path, container: str, each: int) -> dict[str, int]:
    """``each`` mutants of every kind in ``folder``, their names with their seeds; the neighbours as well."""
    made = {}
    for number, (kind, mutate) in enumerate(MUTATIONS.items()):
        for seed in range(each):
            whole = write_video(folder.parent / f"whole.{container}", frames=10, seed=seed % 5).read_bytes()
            name = f"c{number}_{seed:04d}"
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.{container}").write_bytes(mutate(whole, random.Random(f"{kind} {seed}")))
            made[name] = seed
    for name, seed in NEIGHBOURS.items():
        write_video(folder / f"{name}.mp4", frames=8, seed=seed)
    return made


def judge(trial: Trial, cache: Cache, outcome: dict[str, tuple[str, str]], name: str) -> None:
    """A clip is all there, finite, and as long as planned; or it failed for a reason that is on the list."""
    (entry,) = [entry for entry in cache.index.to_pylist() if name in entry["clip"]]
    if entry["clip"] in outcome:
        reason, _ = outcome[entry["clip"]]
        trial.undetected += reason not in REASONS
        trial.hung += reason == "decoder-timeout"
        return
    trial.lost += not 0 < entry["n_frames"] == len(rows_of(cache, name))


@pytest.mark.fault("F11")
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_mutant_is_taken_or_named(
    fault: Fault, calm: dict[str, np.ndarray], container: str, tmp_path: Path
) -> None:
    made = mutants(tmp_path / "videos", container, fault.count(5))
    run(make(tmp_path / "videos", tmp_path / "cache", **SMALL))
    cache = open_cache(tmp_path / "cache")
    # These are made by a build's last step.
    assert all(problem.file.startswith(("stats/", "README.md")) for problem in verify(cache).problems)
    outcome, clips = cache.failed(), cache.index.column("clip").to_pylist()
    assert len(clips) == len(made) + len(NEIGHBOURS)
    assert set(outcome) < set(clips)
    for name, seed in made.items():
        with fault.trial(seed) as trial:
            judge(trial, cache, outcome, name)
    for name, frames in calm.items():
        assert np.array_equal(rows_of(cache, name), frames), name


@pytest.mark.fault("F11")
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_file_that_changes_after_it_was_planned_is_named(
    fault: Fault, calm: dict[str, np.ndarray], container: str, tmp_path: Path
) -> None:
    """A flipped bit mostly changes pixels without a word, in every decoder: the digest in the plan is what sees it."""
    names = []
    for number in range(len(MUTATIONS)):
        names.append(f"c{number}")
        write_video(tmp_path / "videos" / f"c{number}.{container}", frames=6, seed=number)
    for name, seed in NEIGHBOURS.items():
        write_video(tmp_path / "videos" / f"{name}.mp4", frames=8, seed=seed)
    prepared = make(tmp_path / "videos", tmp_path / "cache", **SMALL)
    for name, mutate in zip(names, MUTATIONS.values(), strict=True):
        path = tmp_path / "videos" / f"{name}.{container}"
        path.write_bytes(mutate(path.read_bytes(), random.Random(name)))
    run(prepared)
    cache = open_cache(tmp_path / "cache")
    told = {clip: reason for clip, (reason, _) in cache.failed().items()}
    for seed, name in enumerate(names):
        with fault.trial(seed) as trial:
            (clip,) = [clip for clip in cache.index.column("clip").to_pylist() if name in clip]
            trial.undetected += told.pop(clip, "") != "source-changed"
    assert told == {}
    for name, frames in calm.items():
        assert np.array_equal(rows_of(cache, name), frames), name
