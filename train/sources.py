"""The caches that a run trains from: opened, and checked to fit each other, the settings and the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frame.manifests.errors import InputError
from frame.pipeline.store import Cache, Column, open_cache
from frame.pipeline.store.columns import FRAMES
from frame.pipeline.store.objects import StorePath
from frame.pipeline.store.receipts import merge_moments
from frame.train.config import TrainConfig
from frame.train.recipe import Recipe

STUDENT = "frame"  # the library under which a cache records the tokens of a trained student


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """``spatial`` and ``semantic`` are the columns of the targets, ``size`` the side of the square frames in pixels."""

    caches: tuple[Cache, ...]
    spatial: Column
    semantic: Column
    size: int

    @property
    def patches(self) -> int:
        """Patches of a frame in the spatial target."""
        return self.spatial.shape[0]

    def describe(self) -> list[dict[str, Any]]:
        """What a run remembers of its caches: their plans and which weights made the targets."""
        targets = (self.spatial.name, self.semantic.name)
        return [
            {
                "path": str(cache.path.resolve()),
                "plan": cache.meta.plan_id,
                "dataset": cache.meta.dataset.get("name"),
                "targets": {name: cache.meta.teacher_id(name) for name in targets},
            }
            for cache in self.caches
        ]

    def target_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel of the spatial target over all caches, float32 [C] each."""
        entries = [
            receipt.columns.get(self.spatial.name)
            for cache in self.caches
            for _, receipt in sorted(cache.receipts().items())
        ]
        parts = [entry.moments for entry in entries if entry is not None and entry.moments is not None]
        _, mean, variance = merge_moments(parts, self.spatial.shape[-1])
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def open_sources(paths: Sequence[StorePath], config: TrainConfig, recipe: Recipe | None) -> Sources:
    """Open the caches and find the targets. Raises ``InputError`` for whatever does not fit."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(what="A cache is given twice.", where=f"--cache {','.join(map(str, paths))}", fix="once each")
    caches = tuple(open_cache(path) for path in paths)
    first = caches[0]
    spatial = _target(first, config.spatial, ".patch", "--spatial")
    semantic = _target(first, config.semantic, ".cls", "--semantic")
    for cache in caches[1:]:
        for column in (first.columns[FRAMES], spatial, semantic):
            _require_same(first, cache, column)
    sources = Sources(caches=caches, spatial=spatial, semantic=semantic, size=first.columns[FRAMES].shape[0])
    if recipe is not None:
        _require_recipe(sources, recipe)
    _require_grid(sources, config)
    return sources


def _target(cache: Cache, name: str, suffix: str, option: str) -> Column:
    axes = 2 if suffix == ".patch" else 1
    found = {
        column.name: column
        for column in cache.columns.values()
        if column.name.endswith(suffix) and column.teacher is not None and len(column.shape) == axes
        and cache.meta.teachers[column.teacher].get("library") != STUDENT
    }  # fmt: skip
    if name in found:
        return found[name]
    if not name and len(found) == 1:
        return next(iter(found.values()))
    raise InputError(
        what=f"The cache has no column {name!r} that could be the target."
        if name
        else f"The cache has {len(found)} columns that could be the target: which one?",
        where=f"{option} {name}, {cache.path}".replace("  ", " "),
        why=f"targets of this kind in it: {', '.join(sorted(found)) or 'none'}",
        fix=f"give one of them: {option} COLUMN"
        if found
        else "`frame-cache build CACHE --teachers NAME` adds a teacher's columns",
    )


def _require_same(first: Cache, other: Cache, column: Column) -> None:
    found = other.columns.get(column.name)
    why = ""
    if found is None:
        why = f"it has no column {column.name!r} (it has {', '.join(sorted(other.columns))})"
    elif found.shape != column.shape:
        why = f"{column.name} is {found.shape} there, {column.shape} in {first.path}"
    elif column.teacher and first.meta.teacher_id(column.name) != other.meta.teacher_id(column.name):
        why = f"other weights or another preprocessing made its {column.name}"
    if why:
        raise InputError(
            what="The caches cannot be mixed.",
            where=str(other.path),
            why=why,
            fix="build both with the same --teachers, --weights, --size and --fit",
        )


def _require_recipe(sources: Sources, recipe: Recipe) -> None:
    names = sorted({str(cache.meta.dataset.get("name")) for cache in sources.caches})
    problems = []
    if recipe.datasets and names != sorted(recipe.datasets):
        problems.append(f"it is for caches of {' and '.join(recipe.datasets)}, these are of {' and '.join(names)}")
    if recipe.size and recipe.size != sources.size:
        problems.append(f"it is for frames of {recipe.size} pixels, these have {sources.size}")
    if problems:
        raise InputError(
            what=f"The recipe {recipe.name!r} is for other caches.",
            where=", ".join(str(cache.path) for cache in sources.caches),
            why="; ".join(problems),
            fix="give the caches it is for, another --recipe, or its settings by --set",
        )


def _require_grid(sources: Sources, config: TrainConfig) -> None:
    """The student's patches must be those of the spatial target, one for one."""
    size, patch = sources.size, config.patch
    side = size // patch
    if size % patch:
        why = f"frames of {size} pixels are no whole number of patches of {patch}"
        fix = f"--patch with a divisor of {size}, or a cache built with --size {side * patch}"
    elif side * side != sources.patches:
        why = f"{side} x {side} patches of {patch} pixels against {sources.patches} in {sources.spatial.name}"
        fix = "--patch with the teacher's own patch, or another --spatial"
    else:
        return
    raise InputError(
        what=f"A student with patches of {patch} does not fit this cache.",
        where=f"--patch {patch}, {sources.caches[0].path}",
        why=why,
        fix=fix,
    )
