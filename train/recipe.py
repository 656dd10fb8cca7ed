"""Recipes: named settings in ``recipes/*.yaml``. A recipe may build on one other; what it says wins."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from frame.manifests.errors import InputError
from frame.train.config import Stage

_KEYS = {"about", "base", "datasets", "size", "both", "stage1", "stage2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """``datasets`` are the data sets whose caches it is for, ``size`` the side of their frames in pixels ((), 0: any);
    ``stage1`` and ``stage2`` are settings by name."""

    name: str
    about: str
    datasets: tuple[str, ...] = ()
    size: int = 0
    stage1: Mapping[str, Any] = field(default_factory=dict)
    stage2: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, stage: Stage) -> Mapping[str, Any]:
        """The settings for one stage."""
        return self.stage1 if stage == "stage1" else self.stage2


@cache
def _written() -> Mapping[str, dict[str, Any]]:
    """Every recipe as it is written, over all files."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(files("frame.train").joinpath("recipes").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".yaml"):
            continue
        for name, entry in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            if name in found or not _KEYS.issuperset(entry):
                raise ValueError(f"{file.name}: {name} is there twice, or says {sorted(set(entry) - _KEYS)}")
            found[name] = entry
    return found


def recipe_names() -> list[str]:
    """All recipes, in the order of their files."""
    return list(_written())


def load_recipe(name: str) -> Recipe:
    """The recipe ``name`` with what it builds on. Raises ``InputError`` for an unknown one."""
    entry = _written().get(name)
    if entry is None:
        near = difflib.get_close_matches(name, recipe_names(), n=4, cutoff=0.3)
        raise InputError(
            what=f"There is no recipe {name!r}.",
            where=f"--recipe {name}",
            why=f"did you mean: {', '.join(near)}" if near else "",
            fix="`frame-train recipes` lists them.",
        )
    base = load_recipe(entry["base"]) if "base" in entry else Recipe(name="", about="")
    both = entry.get("both", {})
    return Recipe(
        name=name,
        about=entry["about"],
        datasets=tuple(entry.get("datasets", base.datasets)),
        size=int(entry.get("size", base.size)),
        stage1={**base.stage1, **both, **entry.get("stage1", {})},
        stage2={**base.stage2, **both, **entry.get("stage2", {})},
    )
